"""The engine: a Tensor remembers how it was made, and `backward` walks that history back.

Let L be the scalar on which `backward` is called. The gradient of a Tensor x is ∂L/∂x, an
array of the shape of x. An operation out = f(x, ...) needs no more than the chain rule,

    ∂L/∂x[i] = Σ_j ∂L/∂out[j] ∂out[j]/∂x[i],

to turn G = ∂L/∂out into the gradient of an input (i and j run over all elements). This sum
is the product of the vector G with the Jacobian, the matrix of all ∂out[j]/∂x[i]: hence its
name, vector-Jacobian product (VJP). The Jacobian itself, which is huge, is never built. For
out = x * y, elementwise, the VJP turns G into (G * y, G * x). If several operations use x, L
depends on x through each of them: each sends back its contribution, and the gradient is their
sum.

An operation hands its result to `record`, together with its inputs (the parents) and its
VJP: that is all the engine knows of any operation. Tensors and their parents are the nodes
of a graph; a leaf is a Tensor that no recorded operation made; the consumers of a Tensor are
those that have it as a parent: its gradient is complete when all of them have sent theirs.
`record` and `Tensor.backward` are the engine; the rest of this file is comfort.
"""

import contextlib
import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

# Skip on a first reading: `operators`, which needs this file, adds a + b and the like to Tensor
# when it is imported. Type checkers do not see that, and read it as a base class instead.
if TYPE_CHECKING:
    from .operators import Operators
else:
    Operators = object

Grads = Sequence[np.ndarray | None]  # one for each parent; None where nothing is sent
VJP = Callable[[np.ndarray], Grads]

float32, float64, int64 = np.dtype("float32"), np.dtype("float64"), np.dtype("int64")

_clock = itertools.count()  # numbers Tensors in the order of their creation
_recording = ContextVar("recording", default=True)  # each thread and task has its own


def is_grad_enabled() -> bool:
    """Whether operations are being recorded in this thread (or asynchronous task)."""
    return _recording.get()


@contextlib.contextmanager
def no_grad() -> Iterator[None]:
    """Record nothing in this thread (or task): ``with no_grad():`` or ``@no_grad()``.

    Inside, results have ``requires_grad=False`` and leaves may be changed in place. Beware:
    a VJP keeps the arrays it needs, not copies. Changing one between the operation and
    `backward` falsifies the gradient; PyTorch counts versions and raises an error there.
    """
    before = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(before)


def as_array(data: ArrayLike, dtype: DTypeLike | None = None) -> np.ndarray:
    """The NumPy array of `data`, shared where there is one already.

    An array keeps its dtype; Python floats become float32 and integers int64.

    Raises
    ------
    TypeError
        If `data` is not made of real numbers.
    ValueError
        If `data` is a ragged list.
    """
    if dtype is None and type(data) is np.ndarray and data.dtype.kind in "biuf":
        return data  # the usual case, early
    try:
        array = np.asarray(data.array if isinstance(data, Tensor) else data)
    except ValueError as error:
        raise ValueError(f"data must be a regular array of numbers: {error}") from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"data must be real numbers, got {data!r} (dtype {array.dtype})")
    # by type(): np.float64 is a float to isinstance(), but keeps its dtype
    if type(data) in (float, list, tuple) and array.dtype == float64:
        dtype = dtype or float32
    return array if dtype is None else array.astype(dtype, copy=False)


