"""Every operation, declared once: against PyTorch, against finite differences, and damaged.

A function in the table is called with minigrad Tensors and with PyTorch ones, together with
`functional` or `torch.nn.functional`: the two libraries share their names.

Hypothesis draws the inputs: a strategy describes values, `st.data()` lets a test draw as it runs,
and `given(strategy)(check)()` runs `check` on many draws.
"""

import itertools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional
from hypothesis import Phase, find, given, settings, strategies as st
from hypothesis.extra import numpy as hnp

import minigrad as mg
from minigrad import engine, functional, more_ops, ops
from minigrad.testing import (
    DAMAGES,
    arrays,
    broadcasting_shapes,
    check_operation,
    damage,
    shapes,
    tensors,
)

pytestmark = pytest.mark.filterwarnings("ignore:nll_loss")  # the numbers are not probabilities

# The declarations


def between(low, high):
    return st.floats(low, high, width=32)


ANY, POSITIVE, NOT_ZERO = between(-3, 3), between(0.125, 3), between(0.125, 3) | between(-3, -0.125)
DISTINCT = st.integers(-100, 100).map(float)  # with unique=True: no ties
WILD = ANY | st.sampled_from(
    [0.0, -0.0, 1.0, -1.0, 1e4, -1e4, float(np.float32(1e-40)), np.inf, -np.inf, np.nan]
)
BETWEEN = st.integers(-12, 12).map(lambda i: i / 4 + 0.125)  # not at a bound
WITH_ZEROS = ANY | st.just(0.0)


@dataclass
class Operation:
    """A differentiable function, and the inputs to try it on."""

    function: Callable  # of F, the inputs and, by name, the settings
    shapes: st.SearchStrategy  # one shape for each input
    settings: Callable = lambda *shapes: {}  # from the shapes to strategies by name
    smooth: tuple = (ANY, ANY, ANY)  # for each input, numbers where it has a derivative
    wild: st.SearchStrategy = WILD  # numbers where it should still agree with PyTorch
    unique: bool = False  # whether finite differences fail at ties


def one(**limits):
    return shapes(**limits).map(lambda shape: (shape,))


def dim(shape):
    length = max(len(shape), 1)  # in PyTorch, a 0-d array has dim 0
    return st.integers(-length, length - 1)


def dims(shape):
    if not shape:
        return st.none() | dim(shape)
    several = st.sets(st.integers(0, len(shape) - 1), min_size=1).map(tuple)
    return st.none() | dim(shape) | several


def indices(shape):
    basic = hnp.basic_indices(shape, allow_newaxis=True).filter(
        lambda index: all(  # PyTorch has no negative steps
            part.step is None or part.step > 0
            for part in (index if isinstance(index, tuple) else (index,))
            if isinstance(part, slice)
        )
    )
    chosen = [basic]
    if shape:
        chosen.append(hnp.arrays(bool, shape))
    if shape and math.prod(shape):
        chosen.append(hnp.integer_array_indices(shape))
        chosen.append(hnp.arrays(np.int64, shapes(), elements=dim(shape[:1]).map(int)))
    return st.one_of(chosen)


def views(shape):
    size = math.prod(shape)
    return st.sampled_from([(-1,), (size,), shape[::-1], (1, *shape), (*shape, 1)])


def products():
    drawn = hnp.mutually_broadcastable_shapes(signature=np.matmul.signature, max_dims=2, max_side=3)
    return drawn.map(lambda result: result.input_shapes)


@st.composite
def linear_shapes(draw, bias):
    *lead, features, units = draw(shapes(min_dims=2, max_dims=4))
    return ((*lead, features), (units, features), (units,))[: 2 + bias]


def targets(shape):
    rows, classes = shape
    return {
        "targets": hnp.arrays(np.int64, rows, elements=st.integers(0, classes - 1)),
        "reduction": st.sampled_from(["mean", "sum", "none"]),
    }


def reduced():
    return {"reduction": st.sampled_from(["mean", "sum", "none"])}


def marked_targets(shape, weight):
    rows, classes = shape  # -1 is replaced by the index to ignore
    right = hnp.arrays(np.int64, rows, elements=st.integers(-1, classes - 1))
    settings = {
        "targets": right.filter(lambda targets: (targets > 0).any()),  # a mean exists
        "weight": hnp.arrays(np.float64, classes, elements=between(0.125, 3)),
        "ignore_index": st.sampled_from([-100, 0, 7]),
    }
    settings["weight"] |= st.nothing() if weight else st.none()
    return settings | reduced()


