"""The numerical work of the operations of a network, on plain arrays: kernels.

Numba compiles their loops; the rest is NumPy's exp and its matrix product @, for which NumPy
calls a library named BLAS. Every kernel writes into an array that its caller owns. A forward
kernel and its backward kernel stand side by side, under one formula. Shapes are given in
these letters: N examples, D inputs and H outputs of a layer, C classes. The arrays of one
call share one dtype, float32 or float64, and are C-contiguous unless noted.

Nothing is compiled at import: Numba compiles a kernel at its first call and keeps the
result on disk for the next process. With ``NUMBA_DISABLE_JIT=1`` in the environment the
same lines run as plain Python, so that a debugger can step through them.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy import ndarray as Array

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function) -> Function:
    """Compile `function` at its first call, and cache it on disk.

    ``nogil``: other threads of Python run meanwhile. The error model decides on x / 0:
    infinite, as in NumPy, rather than an exception, whose check in every turn of a loop would
    keep the processor from taking several turns at once.
    """
    try:
        return cast(Function, numba.njit(nogil=True, cache=True, error_model="numpy")(function))
    except RuntimeError:  # nowhere to write a cache: a read-only install and no home
        return cast(Function, numba.njit(nogil=True, error_model="numpy")(function))


# Linear layer: H weighted sums of D inputs, to each of which a number of its own, its bias, is
# added. W[h, d] is the weight of input d in sum h.
#
#   forward    out = x @ Wᵀ + b          out[n, h] = Σ_d x[n, d] W[h, d] + b[h]
#   backward   with G = ∂L/∂out, by the chain rule through each out[n, h]:
#              ∂L/∂x[n, d] = Σ_h G[n, h] W[h, d]      that is   G @ W
#              ∂L/∂W[h, d] = Σ_n G[n, h] x[n, d]      that is   Gᵀ @ x
#              ∂L/∂b[h]    = Σ_n G[n, h]
#
#   x (N, D)   W (H, D)   b (H,) or None   out, G (N, H)   ∂L/∂b (H,) always of float64:
#   over many examples, a sum of float32 would lose digits
#
# The products are BLAS's work, in any memory layout. They go through NumPy rather than
# through Numba's np.dot, which brings SciPy's BLAS: two BLAS libraries in one process each
# keep a pool of waiting threads, and stall each other for milliseconds.


def linear_forward(x: Array, weight: Array, bias: Array | None, out: Array) -> None:
    np.matmul(x, weight.T, out=out)
    if bias is not None:
        add_bias(out, bias)


@kernel
def add_bias(out: Array, bias: Array) -> None:
    for n in range(out.shape[0]):
        for h in range(out.shape[1]):
            out[n, h] += bias[h]


def linear_backward_input(grad: Array, weight: Array, grad_x: Array) -> None:
    np.matmul(grad, weight, out=grad_x)


def linear_backward_weight(grad: Array, x: Array, grad_weight: Array) -> None:
    # Of one example it is an outer product, for which NumPy's matmul is five times as slow.
    product = np.multiply if len(x) == 1 else np.matmul
    product(grad.T, x, out=grad_weight)


@kernel
def linear_backward_bias(grad: Array, grad_bias: Array) -> None:
    grad_bias[:] = 0
    for n in range(grad.shape[0]):
        for h in range(grad.shape[1]):
            grad_bias[h] += grad[n, h]


# ReLU (rectified linear unit): without it in between, several linear layers would amount to one
#
#   forward    out = max(x, 0)           NaN stays NaN, as in PyTorch
#   backward   the slope is 1 where x > 0, and so out > 0, and 0 where x < 0:
#              ∂L/∂x = G where out > 0 (or NaN), else 0
#              At x = 0 there is a kink; PyTorch and we take the derivative 0 there.
#
#   x, out, G (size,): elementwise, so any shape may be passed as one line


@kernel
def relu_forward(x: Array, out: Array) -> None:
    for i in range(x.size):
        out[i] = 0 if x[i] <= 0 else x[i]


@kernel
def relu_backward(grad: Array, out: Array, grad_x: Array) -> None:
    for i in range(grad.size):
        grad_x[i] = 0 if out[i] <= 0 else grad[i]


# Log-softmax, row by row. Softmax makes probabilities of C numbers: exp(x[c]) / S with
# S = Σ_j exp(x[j]); all are positive, and their sum is 1. This is its logarithm.
#
#   forward    out[c] = log(exp(x[c]) / S) = x[c] - m - log Σ_j exp(x[j] - m)
#              for any m, as exp(-m) cancels in the fraction. The largest x is taken: no
#              exponent is then above 0, nothing overflows, and the sum is at least 1, so its
#              logarithm is safe.
#   backward   out[c] = x[c] - log S, and ∂(log S)/∂x[k] = exp(x[k]) / S, which is exp(out[k]),
#              the softmax. With [c = k] for 1 if c = k, else 0,
#              ∂out[c]/∂x[k] = [c = k] - exp(out[k])
#              ∂L/∂x[k] = Σ_c G[c] ∂out[c]/∂x[k] = G[k] - exp(out[k]) Σ_c G[c]
#
#   x, out, G (N, C)


def log_softmax_forward(x: Array, out: Array) -> None:
    subtract_largest(x, out)
    subtract_log_of_sum(np.exp(out), out)  # NumPy's exp is vectorised, that of a loop is not


@kernel
def subtract_largest(x: Array, out: Array) -> None:
    for n in range(x.shape[0]):
        largest = x.dtype.type(-np.inf)
        for c in range(x.shape[1]):
            largest = max(largest, x[n, c])
        for c in range(x.shape[1]):
            out[n, c] = x[n, c] - largest


@kernel
def subtract_log_of_sum(exps: Array, out: Array) -> None:
    for n in range(exps.shape[0]):
        total = np.float64(0)  # sum in double precision: C may be large
        for c in range(exps.shape[1]):
            total += exps[n, c]
        log_total = out.dtype.type(np.log(total))
        for c in range(exps.shape[1]):
            out[n, c] -= log_total


@kernel
def log_softmax_backward(grad: Array, softmax: Array, grad_x: Array) -> None:
    for n in range(grad.shape[0]):
        total = np.float64(0)
        for c in range(grad.shape[1]):
            total += grad[n, c]
        for c in range(grad.shape[1]):
            grad_x[n, c] = grad[n, c] - softmax[n, c] * total


# Negative log-likelihood: minus the logarithm of the probability that was given to the right
# class, one loss for each example. It is 0 if that was 1, and the larger the smaller it was.
#
#   forward    losses[n] = -log_probs[n, targets[n]]
#   backward   ∂L/∂log_probs[n, c] = -G[n] where c = targets[n], else 0
#
#   log_probs (N, C)   targets (N,) of int64   losses, G (N,)


@kernel
def nll_loss_forward(log_probs: Array, targets: Array, losses: Array) -> int:
    """Return the first row whose target is not in 0..C-1, or -1 if all are."""
    for n in range(log_probs.shape[0]):
        if not 0 <= targets[n] < log_probs.shape[1]:
            return n
        losses[n] = -log_probs[n, targets[n]]
    return -1


@kernel
def nll_loss_backward(grad: Array, targets: Array, grad_log_probs: Array) -> None:
    grad_log_probs[:] = 0
    for n in range(grad.size):
        grad_log_probs[n, targets[n]] = -grad[n]


# Gradient descent and its variants (`optim` says what they are for; skip this until then). Here
# G is the gradient of the parameter itself, and lr, the learning rate, the size of a step. All
# is elementwise: v is a velocity, m and s are running means of G and of G²; β and α say how much
# of the old value is kept.
#
#   gradient descent   param ← param - lr G
#   momentum           v ← β v + scale G             param ← param + rate v
#                      momentum_update: scale is -lr, rate 1; SGD: scale is 1, rate -lr
#   RMSprop            s ← keep s + part G²          param ← param - lr G / (√(s + inside) + eps)
#                      keep is α, part is 1 - α; rmsprop_update has eps = 0, RMSprop inside = 0
#   Adam               m ← keep1 m + part1 G         keep1 is β₁, part1 is 1 - β₁
#                      s ← keep2 s + part2 G²        keep2 is β₂, part2 is 1 - β₂
#                      param ← param - rate m / (√s / root + eps)
#                      From m = 0, gradients G_1 to G_t lead to m = (1 - β₁) Σ_i β₁^(t-i) G_i, a
#                      mean whose weights add up to 1 - β₁ᵗ only (a geometric series), not 1;
#                      likewise s. Hence rate is lr / (1 - β₁ᵗ), root √(1 - β₂ᵗ).
#
#   param, G and the states of one shape, any strides   all numbers of their dtype


@kernel
def gradient_descent(param: Array, grad: Array, lr: float) -> None:
    for i in range(param.size):
        param.flat[i] -= lr * grad.flat[i]


@kernel
def momentum(param: Array, grad: Array, velocity: Array,
             beta: float, scale: float, rate: float) -> None:  # fmt: skip
    for i in range(param.size):
        velocity.flat[i] = beta * velocity.flat[i] + scale * grad.flat[i]
        param.flat[i] += rate * velocity.flat[i]


@kernel
def rmsprop(param: Array, grad: Array, square: Array,
            keep: float, part: float, lr: float, inside: float, eps: float) -> None:  # fmt: skip
    for i in range(param.size):
        g = grad.flat[i]
        s = square.flat[i] = keep * square.flat[i] + part * g * g
        param.flat[i] -= lr * g / (np.sqrt(s + inside) + eps)


@kernel
def adam(param: Array, grad: Array, mean: Array, square: Array,
         keep1: float, part1: float, keep2: float, part2: float,
         rate: float, root: float, eps: float) -> None:  # fmt: skip
    for i in range(param.size):
        g = grad.flat[i]
        m = mean.flat[i] = keep1 * mean.flat[i] + part1 * g
        s = square.flat[i] = keep2 * square.flat[i] + part2 * g * g
        param.flat[i] -= rate * m / (np.sqrt(s) / root + eps)