class Tensor(Operators):
    """A NumPy array that can take part in automatic differentiation.

    Parameters
    ----------
    data : array_like
        An ndarray is shared, not copied (`mg.tensor` copies); anything else is converted.
    requires_grad : bool
        Whether `backward` shall leave a gradient in `grad`. Floating-point dtypes only. (The
        result of a recorded operation requires grad if an input does: it passes gradients on,
        and keeps none.)

    Attributes
    ----------
    array : numpy.ndarray
        The numbers, for code inside the engine; `detach` and `data` wrap the same array in
        a Tensor without history.
    grad : Tensor or None
        The gradient that `backward` has accumulated; leaves only. It has the shape and dtype
        of `array`.
    parents : tuple of Tensor
        The inputs of the operation that made this Tensor; empty for a leaf.
    vjp : callable or None
        From G, which code calls ``grad``, to a tuple with one array for each parent (or None,
        where nothing is to be sent); None for a leaf.
        It closes over arrays and inputs, never over this Tensor: without a reference
        cycle, the graph is freed the moment its last Tensor goes out of scope.
    created : int
        When it was made. A Tensor is always younger than its parents.
    shape, dtype : tuple of int, numpy.dtype
        Those of `array`.
    is_leaf : bool
        Whether no recorded operation made it.
    """

    __slots__ = ("array", "parents", "vjp", "created", "_grad", "_requires_grad", "__weakref__")
    __array_priority__ = 1000  # ``array * tensor`` asks Tensor.__rmul__ first
    __hash__ = object.__hash__  # by identity: `operators` makes == compare elements

    def __init__(self, data: ArrayLike, requires_grad: bool = False):
        self.array = as_array(data)
        self.parents: tuple[Tensor, ...] = ()
        self.vjp: VJP | None = None
        self._grad: Tensor | None = None
        self.created, self._requires_grad = next(_clock), False
        if requires_grad:
            self.requires_grad = True

    @property
    def requires_grad(self) -> bool:
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if not self.is_leaf:
            raise RuntimeError("requires_grad can be set on leaves only; use detach() to get one")
        if value and self.dtype.kind != "f":
            raise RuntimeError(f"only floating-point Tensors can require grad, not {self.dtype}")
        self._requires_grad = bool(value)

    @property
    def grad(self) -> "Tensor | None":
        return self._grad

    @grad.setter
    def grad(self, value: "Tensor | None") -> None:
        fits = isinstance(value, Tensor) and (value.shape, value.dtype) == (self.shape, self.dtype)
        if value is not None and not fits:
            raise RuntimeError(f"grad must be None or {self.dtype} {self.shape}, got {value!r}")
        self._grad = value

    @property
    def data(self) -> "Tensor":
        """The same numbers outside the graph; assigning to it replaces the array."""
        return Tensor(self.array)

    @data.setter
    def data(self, value: ArrayLike) -> None:
        array = as_array(value)
        if self._requires_grad and array.dtype.kind != "f":
            raise RuntimeError(f"a Tensor that requires grad cannot hold {array.dtype} data")
        if (array.shape, array.dtype) != (self.shape, self.dtype):
            self._grad = None  # it does not fit any more
        self.array = array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    @property
    def is_leaf(self) -> bool:
        return self.vjp is None

    def backward(self, gradient: ArrayLike | None = None) -> None:
        """Add ∂L/∂leaf, L being this Tensor, to the `grad` of every leaf it depends on.

        Reverse-mode differentiation, which is called back-propagation in networks: start from
        the gradient of L with respect to itself, and apply the chain rule from the result
        back, so that one pass serves all leaves: node by node, each once, after all its
        consumers. Gradients add up over calls until they are zeroed.

        Parameters
        ----------
        gradient : array_like, optional
            The gradient that arrives at this Tensor, of its shape; 1 for a scalar. (With it,
            L is the sum of gradient * Tensor.)

        Raises
        ------
        RuntimeError
            If no leaf can receive a gradient, if `gradient` is missing for a Tensor of
            more than one element or has the wrong shape, or if a VJP returns gradients
            that do not fit its inputs. No `grad` has changed then.
        """
        if not self._requires_grad:
            raise RuntimeError("backward() found no graph: this Tensor does not require grad")
        if gradient is None:
            if self.array.size != 1:
                raise RuntimeError(f"backward(): shape {self.shape} is no scalar; give gradient=")
            gradient = np.ones_like(self.array)
        gradient = as_array(gradient, self.dtype)
        if gradient.shape != self.shape:
            raise RuntimeError(f"gradient has shape {gradient.shape}, the Tensor {self.shape}")

        # Always take the youngest node that waits; a heap is smallest first, hence the minus.
        # Its gradient is complete: a consumer would be younger, and all nodes that are still
        # to come are older than the one taken. No two were created at the same time, so the
        # heap never compares Tensors.
        queue = [] if self.vjp is None else [(-self.created, self, self.vjp)]
        # What has arrived so far at each Tensor whose turn has not come; at leaves it stays.
        waiting = {self: gradient.copy() if self.is_leaf else gradient}
        while queue:
            _, node, vjp = heapq.heappop(queue)
            given, parents = waiting.pop(node), node.parents
            grads, name = vjp(given), getattr(vjp, "__qualname__", "the VJP")
            if not isinstance(grads, (tuple, list)) or len(grads) != len(parents):
                raise RuntimeError(f"{name} must return a tuple of {len(parents)}, got {grads!r}")
            taken = {id(given)}  # arrays that a leaf must not get as its own
            for parent, grad in zip(parents, grads):
                if grad is None or not parent._requires_grad:
                    continue
                array = parent.array
                if not isinstance(grad, (np.ndarray, np.generic)) or grad.shape != array.shape:
                    got = f"a {type(grad).__name__} of shape {np.shape(grad)}"
                    raise RuntimeError(f"{name} returned {got}, not an array of {array.shape}")
                if grad.dtype != array.dtype:
                    grad = grad.astype(array.dtype)
                if parent in waiting:  # a new sum, never +=: a + b hands one array to both
                    waiting[parent] = waiting[parent] + grad
                    continue
                if parent.vjp is not None:
                    heapq.heappush(queue, (-parent.created, parent, parent.vjp))
                elif grad.base is not None or id(grad) in taken:
                    grad = grad.copy()  # people write into the gradient of a leaf
                taken.add(id(grad))
                waiting[parent] = grad

        for leaf, grad in waiting.items():  # all others were popped when their turn came
            if leaf._grad is None:
                leaf._grad = Tensor(grad)
            else:
                leaf._grad.array += grad


def record(array: np.ndarray | np.generic, parents: tuple[Tensor, ...], vjp: VJP) -> Tensor:
    """Make the Tensor of an operation's result and, if need be, remember how it was made.

    Parameters
    ----------
    array : numpy.ndarray or NumPy scalar
    parents : tuple of Tensor
        The inputs of the operation.
    vjp : callable
        From the gradient of the result, an array (or NumPy scalar) of its shape, to a tuple
        of gradients, one for each parent: an array of the parent's shape, or None where
        nothing is to be sent. `backward` gives it the parent's dtype. The VJP may return the
        very array it was given, or a view of it, but never write into it. Any other array that
        it returns must be new, since a leaf keeps it as its gradient without a copy.

    Returns
    -------
    Tensor
        It requires grad if a parent does, and operations are being recorded.

    Raises
    ------
    TypeError
        If `parents` is no tuple.
    """
    if not isinstance(parents, tuple):
        raise TypeError(f"record: parents must be a tuple of Tensors, as in (x,), got {parents!r}")
    out = Tensor(array)
    # any() over a list: for so few parents it is faster than over a generator.
    if _recording.get() and any([parent._requires_grad for parent in parents]):
        out._requires_grad, out.parents, out.vjp = True, parents, vjp
    return out
