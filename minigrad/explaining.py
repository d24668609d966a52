"""See it happen: the forward pass as a numbered tape, and the backward sweep, step by step.

`describe` puts a graph into words. `explain` prints them, `plot` draws them, and `stepping` makes
a page of them.
"""

from __future__ import annotations

import codecs
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import count, repeat
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .changes import changed_since
from .engine import Node, ancestors, sweep
from .nn import Module
from .tensors import Tensor

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Names = Mapping[str, Tensor] | Module | None

READABLE = {
    "∂": "d", "Σ": "sum", "ᵀ": ".T", "²": "^2", "³": "^3", "⁴": "^4", "·": "*", "µ": "u",
    "±": "+-",
}  # fmt: skip


def _readable(error: UnicodeError) -> tuple[str, int]:
    """What to write for characters that an encoding lacks: ``dL/dv1`` for ``∂L/∂v1``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(READABLE.get(character, "?") for character in missing), error.end


codecs.register_error("minigrad.readable", _readable)


def say(text: str) -> None:
    """Print ``text`` in the characters of stdout's encoding, which may lack some of it."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "minigrad.readable").decode(encoding))


def shape_and_numbers(array: ArrayLike, few: int = 6) -> tuple[str, str]:
    """The shape (empty for ()), and the numbers: all if they are few, otherwise their range."""
    array = np.asarray(array)
    if array.ndim == 0:
        return "", f"{array.item():.5g}"
    if 0 < array.size <= few:
        text = np.array2string(
            array, separator=", ", formatter={"float_kind": lambda number: f"{number:.5g}"}
        )
        return f"{array.shape}", text.replace("\n", "")
    finite, texts = array[np.isfinite(array)], []
    if finite.size:
        low, high = f"{finite.min():.4g}", f"{finite.max():.4g}"
        texts.append(f"all {low}" if low == high else f"{low} to {high}")
    if finite.size < array.size:
        texts.append(f"{array.size - finite.size} not finite")
    return f"{array.shape}", ", ".join(texts)


def show(array: ArrayLike) -> str:
    """The shape of an array and its numbers, or their range, in one line."""
    return ": ".join(filter(None, shape_and_numbers(array)))


class Value(NamedTuple):
    """A node in words."""

    name: str
    made: str  # "leaf", "constant", or how an operation made it, such as "mul(v1, v2)"
    shape: str
    numbers: str  # or their range, and how they have changed since


class Contribution(NamedTuple):
    """What an operation sends to one of its inputs."""

    to: Node
    rule: str  # such as "G * v2"
    put_in: str  # the rule with numbers, such as "1 * 3"; a large array appears as its shape
    sent: Any
    total: Any  # the sum of what has arrived there so far, this included
    first: bool
    last: bool  # nothing more will come: the total is the gradient


class Turn(NamedTuple):
    """What happens when the sweep comes to a node."""

    node: Node
    gradient: Any  # G, which is complete
    contributions: list[Contribution | None]  # for each input; None if it needs no gradient


def describe(loss: Tensor, names: Names = None) -> tuple[dict[Node, Value], list[Turn]]:
    """The graph of ``loss`` in words, and what happens in ``loss.backward()``; changes nothing.

    The nodes come in the order of their creation, with ``loss`` last. The turns come as they
    happen: ``loss`` first, and the leaves, which send nothing, last. A leaf receives a gradient,
    and a constant does not. Every other node is the result of an operation.

    Parameters
    ----------
    loss : Tensor that requires grad
    names : mapping from name to Tensor, or Module, optional
        What to call the nodes of these Tensors. A Module names its parameters. The others are
        called v1, v2, ...

    Raises
    ------
    TypeError
        If ``loss`` is not a Tensor, or ``names`` does not name Tensors.
    RuntimeError
        If ``loss`` does not require grad, and so has no graph, or if an array that a VJP needs
        has changed since.
    """
    if not isinstance(loss, Tensor):
        raise TypeError(f"wanted a Tensor with a graph, got {type(loss).__name__}")
    if not loss.requires_grad:
        raise RuntimeError(
            "found no graph: this Tensor does not require grad. Make the parameters with "
            "requires_grad=True, and compute outside no_grad()"
        )
    nodes = ancestors(loss.node)
    called = _called(nodes, names)
    swept: list[tuple[Node, Any, list[Any]]] = []
    sweep(loss.node, np.ones_like(loss.array), lambda *turn: swept.append(turn))
    reached = {node for node, _, _ in swept}
    used: dict[Node, int] = {}  # when each was first used
    for node in nodes:
        for parent in node.parents:
            used.setdefault(parent, node.created)
    values = {}
    for node in nodes:
        made = "leaf" if node in reached else "constant"
        if node.op is not None:
            made = f"{node.name}({', '.join(called[parent] for parent in node.parents)})"
        shape, numbers = _numbers(node, used.get(node, node.created))
        values[node] = Value(called[node], made, shape, numbers)
    return values, _turns(swept, called)


