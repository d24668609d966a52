"""The pictures that the examples share."""

import pytest
from matplotlib.image import imread

from minigrad import plot

BLUE, RED = (0, 114, 178), (213, 94, 0)


def history(epochs, untrained=True):
    falling = [1 / (1 + i) for i in range(epochs + 1)]
    rising = [1 - value / 2 for value in falling]
    start = 0 if untrained else 1
    return {
        "train_loss": falling[1:], "train_accuracy": rising[1:],
        "valid_loss": falling[start:], "valid_accuracy": rising[start:],
    }  # fmt: skip


def lines(axes):
    return {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}


@pytest.mark.parametrize("untrained", [True, False])
@pytest.mark.parametrize("epochs", [1, 2, 30])
def test_training_curves(epochs, untrained, tmp_path):
    plot.training_curves(history(epochs, untrained), tmp_path / "curves.png", "title")
    pixels = imread(tmp_path / "curves.png")[..., :3]
    colours = {tuple((255 * colour).astype(int)) for colour in pixels.reshape(-1, 3)}
    assert {BLUE, RED} <= colours  # both curves are drawn


def test_training_curves_stand_where_their_numbers_were_taken(tmp_path):
    """Means over an epoch are at its middle, validation at its end, the untrained model at 0."""
    figure = plot.training_curves(
        history(2), tmp_path / "curves.svg", baselines={"linear": (0.25, 0.875)}
    )
    loss, error = map(lines, figure.axes)
    assert loss["training, mean over the epoch"] == [[0.5, 1 / 2], [1.5, 1 / 3]]
    assert loss["validation, at its end"] == [[0, 1], [1, 1 / 2], [2, 1 / 3]]
    assert loss["validation, untrained"] == [[0, 1]] and loss["linear"] == [[0, 0.25], [2, 0.25]]
    assert error["training, mean over the epoch"] == [[0.5, 25], [1.5, pytest.approx(100 / 6)]]
    assert error["validation, untrained"] == [[0, 50]] and error["linear"][0] == [0, 12.5]
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "log"]


def test_training_curves_of_no_error_are_on_the_log_axis(tmp_path):
    perfect = history(2) | {"train_accuracy": [0.98, 1.0]}
    figure = plot.training_curves(perfect, tmp_path / "curves.svg")
    _, (_, lowest) = lines(figure.axes[1])["training, mean over the epoch"]
    assert lowest == pytest.approx(1)  # half of the least that is not 0
    assert [text.get_text() for text in figure.axes[1].texts] == ["no error"]
    assert figure.axes[1].get_ylim()[0] < 1


def test_training_curves_stopped_in_the_first_epoch(tmp_path):
    for valid in ([], [2.3]):
        none = dict.fromkeys(("train_loss", "train_accuracy"), [])
        none |= {"valid_loss": valid, "valid_accuracy": [0.1 for _ in valid]}
        plot.training_curves(none, tmp_path / "curves.png")
