"""Finite differences against `backward`, for anybody's function."""

import numpy as np

from .tensor import Tensor

# The error of a central difference is about h² (the next Taylor term) plus ε/h (round-off
# in f); their sum is smallest near h = ε^(1/3), which is 6e-6 in double precision.
STEP = np.finfo(np.float64).eps ** (1 / 3)


class GradcheckError(AssertionError):
    """A gradient differs from its finite difference."""


def gradcheck(f, *inputs, rtol=1e-6, atol=1e-8):
    """Compare the gradients of `f` with central finite differences.

    Of an output with several elements, a fixed random combination is checked: errors in two
    of its elements cannot cancel but by a rare accident.

    Parameters
    ----------
    f : callable
        From Tensors to a Tensor, differentiable where it is checked.
    *inputs : Tensor or anything else
        The arguments of `f`. Those that require grad are checked, and must be float64: in
        float32 round-off would drown the finite difference.
    rtol, atol : float
        |analytic - numeric| may be up to atol + rtol * the largest of all |gradients| of
        that input.

    Returns
    -------
    True

    Raises
    ------
    GradcheckError
        With the input, the worst element, both values and the step.
    TypeError
        If no input requires grad, or one that does is not float64.
    """
    checked = [i for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]
    if not checked:
        raise TypeError("gradcheck: no input requires grad")
    for i in checked:
        if inputs[i].dtype != np.float64:
            raise TypeError(
                f"gradcheck: input {i} is {inputs[i].dtype}; finite differences need the digits "
                "of float64, so use x.double()"
            )
    arrays = [x.array.copy() if isinstance(x, Tensor) else x for x in inputs]

    def call(arrays):
        tensors = [
            Tensor(a.copy(), requires_grad=i in checked) if isinstance(x, Tensor) else x
            for i, (x, a) in enumerate(zip(inputs, arrays))
        ]
        return f(*tensors), tensors

    out, tensors = call(arrays)
    weights = np.random.default_rng(0).uniform(0.5, 1.5, out.shape) if out.ndim else np.ones(())
    out.backward(weights)

    for i in checked:
        numeric = np.empty(arrays[i].shape)
        steps = STEP * np.maximum(1, np.abs(arrays[i]))  # so that large x ± h differ from x
        for index in np.ndindex(numeric.shape):
            kept = arrays[i][index]
            up, down = kept + steps[index], kept - steps[index]
            arrays[i][index] = up
            f_up = np.sum(call(arrays)[0].detach().numpy() * weights)
            arrays[i][index] = down
            f_down = np.sum(call(arrays)[0].detach().numpy() * weights)
            arrays[i][index] = kept
            numeric[index] = (f_up - f_down) / (up - down)  # the step as rounded, not 2h
        grad = tensors[i].grad
        analytic = np.zeros_like(numeric) if grad is None else grad.numpy()
        error = np.abs(analytic - numeric)
        allowed = atol + rtol * max(np.abs(numeric).max(initial=0), np.abs(analytic).max(initial=0))
        if not (np.all(error <= allowed) and np.isfinite(allowed)):
            worst = np.unravel_index(
                np.nanargmax(np.where(np.isnan(error), np.inf, error)), error.shape
            )
            raise GradcheckError(
                f"input {i}, element {tuple(map(int, worst))}: analytic gradient "
                f"{analytic[worst]:.10g}, finite difference {numeric[worst]:.10g} "
                f"(step {steps[worst]:.2g}, allowed error {allowed:.2g})"
            )
    return True
