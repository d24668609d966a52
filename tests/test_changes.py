"""Changes in place between the forward and backward passes: an error, or the right gradient."""

import copy
import functools
import gc

import numpy as np
import pytest
from hypothesis import given
from test_gradients import OPERATIONS, calls

import minigrad as mg
from minigrad import changes, functional as F, nn, optim, testing
from minigrad.datasets import load_digits_data

pytestmark = pytest.mark.filterwarnings("ignore:nll_loss")  # the numbers are not probabilities


def leaf(*numbers):
    return mg.tensor(numbers, requires_grad=True)


# Ways to change the numbers of a Tensor that requires grad


def through_detach(w):
    w.detach()[0] = 9


def through_data(w):
    w.data += 1


def through_data_and_index(w):
    w.data[0] = 9


def through_a_view(w):
    with mg.no_grad():
        view = w[:1]
        view += 1


def under_no_grad(w):
    with mg.no_grad():
        w *= 5


def by_zeroing(w):
    w.detach().zero_()


def by_an_optimiser(w):
    w.grad = mg.ones_like(w)
    optim.SGD([w], lr=1).step()


def by_an_update(w):
    optim.gradient_update((w * 3).sum(), [w], lr=1)


def by_loading(w):
    module = nn.Module()
    module.w = nn.Parameter(w.data)
    module.load_state_dict({"w": np.full(w.shape, 9.0)})


def by_assigning_data(w):
    w.data = mg.full(w.shape, 9.0) if hasattr(mg, "full") else mg.ones(*w.shape) * 9


def by_assigning_data_of_another_shape(w):
    w.data = mg.ones(1)


IN_PLACE = [
    through_detach, through_data, through_data_and_index, through_a_view, under_no_grad, by_zeroing,
    by_an_optimiser, by_an_update, by_loading,
]  # fmt: skip
RIGHT, RAISES = "right", "raises"
NEEDS_W = [lambda w: w * w, lambda w: w**3, lambda w: 1 / w, lambda w: w.log(), lambda w: w @ w]
NEEDS_NO_W = [
    lambda w: w + 1, lambda w: 2 - w, lambda w: w * 3, lambda w: w / 2, lambda w: w.sum(),
    lambda w: w.mean(), lambda w: w[[0, 0]], lambda w: w.reshape(2, 1), lambda w: w.max(),
    lambda w: w.exp(), lambda w: F.log_softmax(w), lambda w: F.relu(w), lambda w: w.clone(),
]  # fmt: skip
CASES = [
    *[(f, change, RAISES) for f in NEEDS_W for change in IN_PLACE],
    *[(f, change, RIGHT) for f in NEEDS_NO_W for change in IN_PLACE],
    *[(f, by_assigning_data, RIGHT) for f in NEEDS_W + NEEDS_NO_W],
    *[(f, by_assigning_data_of_another_shape, RAISES) for f in NEEDS_W + NEEDS_NO_W],
]


@pytest.mark.parametrize("f, change, expected", CASES)
def test_a_leaf_that_changes_before_backward(f, change, expected):
    w, unchanged = leaf(1.5, 2.0), leaf(1.5, 2.0)
    f(unchanged).sum().backward()
    loss = f(w).sum()
    change(w)
    if expected is RAISES:
        with pytest.raises(RuntimeError, match=r"shape \(2,\).*changed|had shape \(2,\)"):
            loss.backward()
        return
    w.grad = None
    loss.backward()
    np.testing.assert_array_equal(w.grad.numpy(), unchanged.grad.numpy())


def test_a_product_keeps_a_copy_of_a_single_number():
    w = mg.tensor(3.0, requires_grad=True)
    square = w * w
    w.data += 1
    square.backward()
    assert w.item() == 4 and w.grad.item() == 6


@pytest.mark.parametrize(
    "make_index",
    [
        lambda: [0, 1],
        lambda: mg.tensor([0, 1]),
        lambda: np.array([0, 1]),
        lambda: np.array([True, True]),
        lambda: mg.tensor([True, True]),
        lambda: (mg.tensor([0, 1]), [1, 0]),
    ],
)
def test_an_index_that_changes_before_backward(make_index):
    index = make_index()
    x = mg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    loss = (x[index] * 3).sum()
    inner = index[0] if isinstance(index, tuple) else index
    inner[1] = 0
    loss.backward()
    again = mg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    (again[make_index()] * 3).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), again.grad.numpy())


