"""See it happen: the forward pass as a numbered tape, and the backward sweep, step by step."""

from __future__ import annotations

import codecs
import sys
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np

from .engine import Node, ancestors, sweep
from .tensors import Tensor

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


READABLE = {
    "∂": "d", "Σ": "sum", "ᵀ": ".T", "²": "^2", "³": "^3", "⁴": "^4", "·": "*", "µ": "u",
    "±": "+-",
}  # fmt: skip


def _readable(error: UnicodeError) -> tuple[str, int]:
    """What to write instead of characters that an encoding lacks: ``dL/dv1`` for ``∂L/∂v1``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(READABLE.get(character, "?") for character in missing), error.end


codecs.register_error("minigrad.readable", _readable)


def say(text: str) -> None:
    """Print `text`, in the characters that stdout has: a file or a pipe may lack some."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "minigrad.readable").decode(encoding))


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


def tape(loss: Tensor) -> dict[Node, tuple[str, str]]:
    """The nodes that `loss` was made from, the oldest first, `loss` last.

    Each comes with its name and how it was made: ``("v3", "mul(v1, v2)")``. An operation made
    a result. Gradients flow to a leaf, and none to a constant.

    Raises
    ------
    TypeError, RuntimeError
        If `loss` is no Tensor; if it does not require grad, and so has no graph.
    """
    if not isinstance(loss, Tensor):
        raise TypeError(f"wanted a Tensor with a graph, got {type(loss).__name__}")
    if not loss.requires_grad:
        raise RuntimeError("found no graph: this Tensor does not require grad")
    nodes = ancestors(loss.node)
    names = {node: f"v{i}" for i, node in enumerate(nodes, 1)}
    leaves = {loss.node} | {
        parent for node in nodes for parent, vjp in zip(node.parents, node.vjps) if vjp is not None
    }
    described = {}
    for node, name in names.items():
        made = "leaf" if node in leaves else "constant"
        if node.op is not None:
            made = f"{node.name}({', '.join(names[parent] for parent in node.parents)})"
        described[node] = name, made
    return described


def turns(loss: Tensor) -> list[tuple[Node, Any, list[Any]]]:
    """What happens in ``loss.backward()``, without its effect on any `grad`.

    Each turn is a node, the gradient that has arrived at it, and what it sends to each of its
    parents (None where it sends nothing), in the order in which they happen.
    """
    seen: list[tuple[Node, Any, list[Any]]] = []
    sweep(loss.node, np.ones_like(loss.array), lambda *turn: seen.append(turn))
    return seen


def explain(loss: Tensor) -> None:
    """Print how `loss` was computed and how its gradient flows back; nothing is changed.

    The nodes of the graph are numbered v1, v2, ... in the order of their creation; a leaf's is
    created when it is first used. G is the gradient that arrives at a node; below it is what
    leaves for each of its inputs. Where several contributions meet, their sum is shown. L is
    `loss`, or the sum of its elements if it does not have exactly one. Ask before an optimiser
    moves the parameters: the VJPs read the arrays as they are now. A character that the encoding
    of stdout lacks is replaced: dL/dv1 stands for ∂L/∂v1.

    Parameters
    ----------
    loss : Tensor that requires grad

    Raises
    ------
    TypeError, RuntimeError
        As in `tape`.
    """
    described = tape(loss)
    names = {node: name for node, (name, _) in described.items()}
    say("Forward")
    for node, (name, made) in described.items():
        say(f"  {name} = {made} = {show(node.result)}")

    total = "" if loss.array.size == 1 else "sum of "
    say(f"\nBackward, with L = {total}{names[loss.node]}")
    say(f"  ∂L/∂{names[loss.node]} = {show(np.ones_like(loss.array))}")
    totals: dict[Node, Any] = {}  # as far as the sweep has come
    for node, arriving, contributions in turns(loss):
        if node.op is None:
            totals.setdefault(node, arriving)
            continue
        name, made = described[node]
        inputs = [names[parent] for parent in node.parents]
        say(f"  at {name} = {made}, G = {show(arriving)}")
        rules = getattr(node.op, "rule", repeat("its own rule"))
        for parent, vjp, contribution, rule in zip(node.parents, node.vjps, contributions, rules):
            if vjp is None:
                continue
            rule = rule.format(*inputs, out=name)
            if vjp(arriving).shape != contribution.shape:
                rule += ", summed over what broadcasting repeated"
            met = parent in totals
            totals[parent] = totals[parent] + contribution if met else contribution
            line = f"    to {names[parent]}: {rule} = {show(contribution)}"
            say(line + (f"; added up: {show(totals[parent])}" if met else ""))

    say("\nGradients of the leaves")
    for node, name in names.items():
        if node.op is None and node in totals:
            say(f"  ∂L/∂{name} = {show(totals[node])}")
