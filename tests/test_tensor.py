"""The engine: the sweep, accumulation, the life of a graph, and what a Tensor can do."""

import copy
import gc
import io
import itertools
import pickle
import weakref

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import minigrad as mg
from minigrad import engine, functional as F


def leaf(*values, dtype=None):
    return mg.tensor(list(values), dtype=dtype, requires_grad=True)


# The sweep


def test_gradients_add_up_until_zeroed():
    x = mg.tensor(3.0, requires_grad=True)
    y = x * x
    y.backward()
    assert x.grad.item() == 6
    y.backward()
    assert x.grad.item() == 12
    kept = x.grad
    x.grad.zero_()
    (2 * x).backward()
    assert x.grad is kept and x.grad.item() == 2


def test_a_value_used_many_times():
    x = leaf(1.0, 2.0)
    a = x * 3  # a diamond, and a long and a short way to the same node
    b = a + a
    c = b * a
    (c + a + c).sum().backward()
    a_value = np.array([3.0, 6.0])
    np.testing.assert_allclose(x.grad.numpy(), 3 * (2 * 4 * a_value + 1))


def test_nodes_have_their_turn_after_all_their_consumers():
    order = []

    def watched(name):
        @mg.operation
        def add_up(*xs):
            def to_each(G):
                order.append(name)
                return G

            return sum(xs), *[to_each for _ in xs]

        return add_up

    x = mg.tensor(1.0, requires_grad=True)
    a = watched("a")(x)
    b = watched("b")(a)
    late = watched("late")(a)
    watched("end")(late, b, a).backward()
    turns = [name for name, _ in itertools.groupby(order)]
    assert turns in (["end", "late", "b", "a"], ["end", "b", "late", "a"])
    assert x.grad.item() == 3


def test_a_watch_sees_every_turn():
    x, y = leaf(2.0), leaf(3.0)
    turns = []
    out = x * y + x
    leaves = engine.sweep(out.node, np.ones(1, "f4"), lambda *turn: turns.append(turn))
    assert [node.name for node, _, _ in turns] == ["add", "mul", "", ""]
    assert [[None if c is None else c.item() for c in sent] for _, _, sent in turns] == [
        [1, 1], [3, 2], [], [],
    ]  # fmt: skip
    assert {leaf.tensor(): G.item() for leaf, G in leaves.items()} == {x: 4, y: 2}
    assert x.grad is None


def test_a_vjp_that_nobody_needs_is_never_called():
    @mg.operation
    def first(x, y):
        return x + y, lambda G: G, lambda G: pytest.fail("nobody needs it")

    x, constant = leaf(1.0), mg.ones(1)
    first(x, constant).backward()
    first(x, 5.0).backward()
    assert x.grad.item() == 2 and first(x, constant).node.vjps[1] is None


def test_a_graph_outlives_its_tensors():
    def make(x):
        hidden = leaf(5.0)  # nothing else refers to it when backward() is called
        return x * hidden

    x = leaf(3.0)
    make(x).backward()
    assert x.grad.item() == 5


def test_a_graph_keeps_what_was_recorded():
    x = leaf(2.0)
    y = x * x
    x.requires_grad = False
    y.backward()
    assert x.grad.item() == 4
    z = x * 3  # recorded without a gradient
    x.requires_grad = True
    assert not z.requires_grad
    w = x * x
    x.data = mg.tensor([10.0])
    (w + x * x).backward()  # of the numbers that were used: 2 · 2 and 2 · 10
    assert x.grad.item() == 4 + 4 + 20
    x.data = mg.ones(3)
    (x * x).sum().backward()  # while the graph of w, in which x has another shape, is alive
    assert x.grad.tolist() == [2, 2, 2]


WAYS_TO_SHARE = {
    "the array that was given": lambda a, b: a + b,
    "a view of it": lambda a, b: (a.view(1, 2) + b.view(1, 2)).view(2),
    "first for a leaf": lambda a, b: a + b.clone(),
    "last for a leaf": lambda a, b: b.clone() + a,
    "part of a larger one": lambda a, b: (a.view(1, 2) * 1).view(2) + (b.view(2, 1) * 1).view(2),
    "nothing but a leaf": lambda a, b: a,
}


