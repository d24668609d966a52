"""Python's syntax for Tensors: ``a + b``, ``a < b``, ``a += b``, ``a[i] = b``, ``a.sum()``.

The operations come from `ops` and `functional`; what is added here has no derivative of its own.
"""

import numpy as np

from . import functional, ops
from .tensor import Tensor, as_array, float32, float64, int64, is_grad_enabled

# Comparisons: no gradient


def _comparison(ufunc):
    def compare(a, b):
        if b is None or isinstance(b, str):
            return NotImplemented
        return Tensor(ops.broadcast(ufunc, *ops.operands(a, b)))

    return compare


# Changes in place


def _refuse_in_place(x):
    if x.requires_grad and is_grad_enabled():
        raise RuntimeError("a Tensor that requires grad changes in place only under no_grad()")


def _in_place(operation):
    """``a += b`` and its like.

    If the result requires grad, the graph may need the old value of `a`: the result is a new
    Tensor, which Python then binds to the name `a`. Otherwise the array itself changes.
    """

    def method(a, b):
        if a.is_leaf:
            _refuse_in_place(a)
        out = operation(a, b)
        if out.shape != a.shape or not np.can_cast(out.dtype, a.dtype, "same_kind"):
            held, new = (f"{x.dtype} of shape {x.shape}" for x in (a, out))
            raise RuntimeError(f"in-place {operation.__name__}: {held} cannot hold {new}")
        if out.requires_grad:
            return ops.to(out, a.dtype)
        a.array[...] = out.array
        return a

    return method


def _setitem(x, index, value):
    _refuse_in_place(x)
    if is_grad_enabled() and isinstance(value, Tensor) and value.requires_grad:
        raise RuntimeError("item assignment records no gradient; assign value.detach()")
    x.array[index] = as_array(value, x.dtype)


def _zero_(x):
    """Set every element to 0, in place."""
    _refuse_in_place(x)
    x.array[...] = 0
    return x


# How a Tensor is shown: as PyTorch does it, with 4 decimals, in lines of 80 characters


def _repr(x):
    a = x.array
    whole = np.all((a == np.round(a)) | ~np.isfinite(a))
    mode = "maxprec_equal" if whole else "fixed"
    text = np.array2string(a, 81, 4, separator=", ", prefix="tensor(", floatmode=mode)
    text = "tensor(" + text.replace(", ..., ", ",  ..., ")
    suffixes = [] if a.dtype in (float32, int64, np.bool_) else [f"dtype={a.dtype}"]
    if x.vjp is not None:
        suffixes.append(f"grad_fn=<{x.vjp.__qualname__.split('.')[0]}>")  # mul.<locals>.vjp
    elif x.requires_grad:
        suffixes.append("requires_grad=True")
    for suffix in suffixes:
        last_line = text[text.rfind("\n") + 1 :] + ", " + suffix
        text += (", " if len(last_line) < 79 else ",\n       ") + suffix
    return text + ")"


def _format(x, spec):
    return format(x.item(), spec) if spec or x.ndim == 0 else str(x)


def _len(x):
    if x.ndim == 0:
        raise TypeError("a 0-d Tensor has no length")
    return len(x.array)


# Where Python finds all these

for name, operation in (
    ("add", ops.add), ("sub", ops.sub), ("mul", ops.mul),
    ("truediv", ops.div), ("pow", ops.pow), ("matmul", ops.matmul),
):  # fmt: skip
    setattr(Tensor, f"__{name}__", operation)
    setattr(Tensor, f"__r{name}__", lambda a, b, operation=operation: operation(b, a))
    setattr(Tensor, f"__i{name}__", _in_place(operation))
Tensor.__eq__, Tensor.__ne__ = _comparison(np.equal), _comparison(np.not_equal)
Tensor.__lt__, Tensor.__le__ = _comparison(np.less), _comparison(np.less_equal)
Tensor.__gt__, Tensor.__ge__ = _comparison(np.greater), _comparison(np.greater_equal)
Tensor.__neg__, Tensor.__getitem__, Tensor.__setitem__ = ops.neg, ops.getitem, _setitem
Tensor.__repr__, Tensor.__format__, Tensor.__len__ = _repr, _format, _len
Tensor.__iter__ = lambda x: (x[i] for i in range(len(x)))
Tensor.__bool__ = lambda x: bool(x.item())
Tensor.__int__ = lambda x: int(x.item())
Tensor.__float__ = lambda x: float(x.item())
Tensor.exp, Tensor.log, Tensor.tanh = ops.exp, ops.log, ops.tanh
Tensor.relu, Tensor.log_softmax = functional.relu, functional.log_softmax
Tensor.sum, Tensor.mean, Tensor.max, Tensor.argmax = ops.sum, ops.mean, ops.max, ops.argmax
Tensor.reshape = Tensor.view = ops.reshape
Tensor.transpose, Tensor.T = ops.transpose, property(ops.reverse_dims)
Tensor.clone, Tensor.to, Tensor.zero_ = ops.clone, ops.to, _zero_
Tensor.float = lambda x: ops.to(x, float32)
Tensor.double = lambda x: ops.to(x, float64)
Tensor.long = lambda x: ops.to(x, int64)
