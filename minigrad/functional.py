"""The operations of a network: check the arguments, call the kernel, record its VJP.

The mathematics stands in `kernels`, above each pair of kernels.
"""

import math

import numpy as np
from numpy.lib.array_utils import normalize_axis_index
from numpy.typing import ArrayLike

from . import kernels
from .ops import transpose
from .tensor import Grads, Tensor, as_array, float32, float64, record


def _dense(array: np.ndarray) -> np.ndarray:
    """`array` as the kernels take it: C-contiguous, aligned, writeable; copied if need be."""
    array = np.asarray(array)
    return array if array.flags.carray else array.copy()


def _check_floating(function: str, **arguments: Tensor) -> None:
    """Refuse anything but Tensors of one dtype, float32 or float64."""
    for name, x in arguments.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"{function}: {name} must be a Tensor, got {type(x).__name__}")
    if {x.array.dtype for x in arguments.values()} not in ({float32}, {float64}):
        got = ", ".join(f"{name} {x.dtype}" for name, x in arguments.items())
        raise RuntimeError(f"{function}: wanted all float32 or all float64, got {got}; see to()")


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a linear map to the last dimension: ``input @ weight.T + bias``.

    Parameters
    ----------
    input : Tensor, shape (..., D)
    weight : Tensor, shape (H, D)
    bias : Tensor, shape (H,), optional

    Returns
    -------
    Tensor, shape (..., H)

    Raises
    ------
    RuntimeError
        If shapes or dtypes do not fit together.
    TypeError
        If an argument is no Tensor.

    Examples
    --------
    >>> x = Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    >>> weight, bias = Tensor([[5.0, 6.0]], requires_grad=True), Tensor([7.0], requires_grad=True)
    >>> out = linear(x, weight, bias)
    >>> out.array
    array([[24.],
           [46.]], dtype=float32)
    >>> out.backward([[1.0], [10.0]])
    >>> x.grad, weight.grad, bias.grad  # G @ weight, Gᵀ @ x, and ΣG
    (tensor([[ 5.,  6.],
            [50., 60.]]), tensor([[31., 42.]]), tensor([11.]))
    """
    arguments = {"input": input, "weight": weight} | ({} if bias is None else {"bias": bias})
    _check_floating("linear", **arguments)
    fits = weight.array.ndim == 2 and input.shape[-1:] == weight.shape[1:]
    if not fits or bias is not None and bias.shape != weight.shape[:1]:
        got = ", ".join(f"{name} {x.shape}" for name, x in arguments.items())
        raise RuntimeError(f"linear: wanted input (..., D), weight (H, D), bias (H,), got {got}")
    x, w, lead = input.array, weight.array, input.shape[:-1]  # lead: all dimensions but D
    x = x.reshape(math.prod(lead), w.shape[1])
    out = np.empty((len(x), len(w)), x.dtype)
    kernels.linear_forward(x, w, None if bias is None else _dense(bias.array), out)

    def vjp(grad: np.ndarray) -> Grads:
        grad = _dense(grad.reshape(len(x), len(w)))
        grad_x = grad_w = grad_b = None
        if input.requires_grad:
            grad_x = np.empty(input.shape, x.dtype)
            kernels.linear_backward_input(grad, w, grad_x.reshape(x.shape))  # through a view
        if weight.requires_grad:
            grad_w = np.empty_like(w)
            kernels.linear_backward_weight(grad, x, grad_w)
        if bias is not None and bias.requires_grad:
            grad_b = np.empty(len(w), np.float64)
            kernels.linear_backward_bias(grad, grad_b)
        return (grad_x, grad_w, grad_b)[: len(arguments)]  # two, without a bias

    return record(out.reshape(*lead, len(w)), tuple(arguments.values()), vjp)


def relu(input: Tensor) -> Tensor:
    """max(input, 0), elementwise, of a Tensor of any shape.

    A TypeError if `input` is no Tensor, a RuntimeError if it is neither float32 nor float64.

    >>> x = Tensor([-1.0, 0.0, 2.0], requires_grad=True)
    >>> relu(x).backward([5.0, 6.0, 7.0])
    >>> x.grad
    tensor([0., 0., 7.])
    """
    _check_floating("relu", input=input)
    x = _dense(input.array)
    out = np.empty_like(x)
    kernels.relu_forward(x.reshape(-1), out.reshape(-1))

    def vjp(grad: np.ndarray) -> Grads:
        grad_x = np.empty_like(out)
        kernels.relu_backward(_dense(grad).reshape(-1), out.reshape(-1), grad_x.reshape(-1))
        return (grad_x,)

    return record(out, (input,), vjp)


def log_softmax(input: Tensor, dim: int = -1) -> Tensor:
    """The logarithm of the softmax along `dim`: log(exp(x[c]) / Σ_j exp(x[j])).

    Parameters
    ----------
    input : Tensor, any shape with at least one dimension
    dim : int
        The dimension along which the probabilities sum to 1.

    Returns
    -------
    Tensor of the same shape

    Raises
    ------
    IndexError
        If `dim` does not exist.

    Examples
    --------
    >>> x = Tensor([0.0, 0.0], requires_grad=True)  # both classes have probability 1/2
    >>> log_softmax(x).backward([1.0, 0.0])
    >>> x.grad  # G - exp(out) * ΣG
    tensor([ 0.5000, -0.5000])
    """
    _check_floating("log_softmax", input=input)
    shape, dim = input.shape, normalize_axis_index(dim, input.array.ndim, "dim")
    if dim != len(shape) - 1:  # the kernel works along rows
        return transpose(log_softmax(transpose(input, dim, -1), -1), dim, -1)
    x = _dense(input.array).reshape(math.prod(shape[:-1]), shape[-1])
    out = np.empty_like(x)
    kernels.log_softmax_forward(x, out)

    def vjp(grad: np.ndarray) -> Grads:
        grad_x = np.empty_like(out)
        kernels.log_softmax_backward(_dense(grad).reshape(out.shape), np.exp(out), grad_x)
        return (grad_x.reshape(shape),)

    return record(out.reshape(shape), (input,), vjp)


def nll_loss(log_probs: Tensor, targets: ArrayLike, reduction: str = "mean") -> Tensor:
    """The negative log-likelihood of the right classes: -log_probs[n, targets[n]].

    Parameters
    ----------
    log_probs : Tensor, shape (N, C)
        Log-probabilities, one row for each example, say from `log_softmax`.
    targets : Tensor or array of integers, shape (N,)
        The index of the right class of each example, 0 to C-1.
    reduction : {"mean", "sum", "none"}
        What becomes of the N losses. Under "mean", each of them receives G/N.

    Returns
    -------
    Tensor, a scalar, or of shape (N,) with ``reduction="none"``

    Raises
    ------
    IndexError
        If a target is not in 0 to C-1.
    RuntimeError, ValueError
        If dtypes, shapes or the reduction are wrong, or if a mean over no examples is asked.

    Examples
    --------
    >>> log_probs = Tensor([[-1.0, -2.0], [-3.0, -4.0]], requires_grad=True)
    >>> loss = nll_loss(log_probs, [1, 0])
    >>> loss.backward()
    >>> loss.array, log_probs.grad  # the mean of 2 and 3
    (array(2.5, dtype=float32), tensor([[ 0.0000, -0.5000],
            [-0.5000,  0.0000]]))
    """
    _check_floating("nll_loss", log_probs=log_probs)
    x, targets = _dense(log_probs.array), as_array(targets)
    if targets.dtype.kind not in "iu":
        raise RuntimeError(f"nll_loss: targets must be integers, got {targets.dtype}; use long()")
    if x.ndim != 2 or targets.shape != x.shape[:1]:
        got = f"log_probs {x.shape} and targets {targets.shape}"
        raise ValueError(f"nll_loss: wanted shapes (N, C) and (N,), got {got}")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"nll_loss: reduction must be mean, sum or none, got {reduction!r}")
    if reduction == "mean" and len(targets) == 0:
        raise ValueError("nll_loss: the mean over an empty batch does not exist")
    targets = targets.astype(np.int64, order="C")  # a copy: the VJP must not meet other targets
    losses = np.empty(len(targets), x.dtype)
    bad = kernels.nll_loss_forward(x, targets, losses)
    if bad >= 0:
        raise IndexError(f"nll_loss: targets[{bad}] is {targets[bad]}, wanted 0..{x.shape[1] - 1}")

    def vjp(grad: np.ndarray) -> Grads:
        grad_losses, grad_log_probs = np.empty_like(losses), np.empty(x.shape, x.dtype)
        grad_losses[:] = grad / len(losses) if reduction == "mean" else grad
        kernels.nll_loss_backward(grad_losses, targets, grad_log_probs)
        return (grad_log_probs,)

    total = losses.sum()
    value = {"none": losses, "sum": total, "mean": total / (len(losses) or 1)}[reduction]
    return record(value, (log_probs,), vjp)
