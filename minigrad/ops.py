"""Arithmetic, shapes, indexing, products and reductions, with their VJPs.

Every operation that is not made of others takes the same three steps: compute an array with
NumPy, say in a nested function `vjp` how the gradient of the output becomes the gradients of
the inputs, and hand both to `record`. (Where `vjp` is one short expression, it is a lambda.)
In formulas, G is the gradient of the output, which code calls `grad`. A VJP reads numbers from
arrays that it has kept (x, y, out), never from its Tensors, to which somebody may assign other
arrays before `backward`.

On a first reading, read `unbroadcast` and `_sum`, then go to Arithmetic: the rest up to there
only gives both operands one dtype. The names `sum`, `max` and `pow` are PyTorch's and hide
Python's own in this file; its `dim` is what NumPy calls axis.
"""

from collections import namedtuple
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple
from numpy.typing import ArrayLike, DTypeLike

from .creation import as_shape
from .tensor import Grads, Tensor, as_array, float32, float64, int64, record

# Shared by all below: broadcasting and dtypes


def unbroadcast(grad: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sum `grad` down to `shape`, from which NumPy had broadcast an input.

    Broadcasting uses one number in many places; by the chain rule their gradients add up.

    >>> grad = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    >>> unbroadcast(grad, (3,))  # each number was used in two rows
    array([5., 7., 9.])
    >>> unbroadcast(grad, (2, 1))  # each number was used in three columns
    array([[ 6.],
           [15.]])
    """
    if grad.shape == shape:
        return grad
    added = grad.ndim - len(shape)
    stretched = [added + i for i, length in enumerate(shape) if length == 1]
    return np.reshape(_sum(grad, (*range(added), *stretched)), shape)


def _sum(array: np.ndarray, axis: tuple[int, ...], keepdims: Any = False) -> Any:
    """Add up in double precision: along some axes NumPy adds one by one, and long sums of
    float32 would lose digits."""
    wide, narrow = (float64, array.dtype) if array.dtype.kind == "f" else (int64, int64)
    return array.sum(axis=axis, dtype=wide, keepdims=keepdims).astype(narrow, copy=False)


def combine(ufunc: np.ufunc, a: Tensor, b: Tensor) -> Any:
    """The array ufunc(a, b), by NumPy's rules of broadcasting; a RuntimeError if shapes misfit."""
    try:
        return ufunc(a.array, b.array)
    except ValueError as error:
        shapes = f"shapes {a.shape} and {b.shape}"
        raise RuntimeError(f"{ufunc.__name__} cannot combine {shapes}: {error}") from None


def to(x: Tensor, dtype: DTypeLike) -> Tensor:
    """`x` in another dtype

    Rounding aside, the numbers are the same: ∂out/∂x = 1. `backward` gives each gradient the
    dtype of its Tensor. Integers and bools have no gradient: their numbers move in steps.

    >>> x = Tensor([1.5, 2.5], requires_grad=True)
    >>> to(x, float64).backward([1.0, 10.0])
    >>> x.grad
    tensor([ 1., 10.])
    """
    dtype = np.dtype(dtype)
    if dtype == x.dtype:
        return x
    if dtype.kind != "f":
        return Tensor(x.array.astype(dtype))
    return record(x.array.astype(dtype), (x,), lambda grad: (grad,))


def _promotion_rank(x: ArrayLike) -> tuple[int, int]:
    """PyTorch's order: bool < integer < float; then number < 0-d Tensor < other Tensor."""
    array = as_array(x)
    category = {"b": 0, "f": 2}.get(array.dtype.kind, 1)
    return category, 0 if isinstance(x, (int, float)) else 1 + (array.ndim > 0)


def operands(a: ArrayLike, b: ArrayLike) -> tuple[Tensor, Tensor]:
    """`a` and `b` as Tensors of one dtype, as PyTorch would promote them.

    The operand that ranks higher decides; between equals, the wider dtype.
    """
    if isinstance(a, Tensor) and isinstance(b, Tensor) and a.dtype == b.dtype:
        return a, b
    rank_a, rank_b = _promotion_rank(a), _promotion_rank(b)
    dtype = as_array(a if rank_a > rank_b else b).dtype
    if rank_a == rank_b:
        dtype = np.promote_types(as_array(a).dtype, dtype)
    a, b = (x if isinstance(x, Tensor) else Tensor(as_array(x, dtype)) for x in (a, b))
    return to(a, dtype), to(b, dtype)


def _floating(x: Tensor) -> Tensor:
    return x if x.dtype.kind == "f" else to(x, float32)


# Arithmetic


def add(a: ArrayLike, b: ArrayLike) -> Tensor:
    """a + b

    ∂out/∂a = ∂out/∂b = 1, so that both inputs receive G itself.

    >>> a, b = Tensor([1.0, 2.0], requires_grad=True), Tensor(5.0, requires_grad=True)
    >>> add(a, b).backward([1.0, 10.0])
    >>> a.grad, b.grad  # b was used twice
    (tensor([ 1., 10.]), tensor(11.))
    """
    a, b = operands(a, b)

    def vjp(grad: np.ndarray) -> Grads:
        return unbroadcast(grad, a.shape), unbroadcast(grad, b.shape)

    return record(combine(np.add, a, b), (a, b), vjp)


def neg(x: Tensor) -> Tensor:
    """-x, elementwise

    ∂out[i]/∂x[i] = -1, so that ∂L/∂x = -G.

    >>> x = Tensor([2.0, 3.0], requires_grad=True)
    >>> neg(x).backward([1.0, 10.0])
    >>> x.grad
    tensor([ -1., -10.])
    """
    return record(-x.array, (x,), lambda grad: (-grad,))


def sub(a: ArrayLike, b: ArrayLike) -> Tensor:
    """a - b, which is a + (-b)"""
    a, b = operands(a, b)  # before the minus: a small unsigned integer has no negative
    return add(a, neg(b))


def mul(a: ArrayLike, b: ArrayLike) -> Tensor:
    """a * b, elementwise

    ∂out[i]/∂a[i] = b[i], and 0 for any other element of a, so that ∂L/∂a = G * b;
    likewise ∂L/∂b = G * a.

    >>> a, b = Tensor([2.0, 3.0], requires_grad=True), Tensor([5.0, 7.0], requires_grad=True)
    >>> mul(a, b).backward([1.0, 10.0])
    >>> a.grad, b.grad
    (tensor([ 5., 70.]), tensor([ 2., 30.]))
    """
    a, b = operands(a, b)
    x, y = a.array, b.array

    def vjp(grad: np.ndarray) -> Grads:
        return unbroadcast(grad * y, x.shape), unbroadcast(grad * x, y.shape)

    return record(combine(np.multiply, a, b), (a, b), vjp)


def div(a: ArrayLike, b: ArrayLike) -> Tensor:
    """a / b, elementwise; integers become float32 first

    ∂(a/b)/∂a = 1/b and ∂(a/b)/∂b = -a/b² = -out/b.

    >>> a, b = Tensor(6.0, requires_grad=True), Tensor(2.0, requires_grad=True)
    >>> div(a, b).backward()
    >>> a.grad, b.grad
    (tensor(0.5000), tensor(-1.5000))
    """
    a, b = map(_floating, operands(a, b))
    x, y = a.array, b.array
    out = combine(np.divide, a, b)

    def vjp(grad: np.ndarray) -> Grads:
        return unbroadcast(grad / y, x.shape), unbroadcast(-grad * (out / y), y.shape)

    return record(out, (a, b), vjp)


def pow(a: ArrayLike, b: ArrayLike) -> Tensor:
    """a ** b, elementwise

    For a > 0, aᵇ = exp(b log a), and the chain rule gives ∂aᵇ/∂a = aᵇ b/a = b aᵇ⁻¹ and
    ∂aᵇ/∂b = aᵇ log a. The first holds for any a for which aᵇ⁻¹ exists.

    >>> a, b = Tensor(3.0, requires_grad=True), Tensor(2.0, requires_grad=True)
    >>> pow(a, b).backward()
    >>> a.grad, b.grad  # 2 · 3, and 9 log 3
    (tensor(6.), tensor(9.8875))
    """
    a, b = operands(a, b)
    x, y = a.array, b.array
    out = combine(np.power, a, b)

    @np.errstate(divide="ignore", invalid="ignore")  # np.where drops what is infinite
    def vjp(grad: np.ndarray) -> Grads:
        grad_a = grad_b = None
        if a.requires_grad:  # a⁰ is the constant 1, even at a = 0
            grad_a = unbroadcast(np.where(y == 0, 0, grad * (y * x ** (y - 1))), x.shape)
        if b.requires_grad:  # at a = 0, b ≥ 0 we take 0, as PyTorch does
            grad_b = unbroadcast(grad * np.where((x == 0) & (y >= 0), 0, out * np.log(x)), y.shape)
        return grad_a, grad_b

    return record(out, (a, b), vjp)


# Functions of each element


def exp(x: Tensor) -> Tensor:
    """eˣ, elementwise

    Its derivative is eˣ again, which is out: ∂L/∂x = G * out, and x need not be kept.

    >>> x = Tensor([0.0, 1.0], requires_grad=True)
    >>> exp(x).backward([1.0, 10.0])
    >>> x.grad  # 1, and 10 e
    tensor([ 1.0000, 27.1828])
    """
    x = _floating(x)
    out = np.exp(x.array)
    return record(out, (x,), lambda grad: (grad * out,))


def log(x: Tensor) -> Tensor:
    """The natural logarithm, elementwise

    From exp(log x) = x, the chain rule gives exp(log x) log'(x) = 1, hence log'(x) = 1/x.

    >>> x = Tensor([1.0, 4.0], requires_grad=True)
    >>> log(x).backward([1.0, 10.0])
    >>> x.grad
    tensor([1.0000, 2.5000])
    """
    x = _floating(x)
    saved = x.array
    return record(np.log(saved), (x,), lambda grad: (grad / saved,))


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent, elementwise

    tanh = sinh/cosh, with sinh' = cosh and cosh' = sinh; by the rule for quotients
    tanh' = (cosh² - sinh²)/cosh² = 1 - tanh².

    >>> x = Tensor([0.0, 20.0], requires_grad=True)
    >>> tanh(x).backward([1.0, 1.0])
    >>> x.grad  # steepest at 0, flat far away
    tensor([1., 0.])
    """
    x = _floating(x)
    out = np.tanh(x.array)
    return record(out, (x,), lambda grad: (grad * (1 - out * out),))


# Shapes. The elements stay what they are, and only move: each element of G goes back to where
# its number came from.


def clone(x: Tensor) -> Tensor:
    """A copy that gradients flow through.

    >>> x = Tensor([1.0, 2.0], requires_grad=True)
    >>> clone(x).backward([1.0, 10.0])
    >>> x.grad
    tensor([ 1., 10.])
    """
    return record(x.array.copy(), (x,), lambda grad: (grad,))


def reshape(x: Tensor, *shape: Any) -> Tensor:
    """The same elements in another shape, shared where NumPy can; one length may be -1.

    A RuntimeError if the number of elements differs.

    >>> x = Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    >>> reshape(x, -1).backward([1.0, 10.0, 100.0, 1000.0])
    >>> x.grad
    tensor([[   1.,   10.],
            [ 100., 1000.]])
    """
    try:
        out = x.array.reshape(as_shape(shape))
    except ValueError as error:
        raise RuntimeError(f"view of a Tensor of shape {x.shape}: {error}") from None
    return record(out, (x,), lambda grad: (grad.reshape(x.shape),))


def transpose(x: Tensor, dim0: int, dim1: int) -> Tensor:
    """`x` with two dimensions swapped; shares memory.

    >>> x = Tensor([[1.0, 2.0]], requires_grad=True)
    >>> transpose(x, 0, 1).backward([[1.0], [10.0]])
    >>> x.grad  # the same swap leads back
    tensor([[ 1., 10.]])
    """
    return record(x.array.swapaxes(dim0, dim1), (x,), lambda grad: (grad.swapaxes(dim0, dim1),))


def reverse_dims(x: Tensor) -> Tensor:
    """`x` with its dimensions in reverse order, which is `x.T`; shares memory."""
    return record(x.array.T, (x,), lambda grad: (grad.T,))


def getitem(x: Tensor, index: Any) -> Tensor:
    """x[index]: slices share memory, arrays of integers or bools and single elements copy.

    Each element of out is one of x: its gradient goes back to that place. What was not picked
    has no influence on L, hence 0; what was picked twice receives both.

    >>> x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> getitem(x, [0, 0, 2]).backward([1.0, 10.0, 100.0])
    >>> x.grad
    tensor([ 11.,   0., 100.])
    """
    shape, picked = x.shape, x.array[index]
    is_view = np.may_share_memory(picked, x.array)

    def vjp(grad: np.ndarray) -> Grads:
        grad_x = np.zeros(shape, grad.dtype)
        if is_view:  # picks no element more than once
            grad_x[index] = grad
        else:
            np.add.at(grad_x, index, grad)  # adds up
        return (grad_x,)

    return record(picked, (x,), vjp)


# Products of matrices


def matmul(a: ArrayLike, b: ArrayLike) -> Tensor:
    """a @ b by NumPy's rules: vectors, matrices, and stacks of matrices that broadcast.

    out[i, j] = Σ_k a[i, k] b[k, j]: a[i, k] is a factor in every out[i, j] of its row, so that
    ∂L/∂a[i, k] = Σ_j G[i, j] b[k, j], which is G @ bᵀ. Likewise ∂L/∂b[k, j] =
    Σ_i a[i, k] G[i, j], which is aᵀ @ G. (Unless two of the three lengths are equal, the
    shapes leave no other way to multiply G by b and get that of a.) Of stacks, this holds
    matrix by matrix.

    A RuntimeError if dtypes differ, or shapes do not fit.

    >>> a = Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    >>> b = Tensor([[5.0], [6.0]], requires_grad=True)
    >>> matmul(a, b).backward([[1.0], [10.0]])
    >>> a.grad, b.grad
    (tensor([[ 5.,  6.],
            [50., 60.]]), tensor([[31.],
            [42.]]))
    """
    a, b = (x if isinstance(x, Tensor) else Tensor(x) for x in (a, b))
    if a.dtype != b.dtype:
        raise RuntimeError(f"matmul needs one dtype, got {a.dtype} @ {b.dtype}; see Tensor.to()")
    if b.array.ndim == 1:  # as a matrix of one column; of the product, that column
        return getitem(matmul(a, reshape(b, -1, 1)), (..., 0))
    if a.array.ndim == 1:  # as a matrix of one row
        return getitem(matmul(reshape(a, 1, -1), b), (..., 0, slice(None)))
    x, y = a.array, b.array

    def vjp(grad: np.ndarray) -> Grads:
        return (  # a product that nobody needs would cost as much as the forward one
            unbroadcast(grad @ y.swapaxes(-1, -2), x.shape) if a.requires_grad else None,
            unbroadcast(x.swapaxes(-1, -2) @ grad, y.shape) if b.requires_grad else None,
        )

    return record(combine(np.matmul, a, b), (a, b), vjp)


# Reductions


def sum(x: Tensor, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
    """The sum over all elements or over `dim` (an int or several); integers sum to int64.

    Every element counts once in its sum, ∂out/∂x[i] = 1: it receives the G of that sum.

    >>> x = Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    >>> sum(x, dim=1).backward([1.0, 10.0])
    >>> x.grad
    tensor([[ 1.,  1.],
            [10., 10.]])
    """
    dims = normalize_axis_tuple(range(x.array.ndim) if dim is None else dim, x.array.ndim, "dim")
    shape = x.shape
    shape_kept = [1 if d in dims else length for d, length in enumerate(shape)]

    def vjp(grad: np.ndarray) -> Grads:
        return (np.broadcast_to(grad.reshape(shape_kept), shape),)

    return record(_sum(x.array, tuple(dims), keepdim), (x,), vjp)


def mean(x: Tensor, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
    """The mean over all elements or over `dim` (an int or several): a sum, divided.

    Each of the n numbers receives G/n. A RuntimeError if they are integers.

    >>> x = Tensor([1.0, 2.0, 3.0, 6.0], requires_grad=True)
    >>> mean(x).backward()
    >>> x.grad
    tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    if x.dtype.kind != "f":
        raise RuntimeError(f"mean() needs floating-point numbers, got {x.dtype}; use float()")
    total = sum(x, dim, keepdim)
    return div(total, x.array.size / (total.array.size or 1))  # by how many are in each sum


Max = namedtuple("Max", ["values", "indices"])


def max(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The largest element; with `dim`, the pair ``(values, indices)`` along it.

    A RuntimeError if there are no elements, an IndexError if there is no such `dim`.

    L depends on the largest element alone. Where two tie there is no derivative; we do as
    PyTorch: without `dim`, they share the gradient evenly; with it, the one at `indices` has
    it all.

    >>> x = Tensor([1.0, 5.0, 5.0], requires_grad=True)
    >>> max(x).backward()
    >>> x.grad
    tensor([0.0000, 0.5000, 0.5000])
    >>> x = Tensor([[1.0, 5.0], [7.0, 2.0]], requires_grad=True)
    >>> max(x, dim=1).values.backward([1.0, 10.0])
    >>> x.grad
    tensor([[ 0.,  1.],
            [10.,  0.]])
    """
    dim = dim if dim is None else normalize_axis_index(dim, x.array.ndim, "dim")
    if 0 in (x.shape if dim is None else (x.shape[dim],)):
        raise RuntimeError(f"max() of no elements (shape {x.shape}, dim {dim})")
    saved = x.array
    if dim is None:
        out = saved.max()

        def vjp(grad: np.ndarray) -> Grads:
            largest = (saved == out) | np.isnan(saved)  # a NaN, if any, is the maximum
            return (np.where(largest, grad / np.count_nonzero(largest), 0),)

        return record(out, (x,), vjp)

    indices = saved.argmax(axis=dim, keepdims=True)
    # The grids 0..n-1 of the other dimensions: of a matrix, dim=1 picks x[i, indices[i, 0]],
    # and `getitem` has the VJP for that.
    others = np.indices(indices.shape, sparse=True)
    values = getitem(x, (*others[:dim], indices, *others[dim + 1 :]))
    shape = indices.shape if keepdim else indices.squeeze(dim).shape
    return Max(reshape(values, shape), Tensor(indices.reshape(shape)))


def argmax(x: Tensor, dim: int | None = None, keepdim: Any = False) -> Tensor:
    """The index (int64) of the largest element, or of each along `dim`; no gradient."""
    return Tensor(np.argmax(x.array, dim, keepdims=keepdim))
