"""The compiled kernels on disk: whatever happens to their files, the numbers are right."""

import errno
import importlib.util
import inspect
import os
import shutil
import struct
import sys
import threading
import warnings
from pathlib import Path

import numba
import numpy as np
import pytest
from helpers import child

import minigrad as mg
from minigrad import caching

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="about compiled kernels")
FACTOR = 1234.5678


def times_factor(x):
    return FACTOR * x[0]


def one_more(x):
    return x[0] + 1


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run(function=times_factor, result=2 * FACTOR, dtype="f8", process=True):
    """Compile and call a kernel as a new process does (or, if not `process`, the same one).

    Return whether it came from the cache, and the warnings.
    """
    if process:
        caching.KernelCache.warned = False
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        kernel = caching.kernel(function)
        assert kernel(np.array([2], dtype)) == pytest.approx(result)
    assert all(warning.category is RuntimeWarning for warning in warned)
    return bool(kernel.stats.cache_hits), [str(warning.message) for warning in warned]


def the_file(folder, kind):
    (file,) = folder.rglob(f"*.{kind}")
    return file


def test_kernels_depend_on_what_is_compiled_into_them(monkeypatch):
    digests, source = {caching._digest_of_products()}, inspect.getsource
    for changed in ("blas", "caching", "threads", "products"):
        name = f"minigrad.{changed}"
        monkeypatch.setattr(inspect, "getsource", lambda m: source(m) + "#" * (m.__name__ == name))  # noqa: B023
        digests.add(caching._digest_of_products())
    assert len(digests) == 5


def disk_full(kind):
    """An `os.replace` that fails for files of this kind."""

    def replace(source, target, real=os.replace):
        if target.endswith(kind):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    return replace


# Damage


