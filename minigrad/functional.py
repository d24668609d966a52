"""PyTorch's functions on Tensors: each checks its arguments and applies an operation.

The mathematics is in `kernels`, above each pair of kernels.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from . import more_ops, ops
from .arrays import as_array, numpy_names
from .left_out import getattr_of
from .tensors import Tensor, apply

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def linear(input: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None) -> Tensor:
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
    """
    return apply(ops.linear, *((input, weight) if bias is None else (input, weight, bias)))


def relu(input: ArrayLike) -> Tensor:
    """max(input, 0), elementwise; a RuntimeError if ``input`` is neither float32 nor float64."""
    return apply(ops.relu, input)


@numpy_names
def softmax(input: ArrayLike, dim: int) -> Tensor:
    """Turn numbers into probabilities along ``dim``: exp(x[c]) / Σ_j exp(x[j]).

    Parameters, result and errors are as in `log_softmax`. If you want the logarithm, use that: it
    loses no digits.
    """
    return apply(more_ops.softmax, input, dim=dim)


@numpy_names
def log_softmax(input: ArrayLike, dim: int | None = None) -> Tensor:
    """The logarithm of the softmax along ``dim``: log(exp(x[c]) / Σ_j exp(x[j])).

    Parameters
    ----------
    input : Tensor, any shape
    dim : int, optional
        The dimension along which the probabilities sum to 1. It may be left out if ``input`` has
        at most two dimensions: then it is the last.

    Returns
    -------
    Tensor of the same shape

    Raises
    ------
    IndexError
        If ``dim`` does not exist.
    RuntimeError
        If ``input`` is neither float32 nor float64.
    TypeError
        If ``dim`` is left out and ``input`` has more than two dimensions.
    """
    if dim is None and (ndim := as_array(input).ndim) > 2:  # PyTorch warns and chooses 0 or 1
        raise TypeError(f"log_softmax: input has {ndim} dims: say which, as in dim=-1")
    return apply(ops.log_softmax, input, dim=-1 if dim is None else dim)


def nll_loss(
    log_probs: ArrayLike, targets: ArrayLike, reduction: str = "mean", *,
    weight: ArrayLike | None = None, ignore_index: int = -100,
) -> Tensor:  # fmt: skip
    """The negative log-likelihood of the right classes: -log_probs[n, targets[n]].

    Parameters
    ----------
    log_probs : Tensor, shape (N, C)
        Log-probabilities, one row for each example, say from `log_softmax`.
    targets : Tensor or array of integers, shape (N,)
        The index of the right class of each example, 0 to C-1, or ``ignore_index``. As in
        PyTorch, a single example may have shapes (C,) and ().
    reduction : {"mean", "sum", "none"}
        Whether to return the mean of the N losses, their sum, or the losses themselves.
    weight : Tensor or array, shape (C,), optional
        The loss of an example is multiplied by the weight of its class, and a mean is divided
        by the sum of these weights.
    ignore_index : int
        An example with this target has loss 0 and does not count in a mean. (If no example
        counts, the mean is NaN, as in PyTorch.)

    Returns
    -------
    Tensor, a scalar, or of shape (N,) with ``reduction="none"``

    Raises
    ------
    IndexError
        If a target is neither from 0 to C-1 nor ``ignore_index``.
    RuntimeError, ValueError
        If dtypes, shapes or the reduction are wrong, if the mean of an empty batch is wanted, or
        if ``weight`` requires grad: no gradient flows to it.
    """
    scores, classes = as_array(log_probs), as_array(targets)
    shape = scores.shape
    if scores.dtype.kind != "f":
        raise RuntimeError(
            "nll_loss: log_probs must be floating-point log-probabilities (N, C), got "
            f"{scores.dtype} {shape}; are log_probs and targets swapped, or is this an argmax?"
        )
    if len(shape) == 1 and classes.shape == ():
        one = apply(more_ops.unsqueeze, log_probs, dim=0), classes.reshape(1)
        return nll_loss(*one, reduction, weight=weight, ignore_index=ignore_index).reshape(())
    if len(shape) == 2 and classes.shape == shape and shape[1] > 1:
        raise ValueError(
            f"nll_loss: targets must be the indices of the classes, of shape {shape[:1]}, got "
            f"targets {shape}; convert one-hot rows with targets.argmax(dim=1)"
        )
    if classes.dtype.kind not in "iu":
        raise RuntimeError(f"nll_loss: targets must be integers, got {classes.dtype}; use long()")
    if len(shape) != 2 or classes.shape != shape[:1]:
        got = f"log_probs {shape} and targets {classes.shape}"
        raise ValueError(f"nll_loss: wanted shapes (N, C) and (N,), got {got}")
    check_reduction("nll_loss", reduction)
    if reduction == "mean" and len(classes) == 0:
        raise ValueError("nll_loss: the mean over an empty batch does not exist")
    classes = classes.astype(np.int64, order="C")  # a copy: the original may change before the VJP
    loss = _nll_loss(log_probs, shape, classes, reduction, weight, ignore_index)
    # Probabilities are at most 1, their logarithms at most 0. (item() is ten times as fast here.)
    if reduction == "mean" and loss.array.item() < 0:
        warnings.warn(
            "nll_loss: a loss below 0 means that log_probs are not logarithms of probabilities; is "
            "log_softmax missing before nll_loss?",
            stacklevel=2,
        )
    return loss


