"""New Tensors: from data, filled with one number, or drawn at random."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .tensor import Tensor, as_array, float32

generator = np.random.default_rng()


def as_shape(shape: tuple[Any, ...]) -> tuple[int, ...]:
    """The shape meant by ``f(2, 3)`` or ``f((2, 3))``, both of which PyTorch allows."""
    return shape[0] if len(shape) == 1 and not isinstance(shape[0], (int, np.integer)) else shape


def tensor(data: ArrayLike, dtype: DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """A Tensor with a copy of `data`; Python floats make float32, integers int64."""
    return Tensor(as_array(data, dtype).copy(), requires_grad)


def from_numpy(array: np.ndarray) -> Tensor:
    """A Tensor that shares the memory of `array`."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"from_numpy() takes a numpy.ndarray, got {type(array).__name__}")
    return Tensor(array)


def zeros(*shape: Any, dtype: DTypeLike = float32, requires_grad: bool = False) -> Tensor:
    """Zeros of a shape, ``zeros(2, 3)`` or ``zeros((2, 3))``."""
    return Tensor(np.zeros(as_shape(shape), dtype), requires_grad)


def ones(*shape: Any, dtype: DTypeLike = float32, requires_grad: bool = False) -> Tensor:
    """Ones of a shape, ``ones(2, 3)`` or ``ones((2, 3))``."""
    return Tensor(np.ones(as_shape(shape), dtype), requires_grad)


def randn(*shape: Any, dtype: Any = float32, requires_grad: bool = False) -> Tensor:
    """Draws from the standard normal distribution; float32 or float64."""
    return Tensor(generator.standard_normal(as_shape(shape), dtype), requires_grad)


def zeros_like(x: Tensor) -> Tensor:
    """Zeros with the shape and dtype of `x`."""
    return Tensor(np.zeros_like(x.array))


def ones_like(x: Tensor) -> Tensor:
    """Ones with the shape and dtype of `x`."""
    return Tensor(np.ones_like(x.array))


def randn_like(x: Tensor) -> Tensor:
    """Standard normal draws with the shape and dtype of `x`."""
    return randn(x.shape, dtype=x.dtype)


def manual_seed(seed: int) -> None:
    """Start the one random generator of minigrad anew from `seed`.

    In place, since other files hold the generator itself.
    """
    generator.bit_generator.state = np.random.default_rng(seed).bit_generator.state