DAMAGES = {
    "cut short": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "garbage": lambda content: b"garbage" * 100,
    "zeros": lambda content: bytes(len(content)),
    "zeros at the end": lambda content: content[: len(content) // 2] + bytes(len(content) // 2),
    "a module that is gone": lambda content: b"cno_such_module\nname\n." * 2,
}


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_mended_with_one_warning(kind, damage, folder):
    assert run() == (False, []) and run() == (True, [])
    file = the_file(folder, kind)
    file.write_bytes(damage(file.read_bytes()))
    hit, (warned,) = run()
    assert not hit and f"cache in {file.parent} could not be read" in warned
    assert run() == (True, [])


def test_one_warning_for_many_damaged_kernels(folder):
    run(), run(one_more, 3)
    for file in folder.rglob("*.nb?"):
        file.write_bytes(b"")
    assert len(run()[1]) == 1
    assert run(one_more, 3, process=False) == (False, [])
    assert run() == run(one_more, 3) == (True, [])


def test_changed_machine_code_is_not_run(folder):
    """Without the digest, the kernel would multiply by a different number."""
    run()
    file, factor = the_file(folder, "nbc"), struct.pack("<d", FACTOR)
    assert file.read_bytes().count(factor) >= 1
    file.write_bytes(file.read_bytes().replace(factor, struct.pack("<d", FACTOR + 1)))
    hit, (warned,) = run()
    assert not hit and "changed since it was written" in warned
    assert run() == (True, [])


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
def test_any_changed_bit_is_survived(kind, folder, rng):
    for _ in range(20):
        run()
        content = bytearray(the_file(folder, kind).read_bytes())
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        the_file(folder, kind).write_bytes(content)
        assert len(run()[1]) <= 1
        assert run() == (True, [])
        shutil.rmtree(folder)


# Files that cannot be written


def test_a_full_disk_costs_one_warning(folder, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", disk_full(""))
        hit, (warned,) = run()
        assert not hit and f"cache in {folder}" in warned
        assert "could not be written (OSError: [Errno 28] No space left" in warned
        assert run(one_more, 3, process=False) == (False, [])
        assert not list(folder.rglob("*.*"))
    assert run() == (False, []) and run() == (True, [])


def test_damage_that_cannot_be_mended_costs_one_warning(folder, monkeypatch):
    run()
    the_file(folder, "nbi").write_bytes(b"")
    monkeypatch.setattr(os, "replace", disk_full(""))
    for _ in range(2):
        hit, (warned,) = run()
        assert not hit and "could not be read (EOFError" in warned


def test_a_folder_that_is_replaced_by_a_file(folder):
    caching.KernelCache.warned = False
    kernel = caching.kernel(times_factor)
    shutil.rmtree(folder)
    folder.write_text("")
    with pytest.warns(RuntimeWarning, match="NUMBA_CACHE_DIR") as warned:
        assert kernel(np.array([2.0])) == pytest.approx(2 * FACTOR)
    assert len(warned) == 1


# Files with other content


def test_no_kernel_of_older_source_is_run(folder, tmp_path, monkeypatch):
    """Numba writes the new index, then the disk is full and the old machine code remains."""

    def edit(number):  # Numba distinguishes bytecode, but not constants
        path = tmp_path / "edited.py"
        path.write_text(f"def f(x):\n    return x[0] + {number}\n")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, path.stem, module)
        spec.loader.exec_module(module)
        return module.f

    run(edit("1.5"), 3.5)
    new = edit("2.500")
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", disk_full("nbc"))
        assert len(run(new, 4.5)[1]) == 1
    assert run(new, 4.5) == (False, []) and run(new, 4.5) == (True, [])


def test_no_kernel_for_another_dtype_is_run(folder):
    """As after a race: two processes choose the same file name for kernels of two dtypes."""
    run(), run(dtype="i8")
    one, other = sorted(folder.rglob("*.nbc"))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    for dtype in ("f8", "i8"):
        assert run(dtype=dtype) == (False, []) and run(dtype=dtype) == (True, [])


def test_no_kernel_with_an_older_product_is_run(folder, monkeypatch):
    run()
    with monkeypatch.context() as patched:
        patched.setattr(inspect, "getsource", lambda module: "an older blas.py")
        assert run() == (False, [])
    assert run() == (False, []) and run() == (True, [])


# Another Numba


@pytest.mark.parametrize("missing", ["FunctionCache", "IndexDataCacheFile"])
def test_a_numba_without_these_names_caches_in_its_own_way(missing, folder, monkeypatch):
    spec = importlib.util.spec_from_file_location("minigrad.again", caching.__file__)
    again = importlib.util.module_from_spec(spec)
    with monkeypatch.context() as patched:
        patched.delattr(numba.core.caching, missing)
        spec.loader.exec_module(again)
    monkeypatch.setattr(caching, "enable", again.enable)
    assert run() == (False, []) and run() == (True, [])


def test_a_numba_that_keeps_the_cache_elsewhere():
    class Dispatcher:
        py_func, enabled = staticmethod(times_factor), False

        def enable_caching(self):
            self.enabled = True

    dispatcher = Dispatcher()
    caching.enable(dispatcher)
    assert dispatcher.enabled and not hasattr(dispatcher, "_cache")


# Whole processes


CALL = """
import importlib, sys
import numpy as np
kernels = importlib.import_module(sys.argv[1] + ".kernels")
x, w, out, softmax = (np.arange(n * 3, dtype="f4").reshape(n, 3) for n in (2, 3, 2, 2))
kernels.linear_forward(x, w, None, out)
kernels.log_softmax_forward(out, x, softmax)
called = kernels.linear_forward, kernels.log_softmax_forward
print(*x.ravel(), sum(len(kernel.stats.cache_hits) for kernel in called))
"""


def call(package="minigrad", cwd=None, **environment):
    """The numbers that a child computed, how many kernels it loaded, and what it wrote to stderr."""
    done = child(package, code=CALL, cwd=cwd, environment=environment)
    *numbers, hits = done.stdout.split()
    return numbers, int(hits), done.stderr


def test_two_processes_at_once_and_then_damage(tmp_path):
    """With a product, whose symbol must exist, and a kernel that is compiled into another."""
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(call(NUMBA_CACHE_DIR=str(tmp_path))))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = results[0][0]
    assert len(numbers) == 6 and [result[::2] for result in results] == [(numbers, "")] * 2
    assert call(NUMBA_CACHE_DIR=str(tmp_path)) == (numbers, 2, "")
    for name in ("linear_forward", "log_softmax_forward"):
        for file in tmp_path.rglob(f"*{name}*.nb?"):
            file.write_bytes(file.read_bytes()[:-100])
    its_numbers, hits, warned = call(NUMBA_CACHE_DIR=str(tmp_path))
    assert (its_numbers, hits, warned.count("Warning: ")) == (numbers, 0, 1), warned
    assert call(NUMBA_CACHE_DIR=str(tmp_path)) == (numbers, 2, "")


def test_a_package_with_two_names_and_in_a_zip_file(tmp_path):
    site, alias, package = tmp_path / "site", tmp_path / "alias", tmp_path / "site" / "minigrad"
    shutil.copytree(Path(mg.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    alias.mkdir()
    (alias / "other").symlink_to(package)
    numbers, hits, warned = call("other", alias, NUMBA_CACHE_DIR="")
    assert (hits, warned) == (0, "")
    named = {"cwd": site, "NUMBA_CACHE_DIR": ""}
    assert call(**named) == (numbers, 0, "") and call(**named) == (numbers, 2, "")
    assert list((package / "__pycache__").glob("*.nbc"))

    shutil.rmtree(package / "__pycache__")
    archive = shutil.make_archive(str(tmp_path / "archive"), "zip", site)
    zipped = {
        "cwd": tmp_path,
        "PYTHONPATH": archive,
        "NUMBA_CACHE_DIR": "",
        "XDG_CACHE_HOME": archive,
    }
    its_numbers, hits, warned = call(**zipped)
    assert (its_numbers, hits, warned.count("Warning: ")) == (numbers, 0, 1), warned
    assert f"cache in {archive}" in warned
