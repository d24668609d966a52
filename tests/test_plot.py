"""The pictures that the examples share."""

import pytest
from matplotlib.image import imread

from minigrad import plot


@pytest.mark.parametrize("epochs", [1, 2, 30])
def test_training_curves(epochs, tmp_path):
    falling = [1 / (1 + i) for i in range(epochs)]
    rising = [1 - value / 2 for value in falling]
    names = ("train_loss", "valid_loss"), ("train_accuracy", "valid_accuracy")
    history = {name: values for pair, values in zip(names, (falling, rising)) for name in pair}
    plot.training_curves(history, tmp_path / "curves.png", "title")
    pixels = imread(tmp_path / "curves.png")[..., :3]
    colours = {tuple((255 * colour).astype(int)) for colour in pixels.reshape(-1, 3)}
    assert {(0, 114, 178), (213, 94, 0)} <= colours  # both curves are drawn