@pytest.mark.parametrize("way", WAYS_TO_SHARE)
def test_leaves_own_their_gradients(way):
    a, b, given = leaf(1.0, 2.0), leaf(3.0, 4.0), np.array([1.0, 1.0], dtype="f4")
    WAYS_TO_SHARE[way](a, b).backward(given)
    grads = [leaf.grad.array for leaf in (a, b) if leaf.grad is not None]
    for one, other in itertools.combinations([given, *grads], 2):
        np.testing.assert_array_equal(one, other)
        assert not np.shares_memory(one, other)


def test_a_shared_gradient_is_not_written_to():
    x = leaf(1.0, 2.0)
    y = x.view(2)  # passes on a view of the gradient it was given ...
    (y + y.clone() + x).sum().backward()  # ... and three contributions meet at x
    np.testing.assert_array_equal(x.grad.numpy(), [3, 3])


def test_only_what_requires_grad_gets_a_gradient():
    x, frozen = leaf(1.0, 2.0), mg.ones(2)
    y = x * frozen
    y.sum().backward()
    assert x.grad is not None and frozen.grad is None
    with pytest.warns(UserWarning, match=r"grad of a result of mul: .* call retain_grad\(\)"):
        assert y.grad is None
    assert (frozen * 2).requires_grad is False and (frozen * 2).is_leaf


def test_a_result_that_retains_its_gradient():
    grads = []
    for lib in (mg, torch):
        x = lib.tensor([1.0, 2.0], requires_grad=True)
        y = x + 1  # passes on what it is given
        z = y * 3
        loss = z.sum()
        for tensor in (x, y, z, loss):
            tensor.retain_grad()
        loss.backward(retain_graph=True) if lib is torch else loss.backward()
        y.grad.zero_()  # each has an array of its own
        z.grad[0] = 7
        (y * y).sum().backward()
        grads.append([tensor.grad.tolist() for tensor in (x, y, z, loss)])
    assert grads[0] == grads[1]


def test_a_root_that_retains_its_gradient_does_not_keep_the_argument():
    y, gradient = leaf(1.0, 2.0) * 2, mg.tensor([3.0, 4.0])
    y.retain_grad()
    y.backward(gradient)
    y.grad.zero_()
    assert gradient.tolist() == [3, 4]


def test_a_read_only_gradient_is_added_to_all_the_same():
    x = leaf(1.0, 2.0)
    x.grad = mg.from_numpy(np.broadcast_to(np.float32(5), (2,)))
    (x * 2).sum().backward()
    assert x.grad.tolist() == [7, 7]


@pytest.mark.parametrize("function", [mg.sum, mg.mean, F.log_softmax])
def test_an_array_of_another_shape_before_backward_is_an_error(function):
    x = mg.ones(2, 3, requires_grad=True)
    out = function(x).sum()
    x.data = mg.ones(3, 2)
    with pytest.raises(RuntimeError, match=r"had shape \(2, 3\) when .* now has shape \(3, 2\)"):
        out.backward()
    assert x.grad is None


def test_gradient_argument():
    x = leaf(1.0, 2.0)
    (x * 2).backward(mg.tensor([1.0, 10.0]))
    np.testing.assert_array_equal(x.grad.numpy(), [2, 20])
    assert x.grad.dtype == np.float32


