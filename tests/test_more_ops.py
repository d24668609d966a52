"""What learners type, beyond the table of test_gradients.py: dtypes, edges, creation, mistakes."""

import inspect
import operator
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional

import minigrad as mg
from minigrad import functional as F

NAN, INF = float("nan"), float("inf")


def same(ours, theirs):
    assert str(ours.dtype) == str(theirs.dtype).removeprefix("torch.")
    assert ours.shape == tuple(theirs.shape)
    np.testing.assert_allclose(
        ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-5, atol=1e-37
    )


def agree(call):
    """Assert that `call`, given a library and its functional, gives the same result in both."""
    ours, theirs = call(mg, F), call(torch, torch.nn.functional)
    if isinstance(theirs, tuple):
        assert type(ours)._fields == ("values", "indices")
    pairs = zip(ours, theirs) if isinstance(theirs, tuple) else [(ours, theirs)]
    for x, y in pairs:
        same(x, y)


OPERANDS = [
    lambda lib: lib.tensor([True, False]),
    lambda lib: lib.tensor([2, 3]),
    lambda lib: lib.tensor([2.5, 3.5]),
    lambda lib: lib.tensor([2.5, 3.5]).double(),
    lambda lib: lib.tensor(2),
    lambda lib: lib.tensor(2.5).double(),
]


@pytest.mark.parametrize("a", OPERANDS)
@pytest.mark.parametrize("b", OPERANDS)
@pytest.mark.parametrize("name", ["cat", "stack", "where", "maximum", "minimum", "remainder"])
def test_promotion_of_two_as_in_pytorch(name, a, b):
    x, y = a(torch), b(torch)
    if name == "cat" and 0 in (x.ndim, y.ndim) or name == "stack" and x.ndim != y.ndim:
        return
    if name == "remainder" and not (y.all() and {x.dtype, y.dtype} != {torch.bool}):
        return
    agree(
        lambda lib, F: {
            "cat": lambda a, b: lib.cat([a, b]),
            "stack": lambda a, b: lib.stack([a, b]),
            "where": lambda a, b: lib.where(lib.tensor([True, False]), a, b),
        }.get(name, getattr(lib, name))(a(lib), b(lib))
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.sqrt(),
        lambda x: x.sin(),
        lambda x: x.cos(),
        lambda x: x.sigmoid(),
        lambda x: x.clamp(1),
        lambda x: x.clamp(max=1.5),
        lambda x: x.clamp(min=1, max=0),
        lambda x: x.min(),
        lambda x: x.max(0),
        lambda x: x.min(0),
        lambda x: (x * 2).argmin(),
        lambda x: x.prod(),
        lambda x: x.prod(0, keepdim=True),
        lambda x: x.cumsum(-1),
    ],
)
@pytest.mark.parametrize("values", [[1, 3, 2], [True, False, True]])
def test_integers_and_bools_as_in_pytorch(call, values):
    agree(lambda lib, F: call(lib.tensor(values)))


@pytest.mark.parametrize("dim", [0, -1])
@pytest.mark.parametrize(
    "call",
    [
        lambda x, dim: x.softmax(dim),
        lambda x, dim: x.max(dim),
        lambda x, dim: x.min(dim, keepdim=True),
        lambda x, dim: x.argmin(dim),
        lambda x, dim: x.var(dim, correction=0),
        lambda x, dim: x.std(dim, correction=0, keepdim=True),
        lambda x, dim: x.prod(dim),
        lambda x, dim: x.cumsum(dim),
        lambda x, dim: x.squeeze(dim),
        lambda x, dim: x.flatten(dim, dim),
        lambda x, dim: x.unsqueeze(dim),
    ],
)
def test_no_dimension_counts_as_one(call, dim):
    agree(lambda lib, F: call(lib.tensor(2.5), dim))
    for lib in (mg, torch):
        with pytest.raises(IndexError):
            call(lib.tensor(2.5), 1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0), (2, 3)])
