"""Tensors: arrays that remember how they were computed, and Python's operators on them."""

from __future__ import annotations

import builtins
import functools
import warnings
from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast
from weakref import ref

import numpy as np

from . import changes, engine, more_ops, ops
from .arrays import (
    KERNEL_DTYPES,
    Function,
    Operation,
    as_array,
    as_dtype,
    as_shape,
    common_dtype,
    float32,
    float64,
    index_steps,
    int64,
    numpy_names,
    refuse_bools,
)
from .engine import Node, name_of
from .left_out import getattr_of
from .recording import blocks_here, is_grad_enabled, thread

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

Max = namedtuple("Max", ["values", "indices"])
Min = namedtuple("Min", ["values", "indices"])


# From Tensors to an operation, and back


def _in_one_dtype(
    op: Operation, inputs: Sequence[Any]
) -> tuple[tuple[Tensor, ...], list[np.ndarray]]:
    """The inputs as Tensors, and their arrays in one dtype."""
    dtype = common_dtype(op, inputs)
    arrays = [as_array(x, dtype) for x in inputs]
    tensors = tuple(x if isinstance(x, Tensor) else Tensor(a) for x, a in zip(inputs, arrays))
    return tensors, arrays


def _misfit(op: Operation, arrays: Sequence[Any], error: ValueError) -> Exception:
    """The error that names the operation and the shapes that it could not combine."""
    if len(arrays) == 1 or isinstance(error, IndexError):  # an IndexError: no such dim
        return error
    if op in (ops.matmul, np.matmul):
        x, y = (array.shape for array in arrays)
        if () in (x, y):
            return RuntimeError(f"matmul of shapes {x} and {y}: to multiply by a number, use *")
        if x[-1] != y[-2:][0]:
            return RuntimeError(
                f"matmul of shapes {x} and {y}: the last length of the first, {x[-1]}, must be the "
                f"{'last but one' if len(y) > 1 else 'length'} of the second, {y[-2:][0]}; "
                "flatten images with x.reshape(len(x), -1)"
            )
    try:
        np.broadcast_shapes(*(array.shape for array in arrays))
    except ValueError:
        shapes = " and ".join(str(array.shape) for array in arrays)
        return RuntimeError(f"{name_of(op)} cannot combine shapes {shapes}: {error}")
    return RuntimeError(f"{name_of(op)}: {error}")


def _no_vjps(op: Operation, inputs: int, made: Any) -> TypeError:
    """The error for an operation that does not return its result and one VJP for each input."""
    wanted = ", ".join(["result"] + ["vjp"] * inputs)
    got = ", ".join(type(x).__name__ for x in (made if isinstance(made, tuple) else [made]))
    got = f"({got})" if isinstance(made, tuple) else got
    hint = "a vjp is a function of G, such as lambda G: G * 2 * x, one for each input"
    if inputs > 1:
        hint += " (pass a setting without a derivative by keyword)"
    return TypeError(f"{name_of(op)} must return ({wanted}), got {got}; {hint}")


def apply(op: Operation, *inputs: Any, **settings: Any) -> Tensor:
    """Apply an operation to its inputs, and record a node for the result if it needs a gradient.

    Parameters
    ----------
    op : callable
        An operation on arrays, as described in `ops`.
    *inputs : Tensor, array, list or number
        What is differentiated. The inputs are converted to one dtype first.
    **settings
        What is not differentiated.

    Raises
    ------
    RuntimeError
        If dtypes or shapes do not fit together.
    TypeError
        If ``op`` does not return a tuple of the result and one VJP for each input.
    """
    # A small training step calls this many times. Loops, not comprehensions: in Python 3.11, each
    # of those is a call.
    arrays, dtype, usual, requires_grad, several = [], None, True, False, len(inputs) > 1
    for x in inputs:
        if not isinstance(x, Tensor):
            usual = False
            continue
        array = x.array
        if array.dtype is not dtype:
            usual, dtype = usual and dtype is None, array.dtype
        # Arithmetic on NumPy scalars is ten times as fast as on 0-d arrays. (An operation with one
        # input may return a view, so it gets the array itself.)
        arrays.append(array[()] if several and array.ndim == 0 else array)
        requires_grad = requires_grad or x._requires_grad
    if not usual or dtype not in KERNEL_DTYPES:
        inputs, arrays = _in_one_dtype(op, inputs)
    try:
        made = op(*arrays, **settings)
    except ValueError as error:
        raise _misfit(op, arrays, error) from None
    if type(made) is not tuple or len(made) != 1 + len(inputs):
        raise _no_vjps(op, len(inputs), made)
    result, vjps = np.asarray(made[0]), list(made[1:])
    out = _unshared(result)
    may_share = result.base is not None
    for array in arrays:
        may_share = may_share or result is array
    if not (may_share and _note_views(out, inputs)) and not result.flags.c_contiguous:
        out.array = result.copy()  # NumPy may follow the memory order of the inputs
    # Outside any no_grad block, the usual case, this saves the call of is_grad_enabled.
    if requires_grad and (not (blocks_here() or thread.depth) or is_grad_enabled()):
        parents = []
        for i, x in enumerate(inputs):
            parents.append(x._node or x.node)
            if not x._requires_grad:
                vjps[i] = None
            elif not callable(vjps[i]):
                raise _no_vjps(op, len(inputs), made)
        out._node, out._requires_grad = Node(result, op, parents, vjps), True
    return out