@pytest.mark.parametrize("length", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_deep_chain(length):
    x = mg.tensor(1.0, requires_grad=True)
    y = x
    for _ in range(length):
        y = y + 1
    y.backward()
    assert x.grad.item() == 1
    del y


def test_graph_is_freed_by_reference_counting():
    x = mg.randn(3, 3, requires_grad=True)

    def step():
        h = x @ x
        h = (h.exp().log() + h.T).tanh() / h.relu().sum() - x**2
        h = h[[0, 1, 1]].transpose(0, 1).reshape(-1).log_softmax(0).max(0, keepdim=True).values
        loss = h.mean()
        loss.backward()
        return weakref.ref(h)

    step()  # compiles
    gc.collect()
    gc.disable()
    try:
        assert step()() is None
        assert gc.collect() == 0
    finally:
        gc.enable()


# Changes in place


def test_in_place_on_a_leaf():
    x = leaf(1.0, 2.0)
    array = x.array
    with pytest.raises(RuntimeError, match="in place"):
        x += 1
    with pytest.raises(RuntimeError, match="in place"):
        x[0] = 1
    with pytest.raises(RuntimeError, match="in place"):
        x.zero_()
    np.testing.assert_array_equal(array, [1, 2])
    x.data += 1
    with mg.no_grad():
        x *= 2
        x -= np.array([1.0, 1.0])
        x /= 3
        x[1] = 7
    assert x.array is array and x.requires_grad and x.is_leaf
    np.testing.assert_array_equal(array, [1, 7])


def test_in_place_on_a_result_is_recorded():
    x = leaf(1.0, 2.0)
    total = mg.zeros(2)
    for _ in range(3):
        total += x * x
    total *= 2
    total **= mg.tensor(2.0, dtype=mg.float64)
    assert total.dtype == np.float32
    total.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [6 * 24, 24 * 48])


def test_in_place_errors_change_nothing():
    x, w = mg.tensor([1, 2]), leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="in-place div"):
        x /= 2
    with pytest.raises(RuntimeError, match=r"in-place add: .* cannot hold int64 of shape \(3, 2\)"):
        x += np.ones((3, 2), dtype=int)
    with pytest.raises(
        RuntimeError, match=r"in-place add: int64 of shape \(2,\) cannot hold float32"
    ):
        x += w
    with pytest.raises(RuntimeError, match=r"in-place add: .*\(1,\) cannot hold float32 .*\(2,\)"):
        x = mg.zeros(1)
        x += w
    assert mg.tensor([1, 2]).tolist() == [1, 2] and x.tolist() == [0]


def test_a_number_takes_the_dtype_of_the_tensor_it_changes():
    x, small = mg.ones(2, dtype=mg.float64), mg.tensor(np.array([10], "u1"))
    x *= 0.1
    x[1] = 1e300
    small += 1
    assert x.tolist() == [0.1, 1e300] and small.tolist() == [11] and small.dtype == np.uint8


def test_item_assignment():
    x = mg.zeros(2, 3)
    x[0] = 1
    x[:, 1] = mg.tensor([5.0, 6.0])
    x[mg.tensor([1]), [2]] = 9
    x[0] += 1
    assert x.tolist() == [[2, 6, 2], [0, 6, 9]]


@pytest.mark.parametrize("index", [0, (slice(None), 1), (0, [1, 2]), ([0, 1], 0), ..., (0, 1)])
@pytest.mark.parametrize("value", ["w", "w.sum()", "5.0", "v", "w[:1] * v.sum()"])
def test_an_assignment_is_recorded_as_in_pytorch(index, value):
    results = []
    for lib in (mg, torch):
        x = lib.ones(2, 3, requires_grad=True)
        y = x * 2
        try:
            w = lib.tensor([3.0, 4.0, 5.0], requires_grad=True)
            w = w[: x[index].shape[-1]] if x[index].ndim else w[0]
            w = w.detach().requires_grad_()
            y[index] = eval(value, {"w": w, "v": w.detach()})
        except (IndexError, RuntimeError, ValueError):
            results.append(None)
            continue
        (y * y).sum().backward()
        results.append([y.tolist(), x.grad.tolist(), None if w.grad is None else w.grad.tolist()])
    assert results[0] == results[1]


def test_an_assignment_to_a_buffer_records():
    for lib in (mg, torch):
        w, buffer = lib.tensor([3.0, 4.0], requires_grad=True), lib.zeros(2, 2)
        alias = buffer
        buffer[0] = w * 3
        buffer[1] = buffer[0] * 2 if lib is torch else (buffer[0] * 2).clone()
        buffer[1, 0] = 7
        assert alias.requires_grad and alias.tolist() == [[9, 12], [7, 24]]
        alias.sum().backward()
        assert w.grad.tolist() == [3, 9]