@pytest.mark.parametrize("correction", [0, 1, 2, 7])
@pytest.mark.parametrize("name", ["var", "std"])
def test_spread_of_few_as_in_pytorch(name, correction, shape):
    data = np.arange(np.prod(shape), dtype="f4").reshape(shape)
    agree(lambda lib, F: getattr(lib.from_numpy(data), name)(correction=correction))


@pytest.mark.parametrize("name", ["var", "std"])
def test_the_other_ways_to_ask_for_a_spread(name):
    for arguments in ((), (False,), (True,), (1, False), (0, True, True), (None, False), ((0, 1),)):
        agree(lambda lib, F: getattr(lib.tensor([[1.0, 2.0, 6.0]] * 2), name)(*arguments))
    agree(lambda lib, F: getattr(lib.tensor([1.0, 2.0, 6.0]), name)(unbiased=False))


def test_a_spread_far_from_zero_keeps_its_digits():
    x = mg.tensor([10_000.0, 10_001.0, 10_002.0])
    assert x.var().item() == 1 and x.std().item() == 1
    assert (mg.ones(3) * 1e25).std().item() == 0  # its square is infinite in float32
    assert mg.tensor([-1e25, 1e25]).std(correction=0).item() == pytest.approx(1e25)


def test_equal_elements_have_a_standard_deviation_of_gradient_zero():
    for lib in (mg, torch):
        x = lib.ones(3, requires_grad=True)
        x.std().backward()
        assert x.grad.tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
def test_large_numbers_do_not_overflow(name):
    values = [-INF, -1000.0, -89.0, 0.0, 89.0, 1000.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agree(lambda lib, F: getattr(lib, name)(lib.tensor(values), *[0] * (name == "softmax")))
        agree(lambda lib, F: lib.tensor([1.0, INF]).softmax(0))
        agree(lambda lib, F: lib.tensor([-INF, -INF]).softmax(0))


@pytest.mark.parametrize("zeros", [0, 1, 2, 3])
def test_gradient_of_a_product_with_zeros(zeros):
    def gradient(lib):
        x = lib.tensor([0.0] * zeros + [2.0, 3.0], requires_grad=True)
        x.prod().backward()
        return x.grad.tolist()

    assert gradient(mg) == gradient(torch)


@pytest.mark.parametrize("values", [[1.0, 3.0, 1.0], [1.0, NAN, 0.0], [-INF, -INF]])
@pytest.mark.parametrize(
    "pick",
    [
        lambda x: x.min(),
        lambda x: x.min(0).values,
        lambda x: x.maximum(x.detach()),
        lambda x: x.minimum(x.detach().flatten()),
        lambda x: x.clamp(min=1),
        lambda x: x.abs(),
    ],
)
def test_ties_nans_and_kinks_as_in_pytorch(pick, values):
    x, y = mg.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    with np.errstate(all="ignore"):
        pick(x).sum().backward()
    pick(y).sum().backward()
    same(pick(x), pick(y))
    same(x.grad, y.grad)


# Joining


def test_cat_leaves_out_what_has_shape_zero():
    for shapes in (((0,), (2, 3)), ((2, 3), (0,)), ((0,), (0,)), ((0, 3), (2, 3))):
        agree(lambda lib, F: lib.cat([lib.ones(shape) for shape in shapes]))


def test_arrays_lists_and_numbers_are_joined_too():
    assert mg.stack([1.0, 2.0]).tolist() == [1, 2]
    assert mg.stack([np.arange(2), mg.arange(2)], dim=1).tolist() == [[0, 0], [1, 1]]
    assert mg.cat(([1, 2], np.array([3]))).tolist() == [1, 2, 3]
    assert mg.stack([mg.tensor(1.0), mg.tensor(2)]).dtype == mg.float32


def test_a_gradient_reaches_every_one_of_many_and_one_that_comes_twice():
    xs = [mg.ones(i, requires_grad=True) for i in range(5)]
    (mg.cat([*xs, xs[2]]) * mg.arange(12)).sum().backward()
    expected = [[], [0], [1 + 10, 2 + 11], [3, 4, 5], [6, 7, 8, 9]]
    assert [x.grad.tolist() for x in xs] == expected


def test_explain_names_the_rule_for_each_of_any_number_of_inputs(capsys):
    mg.explain(mg.stack([mg.tensor(float(i), requires_grad=True) for i in range(3)]))
    assert capsys.readouterr().out.count("its part of G") == 3


def test_where_keeps_the_condition_that_it_was_called_with():
    x, mask = mg.ones(2, requires_grad=True), np.array([True, False])
    out = mg.where(mask, x, 0)
    mask[:] = False
    out.sum().backward()
    assert x.grad.tolist() == [1, 0]
    assert x.where(mg.tensor([[True], [False]]), 5).tolist() == [[1, 1], [5, 5]]


def test_permute_and_others_share_memory():
    x = mg.zeros(2, 1, 3)
    for view in (x.permute(2, 0, 1), x.permute((2, 0, -2)), x.squeeze(), x.unsqueeze(1)):
        assert np.shares_memory(view.array, x.array)


# Losses


LOG_PROBS = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], "f4"))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_when_all_targets_are_ignored(reduction):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for targets, index in (([-100, -100], -100), ([1, 1], 1)):
            x = mg.tensor(LOG_PROBS, requires_grad=True)
            y = torch.tensor(LOG_PROBS, requires_grad=True)
            settings = {"reduction": reduction, "ignore_index": index}
            ours = F.nll_loss(x, mg.tensor(targets), **settings)
            theirs = torch.nn.functional.nll_loss(y, torch.tensor(targets), **settings)
            same(ours, theirs)
            ours.backward(np.ones(ours.shape))
            theirs.backward(torch.ones(theirs.shape))
            same(x.grad, y.grad)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_single_example_as_in_pytorch(reduction):
    for weight in (None, [1.0, 2.0, 3.0]):
        for loss in ("nll_loss", "cross_entropy"):
            agree(
                lambda lib, F: getattr(F, loss)(
                    lib.from_numpy(LOG_PROBS[1]),
                    lib.tensor(2),
                    weight=weight and lib.tensor(weight),
                    reduction=reduction,
                )
            )