def test_targets_that_change_before_backward():
    targets = mg.tensor([1])
    x = mg.tensor([[1.0, 2.0]], requires_grad=True)
    loss = F.nll_loss(x, targets)
    targets[0] = 0
    loss.backward()
    assert x.grad.tolist() == [[0, -1]]


# A graph that is swept again


@pytest.mark.parametrize("change", [*IN_PLACE, by_assigning_data])
@pytest.mark.parametrize("f", [lambda w: w + 1, lambda w: F.log_softmax(w), lambda w: w.exp()])
def test_a_loss_computed_before_the_loop(f, change):
    w = leaf(1.5, 2.0)
    loss = f(w).sum()
    loss.backward()
    loss.backward()  # nothing has changed
    before = w.grad.numpy().copy()
    change(w)
    w.grad = mg.from_numpy(before)
    with pytest.raises(
        RuntimeError, match=r"leaf of shape \(2,\) changed; compute it again inside"
    ):
        loss.backward()
    np.testing.assert_array_equal(w.grad.numpy(), before)


def test_softmax_regression_with_a_loss_from_before_the_loop():
    train_set, _ = load_digits_data(change_tensors=True)
    model = nn.MLP(784, 10)
    loss = F.nll_loss(model(train_set.data), train_set.targets)
    optim.gradient_update(loss, model.parameters(), lr=0.1)
    before = [p.detach().numpy().copy() for p in model.parameters()]
    with pytest.raises(RuntimeError, match="computed before .* changed; compute it again"):
        optim.gradient_update(loss, model.parameters(), lr=0.1)
    for parameter, kept in zip(model.parameters(), before):
        np.testing.assert_array_equal(parameter.detach().numpy(), kept)


def test_two_losses_and_one_step_raise_no_alarm():
    torch = pytest.importorskip("torch")
    grads = []
    for lib, library_optim in ((mg, optim), (torch, torch.optim)):
        w = lib.tensor([1.5, 2.0], requires_grad=True)
        optimizer = library_optim.SGD([w], lr=0.1)
        for _ in range(3):
            hidden = w * w
            first, second = hidden.sum(), (hidden * 2 + w).mean()
            optimizer.zero_grad()
            first.backward(retain_graph=True) if lib is torch else first.backward()
            second.backward()
            optimizer.step()
        grads.append(w.grad.numpy())
    np.testing.assert_allclose(*grads, rtol=1e-6)


def test_a_new_root_over_a_changed_leaf_raises_no_alarm():
    w = leaf(1.0, 2.0)
    z = w + 1
    with mg.no_grad():
        w *= 5
    z.sum().backward()
    assert w.grad.tolist() == [1, 1]


# In-place arithmetic that records


def test_an_alias_sees_the_change():
    w = leaf(3.0, 4.0)
    a = b = mg.zeros(2)
    a += w
    assert a is b and b.tolist() == [3, 4] and b.requires_grad and not b.is_leaf
    (b * b).sum().backward()
    assert w.grad.tolist() == [6, 8]


def test_the_buffer_of_a_caller_changes():
    def add_to(buffer, w):
        buffer += w

    w, buffer = leaf(3.0, 4.0), mg.zeros(2)
    add_to(buffer, w)
    add_to(buffer, w)
    assert buffer.tolist() == [6, 8]
    buffer.sum().backward()
    assert w.grad.tolist() == [2, 2]


def test_a_loss_that_adds_up():
    w = leaf(3.0, 4.0)
    loss, partial = mg.zeros(()), []
    for factor in (1, 2, 3):
        loss += (w * factor).sum()
        partial.append(loss * 1)
    assert loss.item() == 42
    loss.backward()
    assert w.grad.tolist() == [6, 6]
    w.grad = None
    partial[0].backward()  # computed from the old value
    assert w.grad.tolist() == [1, 1]


def test_rows_of_a_buffer_cannot_record():
    w, buffer = leaf(3.0, 4.0), mg.zeros(3, 2)
    with pytest.raises(RuntimeError, match=r"a = a \+ b instead of a \+= b"):
        for row in buffer:
            row += w
    assert buffer.tolist() == [[0, 0]] * 3
    rows = [mg.zeros(2) for _ in range(3)]
    for row in rows:
        row += w
    assert [row.tolist() for row in rows] == [[3, 4]] * 3


