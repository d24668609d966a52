"""Turn what users pass into NumPy's terms: Tensors, lists, numbers, shapes and indices."""

from __future__ import annotations

import functools
import inspect
import reprlib
import types
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from .engine import name_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

float32, float64, int64 = np.dtype("float32"), np.dtype("float64"), np.dtype("int64")
KERNEL_DTYPES = (float32, float64)
Operation = Callable[..., Any]  # on arrays; see `ops`


def is_tensor(x: Any) -> bool:
    """Whether ``x`` is a Tensor; that class is defined later, in `minigrad.tensors`."""
    return isinstance(getattr(x, "array", None), np.ndarray)


def as_array(data: ArrayLike, dtype: DTypeLike | None = None) -> np.ndarray:
    """``data`` as a NumPy array; an array, or that of a Tensor, is shared, not copied.

    Arrays keep their dtype, even inside a list. Python floats become float32, integers int64.

    Raises
    ------
    TypeError, ValueError, OverflowError
        As in `minigrad.tensor`. An integer dtype cannot hold NaN.
    """
    given: Any = getattr(data, "array", data)
    if type(given) is np.ndarray and (dtype is None or dtype is given.dtype):
        if given.dtype.kind in "biuf":
            return given  # the usual case
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise ValueError(f"data must be a regular array of numbers: {error}") from None
    if array.dtype.kind not in "biuf":
        got = f"{reprlib.repr(data)} (dtype {array.dtype})"
        raise TypeError(f"data must be real numbers, got {got}")
    # type(), not isinstance(): np.float64 is a subclass of float, but keeps its dtype
    if dtype is None and array.dtype == float64 and type(data) in (float, list, tuple):
        if np.max(array, initial=0) >= 2.0**63 and all(type(x) is int for x in _numbers_in(data)):
            raise OverflowError(f"int64 holds integers below 2**63, got {data!r}")
        floats = {x for x in _dtypes_in(data) if x.kind == "f"}
        dtype = np.result_type(*(floats or {float32}))
    if dtype is None or array.dtype == dtype:
        return array
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        # A cast would silently wrap around. `high` + 1.0 because float64 cannot hold 2⁶³ - 1.
        fits = array < high + 1.0 if array.dtype.kind == "f" else array <= high
        if not np.all(fits & (array >= low)):
            raise OverflowError(
                f"{dtype} holds integers from {low} to {high}, got {reprlib.repr(data)}; "
                "convert with x.long() or x.float() first"
            )
    return array.astype(dtype)


def _numbers_in(data: Any) -> Iterator[Any]:
    for x in data if isinstance(data, (list, tuple)) else (data,):
        yield from _numbers_in(x) if isinstance(x, (list, tuple)) else (x,)


def _dtypes_in(data: Any) -> Iterator[np.dtype]:
    """The dtypes of the arrays, NumPy scalars and Tensors in nested lists."""
    for x in data if isinstance(data, (list, tuple)) else ():
        if isinstance(x, (list, tuple)):
            yield from _dtypes_in(x)
        elif hasattr(x, "dtype"):
            yield x.dtype


def common_dtype(op: Operation, inputs: Sequence[Any]) -> np.dtype:
    """The dtype to which the inputs of an operation are converted."""
    wanted = getattr(op, "dtypes", "common")
    if wanted in ("common", "number", "float"):  # the usual case: Tensors and numbers
        known: set[np.dtype] = {x.array.dtype for x in inputs if is_tensor(x)}
        others = {type(x) for x in inputs if not is_tensor(x)}
        if len(known) == 1 and known < {*KERNEL_DTYPES} and others <= {int, float}:
            return known.pop()
    dtypes = [as_array(x).dtype for x in inputs]
    if wanted in ("same", "kernel"):
        if len(set(dtypes)) > 1 or wanted == "kernel" and dtypes[0] not in KERNEL_DTYPES:
            one = "one dtype" if wanted == "same" else "all float32 or all float64"
            names = inspect.unwrap(op).__code__.co_varnames  # the inputs come first
            got = ", ".join(f"{name} {dtype}" for name, dtype in zip(names, dtypes))
            raise RuntimeError(
                f"{name_of(op)} wanted {one}, got {got}; convert with x.float() or x.double()"
                + ("" if all(map(is_tensor, inputs)) else ", a NumPy array with mg.tensor(x) first")
                + (", and divide uint8 images by 255" if np.uint8 in dtypes else "")
            )
        refuse_bools(name_of(op), dtypes[0])
        return dtypes[0]
    # PyTorch's order: bool < integer < float; then number < 0-d Tensor < other Tensor
    ranks = [
        (
            {"b": 0, "f": 2}.get(dtype.kind, 1),
            0 if isinstance(x, (int, float)) else 1 + (np.ndim(getattr(x, "array", x)) > 0),
        )
        for x, dtype in zip(inputs, dtypes)
    ]
    highest = max(ranks)
    dtype = np.result_type(*[dtype for dtype, rank in zip(dtypes, ranks) if rank == highest])
    if highest == (2, 0) and len(set(ranks)) > 1:  # np.float64 is a float too, and widens nothing
        return float32
    if wanted == "number":
        refuse_bools(name_of(op), dtype)
    return float32 if wanted == "float" and dtype.kind != "f" else dtype