def test_the_loss_keeps_the_weights_that_it_was_called_with():
    x, weight = mg.tensor(LOG_PROBS, requires_grad=True), np.ones(3, "f4")
    loss = F.nll_loss(x, [0, 1], reduction="sum", weight=weight)
    weight[:] = 5
    loss.backward()
    assert x.grad.tolist() == [[-1, 0, 0], [0, -1, 0]]


# Creation


@pytest.mark.parametrize(
    "call",
    [
        lambda lib: lib.arange(3),
        lambda lib: lib.arange(0),
        lambda lib: lib.arange(2, 9, 3),
        lambda lib: lib.arange(5, 0, -2),
        lambda lib: lib.arange(1, 2.5, 0.5),
        lambda lib: lib.arange(0, 1, 0.1),
        lambda lib: lib.arange(3.0),
        lambda lib: lib.arange(3, dtype=lib.float64),
        lambda lib: lib.full((2, 3), 7),
        lambda lib: lib.full((), 0.5),
        lambda lib: lib.full((2,), True),
        lambda lib: lib.full((2,), 7, dtype=lib.float64),
        lambda lib: lib.full_like(lib.tensor([[1, 2]]), 7),
        lambda lib: lib.full_like(lib.tensor([1.0]), 7),
        lambda lib: lib.full_like(lib.tensor([1]), 7, dtype=lib.float64),
        lambda lib: lib.eye(3),
        lambda lib: lib.eye(2, 3, dtype=lib.int64),
        lambda lib: lib.linspace(-1, 1, 5),
        lambda lib: lib.linspace(0, 1, 1),
        lambda lib: lib.linspace(0, 1, 3, dtype=lib.float64),
    ],
)
def test_creation_as_in_pytorch(call):
    agree(lambda lib, F: call(lib))


