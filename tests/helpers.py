"""What several test files need: a child process, PyTorch's MLP, a look at a picture."""

import os
import subprocess
import sys
from pathlib import Path

from matplotlib.image import imread
from torch import nn as torch_nn

ROOT = Path(__file__).resolve().parents[1]
LECTURE = sorted(ROOT.glob("examples/[0-9]_*.py"))


def child(*command, code=None, fails=0, environment=None, **options):
    """Run Python with these arguments, or on `code`. Its exit code must be `fails`, unless that is
    None."""
    if code is not None:
        command = "-c", code, *command
    done = subprocess.run(
        [sys.executable, *map(str, command)], env=os.environ | (environment or {}),
        capture_output=True, text=True, **{"timeout": 300} | options,
    )  # fmt: skip
    assert fails is None or done.returncode == fails, done.stdout + done.stderr
    return done


def torch_mlp(hidden_dims, use_bias=True):
    """PyTorch's counterpart of ``nn.MLP(784, 10, ...).main``."""
    dims = [784, *hidden_dims, 10]
    layers = []
    for before, after in zip(dims, dims[1:]):
        layers += [torch_nn.Linear(before, after, bias=use_bias), torch_nn.ReLU()]
    return torch_nn.Sequential(*layers[:-1])


def assert_drawn(picture):
    """Assert that the picture is not blank: some of its many pixels are not background."""
    pixels = imread(picture)[..., :3]
    share = (pixels != pixels[0, 0]).any(-1).mean()
    assert min(pixels.shape[:2]) > 300 and 0.01 < share < 0.99