def loss_of_classes(F, loss, a, targets, weight, ignore_index, reduction):
    targets = array(F, np.where(targets == -1, ignore_index, targets))
    weight = None if weight is None else array(F, weight).to(a.dtype)
    return loss(a, targets, weight=weight, ignore_index=ignore_index, reduction=reduction)


def bounds(shape):
    low, high = st.sampled_from([-1, 0.0, 1, None]), st.sampled_from([0, 1.0, 2])
    return {
        "limits": st.tuples(low, high) | st.tuples(low.filter(lambda x: x is not None), st.none())
    }


def conditions(x, y):
    chosen = st.sampled_from([x, y, np.broadcast_shapes(x, y)])
    return {"condition": chosen.flatmap(lambda shape: hnp.arrays(bool, shape))}


def spread(shape):
    return {"dim": dims(shape), "keepdim": KEEPDIM, "correction": st.sampled_from([0, 1, 0.5])}


def orders(shape):
    order = st.permutations(range(len(shape)))
    return order.map(tuple) | order.map(lambda order: tuple(d - len(shape) for d in order))


def ends(shape):
    pairs = st.tuples(dim(shape), dim(shape))
    return pairs.filter(lambda pair: pair[0] % max(len(shape), 1) <= pair[1] % max(len(shape), 1))


@st.composite
def joinable_shapes(draw):
    """Shapes that differ in one dimension only, or are (0,), which PyTorch's cat skips."""
    before, after = draw(shapes(max_dims=1)), draw(shapes(max_dims=1))
    lengths = draw(st.lists(st.none() | st.integers(0, 3), min_size=3, max_size=3))
    return tuple((0,) if n is None else (*before, n, *after) for n in lengths)


def joints(*shapes):
    joined = [shape for shape in shapes if shape != (0,)] or [(0,)]
    ndim = len(joined[0])
    possible = [d for d in range(ndim) if len({s[:d] + s[d + 1 :] for s in joined}) == 1]
    return {"dim": st.sampled_from(possible + [d - ndim for d in possible])}


def assigned(F, a, b, index):
    out = a * 1
    out[index] = b
    return out


TWO, KEEPDIM = broadcasting_shapes(2), st.booleans()

