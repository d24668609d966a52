"""Property tests of gradients with Hypothesis: what to draw, and what must hold.

A strategy describes a set of values. Hypothesis draws many of them, calls the test with each,
and looks for the simplest that fails. ``@st.composite`` turns a function into a strategy; its
``draw`` draws from other strategies. Test an operation of your own like this::

    def test_square_root():
        check_operation(square_root, tensors(min_value=0.1, max_value=10))
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import Phase, given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from .arrays import float64
from .checking import GradcheckError, gradcheck
from .engine import ancestors
from .recording import no_grad
from .tensors import Tensor

Shapes = st.SearchStrategy[tuple[int, ...]]


def shapes(min_dims: int = 0, max_dims: int = 3, min_side: int = 0, max_side: int = 3) -> Shapes:
    """Shapes with ``min_dims`` to ``max_dims`` dimensions, lengths of 0 and 1 included."""
    return hnp.array_shapes(
        min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=max_side
    )


def broadcasting_shapes(
    number: int, max_dims: int = 3, min_side: int = 0, max_side: int = 3
) -> st.SearchStrategy[tuple[tuple[int, ...], ...]]:
    """Tuples of ``number`` shapes that broadcast with one another."""
    drawn = hnp.mutually_broadcastable_shapes(
        num_shapes=number, max_dims=max_dims, min_side=min_side, max_side=max_side
    )
    return drawn.map(lambda result: result.input_shapes)


def _lay_out(
    array: np.ndarray, order: Sequence[int], steps: Sequence[int], read_only: bool
) -> np.ndarray:
    """The same numbers in another memory layout.

    ``order`` is a permutation of the dimensions from the slowest to the fastest; a step of -1
    runs backwards through memory, one of 2 leaves gaps.
    """
    lengths = [array.shape[d] * abs(steps[d]) for d in order]
    memory = np.zeros(lengths, array.dtype).transpose(np.argsort(order))
    index: tuple[Any, ...] = (..., *(slice(None, None, step) for step in steps))
    view: np.ndarray = memory[index]
    view[...] = array
    view.flags.writeable = not read_only
    return view


def _short_floats(low: float, high: float) -> st.SearchStrategy[float]:
    """Numbers from ``low`` to ``high`` that print short, because float32 can hold them."""
    least, most = np.float32(low), np.float32(high)
    if float(least) < low:  # rounded to the wrong side
        least = np.nextafter(least, np.float32(np.inf))
    if float(most) > high:
        most = np.nextafter(most, np.float32(-np.inf))
    if least > most:  # float32 has no number between them
        return st.floats(low, high)
    return st.floats(float(least), float(most), width=32)


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
        `shapes` by default.
    dtype : strategy or dtype
        Floating-point, unless ``elements`` is given.
    elements : strategy, optional
        What the numbers are drawn from; by default, from ``min_value`` to ``max_value``.
    unique : bool
        Whether all numbers must differ.
    """
    shape, dtype = (
        draw(x) if isinstance(x, st.SearchStrategy) else x
        for x in (shapes() if shape is None else shape, dtype)
    )
    if elements is None:
        elements = _short_floats(min_value, max_value)
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
    """Tensors, with the parameters of `arrays`; float64 by default, as `gradcheck` needs.

    The numbers are between -3 and 3 unless ``min_value``, ``max_value`` or ``elements`` is given.
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
    """Tuples of ``number`` Tensors whose shapes broadcast, as for ``gradcheck(f, *drawn)``."""
    drawn = draw(broadcasting_shapes(number))
    return tuple(draw(tensors(shape, dtype, requires_grad, **values)) for shape in drawn)


# What must hold for an operation


def _halved(grad: Any) -> Any:
    return grad / 2


def _negated(grad: Any) -> Any:
    return -grad


def _misplaced(grad: Any) -> Any:
    return np.roll(grad, 1)


def _without_what_arrived(grad: Any) -> Any:
    return np.ones_like(grad)


DAMAGES = {
    "half of the gradient": _halved,
    "the gradient with the wrong sign": _negated,
    "the gradient in the wrong place": _misplaced,
    "ones instead of the gradient": _without_what_arrived,
}


def damage(out: Tensor, change: Callable[[Any], Any]) -> Tensor:
    """Damage the VJPs in the graph of ``out`` that lead to leaves, and return ``out``.

    ``change`` turns the right gradient into a wrong one. (Further from the leaves, two wrong
    signs could cancel.)
    """

    def wrong(vjp: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda G: change(vjp(G))

    for node in ancestors(out.node):
        node.vjps = [
            wrong(vjp) if vjp is not None and parent.op is None else vjp
            for parent, vjp in zip(node.parents, node.vjps)
        ]
    return out


def overwrite(x: Tensor) -> None:
    """Change all numbers of ``x`` in place, as an optimiser or a careless user might."""
    with no_grad():
        x.detach()[...] = np.where(np.isfinite(x.array), 2.5 - x.array, 1.5)


def check_changes(f: Callable[..., Tensor], *inputs: Any) -> None:
    """Test that a change in place after the forward pass never gives a wrong gradient.

    The inputs of ``f`` and its result are overwritten in turn between ``f`` and `backward`, which
    must then raise a RuntimeError or give the same gradients as without the change.

    Raises
    ------
    GradcheckError
        If the gradients differ.
    """

    def gradients(changed: int | None) -> list[Any]:
        copies = [
            Tensor(x.array.copy(), x.requires_grad) if isinstance(x, Tensor) else x for x in inputs
        ]
        out = f(*copies)
        if changed is not None:
            overwrite([*copies, out][changed])
        out.backward(np.linspace(0.5, 1.5, out.numel(), dtype=out.dtype).reshape(out.shape))
        tensors = [x for x in copies if isinstance(x, Tensor)]
        return [None if x.grad is None else x.grad.array for x in tensors]

    expected = gradients(None)
    for i, changed in enumerate([*inputs, "result"]):
        if not (isinstance(changed, Tensor) or changed == "result"):
            continue
        try:
            got = gradients(i)
        except RuntimeError:
            continue
        for a, b in zip(got, expected):
            if not np.array_equal(a, b, equal_nan=a is not None):
                name = "its result" if i == len(inputs) else f"input {i}"
                raise GradcheckError(f"after a change of {name}, backward gives {a}, not {b}")


class _Noticed(Exception):
    """A damaged gradient has been noticed."""


def check_operation(f: Callable[..., Tensor], *strategies: st.SearchStrategy[Any]) -> None:
    """Test the gradients of ``f``, and that wrong ones would be noticed.

    `gradcheck` compares the gradients with finite differences, and `check_changes` overwrites the
    inputs and the result. Then the derivatives of ``f`` are damaged in several ways. Each way must
    be noticed on at least one draw, if it makes a difference on any. (The gradients of a sum are
    all equal, so none can be in the wrong place.)

    Parameters
    ----------
    f : callable
        Takes Tensors and returns one float64 Tensor: an operation, or several combined.
    *strategies
        They draw the arguments of ``f``. One that draws a tuple supplies several, as in
        ``check_operation(hypotenuse, broadcasting_tensors(2))``.

    Raises
    ------
    GradcheckError
        If a gradient is wrong; if a damaged one is not noticed; if the gradient is 0 on all
        draws, so that nothing was tested.
    TypeError
        As in `gradcheck`.
    """
    __tracebackhide__ = True  # pytest then shows the failing test, not this function

    if not strategies:
        raise TypeError("check_operation: pass a strategy for the inputs, such as tensors()")

    def run(test: Callable[..., object], **options: Any) -> None:
        def on_arguments(drawn: tuple[Any, ...]) -> None:
            test(*[x for part in drawn for x in (part if isinstance(part, tuple) else (part,))])

        # A slow machine is not a mistake, and a kernel's first call takes a second.
        with warnings.catch_warnings():  # the draws need not make sense, say as probabilities
            warnings.simplefilter("ignore", UserWarning)
            settings(deadline=None, **options)(given(st.tuples(*strategies))(on_arguments))()

    run(lambda *inputs: gradcheck(f, *inputs))
    run(lambda *inputs: check_changes(f, *inputs))
    for name, change in DAMAGES.items():
        differs = False

        def damaged(grad: Any) -> Any:
            nonlocal differs
            wrong = change(grad)
            differs = differs or not np.allclose(wrong, grad, rtol=1e-3, atol=1e-3, equal_nan=True)
            return wrong

        def must_fail(*inputs: Any) -> None:
            try:
                gradcheck(lambda *inputs: damage(f(*inputs), damaged), *inputs)
            except GradcheckError:
                raise _Noticed from None

        try:
            run(must_fail, phases=[Phase.generate], max_examples=200, database=None)
        except _Noticed:
            continue
        if differs:
            raise GradcheckError(f"{name} would not be noticed on what the strategies draw")
        if change is _halved:
            raise GradcheckError("the gradient is 0 on all that the strategies draw")
