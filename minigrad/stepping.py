"""The page that steps through a graph: `steps` puts the graph into ``steps.html``."""

import base64
import html
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .explaining import Names, describe, shape_and_numbers
from .layout import BRIEF, KINDS, Arrow, extent, lay_out, strengths_of, warn_of_size
from .tensors import Tensor

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


def steps(loss: Tensor, path: str | Path | None = None, names: Names = None) -> Page:
    """Make a page that steps through the graph of ``loss``: forward, then back through the sweep.

    The page is one file that needs nothing else. It shows the boxes and arrows of `plot.graph`, and
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
    warn_of_size(values, 500, "page", "steps")
    boxes, arrows, labels = lay_out(values, turns)
    left, right, tall = extent(boxes, arrows, labels)
    number = {node: i for i, node in enumerate(values)}
    strengths, _ = strengths_of(turns)
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
            "lines": box.texts,
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
        "legend": KINDS,
    }
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")  # no tags in a script
    template = Path(__file__).with_name("steps.html").read_text("utf-8")
    page = Page(template.replace("{{graph}}", text), min(760, 310 + round(POINTS * tall)))
    if path is not None:
        Path(path).write_text(page.html, "utf-8")
    return page