OPERATIONS = {
    "add": Operation(lambda F, a, b: a + b, TWO),
    "add, to itself": Operation(lambda F, a: a + a, one()),
    "add, number": Operation(lambda F, a: 2 + a + 1.5, one()),
    "sub": Operation(lambda F, a, b: a - b, TWO),
    "sub, number": Operation(lambda F, a: 2 - (a - 1), one()),
    "mul": Operation(lambda F, a, b: a * b, TWO),
    "mul, by itself": Operation(lambda F, a: a * a, one()),
    "div": Operation(lambda F, a, b: a / b, TWO, smooth=(ANY, NOT_ZERO)),
    "div, number": Operation(lambda F, a: 2 / a, one(), smooth=(NOT_ZERO,)),
    "pow": Operation(  # NumPy says (-inf) ** 0.5 is NaN; C and PyTorch say inf
        lambda F, a, b: a**b,
        TWO,
        smooth=(POSITIVE, ANY),
        wild=WILD.filter(lambda value: value != -np.inf),
    ),
    "pow, number": Operation(lambda F, a: a**3, one()),
    "pow, of a number": Operation(lambda F, a: 2**a, one()),
    "neg": Operation(lambda F, a: -a, one()),
    "matmul": Operation(lambda F, a, b: a @ b, products()),
    "exp": Operation(lambda F, a: a.exp(), one()),
    "log": Operation(lambda F, a: a.log(), one(), smooth=(POSITIVE,)),
    "tanh": Operation(lambda F, a: a.tanh(), one()),
    "remainder": Operation(
        lambda F, a, b: a % b, TWO, smooth=(BETWEEN, st.sampled_from([1.0, 2.0, -2.0]))
    ),
    "abs": Operation(lambda F, a: a.abs(), one(), smooth=(NOT_ZERO,)),
    "sqrt": Operation(lambda F, a: a.sqrt(), one(), smooth=(POSITIVE,)),
    "sin": Operation(lambda F, a: a.sin(), one()),
    "cos": Operation(lambda F, a: a.cos(), one()),
    "sigmoid": Operation(lambda F, a: a.sigmoid(), one()),
    "clamp": Operation(lambda F, a, limits: a.clamp(*limits), one(), bounds, smooth=(BETWEEN,)),
    "maximum": Operation(lambda F, a, b: a.maximum(b), TWO, smooth=(DISTINCT, DISTINCT)),
    "minimum": Operation(lambda F, a, b: a.minimum(b), TWO, smooth=(DISTINCT, DISTINCT)),
    "where": Operation(
        lambda F, a, b, condition: library(F).where(array(F, condition), a, b), TWO, conditions
    ),
    "where, number": Operation(
        lambda F, a: library(F).where(a > 0, a, 2.5), one(), smooth=(NOT_ZERO,)
    ),
    "double": Operation(lambda F, a: a.double() * 2, one()),
    "clone": Operation(lambda F, a: a.clone(), one()),
    "reshape": Operation(
        lambda F, a, shape: a.reshape(shape), one(), lambda a: {"shape": views(a)}
    ),
    "transpose": Operation(
        lambda F, a, dim0, dim1: a.transpose(dim0, dim1),
        one(min_dims=1),
        lambda a: {"dim0": dim(a), "dim1": dim(a)},
    ),
    "T": Operation(lambda F, a: a.T, one(min_dims=2, max_dims=2)),
    "squeeze": Operation(
        lambda F, a, dim: a.squeeze() if dim is None else a.squeeze(dim),
        one(),
        lambda a: {"dim": dims(a)},
    ),
    "unsqueeze": Operation(
        lambda F, a, dim: a.unsqueeze(dim), one(), lambda a: {"dim": dim((1, *a))}
    ),
    "flatten": Operation(lambda F, a, ends: a.flatten(*ends), one(), lambda a: {"ends": ends(a)}),
    "permute": Operation(
        lambda F, a, order: a.permute(*order), one(min_dims=1), lambda a: {"order": orders(a)}
    ),
    "cat": Operation(
        lambda F, a, b, c, dim: library(F).cat([a, b, c], dim), joinable_shapes(), joints
    ),
    "stack": Operation(
        lambda F, a, b, c, dim: library(F).stack((a, b, c), dim=dim),
        shapes(max_dims=2).map(lambda shape: (shape,) * 3),
        lambda a, b, c: {"dim": dim((1, *a))},
    ),
    "setitem": Operation(
        assigned,
        one(min_dims=1, min_side=1).map(lambda shapes: (shapes[0], shapes[0][1:])),
        lambda a, b: {"index": st.sampled_from([0, -1, slice(None), [0], ...])},
    ),
    "getitem": Operation(lambda F, a, index: a[index], one(), lambda a: {"index": indices(a)}),
    "sum": Operation(
        lambda F, a, dim, keepdim: a.sum(dim, keepdim=keepdim),
        one(),
        lambda a: {"dim": dims(a), "keepdim": KEEPDIM},
    ),
    "mean": Operation(
        lambda F, a, dim, keepdim: a.mean(dim, keepdim=keepdim),
        one(),
        lambda a: {"dim": dims(a), "keepdim": KEEPDIM},
    ),
    "max": Operation(lambda F, a: a.max(), one(min_side=1), smooth=(DISTINCT,), unique=True),
    "max, dim": Operation(
        lambda F, a, dim, keepdim: a.max(dim, keepdim=keepdim).values,
        one(min_dims=1, min_side=1),
        lambda a: {"dim": dim(a), "keepdim": KEEPDIM},
        smooth=(DISTINCT,),
        unique=True,
    ),
    "min": Operation(lambda F, a: a.min(), one(min_side=1), smooth=(DISTINCT,), unique=True),
    "min, dim": Operation(
        lambda F, a, dim, keepdim: a.min(dim, keepdim=keepdim).values,
        one(min_side=1),
        lambda a: {"dim": dim(a), "keepdim": KEEPDIM},
        smooth=(DISTINCT,),
        unique=True,
    ),
    "var": Operation(
        lambda F, a, dim, keepdim, correction: a.var(dim, keepdim=keepdim, correction=correction),
        one(min_dims=1, min_side=2),
        spread,
    ),
    "std": Operation(
        lambda F, a, dim, keepdim, correction: a.std(dim, keepdim=keepdim, correction=correction),
        one(min_dims=1, min_side=2),
        spread,
        smooth=(DISTINCT,),
        unique=True,
    ),
    "prod": Operation(lambda F, a: a.prod(), one(), smooth=(WITH_ZEROS,), wild=WITH_ZEROS),
    "prod, dim": Operation(
        lambda F, a, dim, keepdim: a.prod(dim, keepdim=keepdim),
        one(),
        lambda a: {"dim": dim(a), "keepdim": KEEPDIM},
        smooth=(WITH_ZEROS,),
        wild=WITH_ZEROS,
    ),
    "cumsum": Operation(lambda F, a, dim: a.cumsum(dim), one(), lambda a: {"dim": dim(a)}),
    "linear": Operation(lambda F, x, w, b: F.linear(x, w, b), linear_shapes(bias=True)),
    "linear, no bias": Operation(lambda F, x, w: F.linear(x, w), linear_shapes(bias=False)),
    "relu": Operation(lambda F, a: F.relu(a), one(), smooth=(NOT_ZERO,)),
    "softmax": Operation(lambda F, a, dim: F.softmax(a, dim=dim), one(), lambda a: {"dim": dim(a)}),
    "log_softmax": Operation(
        lambda F, a, dim: F.log_softmax(a, dim=dim), one(min_dims=1), lambda a: {"dim": dim(a)}
    ),
    "nll_loss": Operation(
        lambda F, a, targets, reduction: F.nll_loss(a, array(F, targets), reduction=reduction),
        one(min_dims=2, max_dims=2, min_side=1),
        targets,
    ),
    "nll_loss, weight": Operation(
        lambda F, a, **settings: loss_of_classes(F, F.nll_loss, a, **settings),
        one(min_dims=2, max_dims=2, min_side=2),
        lambda a: marked_targets(a, weight=True),
    ),
    "cross_entropy": Operation(
        lambda F, a, **settings: loss_of_classes(F, F.cross_entropy, a, **settings),
        one(min_dims=2, max_dims=2, min_side=2),
        lambda a: marked_targets(a, weight=False),
    ),
    "mse_loss": Operation(
        lambda F, a, b, reduction: F.mse_loss(a, b, reduction=reduction),
        shapes().map(lambda shape: (shape, shape)),
        lambda a, b: reduced(),
    ),
}