def refuse_bools(name: str, dtype: np.dtype) -> None:
    """Raise a RuntimeError for bools, for which PyTorch refuses the same operations."""
    if dtype.kind == "b":
        hint = "convert with x.long() or x.float(), or use ~ & | ^ on masks"
        raise RuntimeError(f"{name} is not defined for bools; {hint}")


def as_index(index: Any, shape: tuple[int, ...]) -> Any:
    """An index in NumPy's terms, copied because the original may change before `backward`.

    ``shape`` is the shape of the array. Raises an IndexError if a mask does not fit it.
    """
    if isinstance(index, list) and any(isinstance(part, (list, tuple)) for part in index):
        raise IndexError(
            "a list of lists means several indices in PyTorch and one in NumPy: write "
            "x[rows, columns], or x[np.array(index)]"
        )
    parts = [_part_of_index(part) for part in (index if isinstance(index, tuple) else (index,))]
    masks = [isinstance(part, np.ndarray) and part.dtype == bool for part in parts]
    lengths = [
        part.ndim if mask else 0 if part is None or part is ... else 1
        for part, mask in zip(parts, masks)
    ]
    axis = 0
    for i, (part, mask) in enumerate(zip(parts, masks)):
        if part is ...:
            axis = len(shape) - sum(lengths[i:])
        if mask and part.shape != shape[axis : axis + part.ndim]:  # NumPy accepts empty ones
            raise IndexError(f"a mask of shape {part.shape} does not fit shape {shape}")
        axis += lengths[i]
    return tuple(parts) if isinstance(index, tuple) else parts[0]


def index_steps(index: Any, shape: tuple[int, ...]) -> list[Any]:
    """Split an index into one or two, to be applied in turn; the one with arrays comes last.

    NumPy treats an integer next to an array as an array, which may move dimensions to the front:
    ``np.ones((2, 1, 3))[0, :, [0, 1]]`` has shape (2, 1). In PyTorch, and here, it is (1, 2).
    """
    index = as_index(index, shape)
    parts = index if isinstance(index, tuple) else (index,)
    arrays = [isinstance(part, np.ndarray) for part in parts]
    integers = [isinstance(x, (int, np.integer)) and not isinstance(x, bool) for x in parts]
    if not (any(arrays) and any(integers)):
        return [index]
    if any(isinstance(part, bool) for part in parts):
        raise IndexError("an index must not mix True or False with integers and arrays")
    first: list[Any] = []
    second: list[Any] = []
    for part, is_array, is_integer in zip(parts, arrays, integers):
        if is_array:
            first += [slice(None)] * (part.ndim if part.dtype == bool else 1)
            second.append(part)
        else:
            first.append(part)
            second += [] if is_integer else [... if part is ... else slice(None)]
    return [tuple(first), tuple(second)]


def _part_of_index(index: Any) -> Any:
    if is_tensor(index) or isinstance(index, np.ndarray):
        array = np.array(getattr(index, "array", index))
        if array.dtype == np.uint8:
            raise IndexError(
                "a uint8 index is a mask in PyTorch and a list of positions in NumPy: write "
                "index.long() for positions, or index > 0 for a mask"
            )
        return array.item() if array.ndim == 0 and array.dtype.kind in "iu" else array
    if isinstance(index, (list, tuple, range)):
        return np.array(index) if len(index) else np.array(index, dtype=int)
    return index


def as_dtype(dtype: Any, on_cpu: np.dtype) -> np.dtype:
    """The dtype meant by ``to(dtype)``; for ``to("cpu")``, it is ``on_cpu``."""
    if str(dtype) == "cpu":  # also a torch.device
        return on_cpu
    try:
        return cast(np.dtype, np.dtype(dtype))
    except TypeError:
        wanted = "minigrad runs on the CPU only; wanted a dtype or 'cpu'"
        raise RuntimeError(f"to(): {wanted}, got {dtype!r}") from None


def as_shape(shape: tuple[Any, ...]) -> tuple[int, ...]:
    """The shape meant by ``f(2, 3)`` or ``f((2, 3))``, both of which PyTorch allows."""
    return shape[0] if len(shape) == 1 and not isinstance(shape[0], (int, np.integer)) else shape


Function = TypeVar("Function", bound=Callable[..., Any])


def numpy_names(function: Function) -> Function:
    """Let a function that takes ``dim`` or ``keepdim`` accept NumPy's ``axis``, ``keepdims``."""

    places = list(inspect.signature(function).parameters)
    own_names = frozenset(places)
    flags = [(places.index(name), name) for name in ("keepdim", "unbiased") if name in places]

    @functools.wraps(function)
    def renamed(*args: Any, **settings: Any) -> Any:
        if not own_names.issuperset(settings):
            for name in ("out", "dtype"):  # np.sum(x) passes them
                if settings.get(name, 0) is None:
                    del settings[name]
            for numpy_name, name in (("axis", "dim"), ("keepdims", "keepdim")):
                if numpy_name in settings:
                    if name in settings:
                        both = f"both {name} and {numpy_name}, which mean the same"
                        raise TypeError(f"{function.__name__}() got {both}")
                    settings[name] = settings.pop(numpy_name)
        for place, name in flags:
            flag = args[place] if len(args) > place else settings.get(name)
            if not isinstance(flag, (bool, np.bool_, types.NoneType)):
                raise TypeError(
                    f"{function.__name__}: {name} must be True or False, got {flag!r}; several "
                    "dims must be a tuple, as in sum((0, 1))"
                )
        return function(*args, **settings)

    return cast(Function, renamed)
