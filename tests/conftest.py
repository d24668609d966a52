import os

# Two processes run the tests. Without this, their threads would wait for each other: NumPy's and
# ours (OPENBLAS), and PyTorch's (OMP).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", os.environ["OPENBLAS_NUM_THREADS"])

from pathlib import Path

import hypothesis
import numpy as np
import pytest

from minigrad import datasets

# The same examples in every run; to look for new ones: pytest --hypothesis-profile=search
hypothesis.settings.register_profile(
    "default", deadline=None, derandomize=True, max_examples=50, database=None
)
hypothesis.settings.register_profile("search", deadline=None, max_examples=2000)
hypothesis.settings.load_profile("default")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def mnist_root():
    """The folder with MNIST: $MINIGRAD_DATA, or else data/, into which it is downloaded once."""
    root = Path(os.environ.get("MINIGRAD_DATA", "data")).resolve()
    if "MINIGRAD_DATA" not in os.environ:
        datasets.load_mnist_data(download=True, root=root)
    return root
