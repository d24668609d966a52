"""The data: what is loaded, and what happens when it cannot be."""

import contextlib
import functools
import gc
import gzip
import hashlib
import http.server
import itertools
import re
import socket
import sys
import threading
import time
import types

import numpy as np
import pytest
import torch
import torchvision

import minigrad as mg
from minigrad import datasets

NAMES = list(datasets.MNIST_FILES)
PLACES = list(itertools.product(["MNIST/raw", "raw", "."], ["", ".gz"]))


@pytest.fixture(scope="module")
def mnist(mnist_root):
    return datasets.load_mnist_data(root=mnist_root)


@pytest.fixture(scope="module")
def contents(mnist_root):
    """The bytes of a file by its name, with and without .gz."""
    plain = {name: (mnist_root / "MNIST" / "raw" / name).read_bytes() for name in NAMES}
    return plain | {f"{name}.gz": gzip.compress(plain[name], compresslevel=1) for name in NAMES}


@pytest.fixture
def raw(tmp_path, mnist_root):
    """A private raw folder, with links to the files that a test may replace."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in NAMES:
        (raw / name).symlink_to(mnist_root / "MNIST" / "raw" / name)
    return raw


@pytest.fixture
def no_torchvision(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)


def replace(path, content):
    path.unlink()
    path.write_bytes(content)


def assert_same(sets, expected):
    for ours, theirs in zip(sets, expected, strict=True):
        np.testing.assert_array_equal(ours.data.numpy(), theirs.data.numpy())
        np.testing.assert_array_equal(ours.targets.numpy(), theirs.targets.numpy())


# What is loaded


def test_mnist_is_torchvisions(mnist, raw):
    root = raw.parent.parent
    assert_same(mnist, [torchvision.datasets.MNIST(root, train=train) for train in (True, False)])
    for part, size in zip(mnist, (60000, 10000)):
        assert len(part) == size and part.data.shape == (size, 28, 28)
        assert part.data.dtype == np.uint8 and part.targets.dtype == np.int64
        assert part.data.numpy().flags.writeable and part.targets.numpy().flags.writeable
        assert part.mean == pytest.approx(33.3184, abs=1e-4)
        assert part.std == pytest.approx(78.5675, abs=1e-4)


def test_an_old_processed_folder_is_ignored(mnist, raw):
    processed = raw.parent / "processed"
    processed.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save(
            (torch.zeros(3, 28, 28, dtype=torch.uint8), torch.zeros(3).long()), processed / name
        )
    assert len(torchvision.datasets.MNIST(raw.parent.parent)) == 3  # torchvision can read it
    assert_same(datasets.load_mnist_data(root=raw.parent.parent), mnist)


def test_loading_writes_nothing_and_needs_no_torchvision(mnist, raw, no_torchvision):
    raw.chmod(0o555)
    assert_same(datasets.load_mnist_data(root=raw.parent.parent, download=True), mnist)
    assert {path.name for path in raw.iterdir()} == set(NAMES)


@pytest.mark.parametrize("places", [*([place] * 4 for place in PLACES), PLACES[:4], PLACES[2:]])
def test_each_file_may_be_in_three_folders_plain_or_packed(
    places, mnist, contents, tmp_path, no_torchvision
):
    for name, (folder, suffix) in zip(NAMES, places):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / (name + suffix)).write_bytes(contents[name + suffix])
    assert_same(datasets.load_mnist_data(root=tmp_path, download=True), mnist)


def test_a_file_that_is_unpacked_but_still_called_gz(mnist, raw, no_torchvision):
    for name in NAMES:
        (raw / name).rename(raw / f"{name}.gz")
    assert_same(datasets.load_mnist_data(root=raw.parent.parent, download=True), mnist)


@pytest.mark.parametrize(
    "change_tensors, state", [(False, "uint8, not normalised,"), (True, "float32, normalised with")]
)
def test_repr_tells_what_is_in_it(change_tensors, state):
    data = np.zeros((5, 28, 14), np.uint8)
    part = datasets.Digits(data, np.arange(5), 33.32, 78.57, change_tensors)
    assert repr(part) == f"Digits(5 images of 28 x 14, {state} mean 33.3, std 78.6)"


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


def refused(root, error, *words):
    """Assert that MNIST is refused with this error, which has all of `words` in this order."""
    with pytest.raises(error, match="(?s)" + ".*".join(re.escape(str(word)) for word in words)):
        datasets.load_mnist_data(root=root)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named_and_where_it_was_looked_for(raw, name):
    (raw / name).unlink()
    root = raw.parent.parent
    where = f"{raw}, {root / 'raw'}, {root}"
    refused(
        root, FileNotFoundError, f"no {name}, plain or as .gz, in {where}", "download=True", "root="
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[:-1],
        lambda b: b[:9],
        lambda b: b"",
        lambda b: b[:-1] + bytes([b[-1] ^ 1]),
        lambda b: b[:10] + b"\xff" * 99 + b[109:],
    ],
)
@pytest.mark.parametrize("folder, suffix", [PLACES[0], PLACES[-1]])
def test_a_damaged_file_is_called_damaged(raw, contents, name, damage, folder, suffix):
    (raw / name).unlink()
    path = raw.parent.parent / folder / (name + suffix)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(damage(contents[name + suffix]))
    refused(raw.parent.parent, RuntimeError, f"{path} is damaged", "download=True", "root=")


def test_a_packed_file_with_damaged_content(raw, contents):
    name = NAMES[1]
    (raw / name).unlink()
    (raw / f"{name}.gz").write_bytes(gzip.compress(contents[name][:-1]))
    refused(raw.parent.parent, RuntimeError, f"{name}.gz is damaged", "60007 bytes")


@pytest.mark.parametrize("one, other", list(itertools.combinations(NAMES, 2)))
def test_swapped_files(raw, one, other):
    (raw / one).rename(raw / "third")
    (raw / other).rename(raw / one)
    (raw / "third").rename(raw / other)
    refused(raw.parent.parent, RuntimeError, f"{raw / one} is damaged or is a different file")


@pytest.mark.parametrize("download", [False, True])
@pytest.mark.parametrize(
    "kind, error, problem",
    [
        ("file", NotADirectoryError, "is a file"),
        ("nothing", FileNotFoundError, "this folder does not exist"),
    ],
)
def test_a_mistyped_variable_is_named_before_any_download(
    kind, error, problem, download, tmp_path, monkeypatch, no_torchvision, capsys
):
    path = tmp_path / kind
    (tmp_path / "file").touch()
    monkeypatch.setenv("MINIGRAD_DATA", str(path))
    with pytest.raises(error, match=f"MINIGRAD_DATA='{path}'.* {problem}"):
        datasets.load_mnist_data(download=download)
    assert capsys.readouterr().err == "" and list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_root_goes_before_the_variable(mnist, mnist_root, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGRAD_DATA", str(tmp_path))
    assert_same(datasets.load_mnist_data(root=mnist_root), mnist)
    monkeypatch.setenv("MINIGRAD_DATA", str(mnist_root))
    assert_same(datasets.load_mnist_data(), mnist)


@pytest.mark.parametrize("download", [False, True])
def test_a_root_that_is_a_file(download, tmp_path, no_torchvision, capsys):
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(NotADirectoryError, match=f"root='{path}' is a file"):
        datasets.load_mnist_data(root=path, download=download)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("variable", [None, ""])
def test_a_folder_that_does_not_exist(variable, tmp_path, monkeypatch):
    path = tmp_path / "none"
    monkeypatch.setenv("MINIGRAD_DATA", str(tmp_path / "other"))
    refused(
        path, FileNotFoundError, f"root='{path}'", "this folder does not exist", "download=True"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MINIGRAD_DATA")
    if variable is not None:
        monkeypatch.setenv("MINIGRAD_DATA", variable)
    refused(None, FileNotFoundError, f"root='{tmp_path / 'data'}'", "this folder does not exist")


def test_a_folder_that_cannot_be_read_is_not_called_empty(raw, monkeypatch):
    def forbid(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(datasets.Path, "read_bytes", forbid)
    refused(raw.parent.parent, PermissionError, "Permission denied", raw / NAMES[0])


def test_a_download_without_torchvision_says_two_ways_out(tmp_path, no_torchvision):
    with pytest.raises(ImportError, match="downloading MNIST needs torchvision") as raised:
        datasets.load_mnist_data(root=tmp_path, download=True)
    for words in ("pip install torchvision", *NAMES, f"into {tmp_path / 'MNIST' / 'raw'} by hand"):
        assert words in str(raised.value)


def test_missing_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="need scikit-learn: pip install"):
        datasets.load_digits_data()


# The download


@pytest.fixture
def silent_server():
    """The address of a server that accepts connections and never answers."""
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
        gc.collect()  # collect torchvision's open sockets now, not in a later test


@pytest.mark.filterwarnings(*LEFT_OPEN)
def test_a_failed_download_leaves_what_was_there(raw, tmp_path, monkeypatch):
    missing = NAMES[3]
    (raw / missing).unlink()
    with serving(tmp_path / "nothing") as url:
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [url])
        with pytest.raises(RuntimeError, match="the download of MNIST into .* failed(.|\n)*404"):
            datasets.load_mnist_data(root=raw.parent.parent, download=True)
    assert {path.name for path in raw.iterdir()} == set(NAMES) - {missing}
    assert socket.getdefaulttimeout() is None


def test_a_download_into_a_folder_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "MNIST").touch()
    monkeypatch.setattr(datasets, "_answers", lambda url: True)
    with pytest.raises(RuntimeError, match="the download of MNIST into .* failed: .*MNIST"):
        datasets.load_mnist_data(root=tmp_path, download=True)


@pytest.fixture
def mirror(contents, tmp_path_factory, monkeypatch):
    """The address of a server on this machine that has the four archives."""
    archives = tmp_path_factory.mktemp("archives")
    resources = []
    for name in NAMES:
        content = contents[f"{name}.gz"]
        (archives / f"{name}.gz").write_bytes(content)
        resources.append((f"{name}.gz", hashlib.md5(content).hexdigest()))
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
    with serving(archives) as url:
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [url])
        yield url


@pytest.mark.filterwarnings(*LEFT_OPEN)
@pytest.mark.parametrize("folder, suffix", [PLACES[0], PLACES[1], PLACES[-2]])
def test_a_download_mends_what_is_damaged(
    folder, suffix, raw, mnist, mirror, no_torchvision, monkeypatch
):
    root, name = raw.parent.parent, NAMES[1]
    (raw / name).unlink()
    (root / folder).mkdir(exist_ok=True)
    damaged = root / folder / (name + suffix)
    damaged.write_bytes(b"half of it")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torchvision.datasets", torchvision.datasets)
        assert_same(datasets.load_mnist_data(root=root, download=True), mnist)
    assert {path.name for path in raw.iterdir()} <= {*NAMES, damaged.name}
    assert_same(datasets.load_mnist_data(root=root, download=True), mnist)  # repaired on disk


@pytest.mark.filterwarnings(*LEFT_OPEN)
def test_a_download_makes_the_root(tmp_path, mnist, mirror, monkeypatch):
    monkeypatch.setenv("MINIGRAD_DATA", "/nowhere")
    root = tmp_path / "new" / "root"
    assert_same(datasets.load_mnist_data(root=root, download=True), mnist)
    assert_same(datasets.load_mnist_data(root=root), mnist)


def test_every_wait_is_announced_before_it_begins(tmp_path, monkeypatch, capsys):
    announced = []

    def wait(*arguments, **settings):
        announced.append(capsys.readouterr().err)
        raise datasets.urllib.error.HTTPError("", 404, "", {}, None)  # an answer, but no file

    class Module(types.ModuleType):
        @property
        def MNIST(self):
            announced.append(capsys.readouterr().err)
            mnist.mirrors = ["http://one/"]
            return mnist

    def mnist(*arguments, **settings):
        return wait()

    monkeypatch.setitem(sys.modules, "torchvision.datasets", Module("datasets"))
    monkeypatch.setattr(datasets.urllib.request, "urlopen", wait)
    monkeypatch.setattr(datasets, "TIMEOUT", 2.5)
    with pytest.raises(RuntimeError, match="failed: HTTP Error 404"):
        datasets.load_mnist_data(root=tmp_path, download=True)
    imported, asked, downloaded = announced
    assert "importing torchvision" in imported and f"no {NAMES[0]}, plain or as .gz" in imported
    assert re.fullmatch(r"asking http://one/ .* at most 2.5 s\n", asked)
    assert re.fullmatch(rf"downloading .* into {tmp_path}/MNIST/raw; .* 2.5 s\n", downloaded)


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
    repeats = (y[1:] == y[:-1]).float().mean().item()  # without replacement there would be none
    assert 0.05 < repeats < 0.15
    assert datasets.sample_minibatch(inputs, targets)[0].shape == (100,)
