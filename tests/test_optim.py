"""Gradient descent and its variants: single steps, and whole training runs next to PyTorch's."""

import re

import numba
import numpy as np
import pytest
import torch
from helpers import torch_mlp
from hypothesis import given, strategies as st
from torch import nn as torch_nn

import minigrad as mg
from minigrad import functional as F, nn, optim

# Single steps


def test_zero_grad_is_in_place():
    model = nn.Linear(3, 2)
    optim.zero_grad(model.parameters())
    assert model.weight.grad is None
    model(mg.ones(1, 3)).sum().backward()
    grad = model.weight.grad
    optim.zero_grad(model.parameters())
    assert model.weight.grad is grad and grad.tolist() == [[0] * 3] * 2


def test_gradient_update_takes_one_step():
    w, start = mg.tensor(3.0, requires_grad=True), 3.0
    for _ in range(3):
        optim.gradient_update(w * w, [w], lr=0.1)
        start -= 0.1 * 2 * start
    assert w.item() == pytest.approx(start) and w.is_leaf and w.requires_grad


def test_gradient_update_moves_parameters_that_are_views():
    base = mg.ones(3, 2)
    w = base.T
    w.requires_grad = True
    optim.gradient_update((w * w).sum(), [w], lr=0.25)
    assert base.tolist() == [[0.5] * 2] * 3


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("weight_decay", [0, 0.5])
@pytest.mark.parametrize("optimizer", [optim.SGD, optim.RMSprop, optim.Adam])
def test_parameters_move_alike_in_any_layout(optimizer, weight_decay, order):
    numbers = np.arange(6.0).reshape(2, 3)
    w = mg.Tensor(np.asarray(numbers, order=order), requires_grad=True)
    plain = [mg.tensor(number, requires_grad=True) for number in numbers.flat]
    for params in ([w], plain):
        stepper = optimizer(params, lr=0.1, weight_decay=weight_decay)
        for _ in range(2):
            stepper.zero_grad()
            sum((param * param).sum() for param in params).backward()
            stepper.step()
    assert w.detach().numpy().ravel().tolist() == [param.item() for param in plain]


def test_gradient_update_refuses_a_parameter_without_gradient():
    w, unused = mg.ones(2, requires_grad=True), mg.ones(3, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"params\[1\] of shape \(3,\) has no gradient"):
        optim.gradient_update((w * w).sum(), [w, unused], lr=0.1)
    assert w.tolist() == [1, 1]
    unused.sum().backward()  # a gradient from another loss does not count
    with pytest.raises(RuntimeError, match=r"params\[1\] of shape \(3,\) has no gradient"):
        optim.gradient_update((w * w).sum(), [w, unused], lr=0.1)


def test_gradient_update_writes_to_no_read_only_array():
    w, fixed = mg.ones(2, requires_grad=True), mg.from_numpy(np.broadcast_to(np.float32(1), (2,)))
    fixed.requires_grad = True
    with pytest.raises(TypeError, match=r"params\[1\] must be writeable"):
        optim.gradient_update((w * fixed).sum(), [w, fixed], lr=0.1)
    assert w.tolist() == fixed.tolist() == [1, 1]


def test_the_velocity_and_the_mean_square_are_the_callers():
    """One step each, by hand: w = 3, the gradient of w² is 6."""
    w, velocity, square = mg.tensor(3.0, requires_grad=True), mg.ones(()), mg.ones(())
    optim.momentum_update(w * w, [w], [velocity], lr=0.5, beta=0.25)
    assert velocity.item() == 0.25 - 3 and w.item() == 3 + 0.25 - 3
    w = mg.tensor(3.0, requires_grad=True)
    optim.rmsprop_update(w * w, [w], [square], lr=0.5, alpha=0.75, epsilon=6.25)
    assert square.item() == 0.75 + 0.25 * 36 and w.item() == 3 - 0.5 * 6 / 4