def library(F):
    return mg if F is functional else torch


def array(F, numbers):
    return mg.from_numpy(numbers) if F is functional else torch.from_numpy(numbers)


@st.composite
def calls(draw, operation, dtype, elements, unique=False):
    """A function of F and the inputs, with its settings drawn, and arrays for the inputs."""
    drawn = draw(operation.shapes)
    chosen = draw(st.fixed_dictionaries(operation.settings(*drawn)))
    inputs = [
        draw(arrays(shape, dtype, elements=numbers, unique=unique))
        for shape, numbers in zip(drawn, elements)
    ]
    return lambda F, *inputs: operation.function(F, *inputs, **chosen), inputs


# The three properties: the value is PyTorch's, its gradient too, and finite differences agree


def agrees_with_pytorch(data, operation, dtype, change=None):
    function, inputs = data.draw(calls(operation, dtype, itertools.repeat(operation.wild)))
    ours = [mg.Tensor(a, requires_grad=True) for a in inputs]
    theirs = [torch.tensor(a.copy(), requires_grad=True) for a in inputs]
    before = [a.copy() for a in inputs]
    with np.errstate(all="ignore"):
        out, expected = function(functional, *ours), function(torch.nn.functional, *theirs)
        gradient = data.draw(arrays(out.shape, str(out.dtype), elements=operation.wild))
        if change is not None:
            damage(out, change)
        out.backward(gradient)
    expected.backward(torch.tensor(gradient.copy()))
    sizes = [np.abs(a[np.isfinite(a)]).max(initial=1) for a in (*inputs, gradient)]
    tolerance = {"float32": 1e-5, "float64": 1e-10}[dtype]
    pairs = [(out.detach(), expected.detach())] + [(x.grad, y.grad) for x, y in zip(ours, theirs)]
    for x, y in pairs:
        assert str(x.dtype) == str(y.dtype).removeprefix("torch.")
        # where large numbers cancel, only round-off is left
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance * max(sizes) ** 2)
        assert x.shape == tuple(y.shape)
    for a, kept in zip(inputs, before):
        np.testing.assert_array_equal(a, kept)


@st.composite
def smooth_calls(draw, operation):
    """A function of F and the inputs, and Tensors where it has a derivative."""
    function, inputs = draw(calls(operation, "float64", operation.smooth, operation.unique))
    return function, *(mg.Tensor(a, requires_grad=True) for a in inputs)


