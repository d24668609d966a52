"""minigrad: reverse-mode automatic differentiation on NumPy and Numba, small enough to read."""

from . import functional, nn, optim
from .gradcheck import GradcheckError, gradcheck
from .ops import argmax, exp, log, matmul, max, mean, sum, tanh
from .functional import relu
from .serialization import load, save
from .tensor import (
    Tensor,
    float32,
    float64,
    from_numpy,
    int64,
    is_grad_enabled,
    manual_seed,
    no_grad,
    ones,
    ones_like,
    randn,
    randn_like,
    record,
    tensor,
    zeros,
    zeros_like,
)

__version__ = "0.1.0"
