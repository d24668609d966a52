"""Operations: each is a function on arrays that returns its result and its derivatives.

An operation returns a tuple: the result and, for each input, a function from G, the gradient
of the result, to the gradient of that input (a VJP; see `engine`). It knows nothing of the graph.
`tensors` and `engine` do what all operations share: the arrays arrive in one dtype, a VJP may
ignore that its input was broadcast, and it is called only if its gradient is needed. Settings
that are not differentiated are keyword arguments.

A VJP returns G, a view of G or a new array, and writes only into arrays that it has made itself.
It keeps only the arrays that it needs: if it needs no more than a shape, it keeps the shape.

The names `sum` and `pow` are PyTorch's and hide Python's own in this file. ``dim`` is what NumPy
calls axis.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy import ndarray as Array
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from . import kernels, parts, threads

Made = tuple[Any, ...]  # the result and the VJPs
Dims = int | tuple[int, ...] | None
Operation = TypeVar("Operation", bound=Callable[..., Made])


def rule(*texts: str, dtypes: str = "common") -> Callable[[Operation], Operation]:
    """Describe the VJPs of an operation for `explain`, and say which dtypes it takes.

    Parameters
    ----------
    *texts : str
        One for each input. {0}, {1}, ... stand for the names of the inputs, {out} for the result.
        If the operation takes any number of inputs (``*arrays``), one text serves them all.
    dtypes : {"common", "number", "float", "same", "kernel"}
        How the inputs get one dtype. "common": PyTorch's promotion. "number": the same, but bools
        are refused. "float": the same, and integers become float32. "same": nothing is
        converted; different dtypes and bools are refused. "kernel": like "same", and only
        float32 and float64 are accepted.

    Raises
    ------
    TypeError
        If the numbers of texts and inputs differ.
    """

    if not all(isinstance(text, str) for text in texts):
        hint = 'write @rule("G * {1}", "G * {0}"), one text for each input'
        raise TypeError(f"rule takes texts, got {texts[0]!r}; {hint}")

    def declare(operation: Operation) -> Operation:
        parameters = inspect.signature(operation).parameters.values()
        names = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
        any_number = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        if len(names) != len(texts):
            inputs = f"{len(names)} inputs ({', '.join(names)})"
            raise TypeError(f"{operation.__name__} has {inputs}; its rule has {len(texts)} texts")
        every = itertools.repeat(*texts) if any_number else texts
        for function in (operation, getattr(operation, "__wrapped__", operation)):
            vars(function).update(rule=every, dtypes=dtypes)  # also above `minigrad.operation`
        return operation

    return declare


# Arithmetic


@rule("G", "G")
def add(x: Array, y: Array) -> Made:
    """x + y, elementwise

    ∂out/∂x = ∂out/∂y = 1, so both inputs receive G itself.

    >>> out, to_x, to_y = add(np.array([1.0, 2.0]), np.array([5.0, 7.0]))
    >>> G = np.array([1.0, 10.0])
    >>> to_x(G), to_y(G)
    (array([ 1., 10.]), array([ 1., 10.]))
    """
    return x + y, lambda G: G, lambda G: G


@rule("G", "-G", dtypes="number")
def sub(x: Array, y: Array) -> Made:
    """x - y, elementwise

    ∂out/∂x = 1 and ∂out/∂y = -1.

    >>> out, to_x, to_y = sub(np.array([1.0, 2.0]), np.array([5.0, 7.0]))
    >>> to_y(np.array([1.0, 10.0]))
    array([ -1., -10.])
    """
    return x - y, lambda G: G, lambda G: -G


@rule("-G", dtypes="number")
def neg(x: Array) -> Made:
    """-x, elementwise

    ∂out[i]/∂x[i] = -1, so ∂L/∂x = -G.

    >>> out, to_x = neg(np.array([2.0, 3.0]))
    >>> to_x(np.array([1.0, 10.0]))
    array([ -1., -10.])
    """
    return -x, lambda G: -G


@rule("G * {1}", "G * {0}")
def mul(x: Array, y: Array) -> Made:
    """x * y, elementwise

    ∂out[i]/∂x[i] = y[i], and 0 for any other element of x, so ∂L/∂x = G * y. Likewise
    ∂L/∂y = G * x.

    >>> out, to_x, to_y = mul(np.array([2.0, 3.0]), np.array([5.0, 7.0]))
    >>> G = np.array([1.0, 10.0])
    >>> to_x(G), to_y(G)
    (array([ 5., 70.]), array([ 2., 30.]))
    """
    return x * y, lambda G: G * y, lambda G: G * x


@rule("G / {1}", "-G * {out} / {1}", dtypes="float")
def div(x: Array, y: Array) -> Made:
    """x / y, elementwise

    ∂(x/y)/∂x = 1/y and ∂(x/y)/∂y = -x/y² = -out/y.

    >>> out, to_x, to_y = div(np.array(6.0), np.array(2.0))
    >>> to_x(np.array(1.0)), to_y(np.array(1.0))
    (np.float64(0.5), np.float64(-1.5))
    """
    out = x / y
    return out, lambda G: G / y, lambda G: -G * (out / y)


@rule("G * {1} * {0} ** ({1} - 1)", "G * {out} * log({0})", dtypes="number")
def pow(x: Array, y: Array) -> Made:
    """x ** y, elementwise

    For x > 0, xʸ = exp(y log x), and the chain rule gives ∂xʸ/∂x = xʸ y/x = y xʸ⁻¹ and
    ∂xʸ/∂y = xʸ log x. The first holds for any x for which xʸ⁻¹ exists.

    >>> out, to_x, to_y = pow(np.array(3.0), np.array(2.0))
    >>> to_x(np.array(1.0)), to_y(np.array(1.0)).round(4)  # 2 · 3, and 9 log 3
    (array(6.), np.float64(9.8875))
    """
    out = x**y

    @np.errstate(divide="ignore", invalid="ignore")  # np.where drops what is infinite
    def to_x(G: Array) -> Any:  # x⁰ is the constant 1, even at x = 0
        return np.where(y == 0, 0, G * (y * x ** (y - 1)))

    @np.errstate(divide="ignore", invalid="ignore")
    def to_y(G: Array) -> Any:  # 0 at x = 0, y ≥ 0, as in PyTorch
        return G * np.where((x == 0) & (y >= 0), 0, out * np.log(x))

    return out, to_x, to_y


# Functions of each element


@rule("G * {out}", dtypes="float")
def exp(x: Array) -> Made:
    """eˣ, elementwise

    Its derivative is eˣ again, which is out. So ∂L/∂x = G * out, and x need not be kept.

    >>> out, to_x = exp(np.array([0.0, 1.0]))
    >>> to_x(np.array([1.0, 10.0])).round(4)  # 1, and 10 e
    array([ 1.    , 27.1828])
    """
    out = np.exp(x)
    return out, lambda G: G * out


@rule("G / {0}", dtypes="float")
def log(x: Array) -> Made:
    """The natural logarithm, elementwise

    From exp(log x) = x, the chain rule gives exp(log x) log'(x) = 1, hence log'(x) = 1/x.

    >>> out, to_x = log(np.array([1.0, 4.0]))
    >>> to_x(np.array([1.0, 10.0]))
    array([1. , 2.5])
    """
    return np.log(x), lambda G: G / x


# Shapes. The elements do not change, they only move: each element of G goes back to where its
# number came from.


@rule("G, in the other dtype")
def to(x: Array, *, dtype: Any) -> Made:
    """``x`` in another dtype

    Rounding aside, the numbers are the same: ∂out/∂x = 1. The engine gives each gradient the
    dtype of its input. Integers and bools have no gradient, because they change in steps.
    """
    return x.astype(dtype), lambda G: G


@rule("G")
def clone(x: Array) -> Made:
    """A copy that gradients flow through."""
    return x.copy(), lambda G: G


@rule("G, in the shape of {0}")
def reshape(x: Array, *, shape: tuple[int, ...]) -> Made:
    """The same elements in another shape, sharing memory if NumPy can; one length may be -1.

    >>> out, to_x = reshape(np.array([[1.0, 2.0], [3.0, 4.0]]), shape=(-1,))
    >>> to_x(np.array([1.0, 10.0, 100.0, 1000.0]))
    array([[   1.,   10.],
           [ 100., 1000.]])
    """
    before = x.shape
    try:
        return x.reshape(shape), lambda G: G.reshape(before)
    except ValueError as error:
        raise RuntimeError(f"reshape from shape {before}: {error}") from None


@rule("G, transposed back")
def transpose(x: Array, *, dim0: int, dim1: int) -> Made:
    """``x`` with two dimensions swapped; shares memory.

    >>> out, to_x = transpose(np.array([[1.0, 2.0]]), dim0=0, dim1=1)
    >>> to_x(np.array([[1.0], [10.0]]))  # the same swap undoes it
    array([[ 1., 10.]])
    """
    dim0, dim1 = as_dim(dim0, x.ndim), as_dim(dim1, x.ndim)
    if x.ndim == 0:
        return x, lambda G: G
    return x.swapaxes(dim0, dim1), lambda G: G.swapaxes(dim0, dim1)


@rule("Gᵀ")
def reverse_dims(x: Array) -> Made:
    """``x`` with its dimensions in reverse order, which is ``x.T``; shares memory."""
    return x.T, lambda G: G.T


@rule("G where {0} was picked (the sum of several), else 0")
def getitem(x: Array, *, index: Any) -> Made:
    """x[index]: slices and single elements share memory, arrays of integers or bools copy.

    Each element of out is an element of x, and its gradient goes back there. An element that was
    not picked does not influence L and receives 0; one that was picked twice receives both.

    >>> out, to_x = getitem(np.array([1.0, 2.0, 3.0]), index=[0, 0, 2])
    >>> to_x(np.array([1.0, 10.0, 100.0]))
    array([ 11.,   0., 100.])
    """
    out, shape = x[index], x.shape
    if not isinstance(out, Array):  # a single number: with an ellipsis, NumPy returns a view
        index = (*(index if isinstance(index, tuple) else (index,)), ...)
        out = x[index]
    is_view = np.may_share_memory(out, x)

    def to_x(G: Array) -> Array:
        grad = np.zeros(shape, G.dtype)
        if is_view:  # picks no element more than once
            grad[index] = G
        else:
            np.add.at(grad, index, G)  # adds up
        return grad

    return out, to_x


# Reductions


def add_up(x: Array, dims: tuple[int, ...], keepdim: bool = False) -> Any:
    """The sum in float64 or int64, so that a long one loses no digits; see `engine.unbroadcast`."""
    wide = np.float64 if x.dtype.kind == "f" else np.int64
    return x.sum(axis=dims, dtype=wide, keepdims=keepdim)


def as_dim(dim: int, ndim: int) -> int:
    """``dim``, counted from the front; as in PyTorch, a 0-d array has dim 0."""
    return int(normalize_axis_index(dim, ndim or 1, "dim"))


def as_dims(dim: Dims, shape: tuple[int, ...]) -> tuple[tuple[int, ...], list[int]]:
    """The dimensions that ``dim`` means (one, several or, if None, all), and ``shape`` with
    these of length 1."""
    ndim = len(shape)
    if dim in (None, (), []):  # as in PyTorch, no dims are all dims
        dim = tuple(range(ndim))
    dims = normalize_axis_tuple(dim, max(ndim, 1), "dim")[:ndim]  # a 0-d array has dim 0
    return dims, [1 if d in dims else length for d, length in enumerate(shape)]


@rule("G for each element of {0}")
def sum(x: Array, *, dim: Dims = None, keepdim: bool = False) -> Made:
    """The sum over all elements or over ``dim`` (an int or several); integers sum to int64.

    Every element occurs once in its sum, so ∂out/∂x[i] = 1: it receives the G of that sum.

    >>> out, to_x = sum(np.array([[1.0, 2.0], [3.0, 4.0]]), dim=1)
    >>> to_x(np.array([1.0, 10.0]))
    array([[ 1.,  1.],
           [10., 10.]])
    """
    shape, (dims, kept) = x.shape, as_dims(dim, x.shape)
    out = add_up(x, dims, keepdim)
    out = out.astype(x.dtype) if x.dtype.kind == "f" else out
    return out, lambda G: np.broadcast_to(G.reshape(kept), shape)


@rule("G / n for each of the n elements of {0} in a mean")
def mean(x: Array, *, dim: Dims = None, keepdim: bool = False) -> Made:
    """The mean over all elements or over ``dim`` (an int or several).

    It is the sum divided by the number n of its elements, so each of them receives G/n.

    >>> out, to_x = mean(np.array([1.0, 2.0, 3.0, 6.0]))
    >>> to_x(np.array(1.0))
    array([0.25, 0.25, 0.25, 0.25])
    """
    shape, (dims, kept) = x.shape, as_dims(dim, x.shape)
    n = math.prod(shape[d] for d in dims)
    out = np.divide(add_up(x, dims, keepdim), n).astype(x.dtype)
    return out, lambda G: np.broadcast_to((G / n).reshape(kept), shape)


# Products of matrices


@rule("G @ {1}ᵀ", "{0}ᵀ @ G", dtypes="same")
def matmul(x: Array, y: Array) -> Made:
    """x @ y by NumPy's rules: vectors, matrices, and stacks of matrices that broadcast.

    out[i, j] = Σ_k x[i, k] y[k, j]. Since x[i, k] is a factor in every out[i, j] of its row,
    ∂L/∂x[i, k] = Σ_j G[i, j] y[k, j], which is G @ yᵀ. Likewise ∂L/∂y[k, j] =
    Σ_i x[i, k] G[i, j], which is xᵀ @ G. (The shapes allow no other product of G and y, or of x
    and G, unless two of the three lengths are equal.) The same holds for each pair of matrices
    in stacks.

    >>> x, y = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0], [6.0]])
    >>> out, to_x, to_y = matmul(x, y)
    >>> G = np.array([[1.0], [10.0]])
    >>> to_x(G), to_y(G)
    (array([[ 5.,  6.],
           [50., 60.]]), array([[31.],
           [42.]]))
    """
    x_is_vector, y_is_vector = x.ndim == 1, y.ndim == 1
    rows, columns = np.atleast_2d(x), y[:, None] if y_is_vector else y  # vectors as matrices

    def matrix(G: Array) -> Any:  # with the dimensions that vectors lack
        G = G[..., None] if y_is_vector else G
        return G[..., None, :] if x_is_vector else G

    def to_x(G: Array) -> Any:
        grad = multiplied(matrix(G), columns.swapaxes(-1, -2))
        return grad[..., 0, :] if x_is_vector else grad

    def to_y(G: Array) -> Any:
        grad = multiplied(rows.swapaxes(-1, -2), matrix(G))
        return grad[..., 0] if y_is_vector else grad

    return multiplied(x, y), to_x, to_y


def multiplied(x: Array, y: Array) -> Any:
    """x @ y. Products that NumPy's BLAS would share among its threads use our kernel instead: a
    busy machine does not stall our threads, and the result never depends on their number."""
    m, k = x.shape[-2:] if x.ndim > 1 else (1, x.size)
    n = y.shape[-1] if y.ndim > 1 else 1
    shared = m * n * k > (threads.SMALL if min(m, n) > 1 else threads.SMALL_VECTOR)
    fits = shared and x.ndim > 0 and y.ndim > 0 and y.shape[-2:][0] == k
    if not fits or x.dtype not in (np.float32, np.float64):
        return np.matmul(x, y)
    if m * n * k > threads.SMALL:
        threads.start()
    rows, columns = np.atleast_2d(x), y if y.ndim > 1 else y[:, None]
    stack = np.broadcast_shapes(rows.shape[:-2], columns.shape[:-2])
    out = np.empty((*stack, m, n), x.dtype)
    rows, columns = np.broadcast_to(rows, (*stack, m, k)), np.broadcast_to(columns, (*stack, k, n))
    for i in np.ndindex(stack):
        kernels.matmul(dense_matrix(rows[i], k), dense_matrix(columns[i], n), out[i])
    out = out if x.ndim > 1 else out[..., 0, :]
    return out if y.ndim > 1 else out[..., 0]


# The operations of a network, which call the kernels: their mathematics is in `kernels`


def dense(x: Any) -> Any:
    """``x`` as the elementwise kernels need it: C-contiguous, aligned, writeable."""
    x = np.asarray(x)
    return x if x.flags.carray else x.copy()


def dense_matrix(x: Any, columns: int) -> Any:
    """``x`` of shape (..., columns) as the products need it: a matrix in C or Fortran order."""
    if x.flags.carray and x.ndim == 2:
        return x  # the usual case
    if x.ndim != 2:
        x = x.reshape(math.prod(x.shape[:-1]), columns)
    return x if x.flags.forc and x.flags.aligned else x.copy()


def rows_along(dim: int, x: Any) -> Any:
    """``x`` as a dense matrix whose rows run along ``dim``."""
    if x.ndim != 2 or dim != 1:
        x = x.reshape(x.shape or (1,)).swapaxes(dim, -1)
        x = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    return dense(x)


def from_rows(dim: int, rows: Array, shape: tuple[int, ...]) -> Array:
    """Undo `rows_along`: from its matrix back to an array of this shape."""
    if len(shape) == 2 and dim == 1:
        return rows
    lengths = list(shape or (1,))
    lengths[dim], lengths[-1] = lengths[-1], lengths[dim]
    return rows.reshape(lengths).swapaxes(dim, -1).reshape(shape)


@rule("G @ {1}", "Gᵀ @ {0}", "G, summed over the examples", dtypes="kernel")
def linear(input: Array, weight: Array, bias: Array | None = None) -> Made:
    """input @ weightᵀ + bias, along the last dimension; without a bias, it returns two VJPs.

    >>> x, weight = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0, 6.0]])
    >>> out, to_input, to_weight, to_bias = linear(x, weight, np.array([7.0]))
    >>> out
    array([[24.],
           [46.]])
    >>> G = np.array([[1.0], [10.0]])
    >>> to_input(G), to_weight(G), to_bias(G)
    (array([[ 5.,  6.],
           [50., 60.]]), array([[31., 42.]]), array([11.]))
    """
    shape = input.shape
    fits = weight.ndim == 2 and shape != () and shape[-1] == weight.shape[1]
    if not fits or bias is not None and bias.shape != weight.shape[:1]:
        got = f"input {shape}, weight {weight.shape}, bias {getattr(bias, 'shape', None)}"
        if weight.ndim == 2 and not fits:
            got += (
                f": input ends in {shape[-1] if shape else 'nothing'}, and weight takes "
                f"{weight.shape[1]}; flatten images with x.reshape(len(x), -1)"
            )
        raise RuntimeError(f"linear: wanted input (..., D), weight (H, D), bias (H,), got {got}")
    units, features = weight.shape
    x, W = dense_matrix(input, features), dense_matrix(weight, features)
    dtype, rows = x.dtype, len(x)
    out = np.empty((rows, units), dtype)
    if rows * units * features > threads.SMALL:
        threads.start()
    kernels.linear_forward(x, W, None if bias is None else dense(bias), out)

    def to_input(G: Array) -> Array:
        grad = np.empty((rows, features), dtype)
        kernels.linear_backward_input(dense_matrix(G, units), W, grad)
        return grad.reshape(shape)

    def to_weight(G: Array) -> Array:
        grad = np.empty((units, features), dtype)
        kernels.linear_backward_weight(dense_matrix(G, units), x, grad)
        return grad

    def to_bias(G: Array) -> Array:
        grad = np.empty(units, np.float64)
        kernels.linear_backward_bias(dense_matrix(G, units), grad)
        return grad

    out = out if len(shape) == 2 else out.reshape(*shape[:-1], units)
    return (out, to_input, to_weight, to_bias)[: 3 if bias is None else 4]


@rule("G where {out} > 0, else 0", dtypes="kernel")
def relu(input: Array) -> Made:
    """max(input, 0), elementwise

    >>> out, to_input = relu(np.array([-1.0, 0.0, 2.0]))
    >>> to_input(np.array([5.0, 6.0, 7.0]))
    array([0., 0., 7.])
    """
    x = dense(input)
    out = np.empty(x.shape, x.dtype)
    parts.run(kernels.relu_forward, x.reshape(-1), out.reshape(-1))

    def to_input(G: Array) -> Array:
        grad = np.empty(out.shape, out.dtype)
        arrays = dense(G).reshape(-1), out.reshape(-1), grad.reshape(-1)
        parts.run(kernels.relu_backward, *arrays)
        return grad

    return out, to_input


@rule("G - exp({out}) * ΣG", dtypes="kernel")
def log_softmax(input: Array, *, dim: int = -1) -> Made:
    """The logarithm of the softmax along ``dim``: log(exp(x[c]) / Σ_j exp(x[j]))

    >>> out, to_input = log_softmax(np.array([0.0, 0.0]))  # both have probability 1/2
    >>> to_input(np.array([1.0, 0.0]))
    array([ 0.5, -0.5])
    """
    shape, dim = input.shape, as_dim(dim, input.ndim)
    x = rows_along(dim, input)
    out, softmax = np.empty(x.shape, x.dtype), np.empty(x.shape, x.dtype)
    parts.run(kernels.log_softmax_forward, x, out, softmax)

    def to_input(G: Array) -> Array:
        grad = np.empty(softmax.shape, softmax.dtype)
        parts.run(kernels.log_softmax_backward, rows_along(dim, G), softmax, grad)
        return from_rows(dim, grad, shape)

    return np.asarray(from_rows(dim, out, shape), order="C"), to_input


@rule("-G (-G / N for a mean) at the right class, else 0", dtypes="kernel")
def nll_loss(log_probs: Array, *, targets: Array, reduction: str) -> Made:
    """-log_probs[n, targets[n]], or the sum or the mean of these

    With "mean", each of the N losses receives G/N.

    >>> targets = np.array([1, 0])
    >>> log_probs = np.array([[-1.0, -2.0], [-3.0, -4.0]])
    >>> out, to_log_probs = nll_loss(log_probs, targets=targets, reduction="mean")
    >>> out, to_log_probs(np.array(1.0))  # the mean of 2 and 3
    (array(2.5), array([[ 0. , -0.5],
           [-0.5,  0. ]]))
    """
    shape, dtype, N = log_probs.shape, log_probs.dtype, len(targets)
    losses = np.empty(N, dtype)
    bad, total = kernels.nll_loss_forward(dense(log_probs), targets, losses)
    if bad >= 0:
        raise IndexError(f"nll_loss: targets[{bad}] is {targets[bad]}, wanted 0..{shape[1] - 1}")

    def to_log_probs(G: Array) -> Array:
        grad_losses, grad = np.empty(N, dtype), np.empty(shape, dtype)
        grad_losses[:] = G / N if reduction == "mean" else G
        kernels.nll_loss_backward(grad_losses, targets, grad)
        return grad

    total = total / N if reduction == "mean" else total
    return losses if reduction == "none" else np.array(total, dtype), to_log_probs
