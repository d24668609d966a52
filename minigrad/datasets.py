"""Handwritten digits: MNIST, a small embedded set, and mini-batches."""

import contextlib
import gzip
import hashlib
import os
import socket
import sys
import tempfile
import threading
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .creation import generator
from .tensors import Tensor

# The four files of MNIST and their SHA-256: a file that differs is never used.
MNIST_FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
TIMEOUT = 5.0  # seconds without an answer after which a server counts as unreachable


class Digits:
    """Images of digits, and which digits they show.

    Indexing with an integer, a slice or an array gives ``(images, targets)``. These images are
    normalised: float32, minus the mean of the training set, divided by its standard deviation.

    Attributes
    ----------
    data : Tensor, shape (N, 28, 28)
        uint8 from 0 to 255, or float32 if the whole set has been normalised.
    targets : Tensor of int64, shape (N,)
        The digits 0 to 9.
    mean, std : float
        The mean and the standard deviation of all pixels of the training set, before normalising.
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

    def __repr__(self) -> str:
        images = f"{len(self)} images of {' x '.join(map(str, self.data.shape[1:]))}"
        state = "not normalised," if self.data.dtype == np.uint8 else "normalised with"
        statistics = f"mean {self.mean:.1f}, std {self.std:.1f}"
        return f"Digits({images}, {self.data.dtype}, {state} {statistics})"

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> tuple[Tensor, Any]:
        images, targets = self.data[index], self.targets[index]
        if images.dtype == np.uint8:
            images = self._normalise(images.array)
        return images, targets.item() if targets.ndim == 0 else targets


def _make_sets(arrays: list[np.ndarray], change_tensors: bool) -> tuple[Digits, Digits]:
    images, targets, test_images, test_targets = arrays
    # Statistics of the training set only: nothing about the test set may leak into training.
    mean, std = images.mean(), images.std()
    return (
        Digits(images, targets, mean, std, change_tensors),
        Digits(test_images, test_targets, mean, std, change_tensors),
    )


def load_digits_data(change_tensors: bool = False) -> tuple[Digits, Digits]:
    """The 1,797 handwritten digits that come with scikit-learn, as images of 28 x 28.

    The originals are 8 x 8; here they are resampled to 24 x 24 and padded, as in MNIST. A fifth of
    the images of each digit is for testing, the same ones in every call.

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
    return _make_sets([images[train], targets[train], images[test], targets[test]], change_tensors)


def load_mnist_data(
    change_tensors: bool = False, download: bool = False, root: str | Path | None = None
) -> tuple[Digits, Digits]:
    """MNIST: 60,000 handwritten digits to train on and 10,000 to test.

    Each of the four files may be in ``MNIST/raw/``, in ``raw/`` or in the folder itself, plain or
    as .gz. Its checksum is verified. Only a download needs torchvision.

    Parameters
    ----------
    change_tensors : bool
        Whether to normalise all images now, to float32, rather than each one when it is indexed.
    download : bool
        Whether to download files that are missing or damaged.
    root : path, optional
        The folder with the files; downloads go into its ``MNIST/raw/``. By default, the folder
        named by the environment variable MINIGRAD_DATA, or else ``data``.

    Returns
    -------
    train_set, test_set : Digits

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If a file is missing and ``download`` is False, or if the folder is a file or does not
        exist. (With ``download``, a ``root`` that does not exist is created.)
    ImportError
        If torchvision is needed for a download and cannot be imported.
    RuntimeError
        If a file is damaged and ``download`` is False, or if the download fails.
    """
    if not isinstance(change_tensors, bool):
        raise TypeError(f"change_tensors must be a bool, got {change_tensors!r}; is it root=?")
    folder = _find_root(root, download)
    try:
        arrays = [_read(folder, name) for name in MNIST_FILES]
    except (FileNotFoundError, RuntimeError) as problem:
        if not download:
            fix = "call load_mnist_data(download=True) to fetch it, or pass another root="
            raise type(problem)(f"{problem}; {fix}") from None
        arrays = _download(folder, problem)
    return _make_sets(arrays, change_tensors)


def _find_root(root: str | Path | None, download: bool) -> Path:
    """The folder to look in. It must exist, unless it was passed as the place for a download."""
    variable = not root and os.environ.get("MINIGRAD_DATA")
    folder = Path(root or variable or "data").absolute()
    if folder.is_dir():
        return folder
    given = f"MINIGRAD_DATA={variable!r}" if variable else f"root={str(folder)!r}"
    if folder.exists():
        raise NotADirectoryError(f"{given} is a file; name the folder that MNIST is in")
    if variable or not download:
        fix = "correct or unset the variable" if variable else "pass another root= or download=True"
        raise FileNotFoundError(f"{given}: this folder does not exist; {fix}")
    return folder