def _nll_loss(
    log_probs: ArrayLike, shape: tuple[int, ...], classes: np.ndarray, reduction: str,
    weight: ArrayLike | None, ignore_index: int,
) -> Tensor:  # fmt: skip
    """Apply the fast operation if nothing is weighted or ignored, else the general one."""
    settings: dict[str, Any] = {"targets": classes, "reduction": reduction}
    if weight is None and not 0 <= ignore_index < shape[1]:
        try:
            return apply(ops.nll_loss, log_probs, **settings)
        except IndexError:
            pass  # if that target is ignore_index, the general operation accepts it
    weights = np.ones(shape[1]) if weight is None else as_array(weight)
    if weights.shape != shape[1:]:
        raise ValueError(f"nll_loss: wanted weight of shape {shape[1:]}, got {weights.shape}")
    if isinstance(weight, Tensor) and weight.requires_grad:
        raise RuntimeError("nll_loss: no gradient flows to weight; use weight.detach()")
    settings |= {"weight": weights, "ignore_index": ignore_index}
    return apply(more_ops.weighted_nll_loss, log_probs, **settings)


def cross_entropy(
    input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *,
    ignore_index: int = -100, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """`log_softmax`, then `nll_loss`: the loss for a network that does not end in log-softmax.

    Parameters
    ----------
    input : Tensor, shape (N, C)
        Any numbers, one row for each example; the likeliest class has the largest.
    target, weight, ignore_index, reduction
        As in `nll_loss`, where ``target`` is called ``targets``. (PyTorch also takes
        probabilities of classes; they are refused here.)

    Returns
    -------
    Tensor, a scalar, or of shape (N,) with ``reduction="none"``

    Raises
    ------
    IndexError, RuntimeError, ValueError
        As in `nll_loss`.
    """
    scores = as_array(input)
    if scores.dtype.kind != "f":
        raise RuntimeError(
            f"cross_entropy: input must be floating-point scores (N, C), got {scores.dtype} "
            f"{scores.shape}; are input and target swapped?"
        )
    settings: dict[str, Any] = {"weight": weight, "ignore_index": ignore_index}
    log_probs = log_softmax(input, -1)
    try:
        return nll_loss(log_probs, target, reduction, **settings)
    except (IndexError, RuntimeError, ValueError) as error:  # in the words of this function
        text = str(error).replace("nll_loss", "cross_entropy").replace("log_probs", "input")
        raise type(error)(text.replace("targets", "target")) from None


def mse_loss(input: ArrayLike, target: ArrayLike, reduction: str = "mean") -> Tensor:
    """The squared differences, elementwise, and their sum or mean.

    Parameters
    ----------
    input, target : Tensors of one shape
    reduction : {"mean", "sum", "none"}
        Whether to return the mean of the squares, their sum, or the squares themselves.

    Returns
    -------
    Tensor, a scalar, or of the shape of the inputs with ``reduction="none"``

    Raises
    ------
    RuntimeError, ValueError
        If the shapes differ (PyTorch warns and broadcasts), if the reduction is wrong, or if
        neither input is floating-point.
    """
    shapes = as_array(input).shape, as_array(target).shape
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"mse_loss: wanted one shape, got input {shapes[0]}, target {shapes[1]}; write "
            "target.reshape(input.shape)"
        )
    check_reduction("mse_loss", reduction)
    if "f" not in {as_array(x).dtype.kind for x in (input, target)}:
        got = f"{as_array(input).dtype} and {as_array(target).dtype}"
        raise RuntimeError(f"mse_loss wanted floating-point numbers, got {got}; use x.float()")
    difference = apply(ops.sub, input, target)
    squares = difference * difference
    return squares if reduction == "none" else getattr(squares, reduction)()


def check_reduction(name: str, reduction: Any) -> None:
    """Raise a ValueError that names the loss if ``reduction`` is not one of the three."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{name}: reduction must be mean, sum or none, got {reduction!r}")


if not TYPE_CHECKING:  # so that a type checker finds misspelt names
    __getattr__ = getattr_of("minigrad.functional")
