"""More operations in the same form, which neither the MLP nor plain arithmetic needs.

The first lines of `ops` say what an operation returns.
"""

from __future__ import annotations

import builtins

import numpy as np
from numpy import ndarray as Array
from numpy.lib.array_utils import normalize_axis_index

from .ops import Made, rule


@rule("G * (1 - {out}²)", dtypes="float")
def tanh(x: Array) -> Made:
    """The hyperbolic tangent, elementwise

    tanh = sinh/cosh, with sinh' = cosh and cosh' = sinh; by the rule for quotients
    tanh' = (cosh² - sinh²)/cosh² = 1 - tanh².

    >>> out, to_x = tanh(np.array([0.0, 20.0]))
    >>> to_x(np.array([1.0, 1.0]))  # steepest at 0, flat far away
    array([1., 0.])
    """
    out = np.tanh(x)
    return out, lambda G: G * (1 - out * out)


@rule("G where {0} is largest (shared if several are), else 0")
def max(x: Array, *, dim: int | None = None, keepdim: bool = False) -> Made:
    """The largest element, or the largest along `dim`

    Only the largest element influences L. Two that tie have no derivative there, and we do as
    PyTorch does: without `dim`, they share the gradient evenly; with it, the first has it all.

    >>> out, to_x = max(np.array([1.0, 5.0, 5.0]))
    >>> to_x(np.array(1.0))
    array([0. , 0.5, 0.5])
    >>> out, to_x = max(np.array([[1.0, 5.0], [7.0, 2.0]]), dim=1)
    >>> to_x(np.array([1.0, 10.0]))
    array([[ 0.,  1.],
           [10.,  0.]])
    """
    shape, dim = x.shape, dim if dim is None else normalize_axis_index(dim, x.ndim, "dim")
    if builtins.min(shape if dim is None else (shape[dim],), default=1) == 0:
        raise RuntimeError(f"max() of no elements (shape {shape}, dim {dim})")
    out = x.max(axis=dim, keepdims=keepdim)
    if dim is None:
        largest = (x == out) | np.isnan(x)  # a NaN, if any, is the maximum
        return out, lambda G: np.where(largest, G / np.count_nonzero(largest), 0)
    index = x.argmax(axis=dim, keepdims=True)

    def to_x(G: Array) -> Array:
        grad = np.zeros(shape, G.dtype)
        np.put_along_axis(grad, index, G.reshape(index.shape), dim)
        return grad

    return out, to_x
