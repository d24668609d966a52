"""The pictures that the examples share, and the picture of a graph.

`stepping.steps`, which makes a page that steps through a graph, is also ``plot.steps``.
"""

import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch

from .explaining import Names, describe
from .layout import KINDS, LETTERS, LINE, SIZE, Text, extent, lay_out, strengths_of, warn_of_size
from .stepping import Page as Page, steps as steps
from .tensors import Tensor

BLUE, RED = "#0072B2", "#D55E00"  # differ in print and for colour-blind readers (Okabe and Ito)
YELLOW, GREY = "#F0E442", "#666666"
STYLES: dict[str, dict[str, Any]] = {
    "leaf": {"edgecolor": BLUE, "linewidth": 2.5},
    "constant": {"edgecolor": GREY, "linestyle": "--"},
    "result": {"edgecolor": "black"},
}


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


def _shade(strength: float) -> Any:
    return tuple(1 - 0.6 * strength * (1 - channel) for channel in to_rgb(RED))


def _write(axes: Axes, text: Text, x: float, y: float) -> None:
    background = YELLOW if text.marked else "white" if text.is_gradient else "none"
    box = {"facecolor": background, "edgecolor": "none", "pad": 1}
    colour = RED if text.is_gradient else "black"
    style: dict[str, Any] = {"color": colour, "fontproperties": LETTERS, "bbox": box}
    axes.text(x, y, text.text, ha="center", va="center", parse_math=False, **style)


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
    warn_of_size(values, 100, "picture", "graph")
    boxes, arrows, labels = lay_out(values, turns)
    strengths, samples = strengths_of(turns)
    kinds = {box.kind for box in boxes.values()}
    legend: list[Artist] = [
        Patch(facecolor="white", label=KINDS[kind], **style)
        for kind, style in STYLES.items()
        if kind in kinds
    ]
    contribution = "contribution to a gradient"
    legend.append(Line2D([], [], linestyle="", marker="$1$", color=RED, label=contribution))
    texts = [text for box in boxes.values() for text in box.texts]
    if any(text.marked for text in [*texts, *(text for text, _, _ in labels)]):
        legend.append(Patch(facecolor=YELLOW, label="NaN or infinite"))

    left, right, tall = extent(boxes, arrows, labels)
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
        _write(axes, text, x, y)
    for node, (kind, x, y, width, height, inside) in boxes.items():
        corner, rounded = (x - width / 2, y - height / 2), "round,pad=0,rounding_size=0.06"
        style = {"facecolor": _shade(strengths.get(node, 0)), **STYLES[kind]}
        axes.add_patch(FancyBboxPatch(corner, width, height, rounded, **style))
        for i, text in enumerate(inside):
            _write(axes, text, x, y + LINE * (len(inside) / 2 - i - 0.5))

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
