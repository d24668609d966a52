"""minigrad: reverse-mode automatic differentiation on NumPy and Numba, small enough to read."""

import ctypes

from . import datasets, functional, nn, optim
from . import operators as operators  # gives Tensor its operators
from .creation import (
    from_numpy,
    manual_seed,
    ones,
    ones_like,
    randn,
    randn_like,
    tensor,
    zeros,
    zeros_like,
)
from .explain import explain
from .functional import relu
from .gradcheck import GradcheckError, gradcheck
from .ops import argmax, exp, log, matmul, max, mean, sum, tanh
from .serialization import load, save
from .tensor import Tensor, float32, float64, int64, is_grad_enabled, no_grad, record

__version__ = "0.1.0"

__all__ = [
    "argmax", "datasets", "exp", "explain", "float32", "float64", "from_numpy", "functional",
    "gradcheck", "GradcheckError", "int64", "is_grad_enabled", "load", "log", "manual_seed",
    "matmul", "max", "mean", "nn", "no_grad", "ones", "ones_like", "optim", "randn", "randn_like",
    "record", "relu", "save", "sum", "tanh", "tensor", "Tensor", "zeros", "zeros_like",
]  # fmt: skip


def _keep_freed_memory() -> None:
    """Let glibc keep the memory of freed arrays, up to 256 MB, for the next training step.

    By default it hands large blocks back to the system at once, which must then clear every
    page anew: a fifth of a step's time with batches of 250 to 10,000. See mallopt(3).
    """
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library: macOS, Windows
        return
    mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the largest value that glibc takes
    mallopt(M_TRIM_THRESHOLD, 256 << 20)


_keep_freed_memory()
