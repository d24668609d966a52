"""Reverse-mode differentiation: how a gradient flows back through a graph.

Let L be the scalar whose gradient is wanted. The gradient of an array x is ∂L/∂x, an array of
the shape of x. An operation out = f(x, ...) needs only the chain rule,

    ∂L/∂x[i] = Σ_j ∂L/∂out[j] ∂out[j]/∂x[i],

to turn G = ∂L/∂out into the gradient of its input (i and j run over all elements). The sum is
the product of the vector G with the Jacobian, the matrix of all ∂out[j]/∂x[i]: hence its name,
vector-Jacobian product (VJP). The Jacobian, which is huge, is never built. For out = x * y,
elementwise, one VJP turns G into G * y, the gradient of x, and another turns it into G * x.

Each operation leaves a `Node`, which points to the nodes of its inputs, its parents. Together
they are the graph. A leaf is a node that no operation left, such as a parameter. A node that
has another as a parent is its consumer. If x has several consumers, L depends on x through
each of them: each sends a contribution, and the gradient is their sum.

The engine knows no operation and no Tensor. `tensors` records the nodes.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from operator import attrgetter
from typing import Any

import numpy as np

VJP = Callable[[Any], Any]  # from the gradient of a result to that of one input

_clock = itertools.count()
recording = ContextVar("recording", default=True)  # each thread and task has its own


def is_grad_enabled() -> bool:
    """Whether operations are being recorded in this thread (or asynchronous task)."""
    return recording.get()


@contextlib.contextmanager
def no_grad() -> Iterator[None]:
    """Record nothing in this thread (or task): ``with no_grad():`` or ``@no_grad()``.

    Inside, results have ``requires_grad=False`` and leaves may be changed in place. Beware:
    a VJP keeps the arrays it needs, not copies. Changing one between the operation and
    `backward` falsifies the gradient; PyTorch counts versions and raises an error there.
    """
    before = recording.set(False)
    try:
        yield
    finally:
        recording.reset(before)


def name_of(op: Callable[..., Any]) -> str:
    """The name of an operation."""
    return getattr(op, "__name__", "custom")


class Node:
    """What an operation leaves for `backward`; a leaf's node is made when it is first used.

    Attributes
    ----------
    result : numpy.ndarray
        What the operation returned, or the numbers of a leaf.
    op : callable or None
        The operation; None for a leaf.
    parents : tuple of Node
        One for each input. A constant input has a node, too.
    vjps : tuple of callable or None
        One for each input; None where the input needs no gradient. A VJP closes over arrays,
        never over a Node or a Tensor: without a reference cycle, a graph is freed the moment
        its last Tensor goes out of scope.
    tensor : weak reference or None
        To the Tensor that a leaf's gradient belongs to; None for a result. It is weak, because
        the Tensor holds its node: a strong one would make a cycle.
    created : int
        When it was made. A node is younger than its parents.
    """

    __slots__ = ("result", "op", "parents", "vjps", "tensor", "created")

    def __init__(
        self, result: np.ndarray, op: Callable[..., Any] | None = None,
        parents: Sequence["Node"] = (), vjps: Sequence[VJP | None] = (), tensor: Any = None,
    ):  # fmt: skip
        self.result, self.op, self.tensor = result, op, tensor
        self.parents, self.vjps = parents, vjps
        self.created = next(_clock)

    @property
    def name(self) -> str:
        """The name of the operation; empty for a leaf."""
        return "" if self.op is None else name_of(self.op)


def ancestors(root: Node) -> list[Node]:
    """`root` and all nodes that it was made from, the oldest first."""
    found, unexplored = {root}, [root]
    while unexplored:
        for parent in unexplored.pop().parents:
            if parent not in found:
                found.add(parent)
                unexplored.append(parent)
    return sorted(found, key=attrgetter("created"))


def sweep(
    root: Node, gradient: np.ndarray, watch: Callable[[Node, Any, list[Any]], None] | None = None
) -> dict[Node, Any]:
    """The gradients of the leaves that `root` depends on; `gradient` is that of `root`.

    Each node has its turn once: it sends a contribution to each parent that needs one. The
    youngest goes first. A consumer is younger than its parents, so when a node has its turn,
    all of its consumers have had theirs, and its gradient is complete.

    `watch`, if given, is called as ``watch(node, G, contributions)`` after each turn, that of a
    leaf included. There is one contribution for each parent, None where nothing is sent.
    """
    waiting, leaves = {root: gradient}, {}
    for node in reversed(ancestors(root)):
        if node not in waiting:
            continue  # it needs no gradient
        G, contributions = waiting.pop(node), []
        for parent, vjp in zip(node.parents, node.vjps):
            contribution = None
            if vjp is not None:
                contribution = _fitted(vjp(G), G, node, parent)
                before = waiting.get(parent)
                # A new sum, never +=: for a + b, one array is sent to both.
                waiting[parent] = contribution if before is None else before + contribution
            if watch is not None:
                contributions.append(contribution)
        if node.op is None:
            leaves[node] = G
        if watch is not None:
            watch(node, G, contributions)
    return leaves


def _fitted(grad: Any, G: Any, node: Node, parent: Node) -> Any:
    """What a VJP of `node` returned, in the shape and dtype of `parent`."""
    result = parent.result
    if type(grad) is not np.ndarray and not isinstance(grad, (np.ndarray, np.generic)):
        raise RuntimeError(f"a VJP of {node.name} returned a {type(grad).__name__}, not an array")
    if grad.shape != result.shape:
        grad = unbroadcast(grad, result.shape, node)
    if grad.dtype is not result.dtype:
        grad = grad.astype(result.dtype)
    if parent.op is None and (grad is G or grad.base is not None):
        grad = grad.copy()  # people write into the gradient of a leaf; G belongs to others, too
    return grad


def unbroadcast(grad: Any, shape: tuple[int, ...], node: Node) -> Any:
    """Sum `grad` down to `shape`, that of an input which NumPy broadcast to the result's.

    Broadcasting uses one number in many places; by the chain rule their gradients add up. An
    axis is summed only if the result has it and the input has not, or has length 1 there.

    >>> grad = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    >>> unbroadcast(grad, (3,), Node(grad))  # each number was used in two rows
    array([5., 7., 9.])
    >>> unbroadcast(grad, (2, 1), Node(grad))  # each number was used in three columns
    array([[ 6.],
           [15.]])
    """
    result = node.result.shape
    padded = (1,) * (len(result) - len(shape)) + shape
    axes = tuple(i for i, (n, m) in enumerate(zip(grad.shape, padded)) if n != m)
    fits = grad.ndim == len(result) == len(padded)
    if not fits or any(padded[i] != 1 or grad.shape[i] != result[i] for i in axes):
        raise RuntimeError(
            f"a VJP of {node.name} returned shape {grad.shape} for an input of shape {shape}; "
            f"the result has shape {result}"
        )
    # In double precision: NumPy adds one by one along some axes, and would lose digits.
    return grad.sum(axis=axes, dtype=np.float64).reshape(shape)


def backward(root: Node, gradient: np.ndarray) -> None:
    """Add the gradient of each leaf to the `grad` of its Tensor: to all of them, or to none."""
    # Nobody can see the gradient of a Tensor that is gone.
    pairs = [(leaf.tensor(), G) for leaf, G in sweep(root, gradient).items()]
    arrived = [(tensor, G) for tensor, G in pairs if tensor is not None]
    for tensor, G in arrived:
        if tensor.shape != G.shape:
            raise RuntimeError(
                f"a leaf had shape {G.shape} when it was used, and now has shape {tensor.shape}: "
                "compute the loss anew after assigning to data"
            )
    for tensor, G in arrived:
        tensor.accumulate(G)