def _called(nodes: Iterable[Node], names: Names) -> dict[Node, str]:
    """The name of each node: that of its Tensor, or v1, v2, ..."""
    named = dict(names.named_parameters()) if isinstance(names, Module) else names
    named = {} if named is None else named
    if not isinstance(named, Mapping) or not all(isinstance(x, Tensor) for x in named.values()):
        raise TypeError(f"names must be a Module, or a mapping from name to Tensor, got {names!r}")
    # If a Tensor has several names, the first counts.
    given: dict[Any, str] = {tensor: str(name) for name, tensor in reversed([*named.items()])}
    results = {tensor.node: name for tensor, name in given.items() if not tensor.is_leaf}
    taken = {*given.values()}
    called, free = {}, (name for i in count(1) if (name := f"v{i}") not in taken)
    for node in nodes:
        # A Tensor that got another array no longer belongs to the node of the old one.
        tensor = node.tensor() if node.op is None else None
        called[node] = results.get(node) or given.pop(tensor, None) or next(free)
    return called


def _numbers(node: Node, used: int) -> tuple[str, str]:
    """Shape and numbers of a node, as they were when an operation used them."""
    shape, numbers = shape_and_numbers(node.result)
    tensor = node.tensor() if node.op is None else None
    if changed_since(node.result, used):
        numbers = f"unknown (changed in place since then, to {numbers})"
    elif tensor is not None and tensor.node is not node:  # by assigning to data
        numbers = f"{numbers} (replaced since then by {show(tensor.array)})"
    return shape, numbers


def _turns(swept: list[tuple[Node, Any, list[Any]]], called: dict[Node, str]) -> list[Turn]:
    """The turns of a sweep in words."""
    to_come = Counter(
        parent for node, _, sent in swept for parent, c in zip(node.parents, sent) if c is not None
    )
    totals: dict[Node, Any] = {}  # the sums so far
    turns = []
    for node, G, sent in swept:
        contributions: list[Contribution | None] = []
        rules = getattr(node.op, "rule", repeat("its own rule"))
        for parent, vjp, amount, rule in zip(node.parents, node.vjps, sent, rules):
            if vjp is None:
                contributions.append(None)
                continue
            named = rule.format(*map(called.get, node.parents), out=called[node])
            put_in = _put_in(rule, node, G, called)
            if vjp(G).shape != amount.shape:
                named += ", summed over what broadcasting repeated"
                put_in += ", summed"
            first = parent not in totals
            totals[parent] = so_far = amount if first else totals[parent] + amount
            to_come[parent] -= 1
            last = to_come[parent] == 0
            contributions.append(Contribution(parent, named, put_in, amount, so_far, first, last))
        turns.append(Turn(node, G, contributions))
    return turns


def _put_in(rule: str, node: Node, G: Any, called: dict[Node, str]) -> str:
    """The rule with numbers instead of names; an array of more than three appears as its shape."""
    whole = re.fullmatch(r"G|{\w+}", rule)

    def numbers(array: Any) -> str:
        shape, text = shape_and_numbers(array)
        text = text if 0 < np.size(array) <= 3 else shape
        return f"({text})" if text.startswith("-") and not whole else text

    inputs = [  # a rule may name an array that its VJP does not need
        called[parent] if changed_since(parent.result, node.created) else numbers(parent.result)
        for parent in node.parents
    ]
    rule = re.sub("(?<![A-Za-z])G(?![A-Za-z])", "{G}", rule)
    return rule.format(*inputs, out=numbers(node.result), G=numbers(G))


def explain(loss: Tensor, names: Names = None) -> None:
    """Print how ``loss`` was computed and how its gradient flows back; changes nothing.

    The nodes of the graph are numbered v1, v2, ... in the order of their creation. The node of a
    leaf is created when the leaf is first used. G is the gradient that arrives at a node, and
    the lines below it show what the node sends to each of its inputs. Where several
    contributions meet, their sum is shown. L is ``loss``, or the sum of its elements if it does
    not have exactly one. Call `explain` before an optimiser moves the parameters: it marks
    numbers that have changed since. It replaces characters that the encoding of stdout lacks:
    dL/dv1 for ∂L/∂v1.

    Parameters
    ----------
    loss : Tensor that requires grad
    names : mapping from name to Tensor, or Module, optional
        What to call these Tensors, instead of v1, v2, ...: ``names={"x": x}``. With
        ``names=model``, the parameters have the names that `Module.named_parameters` gives.

    Raises
    ------
    TypeError, RuntimeError
        As in `describe`.
    """
    values, turns = describe(loss, names)
    say("Forward")
    for name, made, *texts in values.values():
        say(f"  {name} = {made} = {': '.join(filter(None, texts))}")

    last = values[loss.node].name
    say(f"\nBackward, with L = {'' if loss.array.size == 1 else 'sum of '}{last}")
    say(f"  ∂L/∂{last} = {show(np.ones_like(loss.array))}")
    for node, gradient, contributions in turns:
        if node.op is not None:
            say(f"  at {values[node].name} = {values[node].made}, G = {show(gradient)}")
        for sent in filter(None, contributions):
            line = f"    to {values[sent.to].name}: {sent.rule} = {show(sent.sent)}"
            say(line + ("" if sent.first else f"; added up: {show(sent.total)}"))

    say("\nGradients of the leaves")
    gradients = {turn.node: turn.gradient for turn in turns}
    for node, value in values.items():
        if value.made == "leaf":
            say(f"  ∂L/∂{value.name} = {show(gradients[node])}")
