"""Where the boxes, arrows and labels of a graph are placed, and how strong its colours are.

`plot.graph` draws them, and `stepping.steps` puts them into a page.
"""

import functools
import itertools
import math
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from .engine import Node
from .explaining import Turn, Value, shape_and_numbers

SIZE, LINE, GAP = 11, 0.19, 0.6  # letters in points; a line, and the space between rows, in inches
LETTERS = FontProperties(size=SIZE)
BRIEF = 3  # an arrow shows up to three numbers, or the range of more
KINDS = {  # of nodes
    "leaf": "leaf: receives a gradient",
    "constant": "constant: needs none",
    "result": "result of an operation",
}


@functools.lru_cache(1000)
def _width(text: str) -> float:
    with warnings.catch_warnings():  # a letter that this font lacks may be there on a page
        warnings.simplefilter("ignore")
        width, _, _ = text_to_path.get_text_width_height_descent(text, LETTERS, ismath=False)
    return float(width) / 72


class Text(NamedTuple):
    """A line of text."""

    text: str
    is_gradient: bool = False
    marked: bool = False  # because not all of its numbers are finite

    @property
    def width(self) -> float:
        """In inches."""
        return _width(self.text)


class Box(NamedTuple):
    """A node on the page; all lengths are in inches."""

    kind: str  # of `KINDS`
    x: float  # of its middle
    y: float
    width: float
    height: float
    texts: list[Text]


class Arrow(NamedTuple):
    """The part of a way from an input to its result that leads to the next row."""

    start: Any  # the node of the input, or a place in a row that the way passes
    end: Any  # the node of the result, or such a place
    which: int | None  # the number of the input, from 0; None if the arrow ends at a place
    points: list[tuple[float, float]]
    label: Text | None = None  # the contribution that is sent back along it

    def at(self, y: float) -> float:
        """Its x at this height."""
        return float(np.interp(-y, [-v for _, v in self.points], [u for u, _ in self.points]))


def _gradient(array: Any, before: str = "", few: int = 6) -> Text:
    """The numbers of a gradient, which has the shape of its node."""
    return Text(before + shape_and_numbers(array, few)[1], True, not np.isfinite(array).all())


def _inside(node: Node, value: Value, gradient: Any) -> list[Text]:
    """The lines of text in the box of a node."""
    marked = not np.isfinite(node.result).all()
    texts = [Text(f"{value.name} = {value.made}"), Text(value.shape)]
    texts.append(Text(value.numbers, marked=marked))
    if gradient is not None:
        texts.append(_gradient(gradient, "grad "))
    return [
        whole._replace(text=line)
        for whole in texts
        for line in textwrap.wrap(whole.text, 30, break_on_hyphens=False)
    ]


def arrange(nodes: list[Node]) -> tuple[dict[Any, tuple[int, int]], dict[Any, dict[Any, float]]]:
    """The column and row of each place (the loss has 0 and 0), and the places below it.

    A place is a node, or (node, row): the room for its arrows in a row that they pass. The
    trunk, a longest way to the loss, has column 0 to itself.
    """
    depth, height = dict.fromkeys(nodes, 0), dict.fromkeys(nodes, 0)
    for node in reversed(nodes):
        for parent in node.parents:
            depth[parent] = max(depth[parent], depth[node] + 1)  # the longest way to the loss
    for node in nodes:
        height[node] = max([height[parent] + 1 for parent in node.parents], default=0)
    trunk = [nodes[-1]]
    while trunk[-1].parents:
        trunk.append(max(trunk[-1].parents, key=height.__getitem__))

    rows: list[list[Any]] = [[] for _ in trunk]
    for node in nodes:
        rows[depth[node]].append(node)
    leads_to: dict[Any, dict[Any, float]] = {node: {} for node in nodes}
    for node in nodes:
        for i, parent in enumerate(node.parents):
            # Inputs come from left to right, with less than a column between them.
            below: Any = node
            shift = (i + 0.5) / len(node.parents) - 0.5
            for row in range(depth[node] + 1, depth[parent]):
                place = parent, row
                known = place in leads_to
                leads_to.setdefault(place, {})[below] = shift
                if known:
                    break
                rows[row].append(place)
                below, shift = place, 0
            else:
                leads_to[parent][below] = shift

    # Each place should be above those that it leads to, so that few arrows cross. Those on either
    # side of the trunk are pushed outwards until there is room.
    where: dict[Any, tuple[int, int]] = {}
    for row, places in enumerate(rows):
        wanted = {
            place: sum(where[below][0] + shift for below, shift in leads_to[place].items())
            / (len(leads_to[place]) or 1)
            for place in places
        }
        places.sort(key=wanted.__getitem__)
        middle = places.index(trunk[row])
        where[trunk[row]] = 0, row
        for before, place in itertools.pairwise(places[middle:]):
            where[place] = max(where[before][0] + 1, round(wanted[place])), row
        for before, place in itertools.pairwise(places[middle::-1]):
            where[place] = min(where[before][0] - 1, round(wanted[place])), row
    return where, leads_to


def _place_labels(arrows: Sequence[Arrow], top: float) -> list[tuple[Text, float, float]]:
    """The labels between two rows, each where it covers the fewest arrows and other labels."""
    placed: list[tuple[Text, float, float]] = []
    for arrow in arrows:
        if (label := arrow.label) is None:
            continue
        half = label.width / 2 + 0.1

        def covered(y: float) -> int:
            x = arrow.at(y)
            return sum(abs(other.at(y) - x) < half for other in arrows if other is not arrow) + sum(
                abs(u - x) < half + text.width / 2 and abs(v - y) < LINE for text, u, v in placed
            )

        y = min((top - GAP * t for t in (0.5, 0.35, 0.65, 0.2, 0.75)), key=covered)
        placed.append((label, arrow.at(y), y))
    return placed