@pytest.mark.parametrize(
    "name, settings",
    [
        ("SGD", {}), ("SGD", {"momentum": 0.5}), ("RMSprop", {}), ("RMSprop", {"alpha": 0.0}),
        ("Adam", {}), ("Adam", {"betas": (0.0, 0.0)}), ("SGD", {"weight_decay": 0.5}),
        ("SGD", {"momentum": 0.5, "weight_decay": 0.5}), ("RMSprop", {"weight_decay": 0.5}),
        ("Adam", {"weight_decay": 0.5}),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of kernels that run as plain Python
def test_optimizers_under_odd_gradients_as_in_pytorch(name, settings):
    """Gradients set by hand: missing at first, huge, infinite, NaN, then ordinary again."""
    gradients = [(1.0, None), (2.0, None), (3.0, 4.0), (1e5, 1.0), (1.0, np.inf), (1.0, np.nan)]
    ours = [mg.ones(2, requires_grad=True) for _ in range(2)]
    theirs = [torch.ones(2, requires_grad=True) for _ in range(2)]
    our_optimizer = getattr(optim, name)(ours, lr=0.1, **settings)
    their_optimizer = getattr(torch.optim, name)(theirs, lr=0.1, **settings)
    for pair in [*gradients, (1.0, 1.0), (2.0, None)]:
        our_optimizer.zero_grad()
        their_optimizer.zero_grad()
        for one, other, number in zip(ours, theirs, pair):
            if number is not None:
                one.grad, other.grad = number * mg.ones(2), number * torch.ones(2)
            if not torch.isfinite(other).all():  # as after load_state_dict()
                one.data, other.data = mg.ones(2), torch.ones(2)
        our_optimizer.step()
        their_optimizer.step()
        for one, other, number in zip(ours, theirs, pair):
            np.testing.assert_allclose(one.tolist(), other.tolist(), rtol=1e-5, atol=1e-6)
            if number is not None:
                np.testing.assert_array_equal(one.grad, [number] * 2)
    our_optimizer.zero_grad()
    assert ours[0].grad is None


def test_parameters_may_be_replaced_but_not_added():
    old, new = mg.tensor(1.0, requires_grad=True), mg.tensor(1.0, requires_grad=True)
    optimizer = optim.Adam([old], lr=0.1)
    optimizer.params[0] = new
    (new * 3).backward()
    optimizer.step()
    assert old.item() == 1 and abs(new.item() - 0.9) < 1e-6
    optimizer.params.append(old)
    with pytest.raises(ValueError, match="replaced, not added"):
        optimizer.step()


def test_the_learning_rate_may_change_between_steps():
    w = mg.ones(1, requires_grad=True)
    optimizer = optim.SGD([w], lr=0.25)
    for expected in (0.5, 0.25):
        optimizer.zero_grad()
        (w * w).sum().backward()
        optimizer.step()
        assert w.item() == expected
        optimizer.lr = 0.25
    optimizer.lr = 0
    optimizer.step()
    assert w.item() == 0.25


def test_a_setting_that_is_refused_stays_as_it_was():
    optimizer = optim.Adam([mg.ones(1, requires_grad=True)], lr=0.25, betas=[0.5, 0.75])
    for name in ("lr", "betas", "eps", "weight_decay"):
        before = getattr(optimizer, name)
        with pytest.raises(ValueError, match=name):
            setattr(optimizer, name, -1)
        assert getattr(optimizer, name) == before
    optimizer.lr *= 0.5
    assert optimizer.lr == 0.125
    expected = "Adam(1 parameters, lr=0.125, betas=(0.5, 0.75), eps=1e-08, weight_decay=0.0)"
    assert repr(optimizer) == expected


def test_two_optimizers_may_move_the_same_parameter():
    w = mg.ones(1, requires_grad=True)
    optimizers = optim.SGD([w], lr=0.25), optim.SGD([w], lr=0.5)
    w.sum().backward()
    for optimizer in optimizers:
        optimizer.step()
    assert w.item() == 0.25


# Saved and restored, refused and untouched

KINDS = {
    "SGD": lambda params: optim.SGD(params, lr=0.1),
    "SGD with momentum": lambda params: optim.SGD(params, 0.1, momentum=0.9, weight_decay=0.01),
    "RMSprop": lambda params: optim.RMSprop(params, lr=0.1, alpha=0.7, eps=1e-3),
    "Adam": lambda params: optim.Adam(params, 0.1, betas=(0.7, 0.8), eps=1e-3, weight_decay=0.01),
}


def bits(optimizer):
    """All that a step may change."""
    arrays = [p.array for p in optimizer.params] + [a for own in optimizer.state for a in own]
    return [a.tobytes() for a in arrays], [*optimizer.steps], repr(optimizer)


@pytest.mark.parametrize("interrupted_at", [0, 1, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_training_goes_on_as_if_uninterrupted(kind, interrupted_at, tmp_path):
    """The second parameter, of another dtype and layout, has no gradient in every third step."""

    def start(fill):
        arrays = np.full(4, fill, "f4"), np.asfortranarray(np.full((2, 3), fill, "f8"))
        params = [mg.Tensor(array, requires_grad=True) for array in arrays]
        return params, KINDS[kind](params)

    def train(params, optimizer, first, last):
        for i in range(first, last):
            rng = np.random.default_rng(i)
            for param in params if i % 3 else params[:1]:
                param.grad = mg.tensor(rng.normal(size=param.shape), param.dtype)
            optimizer.lr *= 0.9
            optimizer.step()
            optimizer.zero_grad()

    params, optimizer = start(1)
    train(params, optimizer, 0, interrupted_at)
    saved = optimizer.state_dict()
    mg.save(saved, tmp_path / "optimizer.npz")
    mg.save({str(i): param for i, param in enumerate(params)}, tmp_path / "params.npz")
    train(params, optimizer, interrupted_at, 10)

    for state in (mg.load(tmp_path / "optimizer.npz"), saved):  # what was saved is a copy
        others, restored = start(2)
        others[0].grad = mg.ones(4)
        restored.step()  # a state that must be forgotten
        restored.zero_grad()
        for param, value in zip(others, mg.load(tmp_path / "params.npz").values()):
            param.set_numbers(..., value.array)
        restored.load_state_dict(state)
        train(others, restored, interrupted_at, 10)
        assert bits(restored) == bits(optimizer)


def test_a_state_dict_may_hold_numbers_and_lists():
    optimizer = optim.SGD([mg.ones(2, requires_grad=True)])
    optimizer.load_state_dict(
        {
            "lr": 0.1,
            "momentum": 1,
            "weight_decay": 0,
            "steps": [3],
            "0.momentum_buffer": np.ones(2, "f4"),
        }
    )
    assert (optimizer.lr, optimizer.momentum, optimizer.steps) == (0.1, 1, [3])
    assert optimizer.state[0][0].tolist() == [1, 1]


def freeze(optimizer, i):
    optimizer.params[i].array.flags.writeable = False


def freeze_state(optimizer, i):
    optimizer.state[i][-1].flags.writeable = False


def reshape(optimizer, i):
    optimizer.params[i].data = mg.ones(7)
    optimizer.params[i].grad = mg.ones(7)


def change_dtype(optimizer, i):
    optimizer.params[i].data = mg.ones(2, dtype="f2")
    optimizer.params[i].grad = mg.ones(2, dtype="f2")


def reshape_gradient(optimizer, i):
    optimizer.params[i].grad.data = mg.ones(7)


def change_dtype_of_gradient(optimizer, i):
    optimizer.params[i].grad.data = mg.ones(2, dtype="f8")


def add(optimizer, i):
    optimizer.params.append(mg.ones(2, requires_grad=True))


DAMAGES = [
    freeze, freeze_state, reshape, change_dtype, reshape_gradient, change_dtype_of_gradient, add,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
@given(good=st.integers(0, 3), after=st.integers(0, 1), steps=st.integers(0, 2))
def test_a_step_moves_all_parameters_or_none(kind, damage, good, after, steps):
    """The parameter after the first `good` ones is damaged."""
    if kind == "SGD" and damage in (freeze_state, reshape):
        return  # without momentum, the optimiser uses no state
    params = [mg.ones(2, requires_grad=True) for _ in range(good + 1 + after)]
    optimizer = KINDS[kind](params)
    for _ in range(steps):
        for param in params:
            param.grad = mg.ones(2)
        optimizer.step()
    for param in params:
        param.grad = mg.ones(2)
    damage(optimizer, good)
    before = bits(optimizer)
    with pytest.raises((RuntimeError, ValueError)):
        optimizer.step()
    assert bits(optimizer) == before


@given(data=st.data(), kind=st.sampled_from(sorted(KINDS)))
def test_a_state_is_loaded_wholly_or_not_at_all(data, kind):
    optimizer, other = (
        KINDS[kind]([mg.ones(2, requires_grad=True) for _ in range(3)]) for _ in "ab"
    )
    for param in other.params:
        param.grad = mg.ones(2)
    other.lr = 0.5
    other.step()
    state = other.state_dict()
    bad = data.draw(st.lists(st.sampled_from(sorted(state)), min_size=1, unique=True))
    for name in bad:
        wrong = [mg.ones(3, 3), "words", np.array(1j)]
        state[name] = data.draw(st.sampled_from(wrong)) if data.draw(st.booleans()) else None
    state = {name: value for name, value in state.items() if value is not None}
    before = bits(optimizer)
    with pytest.raises(RuntimeError) as raised:
        optimizer.load_state_dict(state)
    assert bits(optimizer) == before
    assert sorted(re.findall(r"\n  (\S+): got", str(raised.value))) == sorted(bad)


# Whole training runs next to PyTorch's. An entry turns the parameters into a function that takes
# a step from a loss: ours, then PyTorch's.


def with_state(update, **settings):
    def make(params):
        state = [mg.zeros_like(param) for param in params]
        return lambda loss: update(loss, params, state, **settings)

    return make


def stepper(optimizer_class, **settings):
    def make(params):
        optimizer = optimizer_class(params, **settings)

        def step(loss):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return step

    return make


def rmsprop_by_hand(params, lr=1e-3, alpha=0.8, epsilon=1e-8):
    squares = [torch.zeros_like(param) for param in params]

    def step(loss):
        grads = torch.autograd.grad(loss, params)
        with torch.no_grad():
            for param, square, grad in zip(params, squares, grads):
                square.copy_(alpha * square + (1 - alpha) * grad**2)
                param -= lr * grad / torch.sqrt(square + epsilon)

    return step


OPTIMIZERS = {
    "gradient_update": (
        lambda params: lambda loss: optim.gradient_update(loss, params, 0.1),
        stepper(torch.optim.SGD, lr=0.1),
    ),
    "momentum_update": (
        with_state(optim.momentum_update, lr=0.05), stepper(torch.optim.SGD, lr=0.05, momentum=0.8),
    ),
    "rmsprop_update": (with_state(optim.rmsprop_update), rmsprop_by_hand),
    "SGD": (stepper(optim.SGD, lr=0.1), stepper(torch.optim.SGD, lr=0.1)),
    "SGD with momentum": tuple(
        stepper(library.SGD, lr=0.02, momentum=0.9) for library in (optim, torch.optim)
    ),
    "RMSprop": tuple(stepper(library.RMSprop, lr=1e-3) for library in (optim, torch.optim)),
    "Adam": (stepper(optim.Adam), stepper(torch.optim.Adam)),
    "SGD with weight decay": tuple(
        stepper(library.SGD, lr=0.1, weight_decay=0.1) for library in (optim, torch.optim)
    ),
    "SGD with momentum and weight decay": tuple(
        stepper(library.SGD, lr=0.02, momentum=0.9, weight_decay=0.1)
        for library in (optim, torch.optim)
    ),
    "RMSprop with weight decay": tuple(
        stepper(library.RMSprop, lr=1e-3, weight_decay=0.1) for library in (optim, torch.optim)
    ),
    "Adam with all settings": tuple(
        stepper(library.Adam, lr=2e-3, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1)
        for library in (optim, torch.optim)
    ),
}  # fmt: skip


STEPS = 5 if numba.config.DISABLE_JIT else 200  # plain Python takes a second for each


def train_both(optimizer, hidden_dims, use_bias, dtype, steps=STEPS):
    """The difference of our loss from PyTorch's, and the largest difference of a parameter.

    In float32, it is that of a typical parameter instead, because some units may differ: RMSprop
    and Adam divide a gradient by its own size. If a gradient comes from a single example, and
    round-off decides on which side of 0 the ReLU's input falls, all weights of that unit move in
    one library only.
    """
    rng = np.random.default_rng(0)
    mg.manual_seed(0)
    ours, theirs = nn.MLP(784, 10, hidden_dims, use_bias), torch_mlp(hidden_dims, use_bias)
    if dtype == "float64":
        theirs.double()
        for par in ours.parameters():
            par.data = par.data.double()
    state = {name[5:]: torch.tensor(v.numpy()) for name, v in ours.state_dict().items()}
    theirs.load_state_dict(state)  # their names have no "main." in front
    our_step, their_step = (
        make(list(model.parameters())) for make, model in zip(OPTIMIZERS[optimizer], (ours, theirs))
    )
    for _ in range(steps):
        x = rng.normal(size=(50, 784)).astype(dtype)
        y = np.abs(x[:, :10]).argmax(1)
        loss = F.nll_loss(ours(mg.from_numpy(x)), y)
        our_step(loss)
        expected = torch_nn.functional.cross_entropy(
            theirs(torch.from_numpy(x)), torch.from_numpy(y)
        )
        their_step(expected)
    differences = np.concatenate([
        np.abs(p.numpy() - q.detach().numpy()).ravel()
        for p, q in zip(ours.state_dict().values(), theirs.parameters())
    ])  # fmt: skip
    share = 1 if dtype == "float64" else 0.5
    return abs(loss.item() - expected.item()), np.quantile(differences, share)


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("hidden_dims", [[], [30], [100, 100]])
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-12), ("float32", 1e-3)])
def test_gradient_descent_stays_with_pytorch(hidden_dims, use_bias, dtype, tolerance):
    """In float32, round-off decides on which side of 0 a ReLU's input falls: with two hidden
    layers, PyTorch's own run ends 4e-4 from the one in float64."""
    differences = train_both("gradient_update", hidden_dims, use_bias, dtype)
    assert max(differences) < tolerance


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-10), ("float32", 1e-3)])
def test_every_optimizer_stays_with_pytorch(optimizer, dtype, tolerance):
    differences = train_both(optimizer, [30], True, dtype)
    assert max(differences) < tolerance


def test_an_optimizer_of_ones_own_may_have_attributes():
    class Mine(optim.SGD):
        def __init__(self, params):
            super().__init__(params)
            self.warm_up = 10

    assert Mine([mg.ones(1, requires_grad=True)]).warm_up == 10
