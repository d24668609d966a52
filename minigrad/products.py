"""The matrix product, in plain Python and inside compiled kernels."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload
from numpy import ndarray as Array

from .blas import PLAIN, TRANSPOSED
from .threads import multiply


class Interrupted(KeyboardInterrupt, Exception):
    """Ctrl-C during a product. It is an Exception, because compiled code can raise nothing else."""


def product(a: Array, b: Array, out: Array) -> None:
    """Write the matrix product of ``a`` (M, K) and ``b`` (K, N) into ``out`` (M, N), in C order:

    out[i, j] = Σ_k a[i, k] b[k, j]
    """
    np.matmul(a, b, out=out)


@overload(product, jit_options={"fastmath": {"reassoc", "contract"}})
def _compiled_product(a: Any, b: Any, out: Any) -> Callable[[Any, Any, Any], None] | None:
    """`product` for Numba: one of these functions, chosen by the layouts of ``a`` and ``b``.

    gemm packs its matrices first, which is not worth it for a single row or column: there a loop
    is up to five times as fast. ``fastmath`` lets it add in any order, as BLAS does.
    """

    def product_of_copies(a: Any, b: Any, out: Any) -> None:
        product(np.ascontiguousarray(a), np.ascontiguousarray(b), out)

    if not a.dtype == b.dtype == out.dtype:
        return None  # Numba refuses to compile: gemm would misread the memory
    if "A" in (a.layout, b.layout):  # neither C nor Fortran order
        return product_of_copies

    a_plain, b_plain = a.layout == "C", b.layout == "C"
    how_a: Any = np.int64(PLAIN if a_plain else TRANSPOSED)
    how_b: Any = np.int64(PLAIN if b_plain else TRANSPOSED)
    single = out.dtype == types.float32
    number, integer = (np.float32, np.int32) if single else (np.float64, np.int64)
    unfinished: Any = integer(0x7FC12345 if single else 0x7FF8000012345678)  # as a float, a NaN

    def product_in_place(a: Any, b: Any, out: Any) -> None:
        zero = out.dtype.type(0)
        (m, k), n = a.shape, b.shape[1]
        if b.shape[0] != k or out.shape != (m, n):
            raise ValueError("product: the shapes do not fit")
        if min(m, n, k) > 1:
            out[0, 0] = integer(unfinished).view(number)
            multiply(how_a, how_b, m, n, k, a.ctypes.data, k if a_plain else m,
                     b.ctypes.data, n if b_plain else k, out.ctypes.data, out.itemsize)  # fmt: skip
            if number(out[0, 0]).view(integer) == unfinished:  # see `blas.callbacks`
                raise Interrupted("a product was interrupted: the reason is printed above")
        elif n == 1 or not b_plain:  # each sum runs along the memory of b
            for i in range(m):
                for j in range(n):
                    total = zero
                    for h in range(k):
                        total += a[i, h] * b[h, j]
                    out[i, j] = total
        else:  # the innermost loop runs along the memory of b and out
            out[:] = 0
            for i in range(m):
                for h in range(k):
                    for j in range(n):
                        out[i, j] += a[i, h] * b[h, j]

    return product_in_place
