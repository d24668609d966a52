"""Kernels: the numerical work of a network's operations, on plain arrays.

Numba compiles each of them as a whole. Every kernel writes into an array that its caller owns.
Each forward kernel is followed by its backward kernel, under one formula. Shapes use these
letters: N examples, D inputs and H outputs of a layer, C classes. All arrays of a call have one
dtype, float32 or float64, and are C-contiguous (row after row, without gaps) unless noted.

Nothing is compiled at import: Numba compiles a kernel at its first call and keeps the
result on disk for the next process. With ``NUMBA_DISABLE_JIT=1`` in the environment, the
same lines run as plain Python, and a debugger can step through them.
"""

import numpy as np
from numpy import ndarray as Array

from .caching import kernel
from .products import product


@kernel
def matmul(x: Array, y: Array, out: Array) -> None:
    """x @ y for matrices in any layout."""
    product(x, y, out)


# Linear layer: H weighted sums of D inputs, each plus a bias of its own. W[h, d] is the weight
# of input d in sum h.
#
#   forward    out = x @ Wᵀ + b          out[n, h] = Σ_d x[n, d] W[h, d] + b[h]
#   backward   with G = ∂L/∂out, by the chain rule through each out[n, h]:
#              ∂L/∂x[n, d] = Σ_h G[n, h] W[h, d]      that is   G @ W
#              ∂L/∂W[h, d] = Σ_n G[n, h] x[n, d]      that is   Gᵀ @ x
#              ∂L/∂b[h]    = Σ_n G[n, h]
#
#   x (N, D)   W (H, D)   b (H,) or None   out, G (N, H)   ∂L/∂b (H,), always float64:
#   a float32 sum over many examples would lose digits
#
# x, W and G may have any memory layout. C and Fortran order need no copy.


@kernel
def linear_forward(x: Array, weight: Array, bias: Array | None, out: Array) -> None:
    product(x, weight.T, out)
    if bias is not None:
        for n in range(out.shape[0]):
            for h in range(out.shape[1]):
                out[n, h] += bias[h]


@kernel
def linear_backward_input(grad: Array, weight: Array, grad_x: Array) -> None:
    product(grad, weight, grad_x)


@kernel
def linear_backward_weight(grad: Array, x: Array, grad_weight: Array) -> None:
    product(grad.T, x, grad_weight)


@kernel
def linear_backward_bias(grad: Array, grad_bias: Array) -> None:
    grad_bias[:] = 0
    for n in range(grad.shape[0]):
        for h in range(grad.shape[1]):
            grad_bias[h] += grad[n, h]


# ReLU (rectified linear unit). Without it in between, several linear layers amount to one.
#
#   forward    out = max(x, 0)           NaN and -0 stay what they are, as in PyTorch
#   backward   the slope is 1 where x > 0, and so out > 0, and 0 where x < 0:
#              ∂L/∂x = G where out > 0 (or NaN), else 0
#              At x = 0 there is a kink, and no derivative; 0 is taken, as in PyTorch.
#
#   x, out, G (size,): elementwise, so arrays of any shape are passed flattened


@kernel
def relu_forward(x: Array, out: Array) -> None:
    for i in range(x.size):
        out[i] = 0 if x[i] < 0 else x[i]


@kernel
def relu_backward(grad: Array, out: Array, grad_x: Array) -> None:
    for i in range(grad.size):
        grad_x[i] = 0 if out[i] <= 0 else grad[i]


# The exponential of numbers up to 0. In float32, the processor computes several at once, four
# times as fast as np.exp one by one. With n the integer nearest to x / log 2 and
# r = x - n log 2,
#
#   eˣ = 2ⁿ eʳ     eʳ = 1 + r + r²/2! + r³/3! + ...
#
# |r| is at most log(2)/2, so the terms up to r⁷ give the digits of float32 (the error is below
# 1.5e-7 of eˣ). log 2 is split into two parts, the first with so few digits that n times it is
# exact. 2ⁿ is built from its bits: n + 127 before 23 zeros. Below e⁻⁸⁷, which is 1.6e-38, the
# result is 0.


