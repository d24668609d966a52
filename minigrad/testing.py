"""Strategies for Hypothesis: arrays and Tensors of many shapes, values and memory layouts.

A strategy says what values there are. Hypothesis draws many of them, calls the test with each
(`@given`), and of those with which it fails looks for the simplest. `@st.composite` makes a
strategy of a function, whose `draw` draws from others. Whoever adds an operation tests its
gradient with `gradcheck` on what these draw::

    @settings(deadline=None)  # a kernel's first call takes a second: it is compiled
    @given(tensors(min_value=0.1, max_value=10))
    def test_square_root(x):
        assert mg.gradcheck(square_root, x)
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from .tensor import Tensor, float64

Shapes = st.SearchStrategy[tuple[int, ...]]


def shapes(min_dims: int = 0, max_dims: int = 3, min_side: int = 0, max_side: int = 3) -> Shapes:
    """Shapes of `min_dims` to `max_dims` dimensions; zero-length and size-1 ones included."""
    return hnp.array_shapes(
        min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=max_side
    )


def broadcasting_shapes(
    number: int, max_dims: int = 3, min_side: int = 0, max_side: int = 3
) -> st.SearchStrategy[tuple[tuple[int, ...], ...]]:
    """Tuples of `number` shapes that broadcast against one another."""
    drawn = hnp.mutually_broadcastable_shapes(
        num_shapes=number, max_dims=max_dims, min_side=min_side, max_side=max_side
    )
    return drawn.map(lambda result: result.input_shapes)


def _lay_out(
    array: np.ndarray, order: Sequence[int], steps: Sequence[int], read_only: bool
) -> np.ndarray:
    """The same numbers in another memory layout.

    `order` is a permutation of the dimensions from the slowest to the fastest; a step of -1
    runs backwards through memory, one of 2 leaves gaps.
    """
    lengths = [array.shape[d] * abs(steps[d]) for d in order]
    memory = np.zeros(lengths, array.dtype).transpose(np.argsort(order))
    index: tuple[Any, ...] = (..., *(slice(None, None, step) for step in steps))
    view: np.ndarray = memory[index]
    view[...] = array
    view.flags.writeable = not read_only
    return view


@st.composite
def arrays(
    draw: st.DrawFn,
    /,
    shape: Shapes | tuple[int, ...] | None = None,
    dtype: Any = float64,
    elements: st.SearchStrategy[Any] | None = None,
    min_value: float = -3,
    max_value: float = 3,
    unique: bool = False,
) -> np.ndarray:
    """NumPy arrays in any memory layout: transposed, with gaps, backwards, read-only.

    Parameters
    ----------
    shape : strategy or tuple of int, optional
        `shapes()` by default.
    dtype : strategy or dtype
        Floating-point, unless `elements` is given.
    elements : strategy, optional
        What the numbers are drawn from, instead of between `min_value` and `max_value`.
    unique : bool
        Whether no number may come twice.
    """
    shape, dtype = (
        draw(x) if isinstance(x, st.SearchStrategy) else x
        for x in (shapes() if shape is None else shape, dtype)
    )
    if elements is None:
        low, high = float(np.float32(min_value)), float(np.float32(max_value))
        elements = st.floats(low, high, width=32)  # numbers that are short when printed
    array = draw(hnp.arrays(dtype, shape, elements=elements, unique=unique))
    order = draw(st.permutations(range(array.ndim)))
    steps = [draw(st.sampled_from([1, 2, -1])) for _ in order]
    return _lay_out(array, order, steps, read_only=draw(st.booleans()))


@st.composite
def tensors(
    draw: st.DrawFn,
    /,
    shape: Shapes | tuple[int, ...] | None = None,
    dtype: Any = float64,
    requires_grad: bool = True,
    **values: Any,
) -> Tensor:
    """Tensors over `arrays`, whose parameters they take; float64, as `gradcheck` wants.

    The numbers are between -3 and 3 unless `min_value`, `max_value` or `elements` is given.
    """
    return Tensor(draw(arrays(shape, dtype, **values)), requires_grad)


@st.composite
def broadcasting_tensors(
    draw: st.DrawFn,
    /,
    number: int = 2,
    dtype: Any = float64,
    requires_grad: bool = True,
    **values: Any,
) -> tuple[Tensor, ...]:
    """Tuples of `number` Tensors whose shapes broadcast: ``gradcheck(f, *drawn)``."""
    drawn = draw(broadcasting_shapes(number))
    return tuple(draw(tensors(shape, dtype, requires_grad, **values)) for shape in drawn)