def test_random_numbers_are_where_they_should_be_and_repeat():
    draws = {
        "rand": (lambda: mg.rand(1000, 2), mg.float32, 0, 1, 0.5),
        "rand, double": (lambda: mg.rand((1000, 2), dtype=mg.float64), mg.float64, 0, 1, 0.5),
        "randint": (lambda: mg.randint(10, (1000, 2)), mg.int64, 0, 9, 4.5),
        "randint, low": (lambda: mg.randint(-5, 5, (1000, 2)), mg.int64, -5, 4, -0.5),
        "randint, names": (lambda: mg.randint(high=10, size=[1000, 2]), mg.int64, 0, 9, 4.5),
    }
    for draw, dtype, low, high, mean in draws.values():
        mg.manual_seed(3)
        x = draw()
        mg.manual_seed(3)
        assert (x == draw()).numpy().all() and not (x == draw()).numpy().all()
        assert x.dtype == dtype and x.shape == (1000, 2)
        assert abs(x.min().item() - low) < 0.01 and abs(x.max().item() - high) < 0.01
        assert abs(x.double().mean().item() - mean) < 0.05 * (high - low)
    assert mg.rand(2, requires_grad=True).requires_grad


# Names, operators, NumPy's habits


@pytest.mark.parametrize("operation", [operator.floordiv, operator.mod])
@pytest.mark.parametrize("divisor", [2, -2, 2.5, [-3, 2], [-1.5, 0.5]])
@pytest.mark.parametrize("values", [[-7, 7], [-7.5, 7.25], [0.0, INF]])
def test_floor_division_as_in_pytorch(operation, divisor, values):
    with np.errstate(all="ignore"):
        agree(
            lambda lib, F: operation(
                lib.tensor(values), lib.tensor(divisor) if isinstance(divisor, list) else divisor
            )
        )
        agree(lambda lib, F: operation(7, lib.tensor([2, -2])))