SHARING = {
    "a view": lambda a: a[0:1],
    "an element": lambda a: a[0],
    "reshape": lambda a: a.reshape(2, 1),
    "T": lambda a: a.T,
    "detach": lambda a: a.detach(),
    "data": lambda a: a.data,
    "the same array": lambda a: mg.from_numpy(a.array),
    "a part of the same array": lambda a: mg.from_numpy(a.array[1:]),
    "copy.copy": copy.copy,
    "an operation that returns its input": mg.operation(lambda x: (x, lambda G: G)),
    "an operation that returns its second input": lambda a: mg.operation(
        lambda x, y: (y, lambda G: G, lambda G: G)
    )(mg.zeros(2), a),
    "an operation that returns its third input": lambda a: mg.operation(
        lambda x, y, z, u: (z, *[lambda G: G] * 4)
    )(mg.zeros(2), mg.zeros(2), a, mg.zeros(2)),
    "an operation that returns a view": mg.operation(lambda x: (x[::-1], lambda G: G[::-1])),
}


@pytest.mark.parametrize("share", SHARING.values(), ids=SHARING)
@pytest.mark.parametrize("from_result", [False, True])
def test_a_tensor_whose_memory_another_one_uses_cannot_record_in_place(share, from_result):
    w, a = leaf(3.0, 4.0), mg.zeros(2)
    if from_result:
        a = w * 1
        if share is copy.copy:
            return
    other = share(a)
    before = a.detach().numpy().copy()
    for changed in (a, other):
        with pytest.raises(RuntimeError, match=r"a = a \+ b instead of a \+= b"):
            changed += w[: changed.numel()].reshape(changed.shape)
    np.testing.assert_array_equal(a.detach().numpy(), before)
    del other, changed
    a += w  # no other Tensor shares the memory any more
    np.testing.assert_array_equal(a.detach().numpy(), before + [3, 4])
    later = a[0:1]
    later.sum().backward()
    assert w.grad.tolist() == [2 if from_result else 1, 0]


def test_what_was_computed_before_keeps_the_old_graph():
    w, c = leaf(3.0, 4.0), mg.tensor([1.0, 2.0], requires_grad=True)
    c = c * 1
    d = c * 1
    c += w
    d.sum().backward()
    assert w.grad is None
    a = mg.tensor([1.0, 2.0])
    y = a * w
    a += w
    with pytest.raises(RuntimeError, match=r"mul needs the numbers of a Tensor of shape \(2,\)"):
        y.sum().backward()


@pytest.mark.parametrize("symbol", ["+", "-", "*", "/", "**"])
@pytest.mark.parametrize("other", ["w", "a", "2.0"])
def test_in_place_arithmetic_gives_the_gradient_of_plain_arithmetic(symbol, other):
    grads = []
    for code in (f"a {symbol}= {other}", f"a = a {symbol} {other}"):
        w, x = leaf(1.5, 2.0), leaf(0.5, 3.0)
        names = {"w": w, "a": x * 1}
        exec(code, names)
        names["a"].sum().backward()
        grads.append([None if v.grad is None else v.grad.tolist() for v in (w, x)])
    assert grads[0] == grads[1]


def test_a_failed_change_leaves_everything_as_it_was():
    a = mg.zeros(2)
    a.array.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        a += leaf(1.0, 2.0)
    assert a.is_leaf and not a.requires_grad


# What a VJP keeps

SECRET = np.array([1.0, 2.0])


def times_the_secret(G):
    return G * SECRET


class Module:
    def __init__(self, x):
        self.w = mg.Tensor(x)

    def backward(self, G):
        return G * self.w.array


class Callable:
    def __init__(self, array):
        self.array_of_mine = array

    def __call__(self, G):
        return G * self.array_of_mine

    def method(self, G):
        return G * self.array_of_mine


def times(G, x, factor=1):
    return G * x * factor


def nested(x):
    def inner(G):
        return G * x

    return lambda G: inner(G)


