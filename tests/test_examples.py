"""The examples, run as a user runs them: what they print, draw and leave behind."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.image import imread

import minigrad as mg
from minigrad import datasets, nn

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(folder, script, *arguments, fails=0, **environment):
    """Run a script inside `folder`; return what it printed and what it wrote to stderr."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / script, *map(str, arguments)],
        cwd=folder, env=os.environ | environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == fails, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def assert_drawn(picture):
    """That more than a blank page was written: some pixels of many are not the background."""
    pixels = imread(picture)[..., :3]
    share = (pixels != pixels[0, 0]).any(-1).mean()
    assert min(pixels.shape[:2]) > 300 and 0.01 < share < 0.99


def accuracy(printed):
    return float(re.search(r"Test accuracy: ([\d.]+)%", printed)[1])


# The main job


def test_train_mlp(tmp_path):
    printed, bar = run(
        tmp_path, "train_mlp.py", "--data", "digits", "--hidden", 50, "--epochs", 15,
        "--batch-size", 32, "--save", "models/model.npz",
    )  # fmt: skip
    assert "Data: scikit-learn's digits, 1294 to train, 143 to validate, 360 to test" in printed
    assert "epoch 15/15: 100%" in bar and "valid accuracy" in bar
    assert accuracy(printed) > 90
    assert (
        len(re.findall(r"^ +\d +[\d.]+%   (\d \(\d+ of \d+\)|nothing else)$", printed, re.M)) == 10
    )
    assert_drawn(tmp_path / "figures" / "train_mlp.png")

    model = nn.MLP(hidden_dims=[50])
    model.load_state_dict(mg.load(tmp_path / "models" / "model.npz"))
    _, test_set = datasets.load_digits_data(change_tensors=True)
    right = (model(test_set.data).argmax(1) == test_set.targets).float().mean().item()
    assert accuracy(printed) == pytest.approx(100 * right, abs=0.005)


def test_train_mlp_without_hidden_layers_or_seed_luck(tmp_path):
    arguments = "--data", "digits", "--hidden", "--epochs", 3, "--seed", 5
    first, _ = run(tmp_path, "train_mlp.py", *arguments)
    again, _ = run(tmp_path, "train_mlp.py", *arguments)
    assert first.count("Linear(") == 1
    timing = r", [\d.]+ s of training"
    assert re.sub(timing, "", first) == re.sub(timing, "", again)


def test_train_mlp_on_mnist(tmp_path, mnist_root):
    printed, _ = run(
        tmp_path, "train_mlp.py", "--epochs", 1, "--lr", 0.1, "--out", "here",
        MINIGRAD_DATA=str(mnist_root),
    )  # fmt: skip
    assert "Data: MNIST, 54000 to train, 6000 to validate, 10000 to test" in printed
    assert accuracy(printed) > 92
    assert_drawn(tmp_path / "here" / "train_mlp.png")


@pytest.fixture
def no_torchvision(tmp_path):
    """An environment in which torchvision cannot be imported and no MNIST lies about."""
    (tmp_path / "torchvision.py").write_text("raise ImportError('not here')")
    return {"PYTHONPATH": str(tmp_path), "MINIGRAD_DATA": str(tmp_path / "nothing")}


def test_train_mlp_says_why_it_takes_the_digits(tmp_path, no_torchvision):
    printed, _ = run(tmp_path, "train_mlp.py", "--epochs", 1, **no_torchvision)
    assert printed.index("No MNIST: reading MNIST needs torchvision") < printed.index(
        "Data: scikit"
    )


def test_train_mlp_stops_if_mnist_was_asked_for_and_is_not_there(tmp_path, no_torchvision):
    _, error = run(tmp_path, "train_mlp.py", "--data", "mnist", fails=1, **no_torchvision)
    assert error.startswith("error: reading MNIST needs torchvision")


def test_train_mlp_stops_when_the_loss_is_not_finite(tmp_path):
    _, error = run(tmp_path, "train_mlp.py", "--data", "digits", "--lr", 1e4, fails=1)
    assert re.search(r"error: the loss is (nan|inf) at step \d+ \(epoch 1\).* Try --lr 0.05", error)


def test_train_mlp_keeps_the_curves_at_ctrl_c(tmp_path):
    arguments = "--data", "digits", "--epochs", "5000", "--save", "model.npz"
    with subprocess.Popen(
        [sys.executable, EXAMPLES / "train_mlp.py", *arguments],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        while "valid accuracy" not in process.stderr.read(1000):
            pass
        process.send_signal(signal.SIGINT)
        printed, bar = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in bar
    assert "Stopped: here is what was learnt so far." in printed + bar
    assert re.search(r"Test accuracy: [\d.]+% after epoch \d+, ", printed)
    assert_drawn(tmp_path / "figures" / "train_mlp.png")
    assert len(mg.load(tmp_path / "model.npz")) == 8


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--data", "minst"], "invalid choice: 'minst'"),
        (["--lr", "fast"], "wanted a finite float of at least 1e-12, got 'fast'"),
        (["--lr", "nan"], "--lr: wanted a finite float of at least 1e-12, got 'nan'"),
        (["--epochs", "0"], "--epochs: wanted a finite int of at least 1, got '0'"),
        (["--hidden", "100", "-5"], "--hidden: wanted a finite int of at least 1, got '-5'"),
        (["--seed", "-1"], "--seed: wanted a finite int of at least 0, got '-1'"),
        (["--optimiser", "adam"], "unrecognized arguments: --optimiser adam"),
    ],
)
def test_train_mlp_explains_typing_mistakes(tmp_path, arguments, complaint):
    _, error = run(tmp_path, "train_mlp.py", *arguments, fails=2)
    assert error.startswith("usage:") and complaint in error


@pytest.mark.parametrize("arguments", [["--out", "taken"], ["--save", "folder"]])
def test_train_mlp_finds_out_early_that_it_cannot_write(tmp_path, arguments):
    (tmp_path / "taken").write_text("a file")
    (tmp_path / "folder").mkdir()
    printed, error = run(tmp_path, "train_mlp.py", "--data", "digits", *arguments, fails=1)
    assert error.startswith("error: ") and arguments[1] in error and printed == ""


# The README


def test_the_code_in_the_readme_runs_as_printed(tmp_path, capsys):
    readme = (EXAMPLES.parent / "README.md").read_text()
    code = "".join(re.findall(r"```python\n(.*?)```", readme, re.DOTALL))
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    names["test_square"]()
    assert re.search(r"^tensor\(0.9\d+\)$", capsys.readouterr().out, re.M)
