"""New Tensors: from data, filled with one number, or drawn at random."""

import numpy as np

from .tensor import Tensor, as_array, as_shape, float32

generator = np.random.default_rng()


def tensor(data, dtype=None, requires_grad=False):
    """A Tensor with a copy of `data`; Python floats make float32, integers int64."""
    return Tensor(as_array(data, dtype).copy(), requires_grad)


def from_numpy(array):
    """A Tensor that shares the memory of `array`."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"from_numpy() takes a numpy.ndarray, got {type(array).__name__}")
    return Tensor(array)


def zeros(*shape, dtype=float32, requires_grad=False):
    """Zeros of a shape, ``zeros(2, 3)`` or ``zeros((2, 3))``."""
    return Tensor(np.zeros(as_shape(shape), dtype), requires_grad)


def ones(*shape, dtype=float32, requires_grad=False):
    """Ones of a shape, ``ones(2, 3)`` or ``ones((2, 3))``."""
    return Tensor(np.ones(as_shape(shape), dtype), requires_grad)


def randn(*shape, dtype=float32, requires_grad=False):
    """Draws from the standard normal distribution; float32 or float64."""
    return Tensor(generator.standard_normal(as_shape(shape), dtype), requires_grad)


def zeros_like(x):
    """Zeros with the shape and dtype of `x`."""
    return Tensor(np.zeros_like(x.array))


def ones_like(x):
    """Ones with the shape and dtype of `x`."""
    return Tensor(np.ones_like(x.array))


def randn_like(x):
    """Standard normal draws with the shape and dtype of `x`."""
    return randn(x.shape, dtype=x.dtype)


def manual_seed(seed):
    """Start the one random generator of minigrad anew from `seed`."""
    generator.bit_generator.state = np.random.default_rng(seed).bit_generator.state