VJPS = {
    "a closure": lambda x: lambda G: G * x,
    "a nested closure": nested,
    "a default": lambda x: lambda G, x=x: G * x,
    "a keyword default": lambda x: lambda G, *, x=x: G * x,
    "in a tuple": lambda x: (lambda pair: lambda G: G * pair[0])((x, 1)),
    "in a list of dicts": lambda x: (lambda parts: lambda G: G * parts[0]["x"])([{"x": x}]),
    "a partial": lambda x: functools.partial(times, x=x),
    "a view": lambda x: (lambda view: lambda G: G * view[::-1])(x[::-1]),
    "an object": Callable,
    "a method of an object": lambda x: Callable(x).method,
    "a decorated function": lambda x: np.errstate(divide="ignore")(lambda G: G * x),
    "a method of the array": lambda x: x.__mul__,
    "a global name": lambda x: lambda G: G * SECRET,
    "a global name in a comprehension": lambda x: lambda G: sum([G * SECRET for _ in range(1)]),
    "a global function": lambda x: lambda G: times_the_secret(G),
    "an attribute": lambda x: Module(x).backward,
}


@pytest.mark.parametrize("vjp", VJPS.values(), ids=VJPS)
def test_an_array_is_found_wherever_a_vjp_keeps_it(vjp):
    global SECRET
    w = leaf(1.0, 2.0)
    SECRET = w.array
    loss = mg.operation(lambda x: (x * x / 2, vjp(x)))(w).sum()
    loss.backward()
    assert w.grad.tolist() == [1, 2]
    loss = mg.operation(lambda x: (x * x / 2, vjp(x)))(w).sum()
    under_no_grad(w)
    with pytest.raises(RuntimeError, match=r"needs the numbers of a Tensor of shape \(2,\)"):
        loss.backward()


def test_an_array_that_is_not_an_input_is_found_in_an_object():
    holder = Module(np.array([1.0, 1.0], "f4"))

    def scaled(x):
        return x * holder.w.array, lambda G: holder.backward(G)

    loss = mg.operation(scaled)(leaf(1.0, 2.0)).sum()
    holder.w.zero_()
    with pytest.raises(RuntimeError, match=r"needs the numbers of a Tensor of shape \(2,\)"):
        loss.backward()


def test_a_vjp_that_cannot_be_looked_through_after_a_change_in_place():
    class Opaque:
        __slots__ = ("kept",)

        def __init__(self, kept):
            self.kept = kept

        def __call__(self, G):
            return G * 2 * self.kept

    w = leaf(1.0, 2.0)
    y = w * 3
    y += 0
    z = mg.operation(lambda x: (x * x, Opaque(x)))(y)
    with mg.no_grad():
        y.zero_()
    with pytest.raises(RuntimeError, match="needs the numbers"):
        z.sum().backward()


def test_what_is_forgotten_takes_no_memory():
    gc.collect()  # or what earlier tests left in cycles might go in between
    before = len(changes._blocks)
    many = [mg.zeros(3) for _ in range(100)]
    for x in many:
        x += 1
    views = [x[0] for x in many]
    assert len(changes._blocks) >= before + 100
    del many, x, views
    assert len(changes._blocks) <= before + 1


# Every operation: see also `check_changes`


KEEPS_NOTHING = [
    "add", "add, to itself", "add, number", "sub", "sub, number", "neg", "clone", "reshape",
    "transpose", "T", "getitem", "sum", "mean", "max", "max, dim", "log_softmax", "nll_loss",
    "nll_loss, weight", "squeeze", "unsqueeze", "flatten", "permute", "cat", "stack", "where",
    "where, number", "cumsum", "min", "min, dim", "clamp", "maximum", "minimum",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # means over nothing
@pytest.mark.parametrize("name", KEEPS_NOTHING)
def test_operations_that_need_no_numbers_raise_no_alarm(name):
    operation = OPERATIONS[name]

    @given(calls(operation, "float64", operation.smooth, operation.unique))
    def check(call):
        function, inputs = call
        ours = [mg.Tensor(a.copy(), requires_grad=True) for a in inputs]
        out = function(F, *ours)
        for x in (*ours, out):
            testing.overwrite(x)
        out.backward(np.ones(out.shape))

    check()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", OPERATIONS)
def test_changed_numbers_never_give_another_gradient(name):
    operation = OPERATIONS[name]

    @given(calls(operation, "float64", operation.smooth, operation.unique))
    def check(call):
        function, inputs = call
        ours = [mg.Tensor(a, requires_grad=True) for a in inputs]
        testing.check_changes(functools.partial(function, F), *ours)

    check()
