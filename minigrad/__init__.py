"""minigrad: reverse-mode automatic differentiation on NumPy and Numba, small enough to read."""

from typing import TYPE_CHECKING

from . import functional as functional, memory, more_ops, nn as nn, ops, optim as optim
from .checking import GradcheckError as GradcheckError, gradcheck as gradcheck
from .explaining import explain as explain
from .ops import rule as rule
from .recording import is_grad_enabled as is_grad_enabled, no_grad as no_grad
from .serialization import load as load, save as save
from .tensors import (
    Tensor as Tensor,
    float32 as float32,
    float64 as float64,
    from_numpy as from_numpy,
    int64 as int64,
    manual_seed as manual_seed,
    ones as ones,
    ones_like as ones_like,
    operation as operation,
    randn as randn,
    randn_like as randn_like,
    tensor as tensor,
    zeros as zeros,
    zeros_like as zeros_like,
)

__version__ = "0.1.0"

# PyTorch's functions that do what the method of the same name does

exp = operation(ops.exp)
log = operation(ops.log)
matmul = operation(ops.matmul)
relu = operation(ops.relu)
tanh = operation(more_ops.tanh)
argmax, max, mean, sum = Tensor.argmax, Tensor.max, Tensor.mean, Tensor.sum

memory.keep_freed_memory()

if TYPE_CHECKING:
    from . import datasets as datasets
else:

    def __getattr__(name):
        """Import `datasets` when it is first used: it loads what is needed for downloads."""
        if name != "datasets":
            raise AttributeError(f"module 'minigrad' has no attribute {name!r}")
        import importlib

        return importlib.import_module("minigrad.datasets")
