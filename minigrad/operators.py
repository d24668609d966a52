"""The methods of Tensors: ``a + b``, ``a < b``, ``a += b``, ``a[i]``, ``a.sum()``, ``print(a)``.

The operations come from `ops` and `functional`; what is added here has no derivative of its
own. `Operators`, at the end, lists them all.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from . import functional, ops
from .tensor import Tensor, as_array, float32, float64, int64, is_grad_enabled

Binary = Callable[[Any, Any], Tensor]
Value = TypeVar("Value")


def _property(method: Callable[[Tensor], Value]) -> Value:
    """A property whose type is known to type checkers."""
    return property(method)  # type: ignore[return-value]


def _reflected(operation: Binary) -> Binary:
    """``2 - x``, for which Python calls ``x.__rsub__(2)``."""
    return lambda a, b: operation(b, a)


# Comparisons: no gradient


def _comparison(ufunc: np.ufunc) -> Binary:
    def compare(a: Tensor, b: ArrayLike) -> Any:
        if b is None or isinstance(b, str):
            return NotImplemented
        return Tensor(ops.combine(ufunc, *ops.operands(a, b)))

    return compare


# Changes in place


def _refuse_in_place(x: Tensor) -> None:
    if x.requires_grad and is_grad_enabled():
        raise RuntimeError("a Tensor that requires grad changes in place only under no_grad()")


def _in_place(operation: Binary) -> Binary:
    """``a += b`` and its like.

    If the result requires grad, the graph may need the old value of `a`: the result is a new
    Tensor, which Python then binds to the name `a`. Otherwise the array itself changes.
    """

    def method(a: Tensor, b: ArrayLike) -> Tensor:
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


def _setitem(x: Tensor, index: Any, value: ArrayLike) -> None:
    _refuse_in_place(x)
    if is_grad_enabled() and isinstance(value, Tensor) and value.requires_grad:
        raise RuntimeError("item assignment records no gradient; assign value.detach()")
    x.array[index] = as_array(value, x.dtype)


def _zero_(x: Tensor) -> Tensor:
    """Set every element to 0, in place."""
    _refuse_in_place(x)
    x.array[...] = 0
    return x


# How a Tensor is shown: as PyTorch does it, with 4 decimals, in lines of 80 characters


def operation_name(x: Tensor) -> str:
    """The name of the operation that made a Tensor; empty for a leaf.

    It is that of the function in which the VJP was defined: ``mul`` of ``mul.<locals>.vjp``.
    """
    if x.vjp is None:
        return ""
    functions: list[str] = getattr(x.vjp, "__qualname__", "").split(".<locals>")
    return ["custom", *functions][-2].split(".")[-1]


def _repr(x: Tensor) -> str:
    a = x.array
    whole = np.all((a == np.round(a)) | ~np.isfinite(a))
    text = np.array2string(
        a, 81, 4, separator=", ", prefix="tensor(", floatmode="maxprec_equal" if whole else "fixed"
    )
    text = "tensor(" + text.replace(", ..., ", ",  ..., ")
    suffixes = [] if a.dtype in (float32, int64, np.bool_) else [f"dtype={a.dtype}"]
    if x.vjp is not None:
        suffixes.append(f"grad_fn=<{operation_name(x)}>")
    elif x.requires_grad:
        suffixes.append("requires_grad=True")
    for suffix in suffixes:
        last_line = text[text.rfind("\n") + 1 :] + ", " + suffix
        text += (", " if len(last_line) < 79 else ",\n       ") + suffix
    return text + ")"


def _format(x: Tensor, spec: str) -> str:
    return format(x.item(), spec) if spec or x.ndim == 0 else str(x)


def _len(x: Tensor) -> int:
    if x.ndim == 0:
        raise TypeError("a 0-d Tensor has no length")
    return len(x.array)


def _iter(x: Tensor) -> Iterator[Tensor]:
    return (x[i] for i in range(len(x)))


# Into other forms


def _detach(x: Tensor) -> Tensor:
    """A Tensor that shares this one's array and has no history."""
    return Tensor(x.array)