@pytest.mark.parametrize("change", ["y *= 3", "y[:] = y * 3", "y += y; y += w"])
@pytest.mark.parametrize("again", [False, True])
def test_a_retained_gradient_is_that_of_the_new_numbers(change, again):
    grads = []
    for lib in (mg, torch):
        w = lib.ones(2, requires_grad=True)
        names = {"w": w, "y": w * 2}
        y = names["y"]
        y.retain_grad()
        z = y * 1
        exec(change, names)
        if again:
            y.retain_grad()
        (y * 2 + z).sum().backward()
        grads.append([y.grad.tolist(), w.grad.tolist()])
    assert grads[0] == grads[1]


@pytest.mark.parametrize("symbol", ["%", "//", "&", "|", "^", "+", "-", "*"])
def test_in_place_operators_change_the_same_memory(symbol):
    for lib in (mg, torch):
        x = lib.arange(6).reshape(2, 3)
        expected = x.tolist()
        row = x[1]
        exec(f"row {symbol}= 2", {}, names := {"row": row})
        assert names["row"] is row
        expected[1] = [eval(f"n {symbol} 2", {"n": n}) for n in expected[1]]
        assert x.tolist() == expected
    w = leaf(5.0, 6.0)
    with pytest.raises(RuntimeError, match="only under no_grad"):
        w %= 4
    with mg.no_grad():
        w %= 4
    assert w.tolist() == [1, 2] and w.requires_grad


def test_requires_grad_can_be_switched_on_leaves_only():
    x = leaf(1.0)
    x.requires_grad = False
    assert not (x * 2).requires_grad
    x.requires_grad = True
    assert (x * 2).requires_grad
    with pytest.raises(RuntimeError, match="leaves only"):
        (x * 2).requires_grad = False
    with pytest.raises(RuntimeError, match="int64"):
        mg.tensor([1, 2], requires_grad=True)
    with pytest.raises(RuntimeError, match="cannot hold int64 data"):
        x.data = mg.tensor([1])
    assert x.tolist() == [1.0]


@pytest.mark.parametrize("grad", [np.ones(1, "f4"), mg.ones(2), mg.ones(1).double(), "hello"])
def test_grad_must_fit(grad):
    x = leaf(1.0)
    with pytest.raises(RuntimeError, match=r"grad must be None or float32 \(1,\)"):
        x.grad = grad
    x.grad = mg.ones(1)
    (2 * x).backward()
    assert x.grad.item() == 3
    x.data = mg.ones(2)
    assert x.grad is None  # it would no longer fit
    x.grad = mg.ones(2)
    x.grad = None
    assert x.grad is None


# Making Tensors


@pytest.mark.parametrize(
    "data",
    [1, 1.5, True, [1, 2], [1.0, 2], [], [[True]], np.float64(2), np.ones(2), np.ones(2, "u1")],
    ids=repr,
)
def test_tensor_has_the_dtype_of_pytorch(data):
    ours, theirs = mg.tensor(data), torch.tensor(data)
    assert str(ours.dtype) == str(theirs.dtype).removeprefix("torch.")
    assert ours.tolist() == theirs.tolist() and ours.shape == tuple(theirs.shape)


def test_tensor_copies_and_from_numpy_shares():
    array = np.ones(2)
    assert not np.shares_memory(mg.tensor(array).numpy(), array)
    assert mg.from_numpy(array).numpy() is array
    with pytest.raises(TypeError, match="list"):
        mg.from_numpy([1, 2])


def test_constructors():
    x = mg.zeros(2, 3, dtype=mg.float64, requires_grad=True)
    assert x.shape == (2, 3) and x.dtype == np.float64 and x.requires_grad
    assert mg.ones((2, 3)).tolist() == [[1.0] * 3] * 2
    assert mg.zeros(()).shape == ()
    for make in (mg.zeros_like, mg.ones_like, mg.randn_like):
        assert make(x).shape == x.shape and make(x).dtype == x.dtype
        assert not make(x).requires_grad


def test_manual_seed_repeats_the_draws():
    mg.manual_seed(3)
    first = mg.randn(2, 3)
    mg.manual_seed(3)
    assert (mg.randn((2, 3)) == first).numpy().all()
    assert not (mg.randn(2, 3) == first).numpy().any()
    assert (
        abs(mg.randn(10_000).numpy().mean()) < 0.05
        and abs(mg.randn(10_000).numpy().std() - 1) < 0.05
    )