def _unshared(array: np.ndarray) -> Tensor:
    """A Tensor for an array that nothing else holds."""
    out = Tensor.__new__(Tensor)
    out.array, out._node, out._grad, out._requires_grad = array, None, None, False
    return out


def _note_views(out: Tensor, inputs: Sequence[Any]) -> bool:
    """Note which inputs a result shares memory with; return whether there are any."""
    owner = changes.owner_of(out.array)
    sharing = [x for x in inputs if isinstance(x, Tensor) and changes.owner_of(x.array) is owner]
    if sharing:
        changes.note_sharing(out, *sharing)
    return bool(sharing)


def operation(op: Operation) -> Callable[..., Tensor]:
    """Turn an operation on arrays into a function of Tensors, arrays, lists and numbers.

    Parameters
    ----------
    op : callable
        From arrays to a tuple: the result and, for each input, a VJP, a function from the
        gradient of the result to that of the input. Settings that are not differentiated are
        keyword arguments. The VJP returns what it was given, a view of it, or a new array. It
        may ignore that NumPy has broadcast the input. If there are several inputs, 0-d ones
        arrive as NumPy scalars, which are read-only.

    Examples
    --------
    >>> @operation
    ... def square(x):
    ...     return x * x, lambda G: G * 2 * x
    >>> x = Tensor([3.0, 5.0], requires_grad=True)
    >>> square(x).backward([1.0, 10.0])
    >>> x.grad
    tensor([  6., 100.])
    """

    @functools.wraps(op)
    def function(*inputs: Any, **settings: Any) -> Tensor:
        return apply(op, *inputs, **settings)

    return function


def _compare(ufunc: np.ufunc, a: Tensor, b: Any) -> Any:
    """A comparison, which has no gradient."""
    if b is None or isinstance(b, str):
        return NotImplemented
    if not isinstance(b, (int, float, Tensor)):
        b = as_array(b)
    if a.dtype.kind == "f" and (isinstance(b, float) or getattr(b, "dtype", int64).kind == "f"):
        _, arrays = _in_one_dtype(ufunc, (a, b))
    else:  # NumPy compares the integers themselves; a cast could change them
        arrays = [a.array, getattr(b, "array", b)]
    return _without_gradient(ufunc, arrays)


def _bitwise(ufunc: np.ufunc, *inputs: Any) -> Tensor:
    """An operation on bools or on the bits of integers; it has no gradient."""
    if (dtype := common_dtype(ufunc, inputs)).kind == "f":
        hint = "compare first, as in (x > 0) & (x < 1); a power is x**2"
        raise TypeError(f"{ufunc.__name__} needs bools or integers, got {dtype}; {hint}")
    return _without_gradient(ufunc, _in_one_dtype(ufunc, inputs)[1])


def _without_gradient(ufunc: np.ufunc, arrays: Sequence[Any]) -> Tensor:
    """The result of a ufunc (an elementwise function of NumPy's), outside the graph."""
    try:
        return Tensor(ufunc(*arrays, order="C"))
    except ValueError as error:
        raise _misfit(ufunc, arrays, error) from None


def _floor_divide(a: Any, b: Any) -> Any:
    """a // b, rounded down. It changes in steps: its gradient would be 0 wherever it exists."""
    if is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in (a, b)):
        raise RuntimeError("x // y is not differentiable; use x.detach() // y, or x / y")
    dtype = common_dtype(np.floor_divide, (a, b))
    refuse_bools("floor_divide", dtype)
    more_ops.refuse_zeros(as_array(b, dtype))
    return _without_gradient(np.floor_divide, _in_one_dtype(np.floor_divide, (a, b))[1])


def _refuse_in_place(x: Tensor) -> None:
    if x.requires_grad and is_grad_enabled():
        raise RuntimeError("a Tensor that requires grad may change in place only under no_grad()")


def _before_change(a: Tensor, change: str) -> Tensor:
    """A copy of ``a``, with its node, as the operation's input: a VJP may need the old numbers."""
    if changes.is_shared(a):
        hint = "a = a + b instead of a += b" if "in-place" in change else "x = x.clone() before it"
        raise RuntimeError(
            f"{change}: a view, a base or a detach() of this Tensor of shape {a.shape} would also "
            f"change, without a gradient; make a new Tensor: {hint}"
        )
    before = _unshared(a.array.copy())
    before._node, before._requires_grad = a._node, a._requires_grad
    return before


def _in_place(op: Operation, a: Tensor, b: Any) -> Tensor:
    """``a += b`` and the like: the array of ``a`` changes, and ``a`` gets a new node.

    Results that were computed from the old numbers keep the old node, so their gradients stay
    right.
    """
    if a.is_leaf:
        _refuse_in_place(a)
    records = is_grad_enabled() and (a.requires_grad or getattr(b, "requires_grad", False))
    before = _before_change(a, f"in-place {name_of(op)}") if records else a
    out = apply(op, before, before if b is a else b)
    if out.shape != a.shape or not np.can_cast(out.dtype, a.dtype, "same_kind"):
        held, new = (f"{x.dtype} of shape {x.shape}" for x in (a, out))
        raise RuntimeError(f"in-place {name_of(op)}: {held} cannot hold {new}")
    out = out.to(a.dtype) if records else out
    a.set_numbers(..., out.array)
    if records:
        _move_on(a, out.node)
    return a