@kernel
def exp(x: Array, out: Array) -> None:
    number = x.dtype.type
    for i in range(x.size):
        if x.itemsize == 8:
            out[i] = np.exp(x[i])
        else:
            n = np.floor(x[i] * number(1 / np.log(2)) + number(0.5))
            r = x[i] - n * number(355 / 512) + n * number(355 / 512 - np.log(2))
            s = number(1 / 720) + r * number(1 / 5040)
            s = number(1 / 6) + r * (number(1 / 24) + r * (number(1 / 120) + r * s))
            s = number(1) + r * (number(1) + r * (number(1 / 2) + r * s))
            power = np.int32((np.int32(max(n, number(-126))) + 127) << 23).view(np.float32)
            out[i] = 0 if x[i] < -87 else s * power


# Log-softmax, row by row. Softmax turns C numbers into probabilities: exp(x[c]) / S with
# S = Σ_j exp(x[j]). All are positive, and they sum to 1. Log-softmax is the logarithm of that.
#
#   forward    out[c] = log(exp(x[c]) / S) = x[c] - m - log Σ_j exp(x[j] - m)
#              for any m, because exp(-m) cancels in the fraction. We take the largest x as m:
#              then no exponent is above 0, nothing overflows, and the sum is at least 1, so
#              its logarithm is safe.
#   backward   out[c] = x[c] - log S, and ∂(log S)/∂x[k] = exp(x[k]) / S, which is the softmax,
#              exp(out[k]). With [c = k] for 1 if c = k, else 0,
#              ∂out[c]/∂x[k] = [c = k] - softmax[k]
#              ∂L/∂x[k] = Σ_c G[c] ∂out[c]/∂x[k] = G[k] - softmax[k] Σ_c G[c]
#
#   x, out, softmax, G (N, C)   the forward kernel keeps the softmax: an exponential is slow


@kernel
def log_softmax_forward(x: Array, out: Array, softmax: Array) -> None:
    for n in range(x.shape[0]):
        largest = x.dtype.type(-np.inf)
        for c in range(x.shape[1]):
            largest = max(largest, x[n, c])
        for c in range(x.shape[1]):
            out[n, c] = x[n, c] - largest
    exp(out.reshape(-1), softmax.reshape(-1))
    for n in range(x.shape[0]):
        total = np.float64(0)  # sum in double precision: C may be large
        for c in range(x.shape[1]):
            total += softmax[n, c]
        log_total, share = out.dtype.type(np.log(total)), out.dtype.type(1 / total)
        for c in range(x.shape[1]):
            out[n, c] -= log_total
            softmax[n, c] *= share


@kernel
def log_softmax_backward(grad: Array, softmax: Array, grad_x: Array) -> None:
    for n in range(grad.shape[0]):
        total = np.float64(0)
        for c in range(grad.shape[1]):
            total += grad[n, c]
        for c in range(grad.shape[1]):
            grad_x[n, c] = grad[n, c] - softmax[n, c] * total


# Negative log-likelihood, one loss for each example: minus the logarithm of the probability that
# the model gives to the right class. It is 0 for a probability of 1, and grows as that falls.
#
#   forward    losses[n] = -log_probs[n, targets[n]]
#   backward   ∂L/∂log_probs[n, c] = -G[n] where c = targets[n], else 0
#
#   log_probs (N, C)   targets (N,) of int64   losses, G (N,)


@kernel
def nll_loss_forward(log_probs: Array, targets: Array, losses: Array) -> tuple[int, float]:
    """Return the first row whose target is not in 0..C-1 (-1 if there is none), and the sum."""
    total = 0.0  # in double precision: N may be large
    for n in range(log_probs.shape[0]):
        if not 0 <= targets[n] < log_probs.shape[1]:
            return n, total
        losses[n] = -log_probs[n, targets[n]]
        total += losses[n]
    return -1, total


