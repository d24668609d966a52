"""PyTorch's functions on Tensors: each checks its arguments and applies an operation.

The mathematics is in `kernels`, above each pair of kernels.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from . import ops
from .tensors import Tensor, apply, as_array

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
    """max(input, 0), elementwise, of any shape; a RuntimeError for other dtypes than float32
    and float64."""
    return apply(ops.relu, input)


def log_softmax(input: ArrayLike, dim: int = -1) -> Tensor:
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
    RuntimeError
        If `input` is neither float32 nor float64.
    """
    return apply(ops.log_softmax, input, dim=dim)


def nll_loss(log_probs: ArrayLike, targets: ArrayLike, reduction: str = "mean") -> Tensor:
    """The negative log-likelihood of the right classes: -log_probs[n, targets[n]].

    Parameters
    ----------
    log_probs : Tensor, shape (N, C)
        Log-probabilities, one row for each example, say from `log_softmax`.
    targets : Tensor or array of integers, shape (N,)
        The index of the right class of each example, 0 to C-1.
    reduction : {"mean", "sum", "none"}
        What becomes of the N losses.

    Returns
    -------
    Tensor, a scalar, or of shape (N,) with ``reduction="none"``

    Raises
    ------
    IndexError
        If a target is not in 0 to C-1.
    RuntimeError, ValueError
        If dtypes, shapes or the reduction are wrong, or if a mean over no examples is asked.
    """
    scores, classes = as_array(log_probs), as_array(targets)
    shape = scores.shape
    if scores.dtype.kind != "f":
        raise RuntimeError(
            "nll_loss: log_probs must be floating-point log-probabilities (N, C), got "
            f"{scores.dtype} {shape}; are log_probs and targets exchanged, or is it an argmax?"
        )
    if len(shape) == 2 and classes.shape == shape and shape[1] > 1:
        raise ValueError(
            f"nll_loss: targets must be the numbers of the classes, of shape {shape[:1]}, got "
            f"targets {shape}; from one-hot rows they come by targets.argmax(dim=1)"
        )
    if classes.dtype.kind not in "iu":
        raise RuntimeError(f"nll_loss: targets must be integers, got {classes.dtype}; use long()")
    if len(shape) != 2 or classes.shape != shape[:1]:
        got = f"log_probs {shape} and targets {classes.shape}"
        raise ValueError(f"nll_loss: wanted shapes (N, C) and (N,), got {got}")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"nll_loss: reduction must be mean, sum or none, got {reduction!r}")
    if reduction == "mean" and len(classes) == 0:
        raise ValueError("nll_loss: the mean over an empty batch does not exist")
    classes = classes.astype(np.int64, order="C")  # a copy: the VJP must not meet other targets
    loss = apply(ops.nll_loss, log_probs, targets=classes, reduction=reduction)
    if (
        reduction == "mean" and loss.array < 0
    ):  # a probability is at most 1, its logarithm at most 0
        warnings.warn(
            "nll_loss: a loss below 0 means that log_probs are no logarithms of probabilities; is "
            "log_softmax missing before nll_loss?",
            stacklevel=2,
        )
    return loss
