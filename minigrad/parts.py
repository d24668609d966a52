"""Elementwise kernels on large float32 arrays, shared by several threads (see `threads`).

Two cores move memory, or compute exponentials, about twice as fast as one.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numba import carray, types  # type: ignore[attr-defined]
from numpy import ndarray as Array

from . import kernels, threads
from .caching import c_function, kernel

# What a part is passed: the addresses of up to three arrays, a setting, and the length of a row
PLACES, SETTING, WIDTH = 5, 3, 4


@kernel
def line(p: Any, i: int, start: int, stop: int) -> Any:
    """Numbers start to stop of array i."""
    return carray(threads.float32_at(p[i] + 4 * start), stop - start)


@kernel
def rows(p: Any, i: int, start: int, stop: int) -> Any:
    """Rows start to stop of array i."""
    width = carray(p, PLACES)[WIDTH]
    return carray(threads.float32_at(p[i] + 4 * width * start), (stop - start, width))


def relu_forward(p: Any, start: int, stop: int) -> None:
    kernels.relu_forward(line(p, 0, start, stop), line(p, 1, start, stop))


def relu_backward(p: Any, start: int, stop: int) -> None:
    kernels.relu_backward(line(p, 0, start, stop), line(p, 1, start, stop), line(p, 2, start, stop))


def gradient_descent(p: Any, start: int, stop: int) -> None:
    lr = carray(p, PLACES).view(np.float64)[SETTING]
    kernels.gradient_descent(line(p, 0, start, stop), line(p, 1, start, stop), lr)


def log_softmax_forward(p: Any, start: int, stop: int) -> None:
    x, out, softmax = (rows(p, 0, start, stop), rows(p, 1, start, stop), rows(p, 2, start, stop))
    kernels.log_softmax_forward(x, out, softmax)


def log_softmax_backward(p: Any, start: int, stop: int) -> None:
    G, softmax, grad = (rows(p, 0, start, stop), rows(p, 1, start, stop), rows(p, 2, start, stop))
    kernels.log_softmax_backward(G, softmax, grad)


# The part of each kernel, and how many elements keep one thread busy for 10 to 20 µs. Arrays of
# at least twice as many are shared.
PARTS: dict[Any, Any] = {
    kernels.relu_forward: (relu_forward, 65_536),
    kernels.relu_backward: (relu_backward, 65_536),
    kernels.gradient_descent: (gradient_descent, 65_536),
    kernels.log_softmax_forward: (log_softmax_forward, 8_192),
    kernels.log_softmax_backward: (log_softmax_backward, 16_384),
}
BY_ROWS = log_softmax_forward, log_softmax_backward
LEAST = 2 * min(unit for _, unit in PARTS.values())


@functools.cache
def address_of(part: Callable[..., None]) -> Any:
    """The address at which C can call a part."""
    nothing, integer = cast(Any, types).void, types.int64
    return c_function(part, nothing(cast(Any, types).CPointer(integer), integer, integer)).address


@kernel
def share(function: int, arrays: tuple[Array, ...], width: int, setting: float, work: int) -> None:
    """Call a C function for all parts of the arrays, which are cut between rows of ``width``."""
    p = np.empty(PLACES, np.int64)
    for i in range(len(arrays)):
        p[i] = arrays[i].ctypes.data
    p.view(np.float64)[SETTING], p[WIDTH] = setting, width
    threads.run_parts(function, p.ctypes.data, arrays[0].size // width, work)


def run(kernel: Any, *arrays: Array, settings: tuple[float, ...] = ()) -> None:
    """Call ``kernel(*arrays, *settings)``, on arrays of one shape.

    The threads share large arrays if these are C-contiguous and float32, and if the kernel has a
    part here. Such a kernel has at most three arrays and one setting; the rows of log-softmax run
    along the last dimension.
    """
    size = arrays[0].size
    if size >= LEAST:
        part, unit = PARTS.get(kernel, (None, math.inf))
        if size >= 2 * unit and threads.crew[threads.THREADS] > 1 and _fit(arrays):
            threads.start()
            width = arrays[0].shape[-1] if part in BY_ROWS else 1
            setting = settings[0] if settings else 0.0
            share(address_of(part), arrays, width, setting, size // unit)
            return
    kernel(*arrays, *settings)


def _fit(arrays: tuple[Array, ...]) -> bool:
    for array in arrays:
        if array.dtype != np.float32 or not array.flags.carray:
            return False
    return True
