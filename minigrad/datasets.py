"""Handwritten digits: MNIST through torchvision, a small embedded set, and mini-batches."""

import contextlib
import hashlib
import os
import socket
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from . import serialization
from .tensors import Tensor, generator

# The four files of MNIST and their SHA-256: a file that differs is never used.
MNIST_FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
CACHE_SHAPES = {
    "train_data": (60000, 28, 28),
    "train_targets": (60000,),
    "test_data": (10000, 28, 28),
    "test_targets": (10000,),
}
TIMEOUT = 5.0  # seconds without an answer after which a server counts as unreachable


class Digits:
    """Images of digits and what they show.

    Indexing with an integer, a slice or an array gives ``(images, targets)``, the images
    normalised: float32, minus the training set's mean, over its standard deviation.

    Attributes
    ----------
    data : Tensor, shape (N, 28, 28)
        uint8 from 0 to 255; or float32, if the whole set has been normalised.
    targets : Tensor of int64, shape (N,)
        The digits 0 to 9.
    mean, std : float
        Of all pixels of the training set, on the scale from 0 to 255.
    """

    def __init__(
        self, data: np.ndarray, targets: np.ndarray, mean: float, std: float, change_tensors: bool
    ):
        self.mean, self.std = float(mean), float(std)
        self.data = self._normalise(data) if change_tensors else Tensor(data)
        self.targets = Tensor(targets.astype(np.int64))

    def _normalise(self, images: np.ndarray) -> Tensor:
        images = images.astype(np.float32)
        images -= np.float32(self.mean)
        images /= np.float32(self.std)
        return Tensor(images)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> tuple[Tensor, Any]:
        images, targets = self.data[index], self.targets[index]
        if images.dtype == np.uint8:
            images = self._normalise(images.array)
        return images, targets.item() if targets.ndim == 0 else targets


def _make_sets(
    train_data: np.ndarray,
    train_targets: np.ndarray,
    test_data: np.ndarray,
    test_targets: np.ndarray,
    change_tensors: bool,
) -> tuple[Digits, Digits]:
    # Statistics of the training set only: nothing about the test set may leak into training.
    mean, std = train_data.mean(), train_data.std()
    return (
        Digits(train_data, train_targets, mean, std, change_tensors),
        Digits(test_data, test_targets, mean, std, change_tensors),
    )


