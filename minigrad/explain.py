"""See it happen: the forward pass as a numbered tape, and the backward sweep, step by step."""

import functools
from itertools import repeat

import numpy as np
from numpy.typing import ArrayLike

from .operators import operation_name
from .tensor import VJP, Grads, Tensor

# What the VJP of each operation does with the gradient G that arrives: one text for each input,
# {0}, {1}, ... being the names of the inputs and {out} that of the result.
RULES = {
    "add": ["G", "G"],
    "mul": ["G * {1}", "G * {0}"],
    "div": ["G / {1}", "-G * {out} / {1}"],
    "pow": ["G * {1} * {0} ** ({1} - 1)", "G * {out} * log({0})"],
    "neg": ["-G"],
    "matmul": ["G @ {1}ᵀ", "{0}ᵀ @ G"],
    "exp": ["G * {out}"],
    "log": ["G / {0}"],
    "tanh": ["G * (1 - {out}²)"],
    "to": ["G, in the other dtype"],
    "clone": ["G"],
    "reshape": ["G, in the shape of {0}"],
    "transpose": ["G, transposed back"],
    "reverse_dims": ["Gᵀ"],
    "getitem": ["G where {0} was picked (the sum of several), else 0"],
    "sum": ["G for each element of {0}"],
    "max": ["G where {0} is largest (shared if several are), else 0"],
    "linear": ["G @ {1}", "Gᵀ @ {0}", "G, summed over the examples"],
    "relu": ["G where {out} > 0, else 0"],
    "log_softmax": ["G - exp({out}) * ΣG"],
    "nll_loss": ["-G (of a mean, -G / N) at the right class, else 0"],
}
UNKNOWN = "its own rule"
BROADCASTING = {"add", "mul", "div", "pow"}


def show(array: ArrayLike) -> str:
    """Up to six numbers in full, of more the shape and the range."""
    array = np.asarray(array)
    if array.ndim == 0:
        return f"{array.item():.5g}"
    if 0 < array.size <= 6:
        return np.array2string(
            array, separator=", ", formatter={"float_kind": lambda number: f"{number:.5g}"}
        ).replace("\n", "")
    finite = array[np.isfinite(array)]
    text = f"{array.shape}"
    if finite.size:
        low, high = f"{finite.min():.4g}", f"{finite.max():.4g}"
        text += f", all {low}" if low == high else f", {low} to {high}"
    if finite.size < array.size:
        text += f", {array.size - finite.size} not finite"
    return text


def tape(loss: Tensor) -> list[Tensor]:
    """All Tensors that `loss` was made from, `loss` included, in the order of their creation.

    Raises
    ------
    TypeError, RuntimeError
        If `loss` is no Tensor; if it does not require grad, and so has no graph.
    """
    if not isinstance(loss, Tensor):
        raise TypeError(f"wanted a Tensor with a graph, got {type(loss).__name__}")
    if not loss.requires_grad:
        raise RuntimeError("found no graph: this Tensor does not require grad")
    found, waiting = {loss}, [loss]
    while waiting:
        for parent in waiting.pop().parents:
            if parent not in found:
                found.add(parent)
                waiting.append(parent)
    return sorted(found, key=lambda node: node.created)


def describe(nodes: list[Tensor]) -> dict[Tensor, tuple[str, str]]:
    """Of each Tensor its name, and how it was made: ``("v3", "mul(v1, v2)")``.

    Of those that no operation made, leaves require grad, and constants do not.
    """
    names = {node: f"v{i}" for i, node in enumerate(nodes, 1)}
    described = {}
    for node in nodes:
        made = "leaf" if node.requires_grad else "constant"
        if node.parents:
            made = f"{operation_name(node)}({', '.join(names[parent] for parent in node.parents)})"
        described[node] = names[node], made
    return described


def sweep(
    loss: Tensor,
) -> tuple[list[tuple[Tensor, np.ndarray, Grads]], dict[Tensor, np.ndarray]]:
    """What happens in ``loss.backward()``, without its effect on any `grad`.

    Returns
    -------
    events : list of (node, G, gradients)
        In the order in which they run: the node whose VJP is called, the gradient that
        arrives at it, and those that leave it, one for each parent (or None).
    grads : dict from Tensor to array
        The gradient of `loss` with respect to each Tensor of its graph that has one.
    """
    events, nodes = [], tape(loss)
    before = [(node, node.vjp, node._grad) for node in nodes]

    def spy(node: Tensor, vjp: VJP) -> VJP:
        @functools.wraps(vjp)
        def recorded(grad: np.ndarray) -> Grads:
            grads = vjp(grad)
            events.append((node, grad, grads))
            return grads

        return recorded

    try:
        for node, vjp, _ in before:
            node._grad = None
            if vjp is not None:
                node.vjp = spy(node, vjp)
        loss.backward(np.ones_like(loss.array))
        grads = {node: arriving for node, arriving, _ in events}
        grads |= {node: node._grad.array for node in nodes if node._grad is not None}
    finally:
        for node, vjp, grad in before:
            node.vjp, node._grad = vjp, grad
    return events, grads


def explain(loss: Tensor) -> None:
    """Print how `loss` was computed and how its gradient flows back; nothing is changed.

    Tensors are numbered v1, v2, ... in the order of their creation. G is the gradient that
    arrives at a Tensor; below it stands what leaves for each of its inputs. Where several
    contributions meet, their sum is shown. A `loss` of more than one element is explained for
    the sum of its elements. Ask before an optimiser moves the parameters: the VJPs read the
    arrays as they are now.

    Parameters
    ----------
    loss : Tensor that requires grad

    Raises
    ------
    TypeError, RuntimeError
        As in `tape`.
    """
    described = describe(tape(loss))
    names = {node: name for node, (name, _) in described.items()}
    print("Forward")
    for node, (name, made) in described.items():
        print(f"  {name} = {made} = {show(node.array)}")

    print(f"\nBackward, with L = {names[loss]}")
    events, final = sweep(loss)
    totals: dict[Tensor, np.ndarray] = {}  # as far as the sweep has come
    print(f"  ∂L/∂{names[loss]} = {show(final[loss])}")
    for node, arriving, grads in events:
        name, made = described[node]
        inputs = [names[parent] for parent in node.parents]
        print(f"  at {name} = {made}, G = {show(arriving)}")
        # An operation of somebody else may have the name of one of ours.
        ours = getattr(node.vjp, "__module__", "") in ("minigrad.ops", "minigrad.functional")
        operation = operation_name(node) if ours else ""
        for parent, grad, rule in zip(node.parents, grads, RULES.get(operation, repeat(UNKNOWN))):
            if grad is None or not parent.requires_grad:
                continue
            rule = rule.format(*inputs, out=name)
            if operation in BROADCASTING and parent.shape != node.shape:
                rule += ", summed over what broadcasting repeated"
            met = parent in totals
            totals[parent] = totals[parent] + grad if met else grad
            line = f"    to {names[parent]}: {rule} = {show(grad)}"
            print(line + (f"; added up: {show(totals[parent])}" if met else ""))

    print("\nGradients of the leaves")
    for node, name in names.items():
        if node.is_leaf and node in final:
            print(f"  ∂L/∂{name} = {show(final[node])}")
