"""Gradient descent: outside the graph, in place."""

import math
from collections.abc import Iterable
from numbers import Real

from . import kernels
from .tensor import Tensor, float32, float64


def _parameters(params):
    """`params` as a list: a generator such as ``model.parameters()`` can be walked once only."""
    if isinstance(params, Tensor) or not isinstance(params, Iterable):
        got = type(params).__name__
        raise TypeError(
            f"params must be several Tensors, as model.parameters() gives, got one {got}"
        )
    params = list(params)
    for i, param in enumerate(params):
        fits = isinstance(param, Tensor) and param.dtype in (float32, float64)
        if not fits or not param.array.flags.writeable:
            wanted = "a Tensor of float32 or float64 that can be written to"
            raise TypeError(f"params[{i}] must be {wanted}, got {param!r}")
    return params


def zero_grad(params):
    """Set the gradients of `params` to 0, in place; those that are None stay None."""
    for param in _parameters(params):
        if param.grad is not None:
            param.grad.zero_()


def gradient_update(loss, params, lr=1e-3):
    """One step of gradient descent: clear the gradients, back-propagate, param -= lr * grad.

    Parameters
    ----------
    loss : Tensor, a scalar
    params : iterable of Tensor
        Leaves that `loss` depends on.
    lr : float
        The learning rate, at least 0.

    Raises
    ------
    ValueError
        If `lr` is negative, infinite or NaN.
    TypeError
        If `params` is one Tensor, or holds something that cannot be updated in place.
    RuntimeError
        If `loss` has no graph, or does not depend on one of the `params`. No parameter has
        moved then, though in the second case there are new gradients.
    """
    params = _parameters(params)
    if not (isinstance(lr, Real) and 0 <= lr < math.inf):
        raise ValueError(f"lr must be a finite number that is not negative, got {lr!r}")
    if not (isinstance(loss, Tensor) and loss.requires_grad and loss.numel() == 1):
        raise RuntimeError(f"loss must be one number made by operations on params, got {loss!r}")
    for param in params:
        param.grad = None  # rather than zeros, to which the new gradient would be added
    loss.backward()
    for i, param in enumerate(params):
        if param.grad is None:
            raise RuntimeError(f"params[{i}] of shape {param.shape} has no gradient from this loss")
    for param in params:
        kernels.gradient_descent(param.array, param.grad.array, param.dtype.type(lr))