def lay_out(
    values: Mapping[Node, Value], turns: Sequence[Turn]
) -> tuple[dict[Node, Box], list[Arrow], list[tuple[Text, float, float]]]:
    """The box of each node, the arrows, and their labels with the place of each.

    An input that is used twice has two arrows. Those that lead to one box end side by side.
    The labels come in the order of the arrows that have one.
    """
    gradients = {turn.node: turn.gradient for turn in turns}
    inside = {node: _inside(node, value, gradients.get(node)) for node, value in values.items()}
    width = {node: 0.2 + max(text.width for text in texts) for node, texts in inside.items()}
    where, leads_to = arrange(list(values))
    heights = [0.0] * (1 + max(row for _, row in where.values()))  # of the rows
    for node, texts in inside.items():
        row = where[node][1]
        heights[row] = max(heights[row], 0.12 + LINE * len(texts))
    floors = [0.0, *itertools.accumulate(height + GAP for height in heights)]
    x, y, half = {}, {}, {}
    for place, (column, row) in where.items():
        x[place] = column * (0.3 + max(width.values()))
        y[place] = floors[row] + heights[row] / 2
        half[place] = 0.06 + LINE * len(inside[place]) / 2 if place in inside else heights[row] / 2

    arrows: list[list[Arrow]] = [[] for _ in heights]

    def lead(
        start: Any, end: Any, to: float,
        which: int | None = None, bend: float = 0, label: Text | None = None,
    ) -> None:  # fmt: skip
        row = where[end][1]
        top, bottom = floors[row + 1], floors[row + 1] - GAP  # between the rows
        points = [
            (x[start], y[start] - half[start]),
            (x[start], top),
            ((x[start] + to) / 2 + bend, (top + bottom) / 2),
            (to, bottom),
            (to, y[end] + half[end] if end in values else floors[row]),
        ]
        points = list(dict.fromkeys((u, round(v, 6)) for u, v in points))
        arrows[row].append(Arrow(start, end, which, points, label))

    for place, all_below in leads_to.items():
        for below in all_below:
            if below not in values:
                lead(place, below, x[below])
    for node, _, contributions in turns:
        row, parents = where[node][1], node.parents
        starts = [(parent, row + 1) if (parent, row + 1) in where else parent for parent in parents]
        for i, which in enumerate(sorted(range(len(starts)), key=lambda i: x[starts[i]])):
            start, sent = starts[which], contributions[which]
            label = None if sent is None else _gradient(sent.sent, few=BRIEF)
            to = x[node] + 0.6 * width[node] * ((i + 0.5) / len(starts) - 0.5)
            twin = starts[:which].count(start) - (starts.count(start) - 1) / 2
            lead(start, node, to, which, twin * (0.2 + (label.width if label else 0)), label)
    boxes = {}
    for node, texts in inside.items():
        kind = values[node].made if node.op is None else "result"
        boxes[node] = Box(kind, x[node], y[node], width[node], 2 * half[node], texts)
    labels = [
        placed for floor, row in zip(floors[1:], arrows) for placed in _place_labels(row, floor)
    ]
    return boxes, list(itertools.chain(*arrows)), labels


def extent(
    boxes: Mapping[Node, Box], arrows: Sequence[Arrow], labels: Sequence[tuple[Text, float, float]]
) -> tuple[float, float, float]:
    """The left, right and upper edges of a picture, with a margin on the sides."""
    spans = [(box.x, box.width) for box in boxes.values()]
    spans += [(x, text.width) for text, x, _ in labels]
    spans += [(arrow.points[-1][0], 0) for arrow in arrows]
    left, right = min(x - width / 2 for x, width in spans), max(x + width / 2 for x, width in spans)
    return left - 0.15, right + 0.15, max(box.y + box.height / 2 for box in boxes.values())


def strengths_of(turns: Sequence[Turn]) -> tuple[dict[Node, float], dict[str, float]]:
    """How strong the colour of each box is, 0 to 1, and that of some sizes for the legend.

    The size of a gradient is its largest absolute value, and the strength is linear in the
    logarithm of the size. It falls from 1 to 0 over at least three powers of ten.
    """
    sizes = {turn.node: float(np.abs(turn.gradient).max(initial=0)) for turn in turns}
    logs = {node: math.log10(size) for node, size in sizes.items() if 0 < size < math.inf}
    top = max(logs.values(), default=0)
    span = max([3, *(top - log for log in logs.values())])
    samples = {f"{10 ** (top - span * part):.2g}": 1 - part for part in (0, 0.5, 1)}
    return {node: 1 - (top - log) / span for node, log in logs.items()}, samples


def warn_of_size(values: Mapping[Node, Value], most: int, what: str, function: str) -> None:
    """Warn of more than ``most`` nodes, at the line that called `graph` or `steps`."""
    if len(values) > most:
        warnings.warn(
            f"a {what} of {len(values)} nodes is hard to read. Draw a part: plot.{function}(x) "
            "shows how any intermediate result x was made. Or print it all: minigrad.explain(loss)",
            stacklevel=3,
        )
