"""Reverse-mode automatic differentiation on NumPy and Numba, small enough to read

The names are those of PyTorch:

- `tensor`, `zeros`, `randn`, `from_numpy` and others make a `Tensor`; its help lists the methods
- `exp`, `matmul`, `sum` and others are functions that have a method of the same name
- `nn`, `functional`, `optim` and `datasets` are modules with models, losses, optimisers and data
- `no_grad` turns recording off; `save` and `load` keep Tensors in a file

To look inside and to test:

- `explain` says what happens inside `backward`; `plot` draws it
- `gradcheck` compares a gradient with finite differences
- `operation` makes a function on arrays differentiable; `testing` has what tests its gradient
"""

from typing import TYPE_CHECKING

import numpy as np

from . import functional as functional, left_out, memory, nn as nn, optim as optim
from .arrays import float32 as float32, float64 as float64, int64 as int64
from .checking import GradcheckError as GradcheckError, gradcheck as gradcheck
from .creation import (
    arange as arange,
    eye as eye,
    from_numpy as from_numpy,
    full as full,
    full_like as full_like,
    linspace as linspace,
    manual_seed as manual_seed,
    ones as ones,
    ones_like as ones_like,
    rand as rand,
    randint as randint,
    randn as randn,
    randn_like as randn_like,
    tensor as tensor,
    zeros as zeros,
    zeros_like as zeros_like,
)
from .explaining import explain as explain
from .ops import rule as rule
from .recording import is_grad_enabled as is_grad_enabled, no_grad as no_grad
from .serialization import load as load, save as save
from .tensors import (
    Tensor as Tensor,
    as_function,
    cat as cat,
    operation as operation,
    stack as stack,
    where as where,
)
from .threads import get_num_threads as get_num_threads, set_num_threads as set_num_threads

__version__ = "0.1.0"

uint8, int32, bool = np.dtype("uint8"), np.dtype("int32"), np.dtype("bool")
float, double, long = float32, float64, int64  # PyTorch's other names

# PyTorch's functions that have a Tensor method of the same name. Those without `as_function` only
# call an operation, which takes arrays, lists and numbers, too.

exp, log, sqrt, abs = Tensor.exp, Tensor.log, Tensor.sqrt, Tensor.abs
sin, cos, tanh, sigmoid, relu = Tensor.sin, Tensor.cos, Tensor.tanh, Tensor.sigmoid, Tensor.relu
matmul, remainder = Tensor.matmul, Tensor.remainder
maximum, minimum = Tensor.maximum, Tensor.minimum
all, any = as_function(Tensor.all), as_function(Tensor.any)
argmax, argmin = as_function(Tensor.argmax), as_function(Tensor.argmin)
clamp = clip = as_function(Tensor.clamp)
cumsum, prod = as_function(Tensor.cumsum), as_function(Tensor.prod)
flatten, permute = as_function(Tensor.flatten), as_function(Tensor.permute)
max, min = as_function(Tensor.max), as_function(Tensor.min)
mean, sum = as_function(Tensor.mean), as_function(Tensor.sum)
reshape, transpose = as_function(Tensor.reshape), as_function(Tensor.transpose)
softmax, log_softmax = as_function(Tensor.softmax), as_function(Tensor.log_softmax)
squeeze, unsqueeze = as_function(Tensor.squeeze), as_function(Tensor.unsqueeze)
std, var = as_function(Tensor.std), as_function(Tensor.var)

memory.keep_freed_memory()

NEEDS = {"datasets": "numpy", "plot": "matplotlib", "testing": "hypothesis"}  # module: package

if TYPE_CHECKING:
    from . import datasets as datasets, distributed as distributed, plot as plot, testing as testing
else:

    def __getattr__(name):
        """Import on first use what needs other packages or a download, or starts MPI."""
        if name not in NEEDS and name != "distributed":
            raise left_out.missing("minigrad", name)
        import importlib

        return importlib.import_module(f"minigrad.{name}")

    def __dir__():
        """Public names, for completion, which fails at a module whose package is missing.

        `distributed` is not among them: completion imports what it lists, and MPI would start.
        """
        import importlib.util

        installed = {name for name, needed in NEEDS.items() if importlib.util.find_spec(needed)}
        return sorted({*globals(), *installed} - {"NEEDS", "TYPE_CHECKING", "as_function", "np"})
