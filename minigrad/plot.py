"""The pictures that the examples share, and the page that steps through a graph."""

import base64
import functools
import html
import io
import itertools
import json
import math
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch
from matplotlib.textpath import text_to_path

from .engine import Node
from .explaining import Names, Turn, Value, describe, shape_and_numbers
from .tensors import Tensor

BLUE, RED = "#0072B2", "#D55E00"  # differ in print and for colour-blind readers (Okabe and Ito)
YELLOW = "#F0E442"


def training_curves(
    history: Mapping[str, Sequence[float]],
    path: str | Path,
    title: str = "",
    baselines: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """Draw loss and error against epochs on log axes, and save the picture.

    Parameters
    ----------
    history : mapping
        ``train_loss`` and ``train_accuracy`` (0 to 1) hold one number per epoch, the mean over
        its steps, drawn at its middle. ``valid_loss`` and ``valid_accuracy`` belong to examples
        that are not trained on. They hold a number for the end of each epoch, and may begin with
        one for epoch 0, the untrained model. Losses are in nats, the unit of natural logarithms.
    path : path
        Where to write the picture. The ending decides the format.
    title : str
    baselines : mapping, optional
        Loss and accuracy of other models by name, drawn as horizontal lines.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = Figure(figsize=(11, 4.4), dpi=110, layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, 2)
    count = len(history["train_loss"])
    ends = range(count + 1 - len(history["valid_loss"]), count + 1)
    for axes, what in zip(panels, ("loss", "accuracy")):

        def shown(values: Sequence[float]) -> np.ndarray:
            return np.array(values) if what == "loss" else 100 - 100 * np.array(values)

        middles, train = np.arange(count) + 0.5, shown(history[f"train_{what}"])
        valid = shown(history[f"valid_{what}"])
        lines: list[tuple[Any, ...]] = [
            (middles, train, BLUE, "-", "training, mean over the epoch")
        ]
        lines += [(ends, valid, RED, "-", "validation, at its end")]
        for style, (name, pair) in zip(itertools.cycle(("--", ":")), (baselines or {}).items()):
            level = shown([pair[what == "accuracy"]] * 2)
            lines += [([0, count], level, "black", style, name)]

        # A log axis has no 0: it is drawn as half of the smallest number that is not 0.
        positive = [y for _, values, *_ in lines for y in values if y > 0] or [1]
        floor = min(positive) / 2
        for x, values, colour, style, label in lines:
            marker = "" if colour == "black" else "o"
            axes.plot(x, np.maximum(values, floor), color=colour, linestyle=style, marker=marker,
                      markersize=4, label=label)  # fmt: skip
            if any(values <= 0):
                axes.text(0, floor, "no error", va="bottom", color="0.3", fontsize=12)
        if 0 in ends:
            axes.plot(0, max(valid[0], floor), "o", color="white", markeredgecolor=RED,
                      markersize=9, label="validation, untrained")  # fmt: skip
        axes.set_yscale("log")
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    panels[0].legend()
    panels[0].set_ylabel("negative log-likelihood (nats)")
    panels[1].set_ylabel("error: misread digits (%)")
    panels[1].yaxis.set_major_formatter("{x:g}")
    figure.savefig(path)
    return figure


class Picture(Figure):
    """A figure that a notebook shows at the end of a cell, whether or not `pyplot` is loaded."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


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


SIZE, LINE, GAP = 11, 0.19, 0.6  # letters in points; a line, and the space between rows, in inches
BRIEF = 3  # an arrow shows up to three numbers, or the range of more
LETTERS, GREY = FontProperties(size=SIZE), "#666666"
STYLES: dict[str, dict[str, Any]] = {
    "leaf": {"edgecolor": BLUE, "linewidth": 2.5, "label": "leaf: receives a gradient"},
    "constant": {"edgecolor": GREY, "linestyle": "--", "label": "constant: needs none"},
    "result": {"edgecolor": "black", "label": "result of an operation"},
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
    colour: str = "black"
    marked: bool = False  # because not all of its numbers are finite

    @property
    def width(self) -> float:
        """In inches."""
        return _width(self.text)

    def draw(self, axes: Axes, x: float, y: float) -> None:
        background = YELLOW if self.marked else "white" if self.colour == RED else "none"
        box = {"facecolor": background, "edgecolor": "none", "pad": 1}
        style: dict[str, Any] = {"color": self.colour, "fontproperties": LETTERS, "bbox": box}
        axes.text(x, y, self.text, ha="center", va="center", parse_math=False, **style)


class Box(NamedTuple):
    """A node on the page; all lengths are in inches."""

    kind: str  # of `STYLES`
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
    return Text(before + shape_and_numbers(array, few)[1], RED, not np.isfinite(array).all())


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


def layout(
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

    def draw(
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
                draw(place, below, x[below])
    for node, _, contributions in turns:
        row, parents = where[node][1], node.parents
        starts = [(parent, row + 1) if (parent, row + 1) in where else parent for parent in parents]
        for i, which in enumerate(sorted(range(len(starts)), key=lambda i: x[starts[i]])):
            start, sent = starts[which], contributions[which]
            label = None if sent is None else _gradient(sent.sent, few=BRIEF)
            to = x[node] + 0.6 * width[node] * ((i + 0.5) / len(starts) - 0.5)
            twin = starts[:which].count(start) - (starts.count(start) - 1) / 2
            draw(start, node, to, which, twin * (0.2 + (label.width if label else 0)), label)
    boxes = {}
    for node, texts in inside.items():
        kind = values[node].made if node.op is None else "result"
        boxes[node] = Box(kind, x[node], y[node], width[node], 2 * half[node], texts)
    labels = [
        placed for floor, row in zip(floors[1:], arrows) for placed in _place_labels(row, floor)
    ]
    return boxes, list(itertools.chain(*arrows)), labels


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


def _strengths(turns: Sequence[Turn]) -> tuple[dict[Node, float], dict[str, float]]:
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


def _shade(strength: float) -> Any:
    return tuple(1 - 0.6 * strength * (1 - channel) for channel in to_rgb(RED))


def _warn_of_size(values: Mapping[Node, Value], most: int, what: str, function: str) -> None:
    if len(values) > most:
        warnings.warn(
            f"a {what} of {len(values)} nodes is hard to read. Draw a part: plot.{function}(x) "
            "shows how any intermediate result x was made. Or print it all: minigrad.explain(loss)",
            stacklevel=3,
        )


def _extent(
    boxes: Mapping[Node, Box], arrows: Sequence[Arrow], labels: Sequence[tuple[Text, float, float]]
) -> tuple[float, float, float]:
    """The left, right and upper edges of a picture, with a margin on the sides."""
    spans = [(box.x, box.width) for box in boxes.values()]
    spans += [(x, text.width) for text, x, _ in labels]
    spans += [(arrow.points[-1][0], 0) for arrow in arrows]
    left, right = min(x - width / 2 for x, width in spans), max(x + width / 2 for x, width in spans)
    return left - 0.15, right + 0.15, max(box.y + box.height / 2 for box in boxes.values())


def graph(loss: Tensor, path: str | Path | None = None, names: Names = None) -> Picture:
    """Draw the graph of ``loss``: its nodes with their values and gradients, from top to bottom.

    An arrow leads from each input of an operation to its result. Its label is the contribution
    that the input receives on the way back. A box shows the name of the node, as in
    `minigrad.explain`, how it was made, its value, and its gradient, the sum of the
    contributions. The smaller the gradient, the paler the box. A picture of more than a hundred
    nodes is hard to read, and a warning suggests what to do instead.

    Parameters
    ----------
    loss : Tensor that requires grad
    path : path, optional
        Where to write the picture. The ending decides the format.
    names : mapping from name to Tensor, or Module, optional
        What to call these Tensors, instead of v1, v2, ..., as in `minigrad.explain`.

    Returns
    -------
    matplotlib.figure.Figure
        At the end of a cell, a notebook shows it.

    Raises
    ------
    TypeError, RuntimeError
        As in `minigrad.explaining.describe`.
    """
    values, turns = describe(loss, names)
    _warn_of_size(values, 100, "picture", "graph")
    boxes, arrows, labels = layout(values, turns)
    strengths, samples = _strengths(turns)
    kinds = {box.kind for box in boxes.values()}
    legend: list[Artist] = [
        Patch(facecolor="white", **style) for kind, style in STYLES.items() if kind in kinds
    ]
    contribution = "contribution to a gradient"
    legend.append(Line2D([], [], linestyle="", marker="$1$", color=RED, label=contribution))
    texts = [text for box in boxes.values() for text in box.texts]
    if any(text.marked for text in [*texts, *(text for text, _, _ in labels)]):
        legend.append(Patch(facecolor=YELLOW, label="NaN or infinite"))

    left, right, tall = _extent(boxes, arrows, labels)
    wide, tall = max(5.5, right - left), max(2.8, tall + 0.5 + 0.24 * max(3, len(legend)))
    dpi = min(110, 60_000 / max(wide, tall))  # PNG's limit
    figure = Picture(figsize=(wide, tall), dpi=dpi)
    figure.set_layout_engine("none")  # whatever rcParams says: the places are already chosen
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim((left + right - wide) / 2, (left + right + wide) / 2)
    axes.set_ylim(-0.15, tall - 0.15)
    axes.axis("off")

    lines = [line for arrow in arrows for line in itertools.pairwise(arrow.points)]
    axes.add_collection(LineCollection(lines, colors=GREY, linewidths=1.5))
    for arrow in arrows:
        if arrow.end in boxes:
            head = {"arrowstyle": "-|>", "color": GREY, "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", arrow.points[-1], arrow.points[-2], size=14, arrowprops=head)
    for text, x, y in labels:
        text.draw(axes, x, y)
    for node, (kind, x, y, width, height, inside) in boxes.items():
        corner, rounded = (x - width / 2, y - height / 2), "round,pad=0,rounding_size=0.06"
        style = {"facecolor": _shade(strengths.get(node, 0)), **STYLES[kind]}
        axes.add_patch(FancyBboxPatch(corner, width, height, rounded, **style))
        for i, text in enumerate(inside):
            text.draw(axes, x, y + LINE * (len(inside) / 2 - i - 0.5))

    shaded = [
        Patch(facecolor=_shade(strength), edgecolor="black", label=f"|grad| up to {size}")
        for size, strength in samples.items()
    ]
    place: dict[str, Any] = {"bbox_to_anchor": (0.5, 1), "frameon": False, "fontsize": SIZE}
    axes.add_artist(axes.legend(handles=legend, loc="upper right", **place))
    axes.legend(handles=shaded, loc="upper left", **place)
    if path is not None:
        figure.savefig(path)
    return figure


POINTS = 72  # the units of a page in an inch
FEW, BYTES = 64, 400_000  # limits: numbers shown one by one; the size of all heat maps together


@dataclass
class Page:
    """A page of HTML that a notebook shows at the end of a cell."""

    html: str = field(repr=False)
    height: int  # in a notebook, in pixels

    def _repr_html_(self) -> str:
        style = f"width: 100%; height: {self.height}px; border: 0"
        page = html.escape(self.html)
        return f'<iframe title="Step through" style="{style}" srcdoc="{page}"></iframe>'


def _seen(array: Any, side: int) -> dict[str, Any]:
    """What a page shows of an array: all numbers of a small one, a heat map of a larger one.

    The map has at most ``side`` rows and columns. Each of its cells shows the number of a block
    that is farthest from 0, as a byte: 0 for NaN and infinity, otherwise 128 plus -127 to 127.
    """
    shape, numbers = shape_and_numbers(array)
    brief, marked = shape_and_numbers(array, BRIEF)[1], not np.isfinite(array).all()
    seen = {"shape": shape, "numbers": numbers, "brief": brief, "marked": marked}
    if array.ndim == 0 or array.size == 0:
        return seen
    table = array.reshape(-1, array.shape[-1]).astype(float)
    if array.size <= FEW:
        return seen | {"rows": [[f"{number:.5g}" for number in row] for row in table]}
    tall, wide = block = [math.ceil(n / side) for n in table.shape]
    table = np.pad(table, [(0, -n % size) for n, size in zip(table.shape, block)])
    rows, columns = table.shape[0] // tall, table.shape[1] // wide
    blocks = table.reshape(rows, tall, columns, wide).swapaxes(1, 2).reshape(rows, columns, -1)
    farthest = np.abs(blocks).argmax(-1, keepdims=True)  # of several that are NaN, the first
    cells = np.take_along_axis(blocks, farthest, -1)[..., 0]
    finite = np.isfinite(cells)
    largest = np.abs(cells[finite]).max(initial=0)
    levels = np.where(finite, 128 + np.rint(127 * (np.where(finite, cells, 0) / (largest or 1))), 0)
    data = base64.b64encode(levels.astype(np.uint8).tobytes()).decode()
    heat = {"columns": columns, "block": block, "largest": f"{largest:.4g}", "data": data}
    return seen | {"heat": heat}


def steps(loss: Tensor, path: str | Path | None = None, names: Names = None) -> Page:
    """Make a page that steps through the graph of ``loss``: forward, then back through the sweep.

    The page is one file that needs nothing else. It shows the boxes and arrows of `graph`, and
    tells what `minigrad.explain` tells: one node, one turn or one contribution at a time. An
    array of more than 64 numbers is shown as a heat map. So that the page stays small, a cell
    of it can cover several numbers, of which it shows the one that is farthest from 0. Above 500
    nodes, a warning says what reads better.

    Parameters
    ----------
    loss : Tensor that requires grad
    path : path, optional
        Where to write the page, as HTML.
    names : mapping from name to Tensor, or Module, optional
        What to call these Tensors, instead of v1, v2, ..., as in `minigrad.explain`.

    Returns
    -------
    Page
        At the end of a cell, a notebook shows it. Its ``html`` is the text of the page.

    Raises
    ------
    TypeError, RuntimeError
        As in `minigrad.explaining.describe`.
    """
    values, turns = describe(loss, names)
    _warn_of_size(values, 500, "page", "steps")
    boxes, arrows, labels = layout(values, turns)
    left, right, tall = _extent(boxes, arrows, labels)
    number = {node: i for i, node in enumerate(values)}
    strengths, _ = _strengths(turns)
    arrays: dict[int, tuple[int, Any]] = {}  # each of them once, however often it is sent on

    def note(array: Any) -> int:
        return arrays.setdefault(id(array), (len(arrays), array))[0]

    def place(x: float, y: float) -> tuple[int, int]:
        return round(POINTS * (x - left)), round(POINTS * (tall - y))

    nodes = [
        value._asdict() | {
            "kind": box.kind,
            "inputs": [number[parent] for parent in node.parents],
            "middle": place(box.x, box.y),
            "size": (round(POINTS * box.width), round(POINTS * box.height)),
            "lines": [(text, colour == RED, marked) for text, colour, marked in box.texts],
            "array": None if value.numbers.startswith("unknown") else note(node.result),
            "strength": round(strengths.get(node, 0), 3),
        }
        for (node, value), box in zip(values.items(), boxes.values())
    ]  # fmt: skip
    spots = iter(labels)
    edges = [
        {
            "result": number[arrow.end],
            "which": arrow.which,
            "points": [place(*point) for point in points],
            "spot": place(*next(spots)[1:]) if arrow.label else None,
        }
        for arrow, points in _ways(arrows)
    ]
    swept = [
        {
            "node": number[node],
            "G": note(gradient),
            "sent": [
                sent and sent._asdict() | {
                    "to": number[sent.to], "sent": note(sent.sent), "total": note(sent.total)
                }
                for sent in contributions
            ],
        }
        for node, gradient, contributions in turns
    ]  # fmt: skip
    side = max(8, min(96, math.isqrt(BYTES // len(arrays))))
    data = {
        "size": place(right, 0),
        "nodes": nodes,
        "edges": edges,
        "turns": swept,
        "arrays": [_seen(array, side) for _, array in arrays.values()],
        "summed": loss.array.size != 1,
        "legend": {kind: style["label"] for kind, style in STYLES.items()},
    }
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")  # no tags in a script
    template = Path(__file__).with_name("steps.html").read_text("utf-8")
    page = Page(template.replace("{{graph}}", text), min(760, 310 + round(POINTS * tall)))
    if path is not None:
        Path(path).write_text(page.html, "utf-8")
    return page


def _ways(arrows: Sequence[Arrow]) -> Iterator[tuple[Arrow, list[tuple[float, float]]]]:
    """The arrows that end at a result, each with its points all the way from the input's box."""
    passing = {arrow.end: arrow for arrow in arrows if arrow.which is None}
    for arrow in arrows:
        if arrow.which is not None:
            points, above = arrow.points, passing.get(arrow.start)
            while above is not None:
                points, above = above.points + points, passing.get(above.start)
            between = zip(points, points[1:], points[2:])
            bends = [p for before, p, after in between if not before[0] == p[0] == after[0]]
            yield arrow, [points[0], *bends, points[-1]]