def _read(root: Path, name: str) -> np.ndarray:
    """The array in one of the four files: the first one found, once its checksum is verified."""
    folders = [root / "MNIST" / "raw", root / "raw", root]
    for path in (folder / file for folder in folders for file in (name, f"{name}.gz")):
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if path.suffix == ".gz":
            # a file that a browser has already unpacked stays as it is, as does a damaged one
            with contextlib.suppress(OSError, EOFError, zlib.error):
                content = gzip.decompress(content)
        if hashlib.sha256(content).hexdigest() != MNIST_FILES[name]:
            found = f"{len(content)} bytes, wrong checksum"
            raise RuntimeError(f"{path} is damaged or is a different file ({found})")
        # IDX: two zeros, the dtype (8, for uint8), the number of dimensions, their lengths, data
        shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
        data = np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape))
        return data.reshape(shape).copy()  # the bytes themselves are read-only
    raise FileNotFoundError(f"no {name}, plain or as .gz, in {', '.join(map(str, folders))}")


def _answers(url: str) -> bool:
    """Whether a server answers within TIMEOUT, whatever the answer."""

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=TIMEOUT).close()
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            return
        answered.set()

    print(f"asking {url} for MNIST, for at most {TIMEOUT:g} s", file=sys.stderr)
    answered = threading.Event()
    # in a thread of its own, because looking up the server's name has no timeout
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    return answered.is_set()


def _download(root: Path, problem: Exception) -> list[np.ndarray]:
    """Fetch the four files into a temporary folder, check them, then move each into place."""
    raw = root / "MNIST" / "raw"
    by_hand = f"put {', '.join(MNIST_FILES)} into {raw} by hand"
    print(f"importing torchvision to download MNIST (takes seconds): {problem}", file=sys.stderr)
    try:
        from torchvision.datasets import MNIST
    except (ImportError, RuntimeError) as error:  # RuntimeError: torch is of another version
        raise ImportError(
            f"downloading MNIST needs torchvision: pip install torchvision, or {by_hand} ({error})"
        ) from error
    if not any(_answers(url) for url in MNIST.mirrors):
        mirrors = " or ".join(MNIST.mirrors)
        raise RuntimeError(
            f"MNIST cannot be downloaded: no answer from {mirrors}; check the network, or {by_hand}"
        )
    limit = f"it fails if a server is silent for {TIMEOUT:g} s"
    print(f"downloading MNIST (12 MB) into {raw}; {limit}", file=sys.stderr)
    timeout_before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        raw.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=raw) as aside:
            MNIST(aside, download=True)
            arrays = [_read(Path(aside), name) for name in MNIST_FILES]
            for name in MNIST_FILES:
                os.replace(Path(aside) / "MNIST" / "raw" / name, raw / name)
    except (OSError, RuntimeError) as error:
        raise RuntimeError(f"the download of MNIST into {raw} failed: {error}") from error
    finally:
        socket.setdefaulttimeout(timeout_before)
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
        The last batch is smaller if ``batch_size`` does not divide N.

    Raises
    ------
    ValueError
        If the lengths differ or ``batch_size`` is not positive.
    """
    _check_lengths(inputs, targets, batch_size=batch_size)
    order = generator.permutation(len(inputs))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        yield inputs[chosen], targets[chosen]


def sample_minibatch(
    inputs: Tensor, targets: Tensor, num_points: int = 100
) -> tuple[Tensor, Tensor]:
    """``(inputs, targets)`` of ``num_points`` examples, each drawn at random from all.

    The draws are independent: an example may appear twice, and two batches may overlap.
    (`minibatches`, in contrast, goes through all examples once.)

    Parameters
    ----------
    inputs : Tensor, shape (N, ...)
    targets : Tensor, shape (N,)
    num_points : int

    Raises
    ------
    ValueError
        If the lengths differ, or if ``num_points`` or N is not positive.
    """
    _check_lengths(inputs, targets, num_points=num_points)
    if len(inputs) == 0:
        raise ValueError("there are no inputs to draw from")
    chosen = generator.integers(len(inputs), size=num_points)
    return inputs[chosen], targets[chosen]
