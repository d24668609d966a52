"""The matrix product, in plain Python and inside compiled kernels.

The work is done by the library that NumPy has loaded, a BLAS (Basic Linear Algebra
Subprograms), whose product of matrices is called `gemm`. Numba's own ``np.dot`` would load
SciPy's BLAS beside it, and the waiting threads of two libraries stall each other for
milliseconds.
"""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import binding

# The names that compiled kernels know. They are in the kernels cached on disk, and a name that
# is missing when a kernel is loaded would end the process: both are always registered.
SYMBOLS = {"float32": "minigrad_sgemm", "float64": "minigrad_dgemm"}
ROWS, PLAIN, TRANSPOSED = 101, 111, 112  # BLAS's: C order; a matrix as it lies, or transposed


def _prototype(number: Any) -> Any:
    """The C type of gemm: order, how a and b lie, M, N, K, alpha, a, its row length, b, ..."""
    matrix = [ctypes.c_void_p, ctypes.c_int64]
    sizes = [ctypes.c_int] * 3 + [ctypes.c_int64] * 3
    return ctypes.CFUNCTYPE(None, *sizes, number, *matrix, *matrix, number, *matrix)


PROTOTYPES = {"float32": _prototype(ctypes.c_float), "float64": _prototype(ctypes.c_double)}


def callbacks() -> dict[str, Any]:
    """For each dtype, a gemm that calls `np.matmul`: some 4 µs slower, and always right.

    An exception in it (Ctrl-C) cannot pass through compiled code. It leaves the first number of
    the result as it was, by which `product` notices.
    """

    def matrix(dtype: str, address: int, rows: int, columns: int, length: int, how: int) -> Any:
        if how == TRANSPOSED:
            return matrix(dtype, address, columns, rows, length, PLAIN).T
        number = ctypes.c_float if dtype == "float32" else ctypes.c_double
        memory: Any = (number * (rows * length)).from_address(address)
        return np.frombuffer(memory, np.dtype(dtype)).reshape(rows, length)[:, :columns]

    def gemm(dtype: str) -> Callable[..., None]:
        def call(_order: int, how_a: int, how_b: int, m: int, n: int, k: int, _alpha: float, a: int,
                 lda: int, b: int, ldb: int, _beta: float, c: int, ldc: int) -> None:  # fmt: skip
            x, y = matrix(dtype, a, m, k, lda, how_a), matrix(dtype, b, k, n, ldb, how_b)
            out = matrix(dtype, c, m, n, ldc, PLAIN)
            first = out[:1, :1].copy()
            try:
                np.matmul(x, y, out=out)
            except BaseException:  # it may come when the product is done
                out[:1, :1] = first
                raise

        return call

    return {dtype: prototype(gemm(dtype)) for dtype, prototype in PROTOTYPES.items()}


def find() -> dict[str, Any] | None:
    """For each dtype, gemm in the library that NumPy has loaded; None if it is not there.

    NumPy's wheels rename it; the 64 says that its integers have 64 bits. A function is
    trusted only if it multiplies as `np.matmul` does.
    """
    found = {}
    try:
        library = ctypes.CDLL(np._core._multiarray_umath.__file__)  # type: ignore[attr-defined]
        for dtype, symbol in SYMBOLS.items():
            gemm = PROTOTYPES[dtype]((f"scipy_cblas_{symbol[-5:]}64_", library))
            a, b = np.arange(6, dtype=dtype).reshape(2, 3), np.arange(6, 12, dtype=dtype)
            out, addresses = np.ones((2, 2), dtype), [a.ctypes.data, b.ctypes.data]
            gemm(ROWS, PLAIN, TRANSPOSED, 2, 2, 3, 1, addresses[0], 3, addresses[1], 3, 0,
                 out.ctypes.data, 2)  # fmt: skip
            if not np.array_equal(out, a @ b.reshape(2, 3).T):
                return None
            found[dtype] = gemm
    except (AttributeError, OSError):
        return None
    return found


def register(functions: dict[str, Any], source: str = "np.matmul, called back by kernels") -> None:
    """Let kernels that are compiled or loaded from now on call these functions."""
    for dtype, symbol in SYMBOLS.items():
        binding.add_symbol(symbol, ctypes.cast(functions[dtype], ctypes.c_void_p).value)
    _registered.update(functions, source=source)  # a callback lives as long as somebody holds it


def library() -> str:
    """What does the products of compiled kernels."""
    source: str = _registered["source"]
    return source


_registered: dict[str, Any] = {}
found = find()
if found:
    register(found, "gemm of the BLAS that NumPy has loaded")
else:
    register(callbacks())
