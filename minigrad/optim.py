"""Gradient descent and its variants: outside the graph, in place.

The gradient points where the loss, the number to be made small, grows fastest. A step against it
makes the loss smaller if the learning rate lr, the factor before the gradient, is small enough.
Momentum moves by a velocity to which each gradient adds: what gradients have in common builds
up, what changes sign cancels. RMSprop divides each gradient by its usual size, the root of its
mean square (RMS), so all parameters move about equally far. Adam does both. Each formula is in
the docstring of its function or class, and in the kernel that computes it.

Why outside the graph? If ``w = w - lr * w.grad`` were recorded, w would be a result and no longer
a leaf: the next `backward` would leave no gradient in it, but pass through this update and all
earlier ones back to the first w.

The plain functions come first; each makes a whole step from a loss. The classes have PyTorch's
names and arithmetic. They keep their state (velocities, running means), and use the gradients
that the parameters have.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from . import changes, kernels, parts
from .arrays import KERNEL_DTYPES, float64
from .left_out import getattr_of
from .serialization import check_state
from .tensors import Tensor

Tensors = Iterable[Tensor]
Rule = Callable[..., None]  # one of the update kernels
Arrays = Sequence[np.ndarray]
Plan = tuple[Rule, Arrays, tuple[float, ...]]  # a kernel, arrays and settings for it


def _parameters(params: Tensors, name: str = "params") -> list[Tensor]:
    """``params`` as a list: a generator such as ``model.parameters()`` can be used only once."""
    if callable(params):  # a model, or its method
        call = "it is a method, and () is missing after it: model.parameters()"
        hint = "write model.parameters()" if hasattr(params, "parameters") else call
        raise TypeError(f"{name} must list Tensors, got {type(params).__name__}; {hint}")
    if not hasattr(params, "__iter__") or isinstance(params, (Tensor, dict)):
        hint = "write [w] or model.parameters()"
        raise TypeError(f"{name} must list Tensors, got {type(params).__name__}; {hint}")
    listed = list(params)
    if not listed:
        used = " left: it was used before (make a list of it), or the model has no Parameters"
        left = "" if hasattr(params, "__len__") else used
        raise ValueError(f"{name} must list Tensors; this {type(params).__name__} has none{left}")
    for i, param in enumerate(listed):
        if isinstance(param, Tensor) and not param.is_leaf:
            raise TypeError(
                f"{name}[{i}] is a result of {param.node.name}, not a leaf: set requires_grad "
                "last, as in w = (0.1 * randn(3)).requires_grad_()"
            )
        if not isinstance(param, Tensor):
            hint = "write [w] or model.parameters(), without brackets around it"
            hint = "make one optimiser for each group" if isinstance(param, dict) else hint
            raise TypeError(f"{name}[{i}] must be a Tensor, got {type(param).__name__}; {hint}")
        fits = param.array.dtype in KERNEL_DTYPES
        if not (fits and param.array.flags.writeable):
            raise TypeError(f"{name}[{i}] must be writeable and float32 or float64, got {param!r}")
    if len(set(listed)) < len(listed):
        raise ValueError(f"{name} holds a Tensor twice: it would move twice as far")
    return listed


def _checked(name: str, value: Any) -> Any:
    """A setting as a float, or ``betas`` as two; a ValueError if it is out of range."""
    if name == "betas":
        if np.shape(value) != (2,) or not all(_is_from_0_to(1, beta) for beta in value):
            raise ValueError(f"betas must be two numbers from 0 to below 1, got {value!r}")
        return tuple(map(float, value))
    if not _is_from_0_to(math.inf, value):
        raise ValueError(f"{name} must be a finite number that is not negative, got {value!r}")
    return float(value)  # one type, whatever the user passed: kernels are compiled once


def _is_from_0_to(end: float, value: Any) -> bool:
    # float comes first, because the check for the abstract class is slow
    return isinstance(value, (float, Real)) and 0 <= float(value) < end


def zero_grad(params: Tensors) -> None:
    """Set the gradients of ``params`` to 0, in place; those that are None stay None.

    Without this, `backward` adds to the old gradients. (`Optimizer.zero_grad` sets them to None.)
    """
    for param in _parameters(params):
        if param.grad is not None:
            param.grad.zero_()


def _arrays(param: Tensor, state: Arrays, weight_decay: float = 0) -> Arrays:
    """The arrays for an update kernel: a parameter, its gradient and its state, if they fit."""
    assert param._grad is not None  # the callers have checked it
    array, grad = param.array, param._grad.array
    for other in (grad, *state):
        if other.shape != array.shape or other.dtype != array.dtype:
            raise RuntimeError(
                f"a parameter, now {array.dtype} of shape {array.shape}, no longer fits its "
                f"gradient or state, {other.dtype} {other.shape}; make a new optimiser"
            )
    for own in (array, *state):
        if not (own.flags.writeable and own.dtype in KERNEL_DTYPES):
            raise RuntimeError(
                f"a parameter of shape {array.shape} and its state must be writeable and "
                f"float32 or float64, got {own.dtype}{'' if own.flags.writeable else ', read-only'}"
            )
    if weight_decay:  # a new array: param.grad must not change
        grad = np.asarray(grad + weight_decay * array)
    return _by_lines(array, grad, *state)


def _by_lines(*arrays: np.ndarray) -> Arrays:
    """The arrays, transposed if they are in Fortran order: kernels are fastest along memory."""
    if arrays[0].ndim > 1 and arrays[0].flags.f_contiguous:
        return [array.T for array in arrays]
    return arrays


def _update(rule: Rule, loss: Tensor, params: Tensors, *settings: float, **state: Tensors) -> None:
    """Clear the gradients, back-propagate, and update every parameter by ``rule``."""
    params = _parameters(params)
    for name, tensors in state.items():
        state[name] = _parameters(tensors, name)
        if [(s.shape, s.dtype) for s in state[name]] != [(p.shape, p.dtype) for p in params]:
            raise ValueError(f"{name} must hold one Tensor like each of params: zeros_like(param)")
    if not (isinstance(loss, Tensor) and loss.requires_grad and loss.numel() == 1):
        raise RuntimeError(f"loss must be one number computed from params, got {loss!r}")
    # `_grad`, because the property `grad` would check what is known here.
    for param in params:
        param._grad = None  # rather than zeros, to which the new gradient would be added
    loss.backward()
    for i, param in enumerate(params):
        if param._grad is None:
            raise RuntimeError(f"params[{i}] of shape {param.shape} has no gradient from this loss")
    states = [[tensor.array for tensor in tensors] for tensors in state.values()]
    for param, *own in zip(params, *states):
        arrays = _by_lines(param.array, param._grad.array, *own)
        parts.run(rule, *arrays, settings=settings)
    changes.note_change(*sum(states, [param.array for param in params]))


def gradient_update(loss: Tensor, params: Tensors, lr: float = 1e-3) -> None:
    """One step of gradient descent: clear the gradients, back-propagate, param ← param - lr G.

    G is the gradient of the parameter.

    Parameters
    ----------
    loss : Tensor, a scalar
    params : iterable of Tensor
        Leaves that ``loss`` depends on.
    lr : float
        The learning rate, at least 0.

    Raises
    ------
    ValueError
        If ``lr`` is negative, infinite or NaN, or if ``params`` is empty or holds a Tensor twice.
    TypeError
        If ``params`` is a single Tensor, or holds something that cannot be updated in place.
    RuntimeError
        If ``loss`` has no graph, or does not depend on one of the ``params``. No parameter has
        changed then, but in the second case there are new gradients.

    Examples
    --------
    >>> w = Tensor(3.0, requires_grad=True)
    >>> gradient_update(w * w, [w], lr=0.1)
    >>> w.grad, w  # 3 - 0.1 · 6
    (tensor(6.), tensor(2.4000, requires_grad=True))
    """
    _update(kernels.gradient_descent, loss, params, _checked("lr", lr))


def momentum_update(loss: Tensor, params: Tensors, grad_vel: Tensors,
                    lr: float = 1e-3, beta: float = 0.8) -> None:  # fmt: skip
    """One step with momentum: v ← β v - lr G, then param ← param + v.

    ``grad_vel`` holds the velocities v, one Tensor for each parameter, and is changed in place.
    Start with ``[mg.zeros_like(param) for param in params]``; other shapes raise a ValueError.
    Everything else, errors included, is as in `gradient_update`.

    >>> w, velocity = Tensor(3.0, requires_grad=True), Tensor(1.0)
    >>> momentum_update(w * w, [w], [velocity], lr=0.1, beta=0.5)
    >>> velocity, w  # 0.5 · 1 - 0.1 · 6, and 3 - 0.1
    (tensor(-0.1000), tensor(2.9000, requires_grad=True))
    """
    settings = _checked("lr", lr), _checked("beta", beta)
    _update(kernels.momentum, loss, params, *settings, grad_vel=grad_vel)


def rmsprop_update(loss: Tensor, params: Tensors, grad_sq: Tensors, lr: float = 1e-3,
                   alpha: float = 0.8, epsilon: float = 1e-8) -> None:  # fmt: skip
    """One step of RMSprop: s ← α s + (1 - α) G², then param ← param - lr G / √(s + ε).

    ``grad_sq`` holds s, a running mean of the squared gradients, and is changed in place. Start
    with zeros, as in `momentum_update`. Everything else is as there.

    >>> w, square = Tensor(3.0, requires_grad=True), Tensor(64.0)
    >>> rmsprop_update(w * w, [w], [square], lr=0.1, alpha=0.0)
    >>> square, w  # 6², and 3 - 0.1 · 6 / 6
    (tensor(36.), tensor(2.9000, requires_grad=True))
    """
    settings = _checked("lr", lr), _checked("alpha", alpha), _checked("epsilon", epsilon)
    _update(kernels.rmsprop_inside, loss, params, *settings, grad_sq=grad_sq)


class Optimizer:
    """What the optimisers share: parameters, settings, and a state for each parameter.

    The settings are attributes and may be changed between steps: ``optimizer.lr *= 0.5``. With
    ``weight_decay``, the gradient G is replaced by G + weight_decay * param, so each step also
    pulls the parameters towards 0. (``param.grad`` stays G.)

    Parameters
    ----------
    params : iterable of Tensor
        Leaves of dtype float32 or float64, such as ``model.parameters()``.
    **settings : float
        Those of the optimiser, at least 0.

    Raises
    ------
    TypeError
        If ``params`` is a single Tensor or a model, or holds something that cannot be updated in
        place.
    ValueError
        If a setting is negative, infinite or NaN, even if it is assigned later, or if ``params``
        is empty or holds a Tensor twice.
    """

    lr: float
    weight_decay: float
    _states: tuple[str, ...]  # PyTorch's names for the arrays in `state`
    _settings: tuple[str, ...] = ()

    def __init__(self, params: Tensors, **settings: Any):
        self.params = _parameters(params)
        self.state = [[np.zeros_like(p.array) for _ in self._states] for p in self.params]
        self.steps = [0] * len(self.params)
        self._settings = tuple(settings)
        for name, value in settings.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._settings:
            value = _checked(name, value)
        # A class of yours may add attributes, minigrad's own do not after __init__.
        elif self._settings and type(self).__module__ == __name__ and not hasattr(self, name):
            kind, known = type(self).__name__, ", ".join(self._settings)
            raise AttributeError(f"{kind} has no setting {name!r}; its settings are {known}")
        super().__setattr__(name, value)

    if not TYPE_CHECKING:
        __getattr__ = getattr_of("Optimizer")

    def __repr__(self) -> str:
        settings = "".join(f", {name}={getattr(self, name)}" for name in self._settings)
        return f"{type(self).__name__}({len(self.params)} parameters{settings})"

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set the gradients to None; otherwise `Tensor.backward` adds to them.

        With ``set_to_none=False``, the gradients that exist become 0, in place.
        """
        if not set_to_none:
            return zero_grad(self.params)
        for param in self.params:
            param._grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient.

        Raises
        ------
        RuntimeError
            If none has, or if a parameter has become read-only or no longer has the shape or
            dtype of its state. No parameter and no state has changed then.
        ValueError
            If parameters were added to ``params`` or removed from it; they may be replaced.
        """
        if not len(self.params) == len(self.state) == len(self.steps):
            raise ValueError(
                f"params may be replaced, not added or removed: there were {len(self.state)}, "
                f"now there are {len(self.params)}; make a new optimiser"
            )
        plan = [
            (i, *self._plan(param, self.state[i], self.steps[i] + 1))
            for i, param in enumerate(self.params)
            if param.grad is not None
        ]
        if not plan:
            raise RuntimeError(
                "no parameter has a gradient: call loss.backward() before step(), "
                "and zero_grad() before both, not between them"
            )
        for i, rule, arrays, settings in plan:
            parts.run(rule, *arrays, settings=settings)
            self.steps[i] += 1
        changes.note_change(*[arrays[0] for _, _, arrays, _ in plan])

    def _plan(self, param: Tensor, state: list[np.ndarray], t: int) -> Plan:
        """How the t-th step updates a parameter: a kernel, its arrays and settings."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of all that training needs to continue, besides the parameters.

        For `Adam`, these are the settings, as float64, under their names, such as ``lr`` and
        ``betas``; ``steps``, the number of steps of each parameter; and the state of each
        parameter under its index in ``params`` and PyTorch's name, such as ``0.exp_avg`` and
        ``0.exp_avg_sq``. `save` can write them to a file.
        """
        state = {name: Tensor(np.array(getattr(self, name), float64)) for name in self._settings}
        state["steps"] = Tensor(np.array(self.steps, np.int64))
        for i, arrays in enumerate(self.state):
            for name, array in zip(self._states, arrays):
                state[f"{i}.{name}"] = Tensor(array.copy())
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned, or what `load` has read from a file.

        If the parameters are restored as well (`minigrad.nn.Module.load_state_dict`), the next
        steps are the same, bit for bit, as if training had not been interrupted.

        Raises
        ------
        TypeError
            If ``state`` is not a mapping but, say, a file name.
        RuntimeError
            If names are missing or unexpected, a shape or dtype differs, or a setting is out of
            range. All problems are listed, and the optimiser is unchanged.
        """
        check_state(state)
        old = self.state_dict()
        arrays = {name: old[name].array for name in (*self._settings, "steps")}
        for i, param in enumerate(self.params):
            arrays |= {f"{i}.{name}": param.array for name in self._states}
        problems = [f"unexpected: {name}" for name in state if name not in arrays]
        new: dict[str, np.ndarray] = {}
        for name, array in arrays.items():
            if name not in state:
                problems.append(f"{name}: got nothing, wanted {array.dtype} {array.shape}")
                continue
            given = np.asarray(getattr(state[name], "array", state[name]))
            if given.shape != array.shape or not np.can_cast(given.dtype, array.dtype, "safe"):
                got = f"{given.dtype} {given.shape}"
                problems.append(f"{name}: got {got}, wanted {array.dtype} {array.shape}")
                continue
            new[name] = np.empty_like(array)
            new[name][...] = given
            try:
                if name in self._settings:
                    _checked(name, given.tolist())
                elif name == "steps" and np.any(given < 0):
                    raise ValueError(f"steps must not be negative, got {given.tolist()}")
            except ValueError as error:
                problems.append(str(error))
        if problems:
            lines = "".join(f"\n  {problem}" for problem in problems)
            raise RuntimeError(f"state does not fit {type(self).__name__}:{lines}")
        for name in self._settings:
            setattr(self, name, new[name].tolist())
        self.steps = new["steps"].tolist()
        places = range(len(self.params))
        self.state = [[new[f"{i}.{name}"] for name in self._states] for i in places]


