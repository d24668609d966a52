"""Check the gradients of any function against finite differences."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .tensors import Tensor

# A central difference, (f(x + h) - f(x - h)) / 2h, errs by about h² (the next Taylor term) plus
# ε/h (round-off in f, ε being the spacing of doubles at 1); the sum is smallest near
# h = ε^(1/3), which is 6e-6.
STEP = np.finfo(np.float64).eps ** (1 / 3)


class GradcheckError(AssertionError):
    """A gradient differs from its finite difference."""


def gradcheck(
    f: Callable[..., Tensor], *inputs: Any, rtol: float = 1e-6, atol: float = 1e-8
) -> bool:
    """Compare the gradients of ``f`` with central finite differences.

    The check differentiates a fixed random combination of all elements of the output, so errors
    in two of them hardly ever cancel. (A single element is multiplied by a random number as well,
    so a VJP that ignores the gradient it is given does not pass.)

    Parameters
    ----------
    f : callable
        Takes Tensors and returns one float64 Tensor. It must be smooth within the step (6e-6,
        times the size of the input where that exceeds 1) around each input.
    *inputs : Tensor or anything else
        The arguments of ``f``. Those that require grad are checked, and must be float64: in
        float32, round-off would drown the finite difference.
    rtol, atol : float
        ``abs(analytic - numeric)`` may be up to ``atol + rtol * largest``, where ``largest`` is
        the largest absolute gradient of that input. Choose inputs whose elements have gradients
        of similar size.

    Returns
    -------
    True

    Raises
    ------
    GradcheckError
        If a gradient differs: the message names the input, the worst element, both values and the
        step (and the slopes on both sides, if ``f`` seems to have a kink there). Also if ``f``
        changes its inputs, is not a function of them alone, or has a VJP that returns an array
        it keeps.
    TypeError
        If no input requires grad, or if the result or an input that requires grad is not float64.
    """
    __tracebackhide__ = True  # pytest then shows the failing test, not this function
    if len(inputs) == 1 and isinstance(inputs[0], tuple):  # as PyTorch's gradcheck takes them
        inputs = inputs[0]
    if not callable(f):
        raise TypeError(f"gradcheck: f must be a function of the inputs, got {type(f).__name__}")
    checked = [i for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]
    if not checked:
        raise TypeError(
            "gradcheck: no input requires grad: make Tensors with requires_grad=True, and pass "
            "several as gradcheck(f, x, y)"
        )
    for i in checked:
        if inputs[i].dtype != np.float64:
            raise TypeError(
                f"gradcheck: input {i} is {inputs[i].dtype}; finite differences need the precision "
                "of float64, so use x.double()"
            )

    def call(arrays: Sequence[Any]) -> tuple[Tensor, list[Any]]:
        tensors = [
            Tensor(a, requires_grad=i in checked) if isinstance(x, Tensor) else x
            for i, (x, a) in enumerate(zip(inputs, arrays))
        ]
        with warnings.catch_warnings():  # the inputs need not make sense, say as probabilities
            warnings.filterwarnings("ignore", "nll_loss")
            out = f(*tensors)
        if not isinstance(out, Tensor) or out.dtype != np.float64:
            got = out.dtype if isinstance(out, Tensor) else type(out).__name__
            raise TypeError(f"gradcheck: f must return one float64 Tensor, got {got}")
        return out, tensors

    def value(arrays: Sequence[Any]) -> np.ndarray:
        return call([np.copy(a) for a in arrays])[0].detach().numpy()

    def moved(i: int, index: tuple[int, ...], number: float) -> np.ndarray:
        """The value of f with one element of input i replaced."""
        kept, arrays[i][index] = arrays[i][index], number
        result = value(arrays)
        arrays[i][index] = kept
        return result

    def one_sided(i: int, index: tuple[int, ...], step: float) -> list[float]:
        """The slopes (f(x) - f(x - h)) / h and (f(x + h) - f(x)) / h."""
        here = arrays[i][index]
        others = [here - step, here + step]
        with np.errstate(all="ignore"):
            changes = [np.sum((moved(i, index, x) - value(arrays)) * weights) for x in others]
        return [change / (x - here) + 0.0 for change, x in zip(changes, others)]  # no "-0"

    arrays = [x.array.copy() if isinstance(x, Tensor) else x for x in inputs]
    # The gradient is computed on the given arrays themselves, in their memory layout.
    out, tensors = call([x.array if isinstance(x, Tensor) else x for x in inputs])
    weights = np.asarray(np.random.default_rng(0).uniform(0.5, 1.5, out.shape))
    weights.flags.writeable = False  # a VJP must not write into what it is given
    out.backward(weights)
    grads = {i: tensors[i].grad.numpy().copy() for i in checked if tensors[i].grad is not None}
    # The second pass adds into the array that the first has left at a leaf. If a VJP keeps that
    # array, the third pass shows it.
    try:
        for _ in range(2):
            out.backward(weights)
    except RuntimeError as refused:
        raise GradcheckError(
            "a second backward pass fails; does a VJP return an array that it keeps, instead of a "
            f"new one? ({refused})"
        ) from refused
    for i, grad in grads.items():
        if not np.allclose(tensors[i].grad.numpy(), 3 * grad, rtol=1e-12, atol=0, equal_nan=True):
            raise GradcheckError(
                f"input {i}: three backward passes do not give three times the gradient of one; "
                "does a VJP return an array that it keeps, instead of a new one?"
            )
    for i, x in enumerate(inputs):
        if isinstance(x, Tensor) and not np.array_equal(x.array, arrays[i], equal_nan=True):
            raise GradcheckError(f"f or its VJP has changed input {i} in place")
    if not np.allclose(value(arrays), out.array, rtol=1e-9, atol=1e-12, equal_nan=True):
        raise GradcheckError("f gives two results for the same numbers: is it random?")

    for i in checked:
        numeric = np.empty(arrays[i].shape)
        steps = STEP * np.maximum(1, np.abs(arrays[i]))  # so that large x ± h differ from x
        for index in np.ndindex(numeric.shape):
            kept = arrays[i][index]
            up, down = kept + steps[index], kept - steps[index]
            difference = moved(i, index, up) - moved(i, index, down)
            numeric[index] = np.sum(difference * weights) / (up - down)  # as rounded, not 2h
        analytic = grads.get(i, np.zeros_like(numeric))
        error = np.abs(analytic - numeric)
        allowed = atol + rtol * max(np.abs(numeric).max(initial=0), np.abs(analytic).max(initial=0))
        if not (np.all(error <= allowed) and np.isfinite(allowed)):
            flat = np.argmax(np.where(np.isnan(error), np.inf, error))
            worst = tuple(map(int, np.unravel_index(flat, error.shape)))
            left, right = one_sided(i, worst, steps[worst])
            nearer_left, nearer_right = one_sided(i, worst, steps[worst] / 10)
            # Where f is smooth, the slopes differ by about h f'': a tenth of it for a tenth of h.
            jump, nearer_jump = abs(right - left), abs(nearer_right - nearer_left)
            clear = 1e-3 * max(abs(left), abs(right), abs(analytic[worst]))
            kink = jump > clear and not 0.05 < nearer_jump / jump < 0.2
            hint = f"; the slope is {left:.6g} on the left and {right:.6g} on the right"
            out, tensors = call(arrays)
            out.backward(2 * weights)
            doubled = 0 if tensors[i].grad is None else tensors[i].grad.numpy()[worst]
            forgotten = doubled == analytic[worst] != 0 and np.isfinite(doubled)
            factor = "; doubling G does not change it: does a VJP forget the factor G?"
            raise GradcheckError(
                f"input {i}, element {worst}, which is {arrays[i][worst]:.6g}: "
                f"analytic gradient {analytic[worst]:.10g}, finite difference "
                f"{numeric[worst]:.10g} (of a random combination of the outputs; "
                f"step {steps[worst]:.2g}, allowed error {allowed:.2g})"
                + (f"{hint}: is f smooth here?" if kink else "")
                + (factor if forgotten else "")
            )
    return True