def load_digits_data(change_tensors: bool = False) -> tuple[Digits, Digits]:
    """The 1,797 handwritten digits that come with scikit-learn, as images of 28 x 28.

    They are 8 x 8 there; here they are resampled to 24 x 24 and padded, as in MNIST. Of
    each digit a fifth is for testing, the same ones in every call.

    Parameters
    ----------
    change_tensors : bool
        As in `load_mnist_data`.

    Returns
    -------
    train_set, test_set : Digits, of 1,437 and 360 examples

    Raises
    ------
    ImportError
        If scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ImportError(
            f"the embedded digits need scikit-learn: pip install scikit-learn ({error})"
        ) from error
    from scipy.ndimage import zoom

    images, targets = load_digits(return_X_y=True)
    images = zoom(images.reshape(-1, 8, 8), (1, 3, 3), order=1, grid_mode=True, mode="nearest")
    images = np.pad(np.round(images * (255 / 16)).astype(np.uint8), ((0, 0), (2, 2), (2, 2)))
    train, test = train_test_split(
        np.arange(len(targets)), test_size=0.2, stratify=targets, random_state=0
    )
    return _make_sets(images[train], targets[train], images[test], targets[test], change_tensors)


def load_mnist_data(
    change_tensors: bool = False, download: bool = False, root: str | Path | None = None
) -> tuple[Digits, Digits]:
    """MNIST: 60,000 handwritten digits to train on and 10,000 to test.

    torchvision reads the files (and downloads them, if asked). The arrays are then cached
    beside them in one file, so that later calls need neither torchvision nor its seconds.

    Parameters
    ----------
    change_tensors : bool
        Whether to normalise all images now, to float32, rather than each as it is fetched.
    download : bool
        Whether to fetch what is missing or damaged.
    root : path, optional
        The folder with, or for, ``MNIST/raw/``. By default the environment variable
        MINIGRAD_DATA, or ``data`` if there is none.

    Returns
    -------
    train_set, test_set : Digits

    Raises
    ------
    FileNotFoundError
        If a file is missing and `download` is False.
    ImportError
        If torchvision is needed and cannot be imported.
    RuntimeError
        If a file is damaged, or the download fails.
    """
    raw = Path(root or os.environ.get("MINIGRAD_DATA", "data")) / "MNIST" / "raw"
    cache = raw / "minigrad-cache.npz"
    if cache.exists():
        arrays = _read_cache(cache)
    else:
        problem = _first_problem(raw)
        if problem and not download:
            raise problem
        dataset = _import_torchvision()
        if problem:
            _download(dataset, raw)
        arrays = {}
        for name in ("train", "test"):
            part = dataset(raw.parent.parent, train=name == "train")
            arrays[f"{name}_data"] = part.data.numpy()
            arrays[f"{name}_targets"] = part.targets.numpy()
        with contextlib.suppress(OSError):  # a read-only folder: the next call is slow too
            serialization.save(arrays, cache)
    return _make_sets(**arrays, change_tensors=change_tensors)


def _first_problem(raw: Path) -> Exception | None:
    """The exception that fits the first missing or damaged file in `raw`, or None."""
    for name, sha256 in MNIST_FILES.items():
        path = raw / name
        if not path.is_file():
            return FileNotFoundError(
                f"MNIST is not in {raw}: {name} is missing; "
                "call load_mnist_data(download=True), or give the right root"
            )
        with open(path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                return RuntimeError(
                    f"{path} is damaged ({path.stat().st_size} bytes, wrong checksum); "
                    "call load_mnist_data(download=True) to fetch it again"
                )
    return None


def _import_torchvision() -> Any:
    try:
        from torchvision.datasets import MNIST
    except (ImportError, RuntimeError) as error:  # RuntimeError: beside a torch that does not fit
        raise ImportError(
            f"reading MNIST needs torchvision: pip install torchvision ({error})"
        ) from error
    return MNIST


def _answers(url: str) -> bool:
    """Whether a server answers within TIMEOUT, whatever it says."""

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=TIMEOUT).close()
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            return
        answered.set()

    answered = threading.Event()
    # in a thread of its own, because looking up a name has no timeout
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    return answered.is_set()


def _download(dataset: Any, raw: Path) -> None:
    """Fetch the four files into `raw`: first into a folder aside, then each moved in whole."""
    if not any(_answers(url) for url in dataset.mirrors):
        raise RuntimeError(
            f"MNIST cannot be downloaded: no answer from {' or '.join(dataset.mirrors)}; check the "
            f"network, or put {', '.join(MNIST_FILES)} into {raw} by hand"
        )
    raw.mkdir(parents=True, exist_ok=True)
    timeout_before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        with tempfile.TemporaryDirectory(dir=raw) as aside:
            dataset(aside, download=True)
            fetched = Path(aside) / "MNIST" / "raw"
            problem = _first_problem(fetched)
            if problem:
                raise problem
            for name in MNIST_FILES:
                os.replace(fetched / name, raw / name)
    except (OSError, RuntimeError) as error:
        raise RuntimeError(f"the download of MNIST into {raw} failed: {error}") from error
    finally:
        socket.setdefaulttimeout(timeout_before)


def _read_cache(cache: Path) -> dict[str, np.ndarray]:
    try:
        arrays = {name: x.numpy() for name, x in serialization.load(cache).items()}
    except RuntimeError as error:
        raise RuntimeError(f"{error}; delete it and try again") from error
    shapes = {name: array.shape for name, array in arrays.items()}
    if shapes != CACHE_SHAPES:
        raise RuntimeError(f"{cache} holds the wrong arrays ({shapes}); delete it and try again")
    return arrays


def _check_lengths(inputs: Tensor, targets: Tensor, **size: int) -> None:
    if len(inputs) != len(targets):
        raise ValueError(f"{len(inputs)} inputs, but {len(targets)} targets")
    for name, value in size.items():
        if value < 1:
            raise ValueError(f"{name} must be positive, got {value}")


def minibatches(
    inputs: Tensor, targets: Tensor, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ``(inputs, targets)`` in shuffled batches, each example once: one epoch.

    Parameters
    ----------
    inputs : Tensor, shape (N, ...)
    targets : Tensor, shape (N,)
    batch_size : int
        The last batch is smaller, if `batch_size` does not divide N.

    Raises
    ------
    ValueError
        If the lengths differ or `batch_size` is not positive.
    """
    _check_lengths(inputs, targets, batch_size=batch_size)
    order = generator.permutation(len(inputs))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        yield inputs[chosen], targets[chosen]


def sample_minibatch(
    inputs: Tensor, targets: Tensor, num_points: int = 100
) -> tuple[Tensor, Tensor]:
    """``(inputs, targets)`` of `num_points` examples, each drawn at random from all.

    The draws are independent: an example may come twice, and two batches may overlap. (In
    contrast, `minibatches` goes through all examples once.)

    Parameters
    ----------
    inputs : Tensor, shape (N, ...)
    targets : Tensor, shape (N,)
    num_points : int

    Raises
    ------
    ValueError
        If the lengths differ, or if `num_points` or N is not positive.
    """
    _check_lengths(inputs, targets, num_points=num_points)
    if len(inputs) == 0:
        raise ValueError("there are no inputs to draw from")
    chosen = generator.integers(len(inputs), size=num_points)
    return inputs[chosen], targets[chosen]