class SGD(Optimizer):
    """(Stochastic) gradient descent, with momentum β: v ← β v + G, then param ← param - lr v.

    With a constant lr, the velocity of `momentum_update` is this one times -lr.
    """

    momentum: float
    _states = ("momentum_buffer",)

    def __init__(self, params: Tensors, lr: float = 1e-3, momentum: float = 0,
                 *, weight_decay: float = 0):  # fmt: skip
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay)

    def _plan(self, param: Tensor, state: list[np.ndarray], t: int) -> Plan:
        if not self.momentum:
            return kernels.gradient_descent, _arrays(param, [], self.weight_decay), (self.lr,)
        arrays = _arrays(param, state, self.weight_decay)
        return kernels.sgd_momentum, arrays, (self.lr, self.momentum)


class RMSprop(Optimizer):
    """s ← α s + (1 - α) G², then param ← param - lr G / (√s + eps).

    The running mean s starts from 0 and is not corrected, so the first step has length
    lr/√(1 - α), ten times lr by default.
    """

    alpha: float
    eps: float
    _states = ("square_avg",)

    def __init__(self, params: Tensors, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
                 weight_decay: float = 0):  # fmt: skip
        super().__init__(params, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay)

    def _plan(self, param: Tensor, state: list[np.ndarray], t: int) -> Plan:
        arrays = _arrays(param, state, self.weight_decay)
        return kernels.rmsprop_outside, arrays, (self.lr, self.alpha, self.eps)


