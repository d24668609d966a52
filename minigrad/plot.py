"""The pictures that the examples share."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from .engine import Node
from .explaining import show, tape, turns
from .tensors import Tensor

BLUE, RED = "#0072B2", "#D55E00"  # apart in print and for colour-blind readers (Okabe and Ito)


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
        ``train_loss`` and ``train_accuracy`` (0 to 1) hold one number per epoch: a mean over its
        steps, drawn at its middle. ``valid_loss`` and ``valid_accuracy``, of examples that are
        not trained on, hold a number for the end of each epoch, and may hold one before them,
        for epoch 0: the untrained model. Losses are in nats, the unit of natural logarithms.
    path : path
        Where to write; the ending decides the format.
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


def _arrange(
    nodes: list[Node],
) -> tuple[dict[Any, tuple[float, int]], dict[Any, dict[Any, None]]]:
    """For each place its column and row (of the loss, 0 and 0), and the places below it.

    A place is a node, or (node, row): what its arrows keep free in a row that they pass.
    """
    depth = dict.fromkeys(nodes, 0)  # the longest way to the loss
    for node in reversed(nodes):
        for parent in node.parents:
            depth[parent] = max(depth[parent], depth[node] + 1)
    rows: list[list[Any]] = [[] for _ in range(max(depth.values()) + 1)]
    for node in nodes:
        rows[depth[node]].append(node)
    leads_to: dict[Any, dict[Any, None]] = {node: {} for node in nodes}  # ordered sets
    for node in nodes:
        for parent in node.parents:
            below: Any = node
            for row in range(depth[node] + 1, depth[parent]):
                if (parent, row) not in leads_to:
                    rows[row].append((parent, row))
                    leads_to[parent, row] = {}
                leads_to[parent, row][below] = None
                below = parent, row
            leads_to[parent][below] = None

    # Each row is put in the order of what its places lead to, so that few arrows cross.
    where: dict[Any, tuple[float, int]] = {}
    for row, places in enumerate(rows):
        wanted = {
            place: sum(where[below][0] for below in leads_to[place]) / (len(leads_to[place]) or 1)
            for place in places
        }
        places.sort(key=wanted.__getitem__)
        where |= {place: (i - (len(places) - 1) / 2, row) for i, place in enumerate(places)}
    return where, leads_to


def graph(loss: Tensor, path: str | Path | None = None) -> Figure:
    """Draw the graph of `loss`: its nodes with their values and gradients, from top to bottom.

    Blue boxes are leaves, white ones come from operations, grey ones are constants. An arrow
    leads from each input of an operation to its result. A box shows the number that
    `minigrad.explain` uses too, how the node was made, its value, and the gradient of `loss`
    with respect to it. A picture of more than a hundred nodes is hard to read;
    `minigrad.explain` says more.

    Parameters
    ----------
    loss : Tensor that requires grad
    path : path, optional
        Where to write the picture; the ending decides the format.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, RuntimeError
        If `loss` is no Tensor; if it does not require grad, and so has no graph.
    """
    described, grads = tape(loss), {node: arriving for node, arriving, _ in turns(loss)}
    nodes, texts = list(described), {}
    for node, (name, made) in described.items():
        values = [show(node.result)] + (["grad " + show(grads[node])] if node in grads else [])
        # of large arrays, the range below the shape
        texts[node] = "\n".join([f"{name} = {made}", *values]).replace("), ", ")\n")
    lines = {node: text.split("\n") for node, text in texts.items()}
    column = 0.5 + 0.065 * max(len(line) for text in lines.values() for line in text)  # inches
    height = 0.6 + 0.14 * max(map(len, lines.values()))  # of a row, in inches

    where, leads_to = _arrange(nodes)
    x = {place: column * across for place, (across, _) in where.items()}
    y = {place: height * row for place, (_, row) in where.items()}
    # Half the height of each box, and of the tallest of its row, past which lines go straight.
    half = {node: 0.05 + 0.07 * len(lines[node]) for node in nodes}
    edge = dict.fromkeys(y.values(), 0.0)
    for node in nodes:
        edge[y[node]] = max(edge[y[node]], half[node])

    width, tall = max(3.0, column + 2 * max(x.values())), max(3.0, height + max(y.values()))
    figure = Figure(figsize=(width, tall), dpi=110)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(-width / 2, width / 2)
    axes.set_ylim((max(y.values()) - tall) / 2, (max(y.values()) + tall) / 2)
    axes.axis("off")
    segments: list[tuple[Any, Any]] = []
    for place, all_below in leads_to.items():
        start, bottom = ((x[place], y[place] + sign * edge[y[place]]) for sign in (1, -1))
        if place in texts:
            start = x[place], y[place] - half[place]
            colour = "white" if place.parents else "#CFE6F5" if place in grads else "#E6E6E6"
            box = {"boxstyle": "round", "facecolor": colour, "edgecolor": "black"}
            axes.text(x[place], y[place], texts[place], ha="center", va="center", size=8, bbox=box)
        for below in all_below:
            points = [start, bottom, (x[below], y[below] + edge[y[below]])]
            if below in texts:
                points = list(dict.fromkeys([*points, (x[below], y[below] + half[below])]))
                head = {"arrowstyle": "-|>", "color": BLUE, "shrinkA": 0, "shrinkB": 0}
                axes.annotate("", points[-1], points[-2], arrowprops=head)
            segments += itertools.pairwise(points)
    axes.add_collection(LineCollection(segments, colors=BLUE, linewidths=1.5))
    if path is not None:
        figure.savefig(path)
    return figure
