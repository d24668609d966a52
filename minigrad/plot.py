"""The pictures that the examples share."""

from matplotlib.figure import Figure

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