class Adam(Optimizer):
    """A running mean of gradients, divided as in RMSprop (Kingma and Ba, 2015). Step t is::

        m ← β₁ m + (1 - β₁) G        m̂ = m / (1 - β₁ᵗ)
        v ← β₂ v + (1 - β₂) G²       v̂ = v / (1 - β₂ᵗ)
        param ← param - lr m̂ / (√v̂ + eps)

    Both means start from 0; `kernels` derives how m̂ and v̂ correct that. ``betas`` are β₁ and
    β₂, both at least 0 and below 1.

    >>> w = Tensor(3.0, requires_grad=True)
    >>> optimizer = Adam([w], lr=0.1)
    >>> (w * w).backward()
    >>> optimizer.step()
    >>> w  # the gradient is 6, so m̂ = 6 and √v̂ = 6: the first step has length lr
    tensor(2.9000, requires_grad=True)
    """

    betas: tuple[float, float]
    eps: float
    _states = ("exp_avg", "exp_avg_sq")

    def __init__(self, params: Tensors, lr: float = 1e-3, betas: Sequence[float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0):  # fmt: skip
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def _plan(self, param: Tensor, state: list[np.ndarray], t: int) -> Plan:
        arrays = _arrays(param, state, self.weight_decay)
        return kernels.adam, arrays, (self.lr, *self.betas, self.eps, float(t))


if not TYPE_CHECKING:  # so that a type checker finds misspelt names
    __getattr__ = getattr_of("minigrad.optim")