def _numpy(x: Tensor) -> np.ndarray:
    """The array itself (shared); an error if that would silently lose a gradient."""
    if x.requires_grad:
        raise RuntimeError("NumPy would lose the gradient: use tensor.detach().numpy()")
    return x.array


def _array(x: Tensor, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
    return np.array(_numpy(x), dtype=dtype, copy=copy)


def _item(x: Tensor) -> float:
    """The only element, as a Python number."""
    if x.array.size != 1:
        raise RuntimeError(f"a Tensor of shape {x.shape} is not one number, as item() needs")
    number: float = x.array.item()
    return number


def _tolist(x: Tensor) -> Any:
    """The numbers as nested Python lists."""
    return x.array.tolist()


def _ndim(x: Tensor) -> int:
    """The number of dimensions."""
    return x.array.ndim


def _size(x: Tensor, dim: int | None = None) -> Any:
    """The shape, or the length of one dimension."""
    return x.shape if dim is None else x.shape[dim]


def _numel(x: Tensor) -> int:
    """The number of elements."""
    return x.array.size


def _reduce(x: Tensor) -> tuple[Any, ...]:
    """For copy and pickle: how to make the copy, which has a time of creation of its own."""
    if not x.is_leaf:
        raise RuntimeError("only leaves can be copied or pickled; use detach() first")
    return type(x), (x.array, x.requires_grad), (None, {"_grad": x.grad})


def _bool(x: Tensor) -> bool:
    return bool(x.item())


def _int(x: Tensor) -> int:
    return int(x.item())


def _float(x: Tensor) -> float:
    return float(x.item())


def _cast(dtype: np.dtype) -> Callable[[Tensor], Tensor]:
    return lambda x: ops.to(x, dtype)


class Operators:
    """All methods of a Tensor but the engine's own."""

    __add__, __radd__, __iadd__ = ops.add, _reflected(ops.add), _in_place(ops.add)
    __sub__, __rsub__, __isub__ = ops.sub, _reflected(ops.sub), _in_place(ops.sub)
    __mul__, __rmul__, __imul__ = ops.mul, _reflected(ops.mul), _in_place(ops.mul)
    __truediv__, __rtruediv__, __itruediv__ = ops.div, _reflected(ops.div), _in_place(ops.div)
    __pow__, __rpow__, __ipow__ = ops.pow, _reflected(ops.pow), _in_place(ops.pow)
    __matmul__, __rmatmul__ = ops.matmul, _reflected(ops.matmul)
    __imatmul__ = _in_place(ops.matmul)
    __neg__, __getitem__, __setitem__ = ops.neg, ops.getitem, _setitem
    __eq__, __ne__ = _comparison(np.equal), _comparison(np.not_equal)  # type: ignore[assignment]
    __lt__, __le__ = _comparison(np.less), _comparison(np.less_equal)
    __gt__, __ge__ = _comparison(np.greater), _comparison(np.greater_equal)
    __repr__, __format__, __len__, __iter__ = _repr, _format, _len, _iter
    exp, log, tanh = ops.exp, ops.log, ops.tanh
    relu, log_softmax = functional.relu, functional.log_softmax
    sum, mean, max, argmax = ops.sum, ops.mean, ops.max, ops.argmax
    reshape = view = ops.reshape
    transpose, T = ops.transpose, _property(ops.reverse_dims)
    clone, to, zero_ = ops.clone, ops.to, _zero_
    detach, numpy, __array__, __reduce__ = _detach, _numpy, _array, _reduce
    item, tolist = _item, _tolist
    ndim, size, numel = _property(_ndim), _size, _numel
    __bool__, __int__, __float__ = _bool, _int, _float
    float, double, long = _cast(float32), _cast(float64), _cast(int64)


# tensor.py cannot import this file, which builds on it: here its class gets these methods, but
# not what Python puts into every class, such as __module__.
for name, method in vars(Operators).items():
    if callable(method) or isinstance(method, property):
        setattr(Tensor, name, method)
