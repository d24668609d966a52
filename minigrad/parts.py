"""Elementwise kernels on large arrays of float32, in parts, by the threads of `threads`.

Such a kernel moves memory, and two cores move it about twice as fast as one.
"""

import functools
from typing import Any, cast

import numpy as np
from numba import carray, types  # type: ignore[attr-defined]
from numpy import ndarray as Array

from . import kernels, threads
from .caching import c_function

LARGE = 131_072  # elements, below which one thread is as fast


def relu_forward(x: Any, out: Any, _: Any, __: float, start: int, stop: int) -> None:
    kernels.relu_forward(carray(x, stop)[start:], carray(out, stop)[start:])


def relu_backward(grad: Any, out: Any, grad_x: Any, _: float, start: int, stop: int) -> None:
    kernels.relu_backward(
        carray(grad, stop)[start:], carray(out, stop)[start:], carray(grad_x, stop)[start:]
    )


def gradient_descent(param: Any, grad: Any, _: Any, lr: float, start: int, stop: int) -> None:
    kernels.gradient_descent(carray(param, stop)[start:], carray(grad, stop)[start:], lr)


PARTS = {getattr(kernels, f.__name__): f for f in (relu_forward, relu_backward, gradient_descent)}


@functools.cache
def compiled(part: Any) -> Any:
    """A part as a C function; `carray` makes arrays of the addresses that it gets."""
    pointer = cast(Any, types).CPointer(types.float32)
    numbers = types.float64, types.int64, types.int64
    return c_function(part, cast(Any, types.void)(pointer, pointer, pointer, *numbers))


def shared(kernel: Any, size: int) -> Any:
    """An elementwise kernel or, for arrays of `size` elements that are large, a function in its
    place that shares them among the threads if it can: C-contiguous, of float32, in a kernel
    that has a part here."""
    return kernel if size < LARGE else functools.partial(_run, kernel)


def _run(kernel: Any, *arguments: Any) -> None:
    """Call a kernel on arrays of one size, which may be followed by a setting."""
    arrays = [x for x in arguments if isinstance(x, Array)]
    fit = all(x.dtype == np.float32 and x.flags.carray for x in arrays)
    if not fit or kernel not in PARTS or threads.crew[threads.THREADS] < 2:
        kernel(*arguments)
        return
    threads.start()
    x, y, z = ([array.ctypes.data for array in arrays] + [0])[:3]
    (setting,) = arguments[len(arrays) :] or (0.0,)
    threads.run_part(compiled(PARTS[kernel]).address, x, y, z, setting, arrays[0].size)
