"""Every operation against finite differences and against PyTorch, from one table.

A function in the table is called with minigrad Tensors and with PyTorch ones: the two
libraries share their names.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional

import minigrad as mg
from minigrad import functional

CELLS = np.array([[0, 2, 1], [1, 1, 0]])  # repeats, so that gradients must add up
TARGETS = np.array([2, 0, 1, 2])

# name: (function of F and the inputs, shapes of the inputs)
OPERATIONS = {
    "add": (lambda F, a, b: a + b, [(3, 4), (3, 4)]),
    "add, broadcast": (lambda F, a, b: a + b, [(3, 1), (2, 1, 4)]),
    "add, to itself": (lambda F, a: a + a, [(3,)]),
    "add, number": (lambda F, a: 2 + a + 1.5, [(3,)]),
    "sub": (lambda F, a, b: a - b, [(3, 4), (4,)]),
    "sub, number": (lambda F, a: 2 - a, [(3,)]),
    "mul": (lambda F, a, b: a * b, [(3, 1), (1, 4)]),
    "mul, scalar": (lambda F, a, b: a * b, [(), (2, 3)]),
    "mul, by itself": (lambda F, a: a * a * a, [(3,)]),
    "div": (lambda F, a, b: a / (b * b + 1), [(3, 4), (3, 1)]),
    "div, number": (lambda F, a: 2 / (a * a + 1) / 3, [(3,)]),
    "pow, number": (lambda F, a: a**3, [(3,)]),
    "pow": (lambda F, a, b: (a * a + 0.5) ** b, [(3, 1), (4,)]),
    "pow, of a number": (lambda F, a: 2**a, [(3,)]),
    "neg": (lambda F, a: -a, [(3, 4)]),
    "exp": (lambda F, a: a.exp(), [(3, 4)]),
    "log": (lambda F, a: (a * a + 0.1).log(), [(3, 4)]),
    "tanh": (lambda F, a: a.tanh(), [(3, 4)]),
    "clone": (lambda F, a: a.clone() * a, [(3,)]),
    "double": (lambda F, a: a.double() * 2, [(3,)]),
    "double, of a kernel's result": (lambda F, x, w: F.linear(x, w).double(), [(5, 3), (2, 3)]),
    "matmul": (lambda F, a, b: a @ b, [(3, 4), (4, 2)]),
    "matmul, vectors": (lambda F, a, b: a @ b, [(4,), (4,)]),
    "matmul, row": (lambda F, a, b: a @ b, [(4,), (4, 2)]),
    "matmul, column": (lambda F, a, b: a @ b, [(3, 4), (4,)]),
    "matmul, stacks": (lambda F, a, b: a @ b, [(2, 1, 3, 4), (5, 4, 2)]),
    "matmul, row and stack": (lambda F, a, b: a @ b, [(4,), (5, 4, 2)]),
    "matmul, stack and column": (lambda F, a, b: a @ b, [(5, 3, 4), (4,)]),
    "sum": (lambda F, a: a.sum(), [(3, 4)]),
    "sum, dim": (lambda F, a: a.sum(1), [(3, 4)]),
    "sum, dims": (lambda F, a: a.sum(dim=(0, -1), keepdim=True), [(3, 4, 2)]),
    "mean": (lambda F, a: a.mean(), [(3, 4)]),
    "mean, dim": (lambda F, a: a.mean(dim=-1, keepdim=True), [(3, 4)]),
    "max": (lambda F, a: a.max(), [(3, 4)]),
    "max, dim": (lambda F, a: a.max(dim=0).values, [(3, 4)]),
    "max, keepdim": (lambda F, a: a.max(1, keepdim=True)[0] * a, [(3, 4)]),
    "view": (lambda F, a: a.view(-1, 2) * 2, [(3, 4)]),
    "reshape": (lambda F, a: a.T.reshape((2, 6)), [(3, 4)]),
    "transpose": (lambda F, a: a.transpose(0, -1) * 2, [(2, 3, 4)]),
    "T": (lambda F, a: a.T @ a, [(3, 4)]),
    "getitem": (lambda F, a: a[1], [(3, 4)]),
    "getitem, slices": (lambda F, a: a[1:, ..., None, ::2], [(3, 4)]),
    "getitem, overlapping": (lambda F, a: a[1:] * a[:-1], [(4,)]),
    "getitem, integers": (lambda F, a: a[CELLS], [(3, 4)]),
    "getitem, Tensors": (lambda F, a: a[index(F, CELLS[0]), :2], [(3, 4)]),
    "getitem, pairs": (lambda F, a: a[CELLS, [0, 3, 3]], [(3, 4)]),
    "getitem, bools": (lambda F, a: a[np.array([True, False, True])], [(3, 4)]),
    "linear": (lambda F, x, w, b: F.linear(x, w, b), [(5, 3), (2, 3), (2,)]),
    "linear, no bias": (lambda F, x, w: F.linear(x, w), [(5, 3), (2, 3)]),
    "linear, one example": (lambda F, x, w, b: F.linear(x, w, b), [(3,), (2, 3), (2,)]),
    "linear, stacks": (lambda F, x, w, b: F.linear(x, w, b), [(4, 5, 3), (2, 3), (2,)]),
    "linear, transposed": (lambda F, x, w: F.linear(x.T, w.T), [(3, 5), (3, 2)]),
    "relu": (lambda F, a: F.relu(a), [(3, 4)]),
    "relu, of a sum": (lambda F, a: a.sum().relu() + a.T.relu().sum(), [(3, 4)]),
    "log_softmax": (lambda F, a: F.log_softmax(a, dim=1), [(3, 4)]),
    "log_softmax, columns": (lambda F, a: F.log_softmax(a, dim=0), [(3, 4)]),
    "log_softmax, middle": (lambda F, a: a.log_softmax(-2), [(2, 3, 4)]),
    "nll_loss": (lambda F, a: F.nll_loss(a, index(F, TARGETS)), [(4, 3)]),
    "nll_loss, sum": (lambda F, a: F.nll_loss(a, index(F, TARGETS), reduction="sum"), [(4, 3)]),
    "nll_loss, none": (lambda F, a: F.nll_loss(a, index(F, TARGETS), reduction="none"), [(4, 3)]),
    "an MLP": (
        lambda F, x, w, v: F.nll_loss(
            F.log_softmax(F.linear(F.relu(F.linear(x, w)), v), dim=1), index(F, TARGETS)
        ),
        [(4, 5), (6, 5), (3, 6)],
    ),
}


def index(F, array):
    return mg.from_numpy(array) if F is functional else torch.from_numpy(array)


@pytest.fixture(params=OPERATIONS)
def operation(request):
    return OPERATIONS[request.param]


def test_finite_differences(operation, rng):
    function, shapes = operation
    inputs = [mg.tensor(rng.normal(size=shape), requires_grad=True) for shape in shapes]
    assert mg.gradcheck(lambda *tensors: function(functional, *tensors), *inputs)


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-10), ("float32", 1e-5)])
def test_pytorch(operation, rng, dtype, tolerance):
    function, shapes = operation
    arrays = [rng.normal(size=shape).astype(dtype) for shape in shapes]
    ours = [mg.tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    out, expected = function(functional, *ours), function(torch.nn.functional, *theirs)
    check(out.detach(), expected.detach(), tolerance)
    gradient = rng.normal(size=out.shape).astype(out.dtype)
    out.backward(gradient)
    expected.backward(torch.tensor(gradient))
    for x, y in zip(ours, theirs):
        check(x.grad, y.grad, tolerance)


def check(ours, theirs, tolerance):
    assert str(ours.dtype) == str(theirs.dtype).removeprefix("torch.")
    assert ours.shape == tuple(theirs.shape)
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=tolerance, atol=tolerance)


# Values where a formula of its own would go wrong


@pytest.mark.parametrize("reduce", [lambda a: a.max(), lambda a: a.max(0).values])
@pytest.mark.parametrize("values", [[1.0, 3.0, 3.0], [1.0, np.nan, 3.0], [-np.inf, -np.inf]])
def test_max_of_ties_and_nans_as_in_pytorch(reduce, values):
    x, y = mg.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    reduce(x).backward()
    reduce(y).backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.grad.numpy())


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, -1.0])
def test_pow_at_zero_as_in_pytorch(exponent):
    results = []
    for lib in (mg, torch):
        a = lib.tensor([0.0, 2.0], requires_grad=True)
        b = lib.tensor(exponent, requires_grad=True)
        (a**b).sum().backward()
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


EXTREME = [
    [1e4, -1e4, 0.0],
    [np.inf, 0.0, 1.0],
    [-np.inf, 0.0, 1.0],
    [-np.inf, -np.inf, -np.inf],
    [np.nan, 0.0, 1.0],
    [0.0, 1.0, np.nan],
    [1e-40, -1e-40, -0.0],
]


@pytest.mark.parametrize("name", ["relu", "log_softmax"])
def test_extreme_values_as_in_pytorch(name):
    results = []
    for lib, F in ((mg, functional), (torch, torch.nn.functional)):
        x = lib.tensor(EXTREME, requires_grad=True)
        out = F.relu(x) if name == "relu" else F.log_softmax(x, dim=1)
        out.backward(lib.tensor([[1.0, 2.0, 3.0]] * len(EXTREME)))
        results.append((out.detach().numpy(), x.grad.numpy()))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-6)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_empty_arrays(shape):
    x = mg.zeros(shape, requires_grad=True)
    w = mg.ones(2, shape[1], requires_grad=True)
    out = functional.log_softmax(functional.relu(functional.linear(x, w)), dim=1).sum()
    (out + x.log_softmax(1).sum() + x.log_softmax(0).sum()).backward()
    assert x.grad.shape == shape
    np.testing.assert_array_equal(w.grad.numpy(), np.zeros((2, shape[1])))


# gradcheck itself


def test_gradcheck_finds_a_wrong_gradient():
    x = mg.tensor([1.0, 2.0, 3.0], dtype=mg.float64, requires_grad=True)
    with pytest.raises(mg.GradcheckError, match=r"input 0, element \(2,\): .*3.*finite.*2.*step"):
        mg.gradcheck(lambda x: _twice_with_wrong_vjp(x).sum(), x)


def _twice_with_wrong_vjp(x):
    def vjp(grad):
        return (grad * np.array([2.0, 2.0, 3.0]),)

    return mg.record(x.array * 2, (x,), vjp)


def test_gradcheck_does_not_take_an_infinite_gradient_for_a_large_tolerance():
    x = mg.tensor([1.0, 2.0], dtype=mg.float64, requires_grad=True)
    for wrong in ([np.inf, 5.0], [np.nan, 2.0]):
        f = lambda x: mg.record(2 * x.array, (x,), lambda grad: (grad * np.array(wrong),))
        with pytest.raises(mg.GradcheckError, match=r"element \(0,\)"):
            mg.gradcheck(f, x)


def test_gradcheck_refuses_float32():
    with pytest.raises(TypeError, match="input 1 is float32"):
        mg.gradcheck(lambda a, b: a, mg.ones(2), mg.ones(2, requires_grad=True))
    with pytest.raises(TypeError, match="no input requires grad"):
        mg.gradcheck(lambda a: a, mg.ones(2))
