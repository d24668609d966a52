"""The cache of compiled kernels on disk. Damage to it costs time, but never stops a run.

Numba's own cache raises an error if a file was cut short, the disk is full, or a module no longer
exists. Here the kernel is compiled again and its files are rewritten, with one warning in each
process.
"""

import contextlib
import hashlib
import importlib.util
import inspect
import pickle
import sys
import warnings
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

from . import blas  # first: a kernel that is loaded before its symbols ends the process

Cache: Any = object
Files: Any = object
try:
    from numba.core import caching, serialize

    Cache, Files = caching.FunctionCache, caching.IndexDataCacheFile
    dumps: Any = serialize.dumps
except (AttributeError, ImportError):
    pass  # a Numba whose parts have other names: `enable` then uses its own cache

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function) -> Function:
    """Compile ``function`` at its first call, and cache it on disk.

    ``nogil`` lets other Python threads run meanwhile. With NumPy's error model, x / 0 is infinite
    rather than an exception: checking for one in each iteration of a loop would keep the
    processor from computing several at once.
    """
    compiled = numba.njit(nogil=True, error_model="numpy")(function)
    enable(compiled)
    return cast(Function, compiled)


def c_function(function: Callable[..., None], signature: Any) -> Any:
    """Compile a function that C can call, at its ``address``, and cache it on disk."""
    from numba.core.ccallback import CFunc

    compiled = CFunc(function, (signature.args, signature.return_type), {}, {})
    with contextlib.suppress(Exception):
        cast(Any, compiled)._cache = KernelCache(function)
    compiled.compile()
    return compiled


def enable(kernel: Any) -> None:
    """Cache the machine code of a function compiled by Numba, if there is a place for it."""
    try:
        cache = KernelCache(kernel.py_func)
        kernel._cache  # Numba's attribute: an AttributeError if its name has changed
        kernel._cache = cache
    except Exception:
        with contextlib.suppress(Exception):  # nowhere to write; or plain Python
            kernel.enable_caching()


def _digest_of_products() -> bytes:
    """A digest of the modules that affect the machine code of kernels in other files."""
    names = ("caching", "threads", "products", "kernels")
    modules = [sys.modules.get(f"{__package__}.{name}") for name in names]
    sources = "".join(inspect.getsource(module) for module in (blas, *modules) if module)
    return hashlib.sha256(sources.encode()).digest()


def spare_scipy() -> None:
    """Keep Numba from importing SciPy just to see whether it has a BLAS.

    That takes a fifth of a second, and our BLAS is NumPy's. Code that needs SciPy's still imports
    it later.
    """
    if "numba.np.arraymath" in sys.modules:
        return
    from numba.np import linalg

    def ensure_blas() -> None:
        if importlib.util.find_spec("scipy") is None:
            raise ImportError

    original = linalg.ensure_blas
    linalg.ensure_blas = ensure_blas
    try:
        from numba.np import arraymath
    finally:
        linalg.ensure_blas = original
    cast(Any, arraymath).ensure_blas = original


class KernelCache(Cache):  # type: ignore[misc]
    """Numba's cache of one function, but an error only means compiling again."""

    warned = False  # in this process, about any function

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        # The content names its module, and a link may give a package two names.
        name = f"{self._impl.filename_base}.{function.__module__}"
        source = self._impl.locator.get_source_stamp(), _digest_of_products()
        self._cache_file = CheckedFiles(self.cache_path, name, source)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        with contextlib.suppress(Exception):
            spare_scipy()
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:
            with contextlib.suppress(Exception):
                self.flush()  # or saving would read the damaged index again
            self._warn("read", error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception as error:
            self._warn("written", error)

    def _warn(self, done: str, error: Exception) -> None:
        if not KernelCache.warned:
            KernelCache.warned = True
            warnings.warn(
                f"minigrad compiles its kernels again: their cache in {self.cache_path} could not "
                f"be {done} ({type(error).__name__}: {error}). If you see this again, delete "
                "that folder, or set the environment variable NUMBA_CACHE_DIR (for a package in "
                "a zip file, XDG_CACHE_HOME) to a writable folder.",
                RuntimeWarning,
            )


class CheckedFiles(Files):  # type: ignore[misc]
    """The files of one function. Each holds machine code, what it was compiled from, and a digest.

    Numba would run damaged machine code and return wrong numbers. It also writes its index before
    the machine code: if the disk is full by then, or two processes write at once, the index leads
    to code from older source or for other dtypes. Here such code counts as missing.
    """

    def __init__(self, folder: str, name: str, source: Any) -> None:
        super().__init__(cache_path=folder, filename_base=name, source_stamp=source)
        self.made_of = numba.__version__, source

    def save(self, key: Any, data: Any) -> None:
        content = dumps((self.made_of, key, data))
        super().save(key, (hashlib.sha256(content).digest(), content))

    def load(self, key: Any) -> Any:
        found = super().load(key)
        if found is None:
            return None
        digest, content = found
        if hashlib.sha256(content).digest() != digest:
            raise ValueError("a file has changed since it was written")
        made_of, its_key, data = pickle.loads(content)
        return data if (made_of, its_key) == (self.made_of, key) else None