def test_floor_division_of_floats_by_zero_and_of_integers():
    with np.errstate(all="ignore"):
        agree(lambda lib, F: lib.tensor([7.0, 0.0]) // 0)
    for use in (lambda x: x // 0, lambda x: x % 0, lambda x: 7 // (x - 7), lambda x: 7 % (x - 7)):
        with pytest.raises(ZeroDivisionError):
            use(mg.tensor([7]))


@pytest.mark.parametrize("operation", [operator.and_, operator.or_, operator.xor])
def test_masks_are_combined_as_in_pytorch(operation):
    lists = [True, True, False, False], [True, False, True, False], [6, 5, 4, 3], 6, True
    for a in lists[:3]:
        agree(lambda lib, F: ~lib.tensor(a))
        for b in lists:
            agree(lambda lib, F: operation(lib.tensor(a), lib.tensor(b)))
            if not isinstance(b, list):
                agree(lambda lib, F: operation(b, lib.tensor(a)))
    x = mg.tensor([0.5, 1.5], requires_grad=True)
    assert x[(x > 0) & ~(x > 1)].tolist() == [0.5]
    for use in (lambda: ~x, lambda: x & (x > 0), lambda: (x > 0) | 0.5):
        with pytest.raises(TypeError, match="needs bools or integers, got float32; compare"):
            use()


def test_methods_are_the_operators():
    x, y = mg.tensor([3.0, 4.0]), mg.tensor([2.0, 5.0])
    for name in ("add", "sub", "mul", "div", "pow", "matmul", "remainder", "floor_divide"):
        same(getattr(x, name)(y), getattr(torch.tensor([3.0, 4.0]), name)(torch.tensor([2.0, 5.0])))
    assert x.neg().tolist() == [-3, -4] and (+x).tolist() == [3, 4] and abs(-x).tolist() == [3, 4]
    assert x.clip(max=3.5).tolist() == [3, 3.5]


def test_requires_grad_in_place():
    x = mg.ones(2)
    assert x.requires_grad_() is x and x.requires_grad
    assert not x.requires_grad_(False).requires_grad


def test_a_tensor_of_one_integer_is_an_index():
    letters = "abc"
    assert letters[mg.tensor(1)] == letters[mg.tensor([[1]])] == "b"
    assert list(range(mg.tensor(2))) == [0, 1] and mg.zeros(mg.tensor(2)).shape == (2,)
    for wrong in (mg.tensor(1.0), mg.tensor([0, 1]), mg.tensor([], dtype=mg.int64)):
        with pytest.raises(TypeError, match="an index must be one integer, got"):
            letters[wrong]


def functions_of_dim():
    elsewhere = {(mg.Tensor, "size")}
    for place in (mg.Tensor, mg, F):
        for name, function in vars(place).items():
            if inspect.isfunction(function) and (place, name) not in elsewhere:
                if "dim" in inspect.signature(function).parameters:
                    yield pytest.param(function, id=f"{place.__name__}.{name}")


@pytest.mark.parametrize("function", list(functions_of_dim()))
def test_numpys_names_of_dim_and_keepdim(function):
    x = mg.tensor([[1.0, 3.0], [2.0, 7.0]])
    x = [x, x] if function.__name__ in ("cat", "stack") else x
    for dim in (0, 1):
        settings, renamed = {"dim": dim}, {"axis": dim}
        if "keepdim" in inspect.signature(function).parameters:
            settings, renamed = settings | {"keepdim": True}, renamed | {"keepdims": True}
            with pytest.raises(TypeError, match="both keepdim and keepdims"):
                function(x, 0, keepdim=True, keepdims=True)
        assert repr(function(x, **renamed)) == repr(function(x, **settings))
    with pytest.raises(TypeError, match=r"\(\) got both dim and axis"):
        function(x, dim=0, axis=0)
    with pytest.raises(TypeError, match="dim"):
        function(x, 0, axis=0)


# Mistakes


X, LEAF = mg.ones(2, 3), mg.ones(3, requires_grad=True)

MISTAKES = {
    "cat of nothing": (lambda: mg.cat([]), ValueError, "cat: the list of Tensors is empty"),
    "stack of nothing": (lambda: mg.stack(()), ValueError, "stack: the list of Tensors is empty"),
    "cat of two": (lambda: mg.cat(X, X), TypeError, r"as in cat\(\[a, b\]\), got Tensor"),
    "cat of numbers": (lambda: mg.cat([X, 1.0]), RuntimeError, r"input 1 has no dimension .* stack\(\)"),
    "cat of other shapes": (
        lambda: mg.cat([X, mg.ones(3, 4)]), RuntimeError, r"cat cannot combine shapes \(2, 3\) and \(3, 4\)",
    ),
    "stack of other shapes": (
        lambda: mg.stack([X, X, X.T]), RuntimeError, r"stack cannot combine shapes \(2, 3\) and .* \(3, 2\)",
    ),
    "cat of other shapes, one empty": (
        lambda: mg.cat([X, mg.ones(0, 4)]), RuntimeError, r"shapes \(2, 3\) and \(0, 4\)",
    ),
    "cat dim": (lambda: mg.cat([X, X], dim=2), IndexError, "dim: axis 2 is out of bounds"),
    "stack dim": (lambda: mg.stack([X, X], dim=3), IndexError, "dim: axis 3 is out of bounds"),
    "where of floats": (lambda: mg.where(X, X, X), RuntimeError, "condition must be bool, .* got float32"),
    "where of other shapes": (
        lambda: mg.where(X > 0, mg.ones(4), 0), RuntimeError, r"where: .*\(2,3\) \(4,\)",
    ),
    "maximum of other shapes": (lambda: X.maximum(X.T), RuntimeError, "maximum cannot combine shapes"),
    "clamp to nothing": (lambda: X.clamp(), RuntimeError, r"clamp\(\) needs min, max or both"),
    "clamp to a Tensor": (lambda: X.clamp(X), TypeError, r"takes numbers, got Tensor; use maximum\(\)"),
    "min of nothing": (lambda: X[:0].min(), RuntimeError, r"min\(\) of no elements \(shape \(0, 3\), dim None"),
    "min dim": (lambda: X.min(2), IndexError, "dim: axis 2 is out of bounds"),
    "min over nothing": (lambda: X[:0].min(0), RuntimeError, r"min\(\) of no elements \(shape \(0, 3\), dim 0"),
    "softmax of integers": (
        lambda: mg.arange(3).softmax(0), RuntimeError, r"softmax wanted all float32 or .*input int64",
    ),
    "var of integers": (lambda: mg.arange(3).var(), RuntimeError, r"var\(\) needs floating-point .* int64"),
    "std of integers": (lambda: mg.arange(3).std(), RuntimeError, r"std\(\) needs floating-point .* int64"),
    "prod dim": (lambda: X.prod(2), IndexError, "dim: axis 2 is out of bounds"),
    "cumsum dim": (lambda: X.cumsum(-3), IndexError, "dim: axis -3 is out of bounds"),
    "squeeze dim": (lambda: X.squeeze(2), IndexError, "dim: axis 2 is out of bounds"),
    "unsqueeze dim": (lambda: X.unsqueeze(-4), IndexError, "dim: axis -4 is out of bounds"),
    "flatten backwards": (lambda: X.flatten(1, 0), RuntimeError, "start_dim 1 of .* is after end_dim 0"),
    "permute too few": (lambda: X.permute(0), RuntimeError, r"wanted 2 dims for shape \(2, 3\), got \(0,\)"),
    "permute twice": (lambda: X.permute(0, -2), ValueError, "repeated axis in `dims`"),
    "masks of other shapes": (
        lambda: (X > 0) & (LEAF[:2] > 0), RuntimeError, r"bitwise_and cannot combine shapes \(2, 3\) and \(2,\)",
    ),
    "floor division": (lambda: LEAF // 2, RuntimeError, r"x // y is not differentiable; use x.detach\(\)"),
    "arange backwards": (lambda: mg.arange(5, 0), RuntimeError, "a step of 1 does not lead from 5 to 0"),
    "arange without step": (lambda: mg.arange(0, 5, 0), RuntimeError, "a step of 0 does not lead"),
    "randint without size": (lambda: mg.randint(0, 10), TypeError, "size must be a tuple, .* got 10"),
    "mse_loss": (
        lambda: F.mse_loss(X, LEAF), ValueError, r"wanted one shape, got input \(2, 3\), target \(3,\)",
    ),
    "mse_loss reduction": (lambda: F.mse_loss(X, X, "avg"), ValueError, "mse_loss: reduction must be .* 'avg'"),
    "weight shape": (
        lambda: F.nll_loss(X, [0, 1], weight=[1.0, 2.0]), ValueError, r"weight of shape \(3,\), got \(2,\)",
    ),
    "weight trained": (
        lambda: F.cross_entropy(X, [0, 1], LEAF), RuntimeError, r"no gradient flows to weight; use weight.detach",
    ),
    "target beside an ignored one": (
        lambda: F.nll_loss(X, [-100, 3]), IndexError, r"targets\[1\] is 3, wanted 0..2",
    ),
    "negative target": (
        lambda: F.nll_loss(X, [0, -1], weight=[1.0, 2.0, 3.0]), IndexError, r"targets\[1\] is -1, wanted 0..2",
    ),
    "target -100 that is not ignored": (
        lambda: F.nll_loss(X, [0, -100], ignore_index=-1), IndexError, r"targets\[1\] is -100",
    ),
    "probabilities as targets": (lambda: F.cross_entropy(X, X), ValueError, "target must be the indices"),
}  # fmt: skip


@pytest.mark.parametrize("mistake, error, message", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_explained(mistake, error, message):
    with pytest.raises(error, match=message):
        mistake()
