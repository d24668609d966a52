"""More operations in the form that `ops` describes; the MLP and plain arithmetic need none of them.

PyTorch's names `abs`, `max` and `min` hide Python's own in this file.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy import ndarray as Array
from numpy.lib.array_utils import normalize_axis_tuple

from .ops import Dims, Made, add_up, as_dim, as_dims, rule

# Functions of each element


@rule("G * sign({0})", dtypes="number")
def abs(x: Array) -> Made:
    """The absolute value, elementwise

    The slope is 1 where x > 0 and -1 where x < 0. At the kink, x = 0, it is 0, as in PyTorch.

    >>> out, to_x = abs(np.array([-2.0, 0.0, 3.0]))
    >>> to_x(np.array([1.0, 10.0, 100.0]))
    array([ -1.,   0., 100.])
    """
    # np.sign(x), but 0 for NaN, as in PyTorch
    return np.abs(x), lambda G: G * np.subtract(x > 0, x < 0, dtype=G.dtype)


@rule("G / (2 * {out})", dtypes="float")
def sqrt(x: Array) -> Made:
    """The square root, elementwise

    From out² = x, the chain rule gives 2 out ∂out/∂x = 1.

    >>> out, to_x = sqrt(np.array([1.0, 4.0]))
    >>> to_x(np.array([1.0, 10.0]))
    array([0.5, 2.5])
    """
    out = np.sqrt(x)
    return out, lambda G: G / (2 * out)


@rule("G * cos({0})", dtypes="float")
def sin(x: Array) -> Made:
    """The sine of x in radians, elementwise; sin' = cos

    >>> out, to_x = sin(np.array([0.0, np.pi]))
    >>> to_x(np.array([1.0, 10.0]))
    array([  1., -10.])
    """
    return np.sin(x), lambda G: G * np.cos(x)


@rule("-G * sin({0})", dtypes="float")
def cos(x: Array) -> Made:
    """The cosine of x in radians, elementwise; cos' = -sin

    >>> out, to_x = cos(np.array([0.0, np.pi / 2]))
    >>> to_x(np.array([1.0, 10.0]))
    array([ -0., -10.])
    """
    return np.cos(x), lambda G: -G * np.sin(x)


@rule("G * (1 - {out}²)", dtypes="float")
def tanh(x: Array) -> Made:
    """The hyperbolic tangent, elementwise

    tanh = sinh/cosh, with sinh' = cosh and cosh' = sinh. By the quotient rule,
    tanh' = (cosh² - sinh²)/cosh² = 1 - tanh².

    >>> out, to_x = tanh(np.array([0.0, 20.0]))
    >>> to_x(np.array([1.0, 1.0]))  # steepest at 0, flat far away
    array([1., 0.])
    """
    out = np.tanh(x)
    return out, lambda G: G * (1 - out * out)


@rule("G * {out} * (1 - {out})", dtypes="float")
def sigmoid(x: Array) -> Made:
    """The logistic sigmoid, 1 / (1 + e⁻ˣ), elementwise

    By the quotient rule, its derivative is e⁻ˣ / (1 + e⁻ˣ)². That is out (1 - out), because
    1 - out = e⁻ˣ / (1 + e⁻ˣ).

    >>> out, to_x = sigmoid(np.array([0.0, 1000.0]))
    >>> to_x(np.array([1.0, 1.0]))  # steepest at 0, flat far away
    array([0.25, 0.  ])
    """
    small = np.exp(-np.abs(x))  # cannot overflow; for x < 0, the fraction is expanded by eˣ
    out = np.where(x >= 0, 1, small) / (1 + small)
    return out, lambda G: G * out * (1 - out)


@rule("G where min < {0} < max, else 0")
def clamp(x: Array, *, min: float | None = None, max: float | None = None) -> Made:
    """``min`` where x is smaller, ``max`` where x is larger, else x

    Where x was replaced, it does not influence L. At the kinks, x = min and x = max, 0 is taken,
    as in PyTorch (2.14). If min > max, every element becomes max.

    >>> out, to_x = clamp(np.array([-2.0, 0.5, 1.0, 9.0]), min=0, max=1)
    >>> out, to_x(np.array([1.0, 10.0, 100.0, 1000.0]))
    (array([0. , 0.5, 1. , 1. ]), array([ 0., 10.,  0.,  0.]))
    """
    if min is None and max is None:
        raise RuntimeError("clamp() needs min, max or both")
    for bound in (min, max):
        if not isinstance(bound, (int, float, np.number, type(None))):
            got = type(bound).__name__
            raise TypeError(f"clamp() takes numbers, got {got}; use maximum() and minimum()")
    is_float = x.dtype.kind == "f"
    if not is_float and any(isinstance(bound, (float, np.floating)) for bound in (min, max)):
        x, is_float = x.astype(np.float32), True
    out = np.clip(x, min, max)
    inside = (True if min is None else x > min) & (True if max is None else x < max)
    return out.astype(x.dtype) if is_float else out, lambda G: np.where(inside, G, 0)


@rule("G, but 0 where it was assigned to", "G where it was assigned")
def setitem(x: Array, value: Array, *, steps: list[Any]) -> Made:
    """``x`` after x[index] = value; ``steps`` come from `minigrad.arrays.index_steps`

    The elements that were replaced no longer influence L. A value that was broadcast receives the
    sum of the gradients of its copies.

    >>> out, to_x, to_value = setitem(np.zeros(3), np.array(5.0), steps=[slice(0, 2)])
    >>> out, to_x(np.array([1.0, 10.0, 100.0])), to_value(np.array([1.0, 10.0, 100.0]))
    (array([5., 5., 0.]), array([  0.,   0., 100.]), np.float64(11.0))
    """
    *basic, last = steps
    shape = np.shape(value)

    def replaced(array: Array, numbers: Any) -> Array:
        copy = target = np.array(array)
        for step in basic:
            target = target[step]
        target[last] = numbers
        return copy

    def to_value(G: Array) -> Any:
        for step in steps:
            G = G[step]
        surplus = np.ndim(G) - len(shape)
        axes = [surplus + i for i, length in enumerate(shape) if length == 1]
        return np.sum(G, axis=(*range(surplus), *axes), dtype=np.float64).reshape(shape)

    return replaced(x, value), lambda G: replaced(G, 0), to_value


# Functions of each pair of elements


@rule("G where {0} > {1}, G / 2 where they are equal", "G where {1} > {0}, G / 2 where equal")
def maximum(x: Array, y: Array) -> Made:
    """The larger of x and y, elementwise; NaN if either is NaN

    Only the larger one influences L. If they are equal, they share the gradient, as in PyTorch.

    >>> out, to_x, to_y = maximum(np.array([1.0, 3.0]), np.array([2.0, 3.0]))
    >>> G = np.array([1.0, 10.0])
    >>> to_x(G), to_y(G)
    (array([0., 5.]), array([1., 5.]))
    """
    return np.maximum(x, y), *shares(x < y, x == y, x > y)


@rule("G where {0} < {1}, G / 2 where they are equal", "G where {1} < {0}, G / 2 where equal")
def minimum(x: Array, y: Array) -> Made:
    """The smaller of x and y, elementwise; NaN if either is NaN

    >>> out, to_x, to_y = minimum(np.array([1.0, 3.0]), np.array([2.0, 3.0]))
    >>> G = np.array([1.0, 10.0])
    >>> to_x(G), to_y(G)
    (array([1., 5.]), array([0., 5.]))
    """
    return np.minimum(x, y), *shares(x > y, x == y, x < y)


def shares(y_wins: Any, ties: Any, x_wins: Any) -> tuple[Callable[[Array], Any], ...]:
    """The VJPs of both inputs: G for the winner, and half of it for each in a tie. (Next to a NaN
    neither loses, and both receive G, as in PyTorch.)"""
    return (
        lambda G: np.where(y_wins, 0, np.where(ties, G / 2, G)),
        lambda G: np.where(x_wins, 0, np.where(ties, G / 2, G)),
    )


@rule("G where the condition holds, else 0", "G where the condition does not hold, else 0")
def where(x: Array, y: Array, *, condition: Array) -> Made:
    """x where ``condition`` (bools) holds, else y; all three broadcast

    >>> condition = np.array([True, False])
    >>> out, to_x, to_y = where(np.array([1.0, 2.0]), np.array([5.0, 7.0]), condition=condition)
    >>> G = np.array([1.0, 10.0])
    >>> out, to_x(G), to_y(G)
    (array([1., 7.]), array([1., 0.]), array([ 0., 10.]))
    """
    out = np.where(condition, x, y)
    return out, lambda G: np.where(condition, G, 0), lambda G: np.where(condition, 0, G)


@rule("G", "-G * floor({0} / {1})", dtypes="number")
def remainder(x: Array, y: Array) -> Made:
    """x % y, elementwise, with the sign of y, as in Python: x - floor(x / y) y

    floor(x / y) changes in steps; between them it is constant.

    >>> out, to_x, to_y = remainder(np.array([7.0, -7.0]), np.array([3.0, 3.0]))
    >>> out, to_y(np.array([1.0, 10.0]))
    (array([1., 2.]), array([-2., 30.]))
    """
    refuse_zeros(y)
    return np.remainder(x, y), lambda G: G, lambda G: -G * np.floor_divide(x, y)


def refuse_zeros(y: Any) -> None:
    """Raise a ZeroDivisionError for integers that are 0: NumPy would return 0."""
    if y.dtype.kind != "f" and not np.all(y):
        raise ZeroDivisionError("integer division by 0")


# Shapes


@rule("G, in the shape of {0}")
def squeeze(x: Array, *, dim: Dims = None) -> Made:
    """``x`` without its dimensions of length 1, or only without those of them in ``dim``

    >>> out, to_x = squeeze(np.array([[[1.0], [2.0]]]), dim=0)
    >>> out.shape, to_x(out).shape
    ((2, 1), (1, 2, 1))
    """
    shape, ndim = x.shape, builtins.max(x.ndim, 1)
    dims = normalize_axis_tuple(range(ndim) if dim is None else dim, ndim, "dim")
    kept = [length for d, length in enumerate(shape) if length != 1 or d not in dims]
    return x.reshape(kept), lambda G: G.reshape(shape)


@rule("G, in the shape of {0}")
def unsqueeze(x: Array, *, dim: int) -> Made:
    """``x`` with a new dimension of length 1 at position ``dim``

    >>> out, to_x = unsqueeze(np.array([1.0, 2.0]), dim=-1)
    >>> out.shape, to_x(out).shape
    ((2, 1), (2,))
    """
    shape = x.shape
    return np.expand_dims(x, as_dim(dim, x.ndim + 1)), lambda G: G.reshape(shape)


@rule("G, in the shape of {0}")
def flatten(x: Array, *, start_dim: int = 0, end_dim: int = -1) -> Made:
    """``x`` with the dimensions from ``start_dim`` to ``end_dim`` merged into one

    >>> out, to_x = flatten(np.ones((2, 3, 4)), start_dim=1)
    >>> out.shape, to_x(out).shape
    ((2, 12), (2, 3, 4))
    """
    shape = x.shape
    start, end = as_dim(start_dim, x.ndim), as_dim(end_dim, x.ndim)
    if start > end:
        raise RuntimeError(f"flatten: start_dim {start} of shape {shape} is after end_dim {end}")
    length = math.prod(shape[start : end + 1])
    return x.reshape(*shape[:start], length, *shape[end + 1 :]), lambda G: G.reshape(shape)


@rule("G, permuted back")
def permute(x: Array, *, dims: tuple[int, ...]) -> Made:
    """``x`` with its dimensions in the order ``dims``; shares memory

    >>> out, to_x = permute(np.ones((2, 3, 4)), dims=(2, 0, 1))
    >>> out.shape, to_x(out).shape
    ((4, 2, 3), (2, 3, 4))
    """
    order = normalize_axis_tuple(dims, x.ndim, "dims")
    if len(order) != x.ndim:
        raise RuntimeError(f"permute: wanted {x.ndim} dims for shape {x.shape}, got {dims}")
    back = [order.index(d) for d in range(x.ndim)]
    return x.transpose(order), lambda G: G.transpose(back)


@rule("its part of G")
def cat(*arrays: Array, dim: int = 0) -> Made:
    """The arrays one after the other along ``dim``; their other lengths must be equal

    Each input receives the part of G where its elements are. As in PyTorch, arrays of shape
    (0,) fit all others, so a loop may start with one.

    >>> out, to_x, to_y = cat(np.array([1.0, 2.0]), np.array([5.0]))
    >>> G = np.array([1.0, 10.0, 100.0])
    >>> to_x(G), to_y(G)
    (array([ 1., 10.]), array([100.]))
    """
    shapes = [x.shape for x in arrays]
    if () in shapes:
        i = shapes.index(())
        raise RuntimeError(f"cat: input {i} has no dimension to join along; use stack()")
    joined = [x for x in arrays if x.shape != (0,)] or arrays
    dim = as_dim(dim, joined[0].ndim)

    def part(start: int, stop: int, shape: tuple[int, ...]) -> Callable[[Array], Any]:
        index = (*[slice(None)] * dim, slice(start, stop))
        return lambda G: G[index].reshape(shape)

    out, vjps, start = np.concatenate(joined, dim), [], 0
    for shape in shapes:
        stop = start + (0 if shape == (0,) else shape[dim])
        vjps.append(part(start, stop, shape))
        start = stop
    return out, *vjps


@rule("its part of G")
def stack(*arrays: Array, dim: int = 0) -> Made:
    """Arrays of one shape, side by side along a new dimension at position ``dim``

    >>> out, to_x, to_y = stack(np.array([1.0, 2.0]), np.array([5.0, 7.0]), dim=1)
    >>> out
    array([[1., 5.],
           [2., 7.]])
    >>> to_y(np.array([[1.0, 10.0], [100.0, 1000.0]]))
    array([  10., 1000.])
    """
    dim = as_dim(dim, arrays[0].ndim + 1)

    def part(i: int) -> Callable[[Array], Any]:
        return lambda G: np.moveaxis(G, dim, 0)[i]

    return np.stack(arrays, dim), *map(part, range(len(arrays)))


# Reductions, and sums along a dimension


@rule("G where {0} is largest (shared if several are), else 0")
def max(x: Array, *, dim: int | None = None, keepdim: bool = False) -> Made:
    """The largest element, or the largest along ``dim``

    Only the largest element influences L. A tie has no derivative. As in PyTorch, the tied
    elements then share the gradient evenly without ``dim``; with it, the first gets all.

    >>> out, to_x = max(np.array([1.0, 5.0, 5.0]))
    >>> to_x(np.array(1.0))
    array([0. , 0.5, 0.5])
    >>> out, to_x = max(np.array([[1.0, 5.0], [7.0, 2.0]]), dim=1)
    >>> to_x(np.array([1.0, 10.0]))
    array([[ 0.,  1.],
           [10.,  0.]])
    """
    return extreme("max", x, dim, keepdim)


@rule("G where {0} is smallest (shared if several are), else 0")
def min(x: Array, *, dim: int | None = None, keepdim: bool = False) -> Made:
    """The smallest element, or the smallest along ``dim``; ties are treated as in `max`

    >>> out, to_x = min(np.array([[1.0, 5.0], [7.0, 2.0]]), dim=1)
    >>> to_x(np.array([1.0, 10.0]))
    array([[ 1.,  0.],
           [ 0., 10.]])
    """
    return extreme("min", x, dim, keepdim)


def extreme(
    name: str, x: Array, dim: int | None, keepdim: bool
) -> tuple[Any, Callable[[Array], Any]]:
    """What `max` and `min` share."""
    shape, dim = x.shape, dim if dim is None else as_dim(dim, x.ndim)
    if builtins.min(shape if dim is None else shape[dim : dim + 1], default=1) == 0:
        raise RuntimeError(f"{name}() of no elements (shape {shape}, dim {dim})")
    out = getattr(x, name)(axis=dim, keepdims=keepdim)
    if dim is None or not shape:
        found = (x == out) | np.isnan(x)  # a NaN, if any, is the result
        return out, lambda G: np.where(found, G / np.count_nonzero(found), 0)
    index = getattr(x, "arg" + name)(axis=dim, keepdims=True)

    def to_x(G: Array) -> Array:
        grad = np.zeros(shape, G.dtype)
        np.put_along_axis(grad, index, G.reshape(index.shape), dim)
        return grad

    return out, to_x


@rule("2 * G * ({0} - its mean) / (n - correction)")
def var(x: Array, *, dim: Dims = None, correction: float = 1, keepdim: bool = False) -> Made:
    """The variance of all elements, or along ``dim``: Σ (x[i] - mean)² / (n - correction)

    With a correction of 1 it is an unbiased estimate from a sample, with 0 the mean square.
    By the chain rule, ∂out/∂x[i] = Σ_j 2 (x[j] - mean) ∂(x[j] - mean)/∂x[i] / (n - correction).
    The mean depends on x[i] too, but Σ_j (x[j] - mean) = 0 removes that term, which leaves
    2 (x[i] - mean) / (n - correction).

    >>> out, to_x = var(np.array([1.0, 2.0, 6.0]))
    >>> out, to_x(np.array(1.0))
    (np.float64(7.0), array([-2., -1.,  3.]))
    """
    variance, centred, kept, freedom = spread("var", x, dim, correction, keepdim)
    return variance.astype(x.dtype), lambda G: 2 * G.reshape(kept) * (centred / freedom)


@rule("G * ({0} - its mean) / ((n - correction) * {out})")
def std(x: Array, *, dim: Dims = None, correction: float = 1, keepdim: bool = False) -> Made:
    """The standard deviation, which is the square root of the variance

    Its derivative is that of the variance divided by 2 out (see `sqrt`). If all elements are
    equal, there is a kink; 0 is taken, as in PyTorch.

    >>> out, to_x = std(np.array([-1.0, 1.0]), correction=0)
    >>> out, to_x(np.array(1.0))
    (np.float64(1.0), array([-0.5,  0.5]))
    """
    variance, centred, kept, freedom = spread("std", x, dim, correction, keepdim)
    out = np.sqrt(variance).astype(x.dtype)

    @np.errstate(divide="ignore", invalid="ignore")  # np.where drops what is infinite
    def to_x(G: Array) -> Any:
        return np.where(out == 0, 0, G / out).reshape(kept) * (centred / freedom)

    return out, to_x


def spread(
    name: str, x: Array, dim: Dims, correction: float, keepdim: bool
) -> tuple[Any, Array, list[int], np.float64]:
    """The variance in float64, x minus its mean, the shape of the variance with all dimensions
    kept, and the divisor of the sum of squares."""
    if x.dtype.kind != "f":
        raise RuntimeError(f"{name}() needs floating-point numbers, got {x.dtype}; use float()")
    dims, kept = as_dims(dim, x.shape)
    n = math.prod(x.shape[d] for d in dims)
    # Subtract the mean first: the mean of squares minus the square of the mean loses digits.
    centred = x - np.divide(add_up(x, dims).reshape(kept), n)
    freedom = np.float64(builtins.max(n - correction, 0))
    variance = np.divide(add_up(centred * centred, dims, keepdim), freedom)
    return variance, centred.astype(x.dtype), kept, freedom


@rule("G * the product of the others")
def prod(x: Array, *, dim: int | None = None, keepdim: bool = False) -> Made:
    """The product of all elements or along ``dim``; for integers, it is int64

    ∂out/∂x[i] is the product of all other elements: of those before it and those after it.
    (That is out / x[i], but x[i] may be 0.)

    >>> out, to_x = prod(np.array([2.0, 0.0, 5.0]))
    >>> to_x(np.array(1.0))
    array([ 0., 10.,  0.])
    """
    shape, along = x.shape, 0 if dim is None else as_dim(dim, x.ndim)
    kept = as_dims(dim, shape)[1]
    whole = dim is None or not shape
    factors = x.reshape(-1) if whole else np.moveaxis(x, along, 0)
    out = factors.prod(axis=0, dtype=wide(x))
    out = out.astype(x.dtype) if x.dtype.kind == "f" else out

    def to_x(G: Array) -> Any:
        before, after = np.ones(factors.shape), np.ones(factors.shape)
        np.cumprod(factors[:-1], axis=0, dtype=np.float64, out=before[1:])
        np.cumprod(factors[:0:-1], axis=0, dtype=np.float64, out=after[-2::-1])
        others = before * after
        others = others.reshape(shape) if whole else np.moveaxis(others, 0, along)
        return others * G.reshape(kept)

    return out.reshape(kept) if keepdim else out, to_x


def wide(x: Array) -> type:
    """The dtype in which long sums and products of ``x`` are computed, as in `add_up`."""
    return np.float64 if x.dtype.kind == "f" else np.int64


@rule("G, summed from the end along dim")
def cumsum(x: Array, *, dim: int) -> Made:
    """The running sum along ``dim``; integers sum to int64

    out[j] = Σ_i x[i] over i ≤ j. So x[i] is in out[i] and in all that follow, and receives the
    sum of their G.

    >>> out, to_x = cumsum(np.array([1.0, 2.0, 3.0]), dim=0)
    >>> out, to_x(np.array([1.0, 10.0, 100.0]))
    (array([1., 3., 6.]), array([111., 110., 100.]))
    """
    shape, dim = x.shape, as_dim(dim, x.ndim)
    out: Any = np.cumsum(np.atleast_1d(x), dim, dtype=wide(x)).reshape(shape)

    def to_x(G: Array) -> Any:
        reverse = np.flip(np.atleast_1d(G), dim)
        return np.flip(np.cumsum(reverse, dim, dtype=np.float64), dim).reshape(shape)

    return out.astype(x.dtype) if x.dtype.kind == "f" else out, to_x


# For networks


@rule("{out} * (G - Σ G * {out})", dtypes="kernel")
@np.errstate(invalid="ignore")  # inf - inf is NaN, as in PyTorch
def softmax(input: Array, *, dim: int) -> Made:
    """Turn numbers into probabilities along ``dim``: exp(x[c]) / Σ_j exp(x[j])

    The largest x is subtracted first, so that nothing overflows; it cancels in the fraction. By
    the quotient rule, ∂out[c]/∂x[k] = out[c] ([c = k] - out[k]), with [c = k] for 1 if c = k,
    else 0. Hence ∂L/∂x[k] = out[k] (G[k] - Σ_c G[c] out[c]).

    >>> out, to_input = softmax(np.array([0.0, 0.0]), dim=0)
    >>> out, to_input(np.array([1.0, 0.0]))
    (array([0.5, 0.5]), array([ 0.25, -0.25]))
    """
    dims = as_dims(as_dim(dim, input.ndim), input.shape)[0]
    out: Any = np.exp(input - input.max(axis=dims, keepdims=True, initial=-np.inf))
    out = (out / add_up(out, dims, keepdim=True)).astype(input.dtype)
    return out, lambda G: out * (G - add_up(G * out, dims, keepdim=True))


@rule("-G * w (-G * w / Σw for a mean) at the right class, w being its weight", dtypes="kernel")
def weighted_nll_loss(
    log_probs: Array, *, targets: Array, weight: Array, ignore_index: int, reduction: str
) -> Made:
    """-weight[targets[n]] * log_probs[n, targets[n]], or the sum or the weighted mean of these

    The weighted mean is the sum of the losses divided by the sum of the examples' weights. An
    example whose target is ``ignore_index`` has loss and weight 0.

    >>> log_probs = np.array([[-1.0, -2.0], [-3.0, -4.0], [-5.0, -6.0]])
    >>> settings = dict(targets=np.array([1, 0, -100]), ignore_index=-100, reduction="mean")
    >>> out, to_log_probs = weighted_nll_loss(log_probs, weight=np.array([3.0, 1.0]), **settings)
    >>> out, to_log_probs(np.array(1.0))  # (1 · 2 + 3 · 3) / (1 + 3)
    (np.float64(2.75), array([[ 0.  , -0.25],
           [-0.75,  0.  ],
           [ 0.  ,  0.  ]]))
    """
    shape, dtype = log_probs.shape, log_probs.dtype
    rows = np.flatnonzero(targets != ignore_index)
    classes = targets[rows]
    for n in rows[(classes < 0) | (classes >= shape[1])]:
        raise IndexError(f"nll_loss: targets[{n}] is {targets[n]}, wanted 0..{shape[1] - 1}")
    weights = weight[classes]
    losses = np.zeros(len(targets), dtype)
    losses[rows] = -weights * log_probs[rows, classes]
    total = weights.sum(dtype=np.float64) if reduction == "mean" else np.float64(1)

    @np.errstate(invalid="ignore", divide="ignore")
    def to_log_probs(G: Array) -> Array:
        grad = np.zeros(shape, dtype)
        grad[rows, classes] = -weights * (G[rows] if reduction == "none" else G / total)
        return grad

    if reduction == "none":
        return losses, to_log_probs
    with np.errstate(invalid="ignore", divide="ignore"):  # if all weights are 0, the mean is NaN
        return (losses.sum(dtype=np.float64) / total).astype(losses.dtype), to_log_probs