def agrees_with_finite_differences(data, operation):
    function, *inputs = data.draw(smooth_calls(operation))
    mg.gradcheck(lambda *inputs: function(functional, *inputs), *inputs)


@pytest.fixture(params=OPERATIONS)
def operation(request):
    return OPERATIONS[request.param]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_value_and_gradient_are_those_of_pytorch(operation, dtype):
    given(st.data())(lambda data: agrees_with_pytorch(data, operation, dtype))()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # means over nothing
def test_gradient_is_that_of_finite_differences_and_a_wrong_one_is_noticed(operation):
    check_operation(lambda f, *inputs: f(functional, *inputs), smooth_calls(operation))


METHODS = {
    "div": "__truediv__",
    "remainder": "__mod__",
    "reverse_dims": "T",
}  # those with another name


def test_no_place_of_an_operation_is_forgotten():
    """CONTRIBUTING.md lists the places: the docstring, this table, the method, and the export."""
    tried = set()
    for operation in OPERATIONS.values():
        wild = calls(operation, "float32", itertools.repeat(operation.wild))
        function, arrays = find(
            wild, lambda call: True, settings=settings(phases=[Phase.generate], database=None)
        )
        with np.errstate(all="ignore"):
            out = function(functional, *[mg.Tensor(a, requires_grad=True) for a in arrays])
        tried |= {node.op for node in engine.ancestors(out.node)}
    for room in (ops, more_ops):
        for name, op in vars(room).items():
            if not hasattr(op, "rule"):
                continue
            assert op.__doc__, f"{name} has no docstring"
            assert op in tried, f"{name} is not in the table of tests/test_gradients.py"
            method = METHODS.get(name, f"__{name}__" if hasattr(mg.Tensor, f"__{name}__") else name)
            has_a_function = hasattr(functional, name)
            has_one = hasattr(mg.Tensor, method) or has_a_function
            assert has_one or not hasattr(torch.Tensor, name), f"Tensor has no method {name}"
            exported = hasattr(mg, name) or not hasattr(torch, name)
            assert room is ops or exported, f"minigrad/__init__.py does not export {name}"


# The same properties must fail for a wrong VJP


def must_fail(check):
    without_shrinking = settings(phases=[Phase.generate], max_examples=200, database=None)
    with pytest.raises(AssertionError):
        without_shrinking(given(st.data())(check))()


@pytest.mark.parametrize("name", DAMAGES)
def test_a_wrong_gradient_is_not_pytorchs(operation, name):
    must_fail(lambda data: agrees_with_pytorch(data, operation, "float64", DAMAGES[name]))


def first_slice(grad, shape, node):
    """An unbroadcast that forgets to sum."""
    for _ in range(grad.ndim - len(shape)):
        grad = grad[0] if len(grad) else grad.sum(0)
    grad = grad[tuple(slice(length) for length in shape)] if shape else grad
    return grad if grad.shape == shape else np.zeros(shape)  # an empty one has no first slice


def average(grad, shape, node):
    """An unbroadcast that takes a mean."""
    return engine_unbroadcast(grad, shape, node) / 2


engine_unbroadcast = engine.unbroadcast


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "pow", "matmul"])
@pytest.mark.parametrize("wrong", [first_slice, average])
def test_a_missing_unbroadcast_is_noticed(name, wrong):
    operation = OPERATIONS[name]
    with mock.patch.object(engine, "unbroadcast", wrong):
        must_fail(lambda data: agrees_with_pytorch(data, operation, "float64"))
        must_fail(lambda data: agrees_with_finite_differences(data, operation))


@pytest.mark.parametrize(
    "wrong_shape",
    [
        lambda grad: grad[0],  # an axis too few
        lambda grad: grad[None],  # an axis too many, which the result lacks
        lambda grad: np.repeat(grad, 2, 0),  # longer than the result
        lambda grad: np.repeat(grad, 2, 1),
    ],
)
def test_what_broadcasting_cannot_have_made_is_an_error(wrong_shape):
    @mg.operation
    def double(x, y):
        return x * 1 + y, lambda G: wrong_shape(G), lambda G: G

    x, y = mg.ones(1, 3, requires_grad=True), mg.ones(2, 3)
    with pytest.raises(RuntimeError, match=r"VJP of double .* input of shape \(1, 3\).*\(2, 3\)"):
        double(x, y).sum().backward()
    assert x.grad is None


