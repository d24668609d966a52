"""Gradient descent: outside the graph, in place."""

import math

from . import kernels
from .tensor import Tensor, float32, float64


def _parameters(params):
    """`params` as a list: a generator such as ``model.parameters()`` can be walked once only."""
    if isinstance(params, Tensor):
        raise TypeError("params must be several Tensors, as in [tensor]; got one Tensor")
    params = list(params)
    for i, param in enumerate(params):
        if param.dtype not in (float32, float64) or not param.array.flags.writeable:
            raise RuntimeError(f"params[{i}] ({param.dtype}) must be float32 or 64, and writeable")
    return params


def zero_grad(params):
    """Set the gradients of `params` to 0, in place; those that are None stay None."""
    for param in _parameters(params):
        if param.grad is not None:
            param.grad.zero_()


def gradient_update(loss, params, lr=1e-3):
    """One step of gradient descent: zero the gradients, back-propagate, param -= lr * grad.

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
    RuntimeError
        If `loss` has no graph, or one of the `params` has never received a gradient. No
        parameter has moved then.
    """
    params = _parameters(params)
    if not 0 <= lr < math.inf:
        raise ValueError(f"lr must be a finite number that is not negative, got {lr}")
    zero_grad(params)
    loss.backward()
    for i, param in enumerate(params):
        if param.grad is None:
            raise RuntimeError(f"params[{i}] of shape {param.shape} has no gradient from this loss")
    for param in params:
        kernels.gradient_descent(param.array, param.grad.array, param.dtype.type(lr))