# dtypes of results


OPERANDS = {
    "int number": lambda lib: 2,
    "float number": lambda lib: 2.5,
    "bool": lambda lib: lib.tensor([True]),
    "int": lambda lib: lib.tensor([2]),
    "uint8": lambda lib: lib.tensor(np.array([2], "u1")),
    "int 0-d": lambda lib: lib.tensor(2),
    "float": lambda lib: lib.tensor([2.5]),
    "float 0-d": lambda lib: lib.tensor(2.5),
    "double": lambda lib: lib.tensor(np.array([2.5])),
    "double 0-d": lambda lib: lib.tensor(np.array(2.5)),
}


@pytest.mark.parametrize("a", OPERANDS)
@pytest.mark.parametrize("b", OPERANDS)
def test_promotion_as_in_pytorch(a, b):
    if "number" in a and "number" in b:
        return
    for operation in ("__mul__", "__truediv__", "__lt__", "__sub__", "__rsub__"):
        if "sub" in operation and "bool" in (a, b):
            continue  # PyTorch refuses to subtract booleans
        results = []
        for lib in (mg, torch):
            x, y = OPERANDS[a](lib), OPERANDS[b](lib)
            if "number" in a:
                x, y = y, x
            results.append(getattr(x, operation)(y))
        ours, theirs = results
        assert str(ours.dtype) == str(theirs.dtype).removeprefix("torch.")
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6)


def test_numpy_scalars_and_python_numbers_widen_nothing():
    x = leaf(1.0)
    for number in (0.1, np.float64(0.1), np.float32(0.1)):
        assert (x * number).dtype == np.float32
    exact = mg.ones(1, dtype=mg.float64) * 0.1
    assert exact.item() == 0.1


def test_reductions_of_integers():
    x = mg.tensor(np.array([200, 100], dtype="u1"))
    assert x.sum().item() == 300 and x.sum().dtype == np.int64
    assert (x > 150).sum().item() == 1 and (x > 150).float().mean().item() == 0.5
    assert x.max().item() == 200 and x.argmax().item() == 0
    assert (mg.tensor([1.0]) - x[:1]).item() == -199 and (255 - x).tolist() == [55, 155]
    with pytest.raises(RuntimeError, match=r"mean\(\) needs floating-point numbers, got uint8"):
        x.mean()


def test_a_divisor_is_not_cast_to_an_integer_dtype():
    pixels = np.array([100, 200], "u1")
    for divisor in (256, 1000, -1, 2**40, mg.tensor(300), mg.tensor(2.5)):
        ours, theirs = (
            mg.tensor(pixels) / divisor,
            torch.tensor(pixels) / torch.tensor(float(divisor)),
        )
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6)
        assert ours.dtype == np.float32


def test_a_mean_of_half_precision_does_not_overflow():
    x = mg.tensor(np.full(100, 60000, "f2"))
    assert x.mean().item() == 60000 and x.mean().dtype == np.float16


# NumPy, Python and matplotlib


def test_numpy_interplay():
    x, array = mg.tensor([1.0, 2.0], dtype=mg.float64), np.array([3.0, 4.0])
    for out in (x * array, array * x, array + x - array, array / x, array @ x, array > x):
        assert isinstance(out, mg.Tensor)
    assert (array - x).tolist() == [2, 2] and (array**x).tolist() == [3, 16]
    assert np.asarray(x) is not x and np.asarray(x).tolist() == [1, 2]
    assert np.shares_memory(np.asarray(x), x.numpy())
    assert np.asarray(x, dtype="f4").dtype == np.float32


def test_numpy_refuses_to_lose_a_gradient():
    x = leaf(1.0)
    for use in (lambda: x.numpy(), lambda: np.asarray(x), lambda: np.exp(x)):
        with pytest.raises(RuntimeError, match=r"detach\(\).numpy\(\)"):
            use()
    assert np.shares_memory(x.detach().numpy(), x.array)


