"""Create Tensors: from data, filled with one number, or drawn at random."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import as_array, as_shape, float32, int64
from .tensors import Tensor

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

generator = np.random.default_rng()


def tensor(data: ArrayLike, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """A Tensor with a copy of ``data``.

    Parameters
    ----------
    data : array_like
        A number, nested lists, an array or a Tensor.
    dtype : dtype, optional
        By default, arrays keep theirs, Python floats make float32 and integers int64.
    requires_grad : bool
        Whether `Tensor.backward` leaves a gradient in it.

    Raises
    ------
    TypeError
        If ``data`` is not made of real numbers.
    ValueError
        If ``data`` is a ragged list.
    OverflowError
        If an integer dtype cannot hold a number.
    RuntimeError
        If an integer or a bool should require grad.
    """
    return Tensor(as_array(data, dtype).copy(), requires_grad)


def from_numpy(array: np.ndarray) -> Tensor:
    """A Tensor that shares the memory of ``array``; a TypeError for anything but an ndarray."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"from_numpy() takes a numpy.ndarray, got {type(array).__name__}")
    return Tensor(array)


def zeros(*shape: Any, dtype: DTypeLike = float32, requires_grad: bool = False) -> Tensor:
    """Zeros in a given shape, as in ``zeros(2, 3)`` or ``zeros((2, 3))``."""
    return Tensor(np.zeros(as_shape(shape), dtype), requires_grad)


def ones(*shape: Any, dtype: DTypeLike = float32, requires_grad: bool = False) -> Tensor:
    """Ones in a given shape, as in ``ones(2, 3)`` or ``ones((2, 3))``."""
    return Tensor(np.ones(as_shape(shape), dtype), requires_grad)


def randn(*shape: Any, dtype: Any = float32, requires_grad: bool = False) -> Tensor:
    """Numbers drawn from the standard normal distribution; float32 or float64."""
    return Tensor(generator.standard_normal(as_shape(shape), dtype), requires_grad)


def zeros_like(x: ArrayLike) -> Tensor:
    """Zeros with the shape and dtype of ``x``."""
    return Tensor(np.zeros_like(as_array(x)))


def ones_like(x: ArrayLike) -> Tensor:
    """Ones with the shape and dtype of ``x``."""
    return Tensor(np.ones_like(as_array(x)))


def randn_like(x: ArrayLike) -> Tensor:
    """Numbers drawn from the standard normal distribution, in the shape and dtype of ``x``."""
    array = as_array(x)
    return randn(array.shape, dtype=array.dtype)


def rand(*shape: Any, dtype: Any = float32, requires_grad: bool = False) -> Tensor:
    """Numbers drawn uniformly between 0 and 1; float32 or float64."""
    return Tensor(generator.random(as_shape(shape), dtype), requires_grad)


def randint(low: int = 0, high: Any = None, size: Any = None, dtype: DTypeLike = int64) -> Tensor:
    """Random integers from ``low`` to ``high - 1``: ``randint(5, 10, (3,))``, or
    ``randint(10, (3,))`` with ``low`` 0. A TypeError if the size is not a tuple."""
    if size is None:
        low, high, size = 0, low, high
    if not isinstance(size, (tuple, list)):
        raise TypeError(f"randint: size must be a tuple, as in randint(0, 10, (3,)), got {size!r}")
    return Tensor(as_array(generator.integers(low, high, size), dtype))


def full(
    size: Any, fill_value: Any, dtype: DTypeLike | None = None, requires_grad: bool = False
) -> Tensor:
    """One number in every place, as in ``full((2, 3), 0.5)``; an integer makes int64."""
    return Tensor(np.full(size, as_array(fill_value, dtype)), requires_grad)


def full_like(x: ArrayLike, fill_value: Any, dtype: DTypeLike | None = None) -> Tensor:
    """``fill_value`` in every place, with the shape and dtype of ``x``."""
    array = as_array(x)
    return full(array.shape, fill_value, dtype or array.dtype)


def eye(
    n: int, m: int | None = None, dtype: DTypeLike = float32, requires_grad: bool = False
) -> Tensor:
    """A matrix of shape (n, m) with ones on the diagonal and zeros elsewhere; m is n by default."""
    return Tensor(np.eye(n, m, dtype=dtype), requires_grad)


def arange(
    start: Any, end: Any = None, step: Any = 1, dtype: DTypeLike | None = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Numbers from ``start`` up to, but not including, ``end``: ``arange(3)`` is 0, 1, 2.

    Integers make int64, others float32. Raises a RuntimeError if ``step`` leads away from ``end``.
    """
    start, end = (0, start) if end is None else (start, end)
    if step == 0 or (end - start) * step < 0:
        raise RuntimeError(f"arange: a step of {step} does not lead from {start} to {end}")
    array = np.arange(start, end, step)
    return Tensor(
        array.astype(dtype or (float32 if array.dtype.kind == "f" else int64)), requires_grad
    )


def linspace(
    start: float, end: float, steps: int, dtype: DTypeLike = float32, requires_grad: bool = False
) -> Tensor:
    """``steps`` evenly spaced numbers from ``start`` to ``end``, both included."""
    return Tensor(np.linspace(start, end, steps).astype(dtype), requires_grad)


def manual_seed(seed: int) -> None:
    """Reset minigrad's one random generator to ``seed``.

    It is reset in place, because other modules hold the generator itself.
    """
    generator.bit_generator.state = np.random.default_rng(seed).bit_generator.state
