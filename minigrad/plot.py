"""The pictures that the examples share."""

from matplotlib.figure import Figure

from .explain import operation, show, sweep, tape

# Two colours that stay apart in print and for colour-blind readers (Okabe and Ito).
BLUE, ORANGE = "#0072B2", "#D55E00"


def training_curves(history, path, title=""):
    """Draw loss and accuracy against epochs, and save the picture.

    Parameters
    ----------
    history : mapping
        Lists of equal length, one number per epoch: ``train_loss``, ``valid_loss`` (nats)
        and ``train_accuracy``, ``valid_accuracy`` (0 to 1). Those of training are means
        over the steps of the epoch, those of validation are taken at its end.
    path : path
        Where to write; the ending decides the format.
    title : str
    """
    figure = Figure(figsize=(9, 3.6), dpi=120, layout="constrained")
    figure.suptitle(title)
    loss, accuracy = figure.subplots(1, 2)
    epochs = range(1, len(history["train_loss"]) + 1)
    for axes, what, scale in ((loss, "loss", 1), (accuracy, "accuracy", 100)):
        for part, label, colour in (
            ("train", "training, mean over the epoch", BLUE),
            ("valid", "validation, at its end", ORANGE),
        ):
            values = [scale * value for value in history[f"{part}_{what}"]]
            axes.plot(epochs, values, marker="o", markersize=3, color=colour, label=label)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    loss.set_ylabel("negative log-likelihood (nats)")
    loss.set_yscale("log")
    accuracy.set_ylabel("accuracy (%)")
    figure.savefig(path)


def graph(loss, path=None):
    """Draw the graph of `loss`: its Tensors with their values and gradients, from left to right.

    Blue boxes require grad and are leaves, white ones come from operations, grey ones are
    constants. An arrow leads from each input of an operation to its result. In a box stand
    the number that `minigrad.explain` uses too, how the Tensor was made, its value, and the
    gradient of `loss` with respect to it.

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
    nodes, (_, grads) = tape(loss), sweep(loss)
    depth = dict.fromkeys(nodes, 0)  # the longest way to the loss
    consumers = {node: [] for node in nodes}
    for node in reversed(nodes):
        for parent in node.parents:
            depth[parent] = max(depth[parent], depth[node] + 1)
            consumers[parent].append(node)
    columns = [[] for _ in range(max(depth.values()) + 1)]
    for node in nodes:
        columns[depth[node]].append(node)

    # Each column is put in the order of what its Tensors lead to, so that few arrows cross.
    height, places = {loss: 0.0}, {}
    for number, column in enumerate(columns):
        wanted = {
            node: sum(height[other] for other in consumers[node]) / max(1, len(consumers[node]))
            for node in column
        }
        column.sort(key=wanted.get)
        for row, node in enumerate(column):
            height[node] = row - (len(column) - 1) / 2
            places[node] = (len(columns) - 1 - number, height[node])

    width, tallest = len(columns), max(map(len, columns))
    figure = Figure(figsize=(1 + 2.3 * width, max(2.8, 0.6 + 1.1 * tallest)), dpi=110)
    axes = figure.add_axes([0, 0, 1, 1])
    axes.set_xlim(-0.6, width - 0.4)
    axes.set_ylim(tallest / 2 + 0.1, -tallest / 2 - 0.1)
    axes.axis("off")
    boxes = {}
    for i, node in enumerate(nodes, 1):
        made = operation(node) or ("leaf" if node.requires_grad else "constant")
        lines = [f"v{i}: {made}", show(node.array).replace("), ", ")\n")]
        if node in grads:
            lines.append("grad " + show(grads[node]).replace("), ", ")\n"))
        colour = "white" if not node.is_leaf else "#CFE6F5" if node.requires_grad else "#E6E6E6"
        box = {"boxstyle": "round", "facecolor": colour, "edgecolor": "black"}
        x, y = places[node]
        text = axes.text(x, y, "\n".join(lines), ha="center", va="center", fontsize=8, bbox=box)
        boxes[node] = text.get_bbox_patch()
        for parent in node.parents:
            arrow = {"arrowstyle": "-|>", "color": BLUE, "shrinkA": 3, "shrinkB": 3}
            arrow |= {"patchA": boxes[parent], "patchB": boxes[node]}
            axes.annotate("", (x, y), places[parent], arrowprops=arrow)
    if path is not None:
        figure.savefig(path)
    return figure