@pytest.mark.parametrize("name", ["neg", "exp", "log", "tanh", "relu", "mul", "max, dim", "linear"])
def test_writing_into_the_gradient_that_was_given_is_noticed(name):
    def greedy(vjp):
        def wrong(G):
            grad = vjp(G)
            if isinstance(G, np.ndarray) and G.flags.writeable:
                G *= 3
            return grad

        return vjp and wrong

    def beside_another(f, other, *inputs):  # add hands one array to both its inputs
        out = f(functional, *inputs)
        out = out + other.sum() * out.clone() + (out + out)
        for node in engine.ancestors(out.node):
            node.vjps = [greedy(vjp) for vjp in node.vjps]
        return out

    with pytest.raises(mg.GradcheckError):
        check_operation(
            lambda other, f, *inputs: beside_another(f, other, *inputs),
            tensors(shape=(2,)),
            smooth_calls(OPERATIONS[name]),
        )


# Values where the plain formula would go wrong


@pytest.mark.parametrize("reduce", [lambda a: a.max(), lambda a: a.max(0).values])
@pytest.mark.parametrize("values", [[1.0, 3.0, 3.0], [1.0, np.nan, 3.0], [-np.inf, -np.inf]])
def test_max_of_ties_and_nans_as_in_pytorch(reduce, values):
    x, y = mg.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    reduce(x).backward()
    reduce(y).backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.grad.numpy())


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize("gradient", [1.0, np.inf])
@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, -1.0])
def test_pow_at_zero_as_in_pytorch(exponent, gradient):
    results = []
    for lib in (mg, torch):
        a = lib.tensor([0.0, 2.0], requires_grad=True)
        b = lib.tensor(exponent, requires_grad=True)
        (a**b).sum().backward(lib.tensor(gradient))
        results.append((a.grad.numpy(), b.grad.numpy()))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-6)


def test_long_sums_keep_their_digits():
    ones = np.ones((2**25, 1), "f4")  # one by one, float32 stops counting at 2**24
    x, b = mg.from_numpy(ones), mg.zeros(1, requires_grad=True)
    assert x.sum(0).item() == 2**25
    functional.linear(x, mg.ones(1, 1), b).backward(ones)
    (x + b).backward(ones)
    assert b.grad.item() == 2**26


# gradcheck itself


@mg.operation
def twice_with_wrong_vjp(x):
    return x * 2, lambda G: G * np.array([2.0, 2.0, 3.0])


def test_gradcheck_finds_a_wrong_gradient():
    x = mg.tensor([1.0, 2.0, 3.0], dtype=mg.float64, requires_grad=True)
    with pytest.raises(
        mg.GradcheckError, match=r"input 0, element \(2,\), which is 3: .*finite.*step"
    ):
        mg.gradcheck(lambda x: twice_with_wrong_vjp(x).sum(), x)


@pytest.mark.parametrize(
    "vjp, forgets",
    [
        (lambda G, x: 3 * x**2, True),
        (lambda G, x: G * x**2, False),
        (lambda G, x: 0 * x, False),  # the same for every G, but no factor would help
        (lambda G, x: np.inf * G * x, False),
    ],
)
def test_gradcheck_asks_about_a_forgotten_factor_g(vjp, forgets):
    cube = mg.operation(lambda x: (x**3, lambda G: vjp(G, x)))
    x = mg.tensor([1.0, 2.0], dtype=mg.float64, requires_grad=True)
    for f in (cube, lambda x: cube(x.exp()).sum()):
        with pytest.raises(mg.GradcheckError) as caught:
            mg.gradcheck(f, x)
        forgotten = str(caught.value).endswith("does a VJP forget the factor G?")
        assert forgotten is forgets


def test_gradcheck_says_how_an_input_requires_grad():
    with pytest.raises(TypeError, match="no input requires grad: .* requires_grad=True"):
        mg.gradcheck(lambda x: x * x, mg.ones(3, dtype=mg.float64))


def test_gradcheck_does_not_take_an_infinite_gradient_for_a_large_tolerance():
    x = mg.tensor([1.0, 2.0], dtype=mg.float64, requires_grad=True)
    for wrong in ([np.inf, 5.0], [np.nan, 2.0]):
        f = mg.operation(lambda x: (2 * x, lambda G: G * np.array(wrong)))
        with pytest.raises(mg.GradcheckError, match=r"element \(0,\)"):
            mg.gradcheck(f, x)


