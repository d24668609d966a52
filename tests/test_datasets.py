"""The data: what is loaded, and what happens when it cannot be."""

import contextlib
import functools
import gc
import gzip
import hashlib
import http.server
import socket
import sys
import threading
import time

import numpy as np
import pytest
import torchvision

import minigrad as mg
from minigrad import datasets, serialization


@pytest.fixture(scope="module")
def mnist(mnist_root):
    return datasets.load_mnist_data(root=mnist_root)


@pytest.fixture
def raw(tmp_path, mnist_root):
    """A private raw folder, with links to the files that a test may replace."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in datasets.MNIST_FILES:
        (raw / name).symlink_to((mnist_root / "MNIST" / "raw" / name).resolve())
    return raw


def replace(path, content):
    path.unlink()
    path.write_bytes(content)


# What is loaded


def test_mnist_is_torchvisions(mnist, mnist_root):
    for ours, train in zip(mnist, (True, False)):
        theirs = torchvision.datasets.MNIST(mnist_root, train=train)
        np.testing.assert_array_equal(ours.data.numpy(), theirs.data.numpy())
        np.testing.assert_array_equal(ours.targets.numpy(), theirs.targets.numpy())
        assert ours.data.dtype == np.uint8 and ours.targets.dtype == np.int64
    assert [len(part) for part in mnist] == [60000, 10000]
    assert mnist[0].mean == pytest.approx(33.3184, abs=1e-4)
    assert mnist[0].std == pytest.approx(78.5675, abs=1e-4)


def test_the_cache_gives_the_same_and_needs_no_torchvision(mnist, mnist_root, monkeypatch):
    assert (mnist_root / "MNIST" / "raw" / "minigrad-cache.npz").exists()
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    for first, again in zip(mnist, datasets.load_mnist_data(root=mnist_root)):
        np.testing.assert_array_equal(first.data.numpy(), again.data.numpy())
        np.testing.assert_array_equal(first.targets.numpy(), again.targets.numpy())


@pytest.mark.parametrize("load", ["mnist", "digits"])
def test_items_and_tensors_are_normalised_alike(load, mnist_root):
    def sets(change_tensors):
        if load == "mnist":
            return datasets.load_mnist_data(change_tensors, root=mnist_root)
        return datasets.load_digits_data(change_tensors)

    for lazy, whole in zip(sets(False), sets(True)):
        assert whole.data.dtype == np.float32 and whole.data.shape == (len(whole), 28, 28)
        for index in (0, -1, slice(0, 5), np.array([3, 1])):
            (image, target), (expected, expected_target) = lazy[index], whole[index]
            assert image.dtype == np.float32
            np.testing.assert_array_equal(image.numpy(), expected.numpy())
            np.testing.assert_array_equal(np.asarray(target), np.asarray(expected_target))
        assert isinstance(lazy[0][1], int) and isinstance(lazy[:2][1], mg.Tensor)
    train = sets(True)[0].data.numpy()
    assert abs(train.mean()) < 1e-4 and abs(train.std() - 1) < 1e-4


def test_the_digits():
    (train, test), (again, _) = datasets.load_digits_data(), datasets.load_digits_data()
    assert (len(train), len(test)) == (1437, 360)
    np.testing.assert_array_equal(train.data.numpy(), again.data.numpy())
    assert train.data.dtype == np.uint8 and train.data.numpy().max() == 255
    assert not train.data.numpy()[:, [0, 1, 26, 27]].any()  # the padding
    for part in (train, test):
        counts = np.bincount(part.targets.numpy())
        assert counts.min() > 0.95 * len(part) / 10 - 1 and counts.max() < 1.05 * len(part) / 10 + 1
    with pytest.raises(IndexError):
        train[1437]
    assert sum(1 for _ in test) == 360


# What cannot be loaded


def test_missing_files(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="train-images-idx3-ubyte is missing.*download=True"
    ):
        datasets.load_mnist_data(root=tmp_path)


@pytest.mark.parametrize("name", datasets.MNIST_FILES)
@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:-1] + bytes([b[-1] ^ 1])]
)
def test_damaged_files(raw, name, damage):
    replace(raw / name, damage((raw / name).read_bytes()))
    with pytest.raises(RuntimeError, match=f"{name} is damaged"):
        datasets.load_mnist_data(root=raw.parent.parent)
    assert not (raw / "minigrad-cache.npz").exists()


def test_damaged_cache(raw):
    cache = raw / "minigrad-cache.npz"
    np.savez(cache, **{name: np.zeros(1, "u1") for name in datasets.CACHE_SHAPES})
    with pytest.raises(RuntimeError, match="minigrad-cache.npz holds the wrong arrays.*delete it"):
        datasets.load_mnist_data(root=raw.parent.parent)
    for content in (cache.read_bytes()[:-30], cache.read_bytes()[:100], b"", b"no archive at all"):
        cache.write_bytes(content)
        with pytest.raises(
            RuntimeError, match="minigrad-cache.npz is no whole file(.|\n)*delete it"
        ):
            datasets.load_mnist_data(root=raw.parent.parent)


def test_missing_torchvision(raw, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(ImportError, match="needs torchvision: pip install"):
        datasets.load_mnist_data(root=raw.parent.parent)


def test_missing_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="need scikit-learn: pip install"):
        datasets.load_digits_data()


def test_a_folder_that_cannot_be_written_is_no_obstacle(raw, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError("read-only")

    monkeypatch.setattr(serialization.zipfile, "ZipFile", refuse)
    train, _ = datasets.load_mnist_data(root=raw.parent.parent)
    assert len(train) == 60000 and not (raw / "minigrad-cache.npz").exists()


def test_an_interrupted_cache_leaves_nothing(raw, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(serialization.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        datasets.load_mnist_data(root=raw.parent.parent)
    assert {path.name for path in raw.iterdir()} == set(datasets.MNIST_FILES)


# The download


@pytest.fixture
def silent_server():
    """The address of a server that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


