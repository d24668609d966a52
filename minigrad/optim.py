"""Gradient descent and its variants: outside the graph, in place.

The gradient points to where the loss, the number that is to become small, grows fastest. A
step against it makes the loss smaller, if the learning rate lr, which the gradient is
multiplied by, is small enough. Momentum moves by a velocity to which each gradient adds: what
they have in common builds up, what changes sign cancels. RMSprop divides each gradient by its
own usual size, the root of its mean square (RMS), so that all parameters move about equally
far. Adam does both. Each formula is in the docstring of its function or class, and in the
kernel that computes it.

First the plain functions, each of which makes a whole step from a loss; then classes with
PyTorch's names and arithmetic, which remember their state (velocities, running means) and
move by whatever gradients the parameters have.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from . import changes, kernels
from .arrays import float32, float64
from .left_out import getattr_of
from .tensors import Tensor

Tensors = Iterable[Tensor]
Rule = Callable[..., None]  # one of the update kernels


def _parameters(params: Tensors, name: str = "params") -> list[Tensor]:
    """`params` as a list: a generator such as ``model.parameters()`` can be walked once only."""
    listed = list(params) if hasattr(params, "__iter__") and not isinstance(params, Tensor) else []
    if not listed:
        raise TypeError(f"{name} must list Tensors; this {type(params).__name__} has none (left)")
    for i, param in enumerate(listed):
        fits = isinstance(param, Tensor) and param.array.dtype in (float32, float64)
        if not (fits and param.is_leaf and param.array.flags.writeable):
            raise TypeError(f"{name}[{i}] must be a writeable float32 or float64 leaf: {param!r}")
    if len(set(listed)) < len(listed):
        raise ValueError(f"{name} holds a Tensor twice: it would move twice as far")
    return listed


def _not_negative(**settings: float) -> Iterable[float]:
    """The values of `settings`, in their order; an error if one is negative or not finite."""
    for name, value in settings.items():
        if not (isinstance(value, Real) and 0 <= value < math.inf):
            raise ValueError(f"{name} must be a finite number that is not negative, got {value!r}")
    return settings.values()


def zero_grad(params: Tensors) -> None:
    """Set the gradients of `params` to 0, in place; those that are None stay None.

    (`Optimizer.zero_grad` forgets them instead.)
    """
    for param in _parameters(params):
        if param.grad is not None:
            param.grad.zero_()


def _step(rule: Rule, param: Tensor, state: Sequence[np.ndarray], *settings: float) -> None:
    """Move a parameter by an update kernel."""
    assert param.grad is not None  # whoever calls has made sure
    array, arrays = param.array, [param.array, param.grad.array, *state]
    for other in arrays:
        if other.shape != array.shape or other.dtype != array.dtype:
            raise RuntimeError(
                f"a parameter of shape {array.shape} does not fit its state any more"
            )
    if array.flags.f_contiguous and array.ndim > 1:  # any layout works; line by line, it is fast
        arrays = [array.T for array in arrays]
    rule(*arrays, *map(float, settings))  # one type, whatever the user gave: one compilation
    changes.note_change(array)


def _update(rule: Rule, loss: Tensor, params: Tensors, *settings: float, **state: Tensors) -> None:
    """Clear the gradients, back-propagate, and move every parameter by `rule`."""
    params = _parameters(params)
    for name, tensors in state.items():
        state[name] = _parameters(tensors, name)
        if [(s.shape, s.dtype) for s in state[name]] != [(p.shape, p.dtype) for p in params]:
            raise ValueError(f"{name} must hold one Tensor like each of params: zeros_like(param)")
    if not (isinstance(loss, Tensor) and loss.requires_grad and loss.numel() == 1):
        raise RuntimeError(f"loss must be one number made by operations on params, got {loss!r}")
    for param in params:
        param.grad = None  # rather than zeros, to which the new gradient would be added
    loss.backward()
    for i, param in enumerate(params):
        if param.grad is None:
            raise RuntimeError(f"params[{i}] of shape {param.shape} has no gradient from this loss")
    for param, *own in zip(params, *state.values()):
        _step(rule, param, [tensor.array for tensor in own], *settings)
        for tensor in own:
            changes.note_change(tensor.array)


def gradient_update(loss: Tensor, params: Tensors, lr: float = 1e-3) -> None:
    """One step of gradient descent: clear the gradients, back-propagate, param ← param - lr G.

    G is the gradient of the parameter.

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
        If `lr` is negative, infinite or NaN, or one of the `params` comes twice.
    TypeError
        If `params` is one Tensor, or holds something that cannot be updated in place.
    RuntimeError
        If `loss` has no graph, or does not depend on one of the `params`. No parameter has
        moved then, though in the second case there are new gradients.

    Examples
    --------
    >>> w = Tensor(3.0, requires_grad=True)
    >>> gradient_update(w * w, [w], lr=0.1)
    >>> w.grad, w  # 3 - 0.1 · 6
    (tensor(6.), tensor(2.4000, requires_grad=True))
    """
    _not_negative(lr=lr)
    _update(kernels.gradient_descent, loss, params, lr)


def momentum_update(loss: Tensor, params: Tensors, grad_vel: Tensors,
                    lr: float = 1e-3, beta: float = 0.8) -> None:  # fmt: skip
    """One step with momentum: v ← β v - lr G, then param ← param + v.

    `grad_vel` holds the velocities v, one Tensor like each parameter, and is changed in place:
    start with ``[mg.zeros_like(param) for param in params]``; other shapes are a ValueError.
    All else, errors included, is as in `gradient_update`.

    >>> w, velocity = Tensor(3.0, requires_grad=True), Tensor(1.0)
    >>> momentum_update(w * w, [w], [velocity], lr=0.1, beta=0.5)
    >>> velocity, w  # 0.5 · 1 - 0.1 · 6, and 3 - 0.1
    (tensor(-0.1000), tensor(2.9000, requires_grad=True))
    """
    _not_negative(lr=lr, beta=beta)
    _update(kernels.momentum, loss, params, lr, beta, grad_vel=grad_vel)


def rmsprop_update(loss: Tensor, params: Tensors, grad_sq: Tensors, lr: float = 1e-3,
                   alpha: float = 0.8, epsilon: float = 1e-8) -> None:  # fmt: skip
    """One step of RMSprop: s ← α s + (1 - α) G², then param ← param - lr G / √(s + ε).

    `grad_sq` holds s, a running mean of the squared gradients, and is changed in place: start
    with zeros, as for `momentum_update`. All else, errors included, is as there.

    >>> w, square = Tensor(3.0, requires_grad=True), Tensor(64.0)
    >>> rmsprop_update(w * w, [w], [square], lr=0.1, alpha=0.0)
    >>> square, w  # 6², and 3 - 0.1 · 6 / 6
    (tensor(36.), tensor(2.9000, requires_grad=True))
    """
    _not_negative(lr=lr, alpha=alpha, epsilon=epsilon)
    _update(kernels.rmsprop_inside, loss, params, lr, alpha, epsilon, grad_sq=grad_sq)


class Optimizer:
    """What the optimisers share: parameters, settings, and a state for each parameter.

    The settings are attributes and may be changed between steps: ``optimizer.lr *= 0.5``.

    Raises
    ------
    TypeError
        If `params` is one Tensor or none, or holds something that cannot be updated in place.
    ValueError
        If a setting is negative, infinite or NaN, or one of the `params` comes twice.
    RuntimeError
        At a step, if a parameter has changed its shape or dtype.
    """

    _move: Callable[..., None]  # each optimiser's own way to move one parameter

    def __init__(self, params: Tensors, states: int):
        self.params = _parameters(params)
        self.state = [[np.zeros_like(p.array) for _ in range(states)] for p in self.params]

    def zero_grad(self) -> None:
        """Forget the gradients: ``param.grad = None``."""
        for param in self.params:
            param.grad = None

    def step(self) -> None:
        """Move every parameter that has a gradient."""
        for param, state in zip(self.params, self.state, strict=True):
            if param.grad is not None:
                self._move(param, state)


class SGD(Optimizer):
    """(Stochastic) gradient descent, with momentum β: v ← β v + G, then param ← param - lr v.

    While lr is constant, the velocity of `momentum_update` is this one times -lr.
    """

    def __init__(self, params: Tensors, lr: float = 1e-3, momentum: float = 0):
        super().__init__(params, states=1)
        self.lr, self.momentum = _not_negative(lr=lr, momentum=momentum)

    def _move(self, param: Tensor, state: list[np.ndarray]) -> None:
        if self.momentum:
            _step(kernels.sgd_momentum, param, state, self.lr, self.momentum)
        else:
            _step(kernels.gradient_descent, param, [], self.lr)


class RMSprop(Optimizer):
    """s ← α s + (1 - α) G², then param ← param - lr G / (√s + eps).

    The running mean s starts from 0, uncorrected, so that the first step is lr/√(1 - α) long,
    ten times lr by default.
    """

    def __init__(self, params: Tensors, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8):
        super().__init__(params, states=1)
        self.lr, self.alpha, self.eps = _not_negative(lr=lr, alpha=alpha, eps=eps)

    def _move(self, param: Tensor, state: list[np.ndarray]) -> None:
        _step(kernels.rmsprop_outside, param, state, self.lr, self.alpha, self.eps)


class Adam(Optimizer):
    """A running mean of gradients, divided as in RMSprop (Kingma and Ba, 2015). Step t is

        m ← β₁ m + (1 - β₁) G        m̂ = m / (1 - β₁ᵗ)
        v ← β₂ v + (1 - β₂) G²       v̂ = v / (1 - β₂ᵗ)
        param ← param - lr m̂ / (√v̂ + eps)

    Both means start from 0; `kernels` derives how m̂ and v̂ correct that. `betas` are β₁ and
    β₂, both at least 0 and below 1.

    >>> w = Tensor(3.0, requires_grad=True)
    >>> optimizer = Adam([w], lr=0.1)
    >>> (w * w).backward()
    >>> optimizer.step()
    >>> w  # after one step, the corrected means are 6 and 6²: their quotient is the sign
    tensor(2.9000, requires_grad=True)
    """

    def __init__(self, params: Tensors, lr: float = 1e-3,
                 betas: Sequence[float] = (0.9, 0.999), eps: float = 1e-8):  # fmt: skip
        super().__init__(params, states=2)
        self.lr, self.eps = _not_negative(lr=lr, eps=eps)
        if np.shape(betas) != (2,) or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be two numbers from 0 to below 1, got {betas!r}")
        self.betas = betas
        self.steps: dict[Tensor, int] = {}

    def _move(self, param: Tensor, state: list[np.ndarray]) -> None:
        t = self.steps[param] = self.steps.get(param, 0) + 1
        _step(kernels.adam, param, state, self.lr, *self.betas, self.eps, t)


if not TYPE_CHECKING:  # a type checker is to find misspelt names
    __getattr__ = getattr_of("minigrad.optim")