@pytest.mark.parametrize(
    "f, x",
    [
        (mg.relu, [0.0, 2.0]),
        (mg.relu, [1e-6, 2.0]),  # not at the kink, but within the step
        (mg.relu, [-4e-6, 0.0]),
        (mg.operation(lambda x: (np.abs(x), lambda G: np.where(x > 0, G, -G))), [0.0]),
        (lambda x: x.max(dim=0).values, [3.0, 1.0, 3.0]),
    ],
)
def test_gradcheck_asks_about_a_kink(f, x):
    x = mg.tensor(x, dtype=mg.float64, requires_grad=True)
    with pytest.raises(mg.GradcheckError, match="is f smooth here") as caught:
        mg.gradcheck(f, x)
    pattern = r"; the slope is (\S+) on the left and (\S+) on the right: is f smooth here\?$"
    left, right = map(float, re.search(pattern, str(caught.value)).groups())
    central = float(re.search("finite difference ([^ ]+)", str(caught.value))[1])
    assert right - left > 0.3 and central == pytest.approx((left + right) / 2, rel=1e-4)


@pytest.mark.parametrize("f", [lambda x: x * x, lambda x: x.exp(), lambda x: x**4 - 3 * x])
@pytest.mark.parametrize("x", [0.0, 1e-6, -1e-3, 1.0, -5.0])
@pytest.mark.parametrize("wrong", [1.0, 1e-2, 2e-5])
def test_gradcheck_asks_about_no_kink_where_f_is_smooth(f, x, wrong):
    zero = mg.operation(lambda x: (0 * x, lambda G: wrong * G * (1 + abs(x))))
    x = mg.tensor(x, dtype=mg.float64, requires_grad=True)
    with pytest.raises(mg.GradcheckError) as caught:
        mg.gradcheck(lambda x: f(x) + zero(x), x, rtol=1e-8)
    assert "smooth" not in str(caught.value)


def test_gradcheck_tries_the_layout_it_is_given():
    @mg.operation
    def square(x):  # wrong for arrays that are not contiguous
        flat = x.ravel("K")
        return x**2, lambda G: (2 * flat * G.ravel()).reshape(x.shape)

    x = np.arange(6.0).reshape(2, 3)
    assert mg.gradcheck(square, mg.Tensor(x, requires_grad=True))
    with pytest.raises(mg.GradcheckError, match=r"input 0, element \("):
        mg.gradcheck(square, mg.Tensor(x.T, requires_grad=True))


KEPT = np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    "forward, vjp, error, message",
    [
        (lambda a: a * 1, lambda grad, a: grad.fill(0) or grad, ValueError, "read-only"),
        (
            lambda a: np.multiply(a, 2, out=a),
            lambda grad, a: 2 * grad,
            mg.GradcheckError,
            "in place",
        ),
        (lambda a: a.sum(), lambda grad, a: np.ones(3), mg.GradcheckError, "analytic gradient 1, "),
        (
            lambda a: a.astype("f4"),
            lambda grad, a: grad,
            TypeError,
            "one float64 Tensor, got float32",
        ),
        (lambda a: a + np.random.rand(), lambda grad, a: grad, mg.GradcheckError, "is it random"),
        (lambda a: a @ KEPT, lambda grad, a: KEPT, mg.GradcheckError, "an array that it keeps"),
        (
            lambda a: 2 * a,
            lambda grad, a: np.multiply(2, grad, out=KEPT),
            mg.GradcheckError,
            "an array that it keeps",
        ),
    ],
)
def test_gradcheck_notices_what_a_function_must_not_do(forward, vjp, error, message):
    x = mg.tensor([1.0, 2.0, 3.0], dtype=mg.float64, requires_grad=True)
    with pytest.raises(error, match=message):
        mg.gradcheck(mg.operation(lambda x: (forward(x), lambda G: vjp(G, x))), x)
    with pytest.raises(TypeError, match="one float64 Tensor, got tuple"):
        mg.gradcheck(lambda x: (x, x), x)


def test_gradcheck_does_not_ask_whether_numbers_are_probabilities(recwarn):
    x = mg.tensor([[1.0, 2.0]], dtype=mg.float64, requires_grad=True)
    assert mg.gradcheck(lambda x: functional.nll_loss(x, [1]), x)
    assert not recwarn.list
