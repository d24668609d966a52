"""Arrays that change in place: when they did, which Tensors share them, which VJPs need them.

``x += 1`` under `no_grad`, an optimiser's step and an assignment to ``x[0]`` change an array that
a VJP may keep. The VJP would then use other numbers than the result was computed from, and the
gradient would be wrong. So each change gets a serial number from the same clock as the nodes of
the graph, and `engine.sweep` compares the two.

Arrays that share memory change together: a change is noted for the object that owns the memory.
"""

import contextlib
import functools
import itertools
import threading
import types
from collections.abc import Iterable, Iterator
from typing import Any
from weakref import WeakValueDictionary, ref

import numpy as np

clock = itertools.count(1)
latest = 0  # the serial number of the latest change of any array


class Block:
    """What is known about a block of memory."""

    __slots__ = ("changed", "tensors", "owner")

    def __init__(self, owner: Any):
        self.changed = 0  # the serial number of its latest change
        self.tensors: WeakValueDictionary[int, Any] = WeakValueDictionary()  # by their id()
        key = id(owner)
        with contextlib.suppress(TypeError):  # a bytearray, say, allows no weak reference
            self.owner = ref(owner, lambda _: _blocks.pop(key, None))


_blocks: dict[int, Block] = {}  # by the id() of the owner; only those changed or shared
_lock = threading.Lock()


def owner_of(array: Any) -> Any:
    """The object that owns the memory of an array."""
    while getattr(array, "base", None) is not None:
        array = array.base
    return array


def _block(array: np.ndarray) -> Block:
    owner = array if array.base is None else owner_of(array)
    return _blocks.get(id(owner)) or _blocks.setdefault(id(owner), Block(owner))


def note_change(*arrays: np.ndarray) -> None:
    """Note that the arrays, and all that share their memory, have been changed in place."""
    global latest
    with _lock:  # another thread must not put an older number into `latest`
        latest = next(clock)
        for array in arrays:
            _block(array).changed = latest


def changed_since(array: np.ndarray, moment: int) -> bool:
    """Whether the memory of ``array`` has changed since this moment of the clock."""
    block = _blocks.get(id(owner_of(array)))
    return block is not None and block.changed > moment


def note_sharing(*tensors: Any) -> None:
    """Note that other Tensors may share the arrays of these."""
    for tensor in tensors:
        _block(tensor.array).tensors[id(tensor)] = tensor


def is_shared(tensor: Any) -> bool:
    """Whether another Tensor that is still alive uses the memory of this one."""
    block = _blocks.get(id(owner_of(tensor.array)))
    return block is not None and any(x is not tensor for x in list(block.tensors.values()))


def refuse_changed_leaves(root: Any, nodes: Iterable[Any]) -> None:
    """Raise an error if a leaf below ``nodes`` has changed since the last sweep from ``root``."""
    for node in nodes:
        for leaf, vjp in zip(node.parents, node.vjps):
            if vjp is None or leaf.op is not None:
                continue
            tensor = leaf.tensor()
            replaced = tensor is not None and tensor.node is not leaf  # by assigning to data
            if replaced or changed_since(leaf.result, root.swept):
                raise RuntimeError(
                    f"backward: this result of {root.name} was computed before a leaf of shape "
                    f"{leaf.result.shape} changed; compute it again inside the loop"
                )


def refuse_changed_arrays(node: Any) -> None:
    """Raise an error if an array that a VJP of ``node`` needs has changed since it was recorded."""
    kept = [array for vjp in node.vjps if vjp is not None for array in arrays_kept_by(vjp)]
    known = [x.result if x.held is None else x.held for x in (*node.parents, node)]
    if any(array is None for array in kept):  # a VJP may keep the inputs and the result as well
        kept = [array for array in kept if array is not None] + known
    for array in kept:
        if changed_since(array, node.created):
            owner = owner_of(array)
            shape = next((x for x in known if owner_of(x) is owner), array).shape
            raise RuntimeError(
                f"backward: {node.name} needs the numbers of a Tensor of shape {shape}, which has "
                f"been changed in place since {node.name} used them: change it after backward(), "
                "or make a new Tensor, as in x = x + 1 instead of x += 1"
            )


_HARMLESS = (
    str, bytes, int, float, complex, np.generic, np.dtype, np.ufunc, np.errstate, type, slice,
    range, type(np.sum), types.NoneType, types.EllipsisType, types.ModuleType,
)  # fmt: skip
_FOLLOWED = (np.ndarray, types.FunctionType, tuple, list, dict)  # among global variables
_BUILT_IN = (types.BuiltinFunctionType, types.MethodWrapperType, types.MethodType)


def arrays_kept_by(thing: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """The arrays that a function can reach: in its closure, its defaults, and global variables.

    A None among them means that something could not be searched, and may keep any array.
    """
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, _HARMLESS):
        return
    seen.add(id(thing))
    parts: list[Any] = []
    if isinstance(thing, np.ndarray):
        yield thing
    elif isinstance(getattr(thing, "array", None), np.ndarray):  # a Tensor
        yield thing.array
    elif isinstance(thing, (tuple, list, set, frozenset)):
        parts = list(thing)
    elif isinstance(thing, dict):
        parts = list(thing.values())
    elif isinstance(thing, functools.partial):
        parts = [thing.func, thing.args, thing.keywords]
    elif isinstance(thing, _BUILT_IN):
        parts = [thing.__self__, getattr(thing, "__func__", None)]
    elif isinstance(thing, types.FunctionType):
        parts = [cell.cell_contents for cell in thing.__closure__ or () if _is_filled(cell)]
        parts += [thing.__defaults__, thing.__kwdefaults__]
        used = [thing.__globals__.get(name) for name in _names_in(thing.__code__)]
        parts += [x for x in used if isinstance(getattr(x, "array", x), _FOLLOWED)]
    elif not hasattr(thing, "py_func"):  # a kernel keeps nothing
        parts = list(getattr(thing, "__dict__", {}).values())
        yield None
    for part in parts:
        yield from arrays_kept_by(part, seen)


def _names_in(code: types.CodeType) -> Iterator[str]:
    """The names that a function uses, and the functions inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_in(constant)


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents
    except ValueError:  # a variable that was never assigned
        return False
    return True