@kernel
def nll_loss_backward(grad: Array, targets: Array, grad_log_probs: Array) -> None:
    grad_log_probs[:] = 0
    for n in range(grad.size):
        grad_log_probs[n, targets[n]] = -grad[n]


# Gradient descent and its variants: skip them until `optim`, which says what they are for. Here
# G is the gradient of the parameter, and the learning rate lr scales each step. Everything is
# elementwise: v is a velocity; m and s are running means of G and G² (in Adam, m and v). Each
# formula is in the loop of its kernel.
#
#   param, G and the state: one shape, any layout   settings: numbers of any type


@kernel
def gradient_descent(param: Array, grad: Array, lr: float) -> None:
    lr = param.dtype.type(lr)
    for i in range(param.size):
        param.flat[i] -= lr * grad.flat[i]


# Two ways to write momentum. With a constant lr, the first velocity is -lr times the second.


@kernel
def momentum(param: Array, grad: Array, v: Array, lr: float, beta: float) -> None:
    lr, beta = param.dtype.type(lr), param.dtype.type(beta)
    for i in range(param.size):
        v.flat[i] = beta * v.flat[i] - lr * grad.flat[i]
        param.flat[i] += v.flat[i]


@kernel
def sgd_momentum(param: Array, grad: Array, v: Array, lr: float, beta: float) -> None:
    lr, beta = param.dtype.type(lr), param.dtype.type(beta)
    for i in range(param.size):
        v.flat[i] = beta * v.flat[i] + grad.flat[i]
        param.flat[i] -= lr * v.flat[i]


# Two ways to keep RMSprop from dividing by 0: epsilon inside the root, and eps outside.


@kernel
def rmsprop_inside(param: Array, grad: Array, s: Array,
                   lr: float, alpha: float, epsilon: float) -> None:  # fmt: skip
    number = param.dtype.type
    rest = number(1 - alpha)
    lr, alpha, epsilon = number(lr), number(alpha), number(epsilon)
    for i in range(param.size):
        s.flat[i] = alpha * s.flat[i] + rest * grad.flat[i] ** 2
        param.flat[i] -= lr * grad.flat[i] / np.sqrt(s.flat[i] + epsilon)


@kernel
def rmsprop_outside(param: Array, grad: Array, s: Array,
                    lr: float, alpha: float, eps: float) -> None:  # fmt: skip
    number = param.dtype.type
    rest = number(1 - alpha)
    lr, alpha, eps = number(lr), number(alpha), number(eps)
    for i in range(param.size):
        s.flat[i] = alpha * s.flat[i] + rest * grad.flat[i] ** 2
        param.flat[i] -= lr * grad.flat[i] / (np.sqrt(s.flat[i]) + eps)


# Adam at step t = 1, 2, ... Starting from m = 0, the gradients G_1 to G_t give
# m = (1 - β₁) Σ_i β₁^(t-i) G_i. These weights add up to 1 - β₁ᵗ (a geometric series), not to 1.
# Dividing by that makes m a true mean, m̂; likewise v̂.


@kernel
def adam(param: Array, grad: Array, m: Array, v: Array,
         lr: float, beta1: float, beta2: float, eps: float, t: int) -> None:  # fmt: skip
    number = param.dtype.type
    rest1, rest2 = number(1 - beta1), number(1 - beta2)
    correct1, correct2 = number(1 / (1 - beta1**t)), number(1 / (1 - beta2**t))
    lr, beta1, beta2, eps = number(lr), number(beta1), number(beta2), number(eps)
    for i in range(param.size):
        m.flat[i] = beta1 * m.flat[i] + rest1 * grad.flat[i]
        v.flat[i] = beta2 * v.flat[i] + rest2 * grad.flat[i] ** 2
        m_hat, v_hat = correct1 * m.flat[i], correct2 * v.flat[i]
        param.flat[i] -= lr * m_hat / (np.sqrt(v_hat) + eps)