def test_matplotlib_takes_a_tensor():
    axes = Figure().subplots()
    (line,) = axes.plot(mg.tensor([0.0, 1.0]), mg.tensor([2.0, 3.0]))
    axes.imshow(mg.zeros(3, 3))
    assert line.get_xydata().tolist() == [[0, 2], [1, 3]]


def test_python_protocols():
    x = mg.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert len(x) == 2 and [row.tolist() for row in x] == [[1, 2], [3, 4]]
    assert x.size() == (2, 2) and x.size(0) == 2 and x.numel() == 4 and x.ndim == 2
    one = mg.tensor(2.5)
    assert float(one) == 2.5 and int(one) == 2 and bool(one) and f"{one:.2f}" == "2.50"
    assert (one == None) is False and (x != x).sum().item() == 0
    assert {one: 1}[one] == 1
    for use in (lambda: len(one), lambda: list(one)):
        with pytest.raises(TypeError, match="0-d"):
            use()
    with pytest.raises(RuntimeError, match="neither true nor false"):
        bool(x)


def test_deepcopy_and_pickle():
    x = leaf(1.0, 2.0)
    (x * 2).sum().backward()
    for twin in (copy.deepcopy(x), pickle.load(io.BytesIO(pickle.dumps(x)))):
        assert twin.tolist() == [1, 2] and twin.grad.tolist() == [2, 2] and twin.requires_grad
        assert not np.shares_memory(twin.array, x.array)
        assert not np.shares_memory(twin.grad.array, x.grad.array)
    with pytest.raises(RuntimeError, match="only leaves"):
        copy.deepcopy(x * 2)
    pair = copy.deepcopy([x, x])
    assert pair[0] is pair[1]


def test_a_shallow_copy_has_the_numbers_and_not_the_gradient():
    for lib in (mg, torch):
        x = lib.tensor([1.0, 2.0], requires_grad=True)
        (x * x).sum().backward()
        shallow, deep = copy.copy(x), copy.deepcopy(x)
        assert shallow.grad is None and shallow.requires_grad and shallow.is_leaf
        shallow.detach()[0] = 5
        assert x.tolist() == [5, 2] and deep.tolist() == [1, 2]
        (deep * 3).sum().backward()
        (shallow * 3).sum().backward()
        assert deep.grad.tolist() == [5, 7] and x.grad.tolist() == [2, 4]
        parameter = copy.copy(lib.nn.Parameter(x.detach(), requires_grad=False))
        assert type(parameter) is lib.nn.Parameter and not parameter.requires_grad


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_a_copy_is_another_node_of_the_graph(copied):
    x = leaf(1.0, 2.0)
    twin = copied(x)
    (x * twin * twin).sum().backward()
    assert x.grad.tolist() == [1, 4] and twin.grad.tolist() == [2, 8]


@pytest.mark.parametrize(
    "data",
    [0.5, [1.0, 2.5], [1.0, 2.0], [[1, 2], [3, 4]], [True, False], [float("nan"), 1.0], [], np.ones(2),
     np.arange(2000).reshape(20, 100), [1e-5, 1.0], [123456.0, 0.5]],
    ids=str,
)  # fmt: skip
def test_repr_is_that_of_pytorch(data):
    def spaceless(text):  # NumPy pads NaNs, bools and ellipses a little differently
        return "".join(text.split()).replace("torch.", "")

    assert spaceless(repr(mg.tensor(data))) == spaceless(repr(torch.tensor(data)))


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("shape", [(3,), (9,), (100,), (2, 9), (10, 784), (5, 5, 5), (2000,)])
def test_repr_breaks_lines_where_pytorch_does(shape, requires_grad):
    for scale in (1, 10, 1000):
        data = (scale * np.random.default_rng(0).normal(size=shape)).astype("f4")
        expected = repr(torch.tensor(data, requires_grad=requires_grad))
        assert repr(mg.tensor(data, requires_grad=requires_grad)) == expected


def test_repr_tells_how_a_tensor_was_made():
    x = leaf(1.5)
    assert repr(x) == "tensor([1.5000], requires_grad=True)"
    assert repr(x * 2) == "tensor([3.], grad_fn=<mul>)"
    assert str(x.detach()) == f"{x.detach()}" == "tensor([1.5000])"