@pytest.fixture
def refusing_address():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}/"


@pytest.mark.parametrize("address", ["silent_server", "refusing_address"])
def test_an_unreachable_network_fails_within_seconds(address, request, tmp_path, monkeypatch):
    url = request.getfixturevalue(address)
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [url, url])
    monkeypatch.setattr(datasets, "TIMEOUT", 0.5)
    started = time.monotonic()
    with pytest.raises(RuntimeError, match=f"cannot be downloaded: no answer from {url}"):
        datasets.load_mnist_data(root=tmp_path, download=True)
    assert time.monotonic() - started < 5
    assert list(tmp_path.iterdir()) == []


LEFT_OPEN = "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serving(folder):
    """The address of a file server on this machine."""
    handler = functools.partial(Quiet, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.handle_error = lambda *args: None  # torchvision hangs up on its first request
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        gc.collect()  # torchvision leaves its sockets to the collector: not in a later test


@pytest.mark.filterwarnings(*LEFT_OPEN)
def test_a_failed_download_leaves_what_was_there(raw, tmp_path, monkeypatch):
    missing = "t10k-labels-idx1-ubyte"
    (raw / missing).unlink()
    with serving(tmp_path / "nothing") as url:
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [url])
        with pytest.raises(RuntimeError, match="the download of MNIST into .* failed(.|\n)*404"):
            datasets.load_mnist_data(root=raw.parent.parent, download=True)
    assert {path.name for path in raw.iterdir()} == set(datasets.MNIST_FILES) - {missing}
    assert socket.getdefaulttimeout() is None


@pytest.mark.filterwarnings(*LEFT_OPEN)
def test_a_download_mends_what_is_damaged(raw, tmp_path, monkeypatch):
    archives = tmp_path / "archives"
    archives.mkdir()
    resources = []
    for name in datasets.MNIST_FILES:
        content = gzip.compress((raw / name).read_bytes(), compresslevel=1)
        (archives / f"{name}.gz").write_bytes(content)
        resources.append((f"{name}.gz", hashlib.md5(content).hexdigest()))
    replace(raw / "train-labels-idx1-ubyte", b"half of it")
    with serving(archives) as url:
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [url])
        monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
        train, test = datasets.load_mnist_data(root=raw.parent.parent, download=True)
    assert len(train) == 60000 and len(test) == 10000
    assert {path.name for path in raw.iterdir()} == {*datasets.MNIST_FILES, "minigrad-cache.npz"}


# Mini-batches


def test_minibatches_bring_each_example_once():
    inputs, targets = mg.tensor(np.arange(10.0)), mg.tensor(np.arange(10))
    mg.manual_seed(0)
    batches = list(datasets.minibatches(inputs, targets, 4))
    assert [len(x) for x, _ in batches] == [4, 4, 2]
    order = [int(v) for x, _ in batches for v in x.tolist()]
    assert sorted(order) == list(range(10)) and order != list(range(10))
    assert all(x.tolist() == y.tolist() for x, y in batches)
    with pytest.raises(ValueError, match="10 inputs, but 3 targets"):
        next(datasets.minibatches(inputs, targets[:3], 4))
    with pytest.raises(ValueError, match="batch_size must be positive, got 0"):
        next(datasets.minibatches(inputs, targets, 0))


def test_sample_minibatch_draws_independently():
    inputs, targets = mg.tensor(np.arange(10.0)), mg.tensor(np.arange(10))
    mg.manual_seed(0)
    x, y = datasets.sample_minibatch(inputs, targets, num_points=2000)
    assert x.tolist() == y.tolist()
    assert np.bincount(y.numpy(), minlength=10).min() > 150  # 200 of each on average
    repeats = (y[1:] == y[:-1]).float().mean().item()  # without replacement there were none
    assert 0.05 < repeats < 0.15
    assert datasets.sample_minibatch(inputs, targets)[0].shape == (100,)