def _move_on(a: Tensor, node: Node) -> None:
    """Give a Tensor that has changed in place its new node."""
    node.held = a.array
    if not a.is_leaf:  # from now on, a retained gradient is that of the new node
        node.tensor, a.node.tensor = a.node.tensor, None
    a._node, a._requires_grad = node, True


def _change(operator: Callable[..., Tensor], a: Tensor, b: Any) -> Tensor:
    """``a //= b``, ``a &= b`` and the like."""
    _refuse_in_place(a)
    out = operator(a, b)
    if (out.shape, out.dtype) != (a.shape, a.dtype):
        held, new = (f"{x.dtype} of shape {x.shape}" for x in (a, out))
        raise RuntimeError(f"in place: {held} cannot hold {new}")
    a.set_numbers(..., out.array)
    return a


def _place_of(find: Callable[..., Any], x: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    """`Tensor.argmax` or `Tensor.argmin`, for bools as well."""
    dim = dim if dim is None else ops.as_dim(dim, x.ndim)
    return Tensor(find(x.array, dim, keepdims=keepdim))


def _whether(find: Callable[..., Any], x: Tensor, dim: ops.Dims, keepdim: bool) -> Tensor:
    """`Tensor.all` or `Tensor.any`; as in PyTorch, no dims are none here, and all in `ops.sum`."""
    dims = () if dim in ((), []) else ops.as_dims(dim, x.shape)[0]
    return Tensor(find(x.array, dims, keepdims=keepdim))


def _spread(
    op: Operation, x: Tensor, dim: Any, unbiased: bool | None, keepdim: Any, correction: float
) -> Tensor:
    """`Tensor.var` or `Tensor.std`; as in PyTorch, there are two ways to set the divisor."""
    if isinstance(dim, bool):  # var(False) is var(unbiased=False)
        dim, unbiased = None, dim
    correction = correction if unbiased is None else int(unbiased)
    return apply(op, x, dim=dim, correction=correction, keepdim=keepdim)


class Tensor:
    """A NumPy array that can take part in automatic differentiation.

    The operators ``+ - * / // % **`` and the comparisons work elementwise and broadcast, as do
    ``& | ^ ~`` for bools and integers; ``@`` multiplies matrices. The methods `add`, `sub`, `mul`,
    `div`, `pow`, `matmul`, `neg`, `remainder`, ``floor_divide``, ``eq``, ``ne``, ``lt``, ``le``,
    ``gt`` and ``ge`` do the same. Shapes or dtypes that do not fit together raise a RuntimeError.

    Parameters
    ----------
    data : array_like
        An ndarray is shared, not copied (`minigrad.tensor` copies); anything else is converted.
        Dtypes and errors are those of `minigrad.tensor`.
    requires_grad : bool
        Whether `backward` leaves a gradient in `grad`. Floating-point dtypes only. (The result
        of a recorded operation requires grad if an input does, but passes its gradient on and
        keeps none.)

    Attributes
    ----------
    array : numpy.ndarray
        The numbers, for code inside the engine. `detach` and `data` return the same array in
        a Tensor outside the graph.
    """

    __slots__ = ("array", "_node", "_grad", "_requires_grad", "__weakref__")
    __array_priority__ = 1000  # ``array * tensor`` asks Tensor.__rmul__ first
    __hash__ = object.__hash__  # by identity: == compares elements

    def __init__(self, data: ArrayLike, requires_grad: bool = False):
        self.array = as_array(data)
        if isinstance(data, (np.ndarray, Tensor)):
            self._note_sharing(data)
        self._node: Node | None = None
        self._grad: Tensor | None = None
        self._requires_grad = False
        if requires_grad:
            self.requires_grad = requires_grad

    def _note_sharing(self, other: Any) -> None:
        changes.note_sharing(*((self, other) if isinstance(other, Tensor) else (self,)))

    def set_numbers(self, index: Any, numbers: Any) -> None:
        """Change the array in place, outside the graph, and note that it has changed."""
        self.array[index] = numbers
        changes.note_change(self.array)

    # The graph

    @property
    def node(self) -> Node:
        """This Tensor's node in the graph. That of a leaf is created when it is first used."""
        if self._node is None:
            self._node = Node(self.array, tensor=ref(self))
        return self._node

    @property
    def is_leaf(self) -> bool:
        """Whether it is not the result of a recorded operation."""
        return self._node is None or self._node.op is None

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to it.

        It can be set on leaves of a floating-point dtype; otherwise, a RuntimeError is raised.
        """
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if not isinstance(value, (bool, np.bool_)):
            hint = "to give a shape, write zeros(2, 3); to give numbers, tensor([2, 3])"
            raise TypeError(f"requires_grad must be True or False, got {value!r}; {hint}")
        if not self.is_leaf:
            raise RuntimeError("requires_grad can be set on leaves only; use detach() to get one")
        if value and self.dtype.kind != "f":
            raise RuntimeError(
                f"only floating-point Tensors can require grad, not {self.dtype}; write 2.0 "
                "instead of 2, or convert with x.float()"
            )
        self._requires_grad = bool(value)

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward` has accumulated, in this Tensor's shape and dtype.

        Leaves keep one, as do results on which `retain_grad` was called. For other results it is
        None, with a warning.
        """
        if self._grad is None and self._node is not None and self._node.tensor is None:
            warnings.warn(
                f"grad of a result of {self._node.name}: backward() keeps the gradients of leaves "
                "only; call retain_grad() on the result before backward()",
                stacklevel=2,
            )
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None and not (
            isinstance(value, Tensor) and (value.shape, value.dtype) == (self.shape, self.dtype)
        ):
            raise RuntimeError(f"grad must be None or {self.dtype} {self.shape}, got {value!r}")
        self._grad = value

    def retain_grad(self) -> None:
        """Make `backward` keep the gradient of this result of an operation in `grad`.

        Otherwise the sweep drops it once it has been passed on, which saves memory. Raises a
        RuntimeError if this Tensor does not require grad.
        """
        if not self._requires_grad:
            raise RuntimeError("retain_grad(): this Tensor does not require grad")
        self.node.tensor = ref(self)

    def accumulate(self, gradient: Any) -> None:
        """Add an array of this shape to `grad`, cast to this dtype. For the engine."""
        if self._grad is None:
            self._grad = _unshared(np.asarray(gradient, self.array.dtype))
        elif self._grad.array.flags.writeable:
            self._grad.array += gradient
            changes.note_change(self._grad.array)
        else:  # the user has assigned a read-only array
            self._grad = _unshared(self._grad.array + gradient)

    @property
    def data(self) -> Tensor:
        """The same array outside the graph; assigning to ``data`` replaces the array.

        The new array of a leaf may have another shape or dtype; `grad` is then None.
        """
        return Tensor(self)

    @data.setter
    def data(self, value: ArrayLike) -> None:
        array = as_array(value)
        if self._requires_grad and array.dtype.kind != "f":
            raise RuntimeError(f"a Tensor that requires grad cannot hold {array.dtype} data")
        if (array.shape, array.dtype) != (self.shape, self.dtype):
            if not self.is_leaf:
                raise RuntimeError(f"data of a result must stay {self.dtype} {self.shape}")
            self._grad = None  # it no longer fits
        if array is self.array:
            return
        self.array = array
        self._note_sharing(value)
        if self.is_leaf:
            self._node = None  # existing graphs keep the node of the old numbers

    def detach(self) -> Tensor:
        """A Tensor that shares this one's array and has no history."""
        return Tensor(self)

    def backward(self, gradient: ArrayLike | None = None, retain_graph: bool = True) -> None:
        """Add ∂L/∂leaf, where L is this Tensor, to the `grad` of every leaf that L depends on.

        This is reverse-mode differentiation, called back-propagation in networks: start from
        ∂L/∂L = 1 and apply the chain rule backwards, so that one pass serves all leaves. The
        pass itself is `engine.sweep`.

        Gradients add up over calls, because the gradient of a sum of losses is the sum of their
        gradients: a batch can be back-propagated in parts. So clear `grad` before each new step.

        Parameters
        ----------
        gradient : array_like, optional
            The gradient that arrives at this Tensor, of its shape; 1 for a scalar. (With it,
            L is the sum of gradient * Tensor.)
        retain_graph : bool
            Accepted as in PyTorch, and ignored: a graph lives as long as the Tensors it leads to.

        Raises
        ------
        RuntimeError
            If no leaf can receive a gradient, if ``gradient`` is missing for a Tensor of more
            than one element or has the wrong shape, or if a VJP returns a gradient that does not
            fit its input. No `grad` has changed then.
        """
        if not self._requires_grad:
            raise RuntimeError(
                "backward() found no graph: this Tensor does not require grad. Make the parameters "
                "with requires_grad=True, and compute outside no_grad()"
            )
        if gradient is None:
            if self.array.size != 1:
                raise RuntimeError(
                    f"backward() starts from a single number, not from shape {self.shape}: take "
                    "mean() or sum() first, or pass gradient="
                )
            gradient = np.ones_like(self.array)
        array = as_array(gradient, self.dtype)
        if array.shape != self.shape:
            raise RuntimeError(f"gradient has shape {array.shape}, the Tensor {self.shape}")
        engine.backward(self.node, array if self.node.tensor is None else array.copy())

    # Operators: a + b, 2 - a, a += b, a < b, a[i]
    # fmt: off

    def __add__(self, other: ArrayLike) -> Tensor: return apply(ops.add, self, other)
    def __radd__(self, other: ArrayLike) -> Tensor: return apply(ops.add, other, self)
    def __iadd__(self, other: ArrayLike) -> Tensor: return _in_place(ops.add, self, other)
    def __sub__(self, other: ArrayLike) -> Tensor: return apply(ops.sub, self, other)
    def __rsub__(self, other: ArrayLike) -> Tensor: return apply(ops.sub, other, self)
    def __isub__(self, other: ArrayLike) -> Tensor: return _in_place(ops.sub, self, other)
    def __mul__(self, other: ArrayLike) -> Tensor: return apply(ops.mul, self, other)
    def __rmul__(self, other: ArrayLike) -> Tensor: return apply(ops.mul, other, self)
    def __imul__(self, other: ArrayLike) -> Tensor: return _in_place(ops.mul, self, other)
    def __truediv__(self, other: ArrayLike) -> Tensor: return apply(ops.div, self, other)
    def __rtruediv__(self, other: ArrayLike) -> Tensor: return apply(ops.div, other, self)
    def __itruediv__(self, other: ArrayLike) -> Tensor: return _in_place(ops.div, self, other)
    def __pow__(self, other: ArrayLike) -> Tensor: return apply(ops.pow, self, other)
    def __rpow__(self, other: ArrayLike) -> Tensor: return apply(ops.pow, other, self)
    def __ipow__(self, other: ArrayLike) -> Tensor: return _in_place(ops.pow, self, other)
    def __matmul__(self, other: ArrayLike) -> Tensor: return apply(ops.matmul, self, other)
    def __rmatmul__(self, other: ArrayLike) -> Tensor: return apply(ops.matmul, other, self)
    def __imatmul__(self, other: ArrayLike) -> Tensor: return _in_place(ops.matmul, self, other)
    def __neg__(self) -> Tensor: return apply(ops.neg, self)
    def __lt__(self, other: ArrayLike) -> Any: return _compare(np.less, self, other)
    def __le__(self, other: ArrayLike) -> Any: return _compare(np.less_equal, self, other)
    def __gt__(self, other: ArrayLike) -> Any: return _compare(np.greater, self, other)
    def __ge__(self, other: ArrayLike) -> Any: return _compare(np.greater_equal, self, other)
    def __eq__(self, other: Any) -> Any: return _compare(np.equal, self, other)
    def __ne__(self, other: Any) -> Any: return _compare(np.not_equal, self, other)
    def __bool__(self) -> bool:
        if self.array.size != 1:
            raise RuntimeError(
                f"a Tensor of shape {self.shape} is neither true nor false: write (x > 0).all() or "
                "(x > 0).any(); to test whether x is set, write x is not None"
            )
        return bool(self.array)

    def __int__(self) -> int: return int(self.item())
    def __float__(self) -> builtins.float: return float(self.item())
    def __mod__(self, other: ArrayLike) -> Tensor: return apply(more_ops.remainder, self, other)
    def __rmod__(self, other: ArrayLike) -> Tensor: return apply(more_ops.remainder, other, self)
    def __floordiv__(self, other: ArrayLike) -> Any: return _floor_divide(self, other)
    def __rfloordiv__(self, other: ArrayLike) -> Any: return _floor_divide(other, self)
    def __and__(self, other: ArrayLike) -> Tensor: return _bitwise(np.bitwise_and, self, other)
    def __or__(self, other: ArrayLike) -> Tensor: return _bitwise(np.bitwise_or, self, other)
    def __xor__(self, other: ArrayLike) -> Tensor: return _bitwise(np.bitwise_xor, self, other)
    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__  # the order makes no difference
    def __invert__(self) -> Tensor: return _bitwise(np.invert, self)
    def __imod__(self, other: ArrayLike) -> Tensor:
        return _in_place(more_ops.remainder, self, other)
    def __ifloordiv__(self, other: ArrayLike) -> Tensor: return _change(_floor_divide, self, other)
    def __iand__(self, other: ArrayLike) -> Tensor: return _change(Tensor.__and__, self, other)
    def __ior__(self, other: ArrayLike) -> Tensor: return _change(Tensor.__or__, self, other)
    def __ixor__(self, other: ArrayLike) -> Tensor: return _change(Tensor.__xor__, self, other)
    def __pos__(self) -> Tensor: return self
    def __abs__(self) -> Tensor: return self.abs()
    # fmt: on

    def __index__(self) -> int:
        if self.dtype.kind == "f" or self.array.size != 1:
            raise TypeError(f"an index must be one integer, got {self.dtype} of shape {self.shape}")
        return int(self.item())

    def __getitem__(self, index: Any) -> Tensor:
        out = self
        for step in index_steps(index, self.shape):
            out = apply(ops.getitem, out, index=step)
        return out

    def __setitem__(self, index: Any, value: ArrayLike) -> None:
        if self.is_leaf:
            _refuse_in_place(self)
        *basic, last = steps = index_steps(index, self.shape)
        target, numbers = self.array, as_array(value, self.dtype)
        for step in basic:
            target = target[step]
        picks = any(
            isinstance(x, np.ndarray) for x in (last if isinstance(last, tuple) else [last])
        )
        if picks and isinstance(value, Tensor) and value.dtype != self.dtype:
            got = f"{value.dtype} for {self.dtype}"
            raise RuntimeError(f"assignment to picked elements: got {got}; convert with to()")
        surplus = numbers.ndim - np.ndim(target[last])
        if surplus > 0 and set(numbers.shape[:surplus]) == {1}:  # as PyTorch, but not NumPy, allows
            numbers = numbers.reshape(numbers.shape[surplus:])
        elif surplus > 0:
            raise ValueError(f"value has shape {numbers.shape}, x[index] {target[last].shape}")
        if is_grad_enabled() and (self.requires_grad or getattr(value, "requires_grad", False)):
            if self.dtype.kind != "f":
                raise RuntimeError(
                    f"x[index] = value: {self.dtype} has no gradient; assign value.detach()"
                )
            before = _before_change(self, "x[index] = value")
            new = value.to(self.dtype) if isinstance(value, Tensor) else Tensor(numbers)
            out = apply(more_ops.setitem, before, new.reshape(numbers.shape), steps=steps)
            self.set_numbers(..., out.array)
            _move_on(self, out.node)
        else:
            target[last] = numbers
            changes.note_change(target)

    if not TYPE_CHECKING:  # so that a type checker finds misspelt names
        __getattr__ = getattr_of("Tensor")

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("a 0-d Tensor has no length")
        return len(self.array)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    # Operations

    add, sub, mul, div, pow = __add__, __sub__, __mul__, __truediv__, __pow__
    neg, floor_divide = __neg__, __floordiv__
    eq, ne, lt, le, gt, ge = __eq__, __ne__, __lt__, __le__, __gt__, __ge__

    def matmul(self, other: ArrayLike) -> Tensor:
        """x @ other by NumPy's rules: vectors, matrices, and stacks of matrices that broadcast."""
        return apply(ops.matmul, self, other)

    def remainder(self, other: ArrayLike) -> Tensor:
        """x % other: what is left of x after division, elementwise, with the sign of ``other``."""
        return apply(more_ops.remainder, self, other)

    def exp(self) -> Tensor:
        """eˣ, elementwise."""
        return apply(ops.exp, self)

    def log(self) -> Tensor:
        """The natural logarithm, elementwise."""
        return apply(ops.log, self)

    def tanh(self) -> Tensor:
        """The hyperbolic tangent, elementwise."""
        return apply(more_ops.tanh, self)

    def relu(self) -> Tensor:
        """max(x, 0), elementwise."""
        return apply(ops.relu, self)

    def abs(self) -> Tensor:
        """The absolute value, elementwise."""
        return apply(more_ops.abs, self)

    def sqrt(self) -> Tensor:
        """The square root, elementwise."""
        return apply(more_ops.sqrt, self)

    def sin(self) -> Tensor:
        """The sine of x in radians, elementwise."""
        return apply(more_ops.sin, self)

    def cos(self) -> Tensor:
        """The cosine of x in radians, elementwise."""
        return apply(more_ops.cos, self)

    def sigmoid(self) -> Tensor:
        """1 / (1 + e⁻ˣ), elementwise."""
        return apply(more_ops.sigmoid, self)

    def clamp(self, min: Any = None, max: Any = None) -> Tensor:
        """``min`` where x is smaller, ``max`` where x is larger; each is a number or None."""
        for limit in (min, max):
            if isinstance(limit, bool):
                refuse_bools("clamp", self.dtype)
            elif isinstance(limit, int):
                as_array(limit, self.dtype)  # an OverflowError if the dtype cannot hold the number
        return apply(more_ops.clamp, self, min=min, max=max)

    clip = clamp

    def maximum(self, other: ArrayLike) -> Tensor:
        """The larger of x and ``other``, elementwise."""
        return apply(more_ops.maximum, self, other)

    def minimum(self, other: ArrayLike) -> Tensor:
        """The smaller of x and ``other``, elementwise."""
        return apply(more_ops.minimum, self, other)

    def where(self, condition: ArrayLike, other: ArrayLike) -> Tensor:
        """x where ``condition`` holds, else ``other``; see `minigrad.tensors.where`."""
        return where(condition, self, other)

    @numpy_names
    def softmax(self, dim: int) -> Tensor:
        """Turn numbers into probabilities along ``dim``; see `functional.softmax`."""
        return apply(more_ops.softmax, self, dim=dim)

    @numpy_names
    def log_softmax(self, dim: int = -1) -> Tensor:
        """The logarithm of the softmax along ``dim``; see `functional.log_softmax`."""
        return apply(ops.log_softmax, self, dim=dim)

    @numpy_names
    def sum(self, dim: ops.Dims = None, keepdim: bool = False) -> Tensor:
        """The sum over all elements or over ``dim`` (an int or several); integers sum to int64."""
        return apply(ops.sum, self, dim=dim, keepdim=keepdim)

    @numpy_names
    def mean(self, dim: ops.Dims = None, keepdim: bool = False) -> Tensor:
        """The mean over all elements or over ``dim``; a RuntimeError for integers."""
        if self.dtype.kind != "f":
            raise RuntimeError(
                f"mean() needs floating-point numbers, got {self.dtype}; use float()"
            )
        return apply(ops.mean, self, dim=dim, keepdim=keepdim)

    @numpy_names
    def max(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """The largest element; with ``dim``, the named pair ``(values, indices)`` along it.

        Equal elements share the gradient; with ``dim``, the one at the index receives all of it.
        Raises a RuntimeError if there are no elements, an IndexError if ``dim`` does not exist.
        """
        if isinstance(dim, (Tensor, np.ndarray)):  # max(x, y), as in PyTorch
            return self.maximum(dim)
        values = apply(more_ops.max, self, dim=dim, keepdim=keepdim)
        return values if dim is None else Max(values, _place_of(np.argmax, self, dim, keepdim))

    @numpy_names
    def argmax(self, dim: int | None = None, keepdim: Any = False) -> Tensor:
        """The index (int64) of the largest element, or of each along ``dim``; no gradient."""
        refuse_bools("argmax", self.dtype)
        return _place_of(np.argmax, self, dim, keepdim)

    @numpy_names
    def min(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """The smallest element; with ``dim``, the pair ``(values, indices)``, as in `max`."""
        if isinstance(dim, (Tensor, np.ndarray)):
            return self.minimum(dim)
        values = apply(more_ops.min, self, dim=dim, keepdim=keepdim)
        return values if dim is None else Min(values, _place_of(np.argmin, self, dim, keepdim))

    @numpy_names
    def argmin(self, dim: int | None = None, keepdim: Any = False) -> Tensor:
        """The index (int64) of the smallest element, or of each along ``dim``; no gradient."""
        refuse_bools("argmin", self.dtype)
        return _place_of(np.argmin, self, dim, keepdim)

    @numpy_names
    def var(
        self, dim: Any = None, unbiased: bool | None = None, keepdim: Any = False,
        *, correction: builtins.float = 1,
    ) -> Tensor:  # fmt: skip
        """The variance of all elements or over ``dim``: the sum of squared differences from the
        mean, divided by n - ``correction``. ``unbiased=False`` means a correction of 0."""
        return _spread(more_ops.var, self, dim, unbiased, keepdim, correction)

    @numpy_names
    def std(
        self, dim: Any = None, unbiased: bool | None = None, keepdim: Any = False,
        *, correction: builtins.float = 1,
    ) -> Tensor:  # fmt: skip
        """The standard deviation, which is the square root of the variance; see `var`."""
        return _spread(more_ops.std, self, dim, unbiased, keepdim, correction)

    @numpy_names
    def prod(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """The product of all elements or along ``dim``; for integers, it is int64."""
        return apply(more_ops.prod, self, dim=dim, keepdim=keepdim)

    @numpy_names
    def cumsum(self, dim: int) -> Tensor:
        """The running sum along ``dim``; integers sum to int64."""
        return apply(more_ops.cumsum, self, dim=dim)

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements in another shape, sharing memory if NumPy can; one length may be -1.

        Raises a RuntimeError if the shape holds another number of elements.
        """
        return apply(ops.reshape, self, shape=as_shape(shape))

    def view(self, *shape: Any) -> Tensor:
        """Like `reshape`, but always shares memory; a RuntimeError if the layout forbids it."""
        out = self.reshape(*shape)
        if out.numel() and not np.may_share_memory(out.array, self.array):
            raise RuntimeError(
                f"view: a Tensor of shape {self.shape} whose elements are not in order in memory "
                f"cannot be shared in shape {out.shape}; use reshape(), which may copy"
            )
        return out

    def view_as(self, other: Tensor) -> Tensor:
        """Like `view`, in the shape of ``other``."""
        return self.view(other.shape)

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Swap two dimensions; the result shares memory."""
        return apply(ops.transpose, self, dim0=dim0, dim1=dim1)

    def permute(self, *dims: Any) -> Tensor:
        """Reorder the dimensions, as in ``permute(2, 0, 1)``; the result shares memory."""
        return apply(more_ops.permute, self, dims=as_shape(dims))

    @numpy_names
    def squeeze(self, dim: ops.Dims = None) -> Tensor:
        """Drop the dimensions of length 1, or those of them in ``dim``; shares memory."""
        return apply(more_ops.squeeze, self, dim=dim)

    @numpy_names
    def unsqueeze(self, dim: int) -> Tensor:
        """Insert a dimension of length 1 at position ``dim``; the result shares memory."""
        return apply(more_ops.unsqueeze, self, dim=dim)

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Merge the dimensions from ``start_dim`` to ``end_dim``; if they are one, return self."""
        if self.ndim > 0 and ops.as_dim(start_dim, self.ndim) == ops.as_dim(end_dim, self.ndim):
            return self
        return apply(more_ops.flatten, self, start_dim=start_dim, end_dim=end_dim)

    @property
    def T(self) -> Tensor:
        """The dimensions in reverse order; shares memory."""
        return apply(ops.reverse_dims, self)

    def clone(self) -> Tensor:
        """A copy that gradients flow through."""
        return apply(ops.clone, self)

    def to(self, dtype: DTypeLike) -> Tensor:
        """The same numbers in another dtype; gradients flow through if it is floating-point.

        ``to("cpu")`` returns this Tensor: minigrad runs on the CPU only.
        """
        dtype = as_dtype(dtype, self.dtype)
        if dtype == self.dtype:
            return self
        if dtype.kind != "f":
            return Tensor(self.array.astype(dtype))
        return apply(ops.to, self, dtype=dtype)

    def float(self) -> Tensor:
        """The same numbers as float32."""
        return self.to(float32)

    def double(self) -> Tensor:
        """The same numbers as float64."""
        return self.to(float64)

    def long(self) -> Tensor:
        """The same numbers as int64, rounded towards 0."""
        return self.to(int64)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set ``requires_grad`` of this Tensor, a leaf, and return it."""
        self.requires_grad = requires_grad
        return self

    @numpy_names
    def all(self, dim: ops.Dims = None, keepdim: bool = False) -> Tensor:
        """Whether no element is 0 or False, in all or along ``dim``."""
        return _whether(np.all, self, dim, keepdim)

    @numpy_names
    def any(self, dim: ops.Dims = None, keepdim: bool = False) -> Tensor:
        """Whether some element is neither 0 nor False, in all or along ``dim``."""
        return _whether(np.any, self, dim, keepdim)

    def zero_(self) -> Tensor:
        """Set every element to 0, in place; if it requires grad, under `no_grad` only."""
        _refuse_in_place(self)
        self.set_numbers(..., 0)
        return self

    # What it holds

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of its dimensions."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        """The type of its numbers, as NumPy has it."""
        return self.array.dtype

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return self.array.ndim

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the length of one dimension."""
        return self.shape if dim is None else self.shape[dim]

    def numel(self) -> int:
        """The number of elements."""
        return self.array.size

    def item(self) -> Any:
        """The only element, as a Python number; a RuntimeError if there is not exactly one."""
        if self.array.size != 1:
            raise RuntimeError(f"a Tensor of shape {self.shape} is not one number, as item() needs")
        return self.array.item()

    def tolist(self) -> Any:
        """The numbers as nested Python lists."""
        return self.array.tolist()

    def numpy(self) -> np.ndarray:
        """The array itself, shared; a RuntimeError if that would silently lose a gradient.

        Changing it changes this Tensor, and `backward` does not notice.
        """
        if self.requires_grad:
            raise RuntimeError(
                "NumPy would lose the gradient: write x.exp() instead of np.exp(x), stack(...) for "
                "a list of Tensors, loss.item() for a plain number, or x.detach().numpy()"
            )
        return self.array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __copy__(self) -> Tensor:
        """A leaf that shares this one's numbers, but not its gradient."""
        if not self.is_leaf:
            raise RuntimeError("only leaves can be copied; use detach() first")
        return type(self)(self, self.requires_grad)

    def __reduce__(self) -> tuple[Any, ...]:
        """For deepcopy and pickle, which create another leaf."""
        if not self.is_leaf:
            raise RuntimeError("only leaves can be copied or pickled; use detach() first")
        return type(self), (self.array, self.requires_grad), (None, {"_grad": self.grad})

    def __repr__(self) -> str:
        """As in PyTorch: 4 decimals, in lines of 80 characters."""
        a = self.array
        whole = np.all((a == np.round(a)) | ~np.isfinite(a))
        mode: Any = "maxprec_equal" if whole else "fixed"
        text = np.array2string(a, 81, 4, separator=", ", prefix="tensor(", floatmode=mode)
        text = "tensor(" + text.replace(", ..., ", ",  ..., ")
        if a.size == 0 and a.ndim > 1:
            text += f", size={a.shape}"
        plain = (float32, int64, np.bool_) if a.size else (float32,)
        suffixes = [] if a.dtype in plain else [f"dtype={a.dtype}"]
        if not self.is_leaf:
            suffixes.append(f"grad_fn=<{self.node.name}>")
        elif self.requires_grad:
            suffixes.append("requires_grad=True")
        for suffix in suffixes:
            last_line = text[text.rfind("\n") + 1 :] + ", " + suffix
            text += (", " if len(last_line) < 79 else ",\n       ") + suffix
        return text + ")"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec or self.ndim == 0 else str(self)


# One Tensor from several


def where(condition: ArrayLike, x: ArrayLike, y: ArrayLike) -> Tensor:
    """``x`` where ``condition`` (bools) holds, else ``y``; all three broadcast."""
    mask = as_array(condition)
    if mask.dtype != np.bool_:
        raise RuntimeError(f"where: condition must be bool, such as x > 0, got {mask.dtype}")
    return apply(more_ops.where, x, y, condition=mask.copy())  # the original may change


def _join(op: Operation, tensors: Sequence[ArrayLike], dim: int) -> Tensor:
    if not isinstance(tensors, (list, tuple)):
        got = f"as in {op.__name__}([a, b]), got {type(tensors).__name__}"
        raise TypeError(f"{op.__name__}: wanted a list or tuple of Tensors, {got}")
    if not tensors:
        raise ValueError(f"{op.__name__}: the list of Tensors is empty")
    return apply(op, *tensors, dim=dim)


@numpy_names
def cat(tensors: Sequence[ArrayLike], dim: int = 0) -> Tensor:
    """Join Tensors one after the other along ``dim``; their other lengths must be equal."""
    return _join(more_ops.cat, tensors, dim)


@numpy_names
def stack(tensors: Sequence[ArrayLike], dim: int = 0) -> Tensor:
    """Join Tensors of one shape side by side along a new dimension at position ``dim``."""
    return _join(more_ops.stack, tensors, dim)


def as_function(method: Function) -> Function:
    """Turn a method into a function that takes arrays, lists and numbers as well as Tensors."""

    @functools.wraps(method)
    def function(x: Any, *args: Any, **settings: Any) -> Any:
        return method(x if isinstance(x, Tensor) else Tensor(x), *args, **settings)

    return cast(Function, function)
