"""Reverse-mode differentiation: how a gradient flows back through a graph.

Let L be the scalar whose gradient is wanted. The gradient of an array x is ∂L/∂x, an array of
the shape of x. The backward pass starts at L itself, where ∂L/∂L = 1.

Suppose that L depends on x through out = f(x, ...) alone. The chain rule turns G = ∂L/∂out into
the gradient of x:

    ∂L/∂x[i] = Σ_j G[j] ∂out[j]/∂x[i]

where i and j run over all elements. The sum is the product of a vector, G, with the Jacobian,
the matrix of all ∂out[j]/∂x[i]: a vector-Jacobian product (VJP). A function that computes it
from G is also called a VJP. It never builds the Jacobian, which can be huge. For the elementwise
product out = x * y, the VJP of x is G * y, and that of y is G * x.

If x is used in several places, L depends on x through each of them. The VJP of each use gives
a contribution, and the gradient of x is their sum.

While operations are recorded, each creates a `Node`, which points to the nodes of its inputs,
its parents. Together the nodes are the graph. A node is a consumer of each of its parents. Two
kinds of node are not created by an operation: a leaf, which holds a parameter (an array to be
trained) and receives a gradient, and a constant, which needs none. (`Tensor.is_leaf`, as in
PyTorch, is True for both.)

This file knows neither operations nor Tensors, the arrays that users handle: `minigrad.tensors`
creates the nodes.
"""

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from operator import attrgetter
from typing import Any

import numpy as np

from . import changes

VJP = Callable[[Any], Any]  # from the gradient of a result to what it contributes to one input
Watch = Callable[["Node", Any, list[Any]], None]


def name_of(op: Callable[..., Any]) -> str:
    """The name of an operation."""
    return getattr(op, "__name__", "custom")


class Node:
    """The record of one operation, or of a leaf or constant, made when it is first used.

    Attributes
    ----------
    result : numpy.ndarray
        What the operation returned, or the numbers of the leaf or constant.
    op : callable or None
        The operation; None for a leaf and for a constant.
    parents : tuple of Node
        One for each input, constants included.
    vjps : tuple of callable or None
        One for each input; None where the input needs no gradient. A VJP must close over arrays
        only. A Node or a Tensor in it would make a reference cycle; without one, a graph is freed
        as soon as nothing refers to its results.
    tensor : weak reference or None
        To the Tensor that receives the gradient: a leaf, or a result that retains it
        (`Tensor.retain_grad`). The Tensor holds its node, so a strong reference would make a cycle.
    created : int
        A serial number. A node is younger than its parents: its number is larger.
    swept : int or None
        The serial number of the latest `backward` from here.
    held : numpy.ndarray or None
        The array of the Tensor, if it is not ``result``: after ``a += b``, the array of ``a``.
    """

    __slots__ = ("result", "op", "parents", "vjps", "tensor", "created", "swept", "held")

    def __init__(
        self, result: np.ndarray, op: Callable[..., Any] | None = None,
        parents: Sequence["Node"] = (), vjps: Sequence[VJP | None] = (), tensor: Any = None,
    ):  # fmt: skip
        self.result, self.op, self.tensor = result, op, tensor
        self.parents, self.vjps = parents, vjps
        self.created = next(changes.clock)
        self.swept: int | None = None
        self.held: np.ndarray | None = None

    @property
    def name(self) -> str:
        """The name of the operation; empty for a leaf and for a constant."""
        return "" if self.op is None else name_of(self.op)


def ancestors(root: Node) -> list[Node]:
    """``root`` and all nodes that it was computed from, the oldest first."""
    found, unexplored = {root}, [root]
    while unexplored:
        for parent in unexplored.pop().parents:
            if parent not in found:
                found.add(parent)
                unexplored.append(parent)
    return sorted(found, key=attrgetter("created"))


def sweep(root: Node, gradient: np.ndarray, watch: Watch | None = None) -> dict[Node, Any]:
    """The gradients of the leaves that ``root`` depends on, and of results that retain theirs.

    ``gradient`` is ∂L/∂root, which is 1 if ``root`` is L.

    Each node that receives a gradient has one turn, in which it sends a contribution to each
    parent that needs one. The youngest goes first. A consumer is younger than its parents, so
    when a node has its turn, all consumers that lead to ``root`` have had theirs, and its
    gradient is complete. Leaves, which send nothing, come last.

    ``watch`` shows what happens: after each turn, a leaf's included, it is called as
    ``watch(node, G, contributions)``. There is one contribution for each parent, None where
    nothing is sent.
    """
    waiting, retained = {root: gradient}, {}
    turns = [(-root.created, root)]  # a heap with the youngest first
    while turns:
        node = heappop(turns)[1]
        if node.created < changes.latest:
            changes.refuse_changed_arrays(node)
        G, contributions = waiting.pop(node), []
        for parent, vjp in zip(node.parents, node.vjps):
            contribution = None
            if vjp is not None:
                contribution = _fitted(vjp(G), G, node, parent)
                so_far = waiting.get(parent)
                if so_far is None and parent.op is not None:
                    heappush(turns, (-parent.created, parent))
                # Never +=: a + b sends one array to both of its parents.
                waiting[parent] = contribution if so_far is None else so_far + contribution
            contributions.append(contribution)
        if node.tensor is not None:
            retained[node] = G
        if watch is not None:
            watch(node, G, contributions)
    if watch is not None:
        for leaf, G in waiting.items():
            watch(leaf, G, [])
    return retained | waiting


def _fitted(grad: Any, G: Any, node: Node, parent: Node) -> Any:
    """Check what a VJP of ``node`` returned, and give it the shape and dtype of ``parent``."""
    target = parent.result
    if not isinstance(grad, (np.ndarray, np.generic)):
        got = type(grad).__name__
        raise RuntimeError(f"a VJP of {node.name} must return an array, got {got}")
    if grad.shape != target.shape:
        grad = unbroadcast(grad, target.shape, node)
    if grad.dtype is not target.dtype:
        grad = grad.astype(target.dtype)
    if parent.tensor is not None and (grad is G or grad.base is not None):
        grad = grad.copy()  # users may write into the gradient of a Tensor, and G is shared
    return grad


def unbroadcast(grad: Any, shape: tuple[int, ...], node: Node) -> Any:
    """Sum ``grad`` down to ``shape``, which an input of ``node`` had before broadcasting.

    Broadcasting uses one number in many places, and the gradients from all of them add up. An
    axis is summed only where the result is longer than the input. Any other mismatch is an error.

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
    # In float64: NumPy adds one by one along some axes, and a long sum of float32 loses digits.
    return grad.sum(axis=axes, dtype=np.float64).reshape(shape)


def backward(root: Node, gradient: np.ndarray) -> None:
    """Check everything, then add each gradient to the ``grad`` of its Tensor."""
    if root.swept is not None:
        changes.refuse_changed_leaves(root, ancestors(root))
    gradients = sweep(root, gradient).items()
    alive = [(tensor, G) for node, G in gradients if (tensor := node.tensor()) is not None]
    for tensor, G in alive:
        if tensor.array.shape != G.shape:
            raise RuntimeError(
                f"a leaf had shape {G.shape} when it was used, and now has shape {tensor.shape}: "
                "recompute the loss after assigning to data"
            )
    for tensor, G in alive:
        tensor.accumulate(G)
    root.swept = next(changes.clock)
