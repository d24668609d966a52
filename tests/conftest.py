import os
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
def mnist_root(tmp_path_factory):
    """A root of MNIST's own: links to the files, so that nothing is written beside them.

    The files are those in $MINIGRAD_DATA; without it they are downloaded, once, into data/.
    """
    source = Path(os.environ.get("MINIGRAD_DATA", "data")).resolve()
    if "MINIGRAD_DATA" not in os.environ:
        datasets.load_mnist_data(download=True, root=source)
    root = tmp_path_factory.mktemp("mnist")
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in datasets.MNIST_FILES:
        (raw / name).symlink_to(source / "MNIST" / "raw" / name)
    return root
