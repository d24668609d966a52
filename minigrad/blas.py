"""Find the BLAS that NumPy has loaded, for compiled kernels to call.

BLAS (Basic Linear Algebra Subprograms) is the library that multiplies matrices; its function
for that is called gemm. Numba's own ``np.dot`` would load SciPy's BLAS as well, and the waiting
threads of two libraries stall each other for milliseconds.
"""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import binding

# The names by which compiled kernels call gemm. They are part of the kernels cached on disk. A
# name that is missing when a kernel is loaded ends the process, so both are always registered.
SYMBOLS = {"float32": "minigrad_sgemm", "float64": "minigrad_dgemm"}
ROWS, PLAIN, TRANSPOSED = 101, 111, 112  # BLAS's flags: C order; a matrix as it is, or transposed


def _prototype(number: Any) -> Any:
    """The C type of gemm: order, flags of a and b, M, N, K, alpha, a, its row length, b, ..."""
    matrix = [ctypes.c_void_p, ctypes.c_int64]
    sizes = [ctypes.c_int] * 3 + [ctypes.c_int64] * 3
    return ctypes.CFUNCTYPE(None, *sizes, number, *matrix, *matrix, number, *matrix)


PROTOTYPES = {"float32": _prototype(ctypes.c_float), "float64": _prototype(ctypes.c_double)}


def callbacks() -> dict[str, Any]:
    """For each dtype, a gemm that calls `numpy.matmul`: some 4 µs slower, and always right.

    An exception in it (Ctrl-C) cannot pass through compiled code. The first number of the result
    is then left as it was, and `minigrad.products.product` notices that.
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
            except BaseException:  # perhaps after the product is done
                out[:1, :1] = first
                raise

        return call

    return {dtype: prototype(gemm(dtype)) for dtype, prototype in PROTOTYPES.items()}


def find() -> dict[str, Any] | None:
    """For each dtype, gemm in the library that NumPy has loaded; None if it is not there.

    NumPy's wheels rename it; the 64 says that its integers have 64 bits. A function is trusted
    only if it gives the result of `numpy.matmul`.
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
    """Make kernels that are compiled or loaded from now on call these functions."""
    for dtype, symbol in SYMBOLS.items():
        binding.add_symbol(symbol, ctypes.cast(functions[dtype], ctypes.c_void_p).value)
    _registered.update(functions, source=source)  # a callback must be kept alive


def library() -> str:
    """What computes the products of compiled kernels, in words."""
    source: str = _registered["source"]
    return source


_registered: dict[str, Any] = {}
found = find()
if found:
    register(found, "gemm of the BLAS that NumPy has loaded")
else:
    register(callbacks())
