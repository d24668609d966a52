"""Layers and models. They hold the parameters, the numbers that training changes."""

from __future__ import annotations

import math
import reprlib
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from . import functional as F
from .arrays import as_dtype, float32, float64
from .creation import generator
from .left_out import getattr_of
from .serialization import check_state, named_array
from .tensors import Tensor


class Parameter(Tensor):
    """A Tensor that `Module.parameters` finds. It requires grad by default."""

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True):
        super().__init__(data, requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        """A copy of the numbers; a copied model has no gradients yet, as in PyTorch."""
        twin = memo[id(self)] = type(self)(self.array.copy(), self.requires_grad)
        return twin

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


def _items(holder: Any) -> Iterable[tuple[Any, Any]]:
    """What a Module, dict, list or tuple holds, by name; nothing for anything else."""
    if isinstance(holder, Module):
        return vars(holder).items()
    if isinstance(holder, dict):
        return holder.items()
    return enumerate(holder) if isinstance(holder, (list, tuple)) else ()


class Module:
    """Base class of layers and models: build the parts in ``__init__``, use them in ``forward``.

    Calling a model passes the arguments to ``forward``. Your ``__init__`` need not call that of
    this class.

    Attributes that are Parameters or Modules are found automatically, in the order in which they
    were assigned, as are those in lists, tuples and dicts: ``self.layers = [Linear(4, 3)]`` adds
    the parameters ``layers.0.weight`` and ``layers.0.bias``. A Parameter or Module that is used in
    two places counts once, under its first name.

    Attributes
    ----------
    training : bool
        For layers that behave differently during training; set by `train` and `eval`.
    """

    training = True

    def __setattr__(self, name: str, value: Any) -> None:
        old = vars(self).get(name)
        if isinstance(old, Parameter) and not isinstance(value, (Parameter, types.NoneType)):
            raise TypeError(
                f"{name} is a Parameter, got {type(value).__name__}: write {name}.data = ... for "
                "new numbers, or Parameter(...)"
            )
        super().__setattr__(name, value)

    if not TYPE_CHECKING:
        __getattr__ = getattr_of("Module")

    def forward(self, *inputs: Any, **settings: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} needs a method forward()")

    def __call__(self, *inputs: Any, **settings: Any) -> Any:
        return self.forward(*inputs, **settings)

    def _walk(self, prefix: str = "", deep: bool = True) -> Iterator[tuple[str, Any]]:
        """Yield ``(name, part)`` for each Module and Parameter, starting with this one.

        A part that is used in two places appears under both names, but its contents only once: a
        module may hold its parent. Without ``deep``, the contents of other modules are left out.
        """
        unexplored: list[tuple[str, Any]] = [(prefix, self)]
        explored = set()
        while unexplored:
            name, part = unexplored.pop()
            if isinstance(part, Parameter):
                yield name, part
                continue
            if isinstance(part, Module):
                yield name, part
                if not (deep or part is self):
                    continue
            if id(part) not in explored:
                explored.add(id(part))
                start = name and f"{name}."
                unexplored += [
                    (f"{start}{key}", value)
                    for key, value in _items(part)
                    if isinstance(value, _HOLDERS)
                ][::-1]

    def _find(self, name: str) -> Parameter | None:
        """The Parameter that has this name, perhaps among others."""
        unexplored: list[tuple[Any, str]] = [(self, name)]
        while unexplored:
            holder, rest = unexplored.pop()
            for key, part in _items(holder):
                if rest == str(key) and isinstance(part, Parameter):
                    return part
                if rest.startswith(f"{key}."):
                    unexplored.append((part, rest.removeprefix(f"{key}.")))
        return None

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """Yield ``(name, module)`` for this one, whose name is empty, and all in it, once each."""
        return _modules_once(self._walk())

    def modules(self) -> Iterator[Module]:
        """Yield this module and all in it, once each."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield ``(name, module)`` for each Module among the attributes, once each."""
        return _modules_once(list(self._walk(deep=False))[1:])

    def children(self) -> Iterator[Module]:
        """Yield the Modules among the attributes, once each."""
        return (module for _, module in self.named_children())

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """Yield ``(name, parameter)``, with dotted names such as ``main.0.weight`` of an `MLP`.

        A Parameter that is used in two places appears once, under its first name. Raises a
        ValueError if two have the same name, as in ``{1: p, "1": q}``.
        """
        named: dict[str, Parameter] = {}
        names: dict[Parameter, str] = {}
        for name, part in self._walk(prefix):
            if isinstance(part, Parameter):
                names.setdefault(part, name)
                if named.setdefault(name, part) is not part:
                    raise ValueError(
                        f"two Parameters, of shapes {named[name].shape} and {part.shape}, are "
                        f"both named {name}: the keys 1 and '1' of a dict, say, give one name"
                    )
        return ((name, parameter) for parameter, name in names.items())

    def parameters(self) -> Iterator[Parameter]:
        """Yield the parameters."""
        return (parameter for _, parameter in self.named_parameters())

    def state_dict(self) -> dict[str, Tensor]:
        """The parameters by name, as Tensors that share memory with the model: `save` writes them.

        A later step changes them too. To keep a copy, write ``copy.deepcopy(model.state_dict())``.
        """
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy numbers into the parameters, in place.

        Parameters
        ----------
        state : mapping from name to Tensor or array
            What `state_dict` returned, or what `load` has read from a file. A Parameter that is
            used in two places may appear under one of its names or, as in PyTorch, under all.

        Raises
        ------
        TypeError
            If ``state`` is not a mapping but, say, a file name, or holds anything but numbers.
        RuntimeError
            If names are missing or unexpected, a shape differs, two names of one Parameter have
            different numbers, or a Parameter is read-only. All problems are listed, and the model
            is unchanged.
        """
        check_state(state)
        own = dict(self.named_parameters())
        names = {parameter: [name] for name, parameter in own.items()}
        problems = ""
        for name in state:
            if name not in own:
                found = self._find(str(name))
                if found is None:
                    problems += f"\n  unexpected: {name}"
                else:
                    names[found].append(name)
        new: dict[Parameter, np.ndarray] = {}
        for parameter, known in names.items():
            given = {name: named_array(name, state[name]) for name in known if name in state}
            if not given:
                problems += f"\n  {known[0]}: got nothing, wanted {parameter.shape}"
            if not parameter.array.flags.writeable:
                problems += f"\n  {known[0]}: is read-only in the model"
            for name, array in given.items():
                if array.shape != parameter.shape:
                    problems += f"\n  {name}: got {array.shape}, wanted {parameter.shape}"
                elif not np.array_equal(array, new.setdefault(parameter, array), equal_nan=True):
                    problems += f"\n  {name}: differs from another name of the same parameter"
        if problems:
            raise RuntimeError(f"state does not fit {type(self).__name__}:{problems}")
        # copies, because the state may share memory with this model
        copies = [(parameter, array.astype(parameter.dtype)) for parameter, array in new.items()]
        for parameter, array in copies:
            parameter.set_numbers(..., array)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set the gradients of all parameters to None; otherwise `Tensor.backward` adds to them.

        With ``set_to_none=False``, the gradients that exist become 0, in place.
        """
        for parameter in self.parameters():
            if set_to_none or parameter.grad is None:
                parameter.grad = None
            else:
                parameter.grad.zero_()

    def to(self, dtype: Any) -> Self:
        """Convert the parameters to a floating-point dtype, in place, and return the module.

        The gradients are then None, and an optimiser with a state must be made anew.
        ``to("cpu")`` changes nothing: minigrad runs on the CPU only. A RuntimeError for anything
        else.
        """
        if as_dtype(dtype, float32).kind != "f":
            raise RuntimeError(f"to(): parameters must be floating-point, got {dtype!r}")
        for parameter in self.parameters():
            parameter.data = parameter.data.to(dtype)
        return self

    def float(self) -> Self:
        """The same as ``to(float32)``."""
        return self.to(float32)

    def double(self) -> Self:
        """The same as ``to(float64)``."""
        return self.to(float64)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set ``requires_grad`` of all parameters, and return the module."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def train(self, mode: bool = True) -> Self:
        """Set `training` of this module and all in it, and return the module."""
        if not isinstance(mode, bool):
            raise ValueError(f"train: mode must be True or False, got {mode!r}; it sets a flag")
        for _, module in _modules_once(self._walk()):
            module.training = mode
        return self

    def eval(self) -> Self:
        """The same as ``train(False)``."""
        return self.train(False)

    def extra_repr(self) -> str:
        """The text between the parentheses in the repr of a module without parts: override it."""
        return ""

    @reprlib.recursive_repr("...")  # a module may hold its parent
    def __repr__(self) -> str:
        named = list(self._walk(deep=False))[1:]
        parts = "".join(f"\n({n}): {m!r}" for n, m in named if isinstance(m, Module))
        inside = parts.replace("\n", "\n  ") + "\n" if parts else self.extra_repr()
        return f"{type(self).__name__}({inside})"


def _as_tensor(input: Any) -> Tensor:
    return input if isinstance(input, Tensor) else Tensor(input)


_HOLDERS = (Parameter, Module, dict, list, tuple)


def _modules_once(parts: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Module]]:
    """The Modules among the parts, each under its first name."""
    first: dict[int, tuple[str, Module]] = {}  # by id(): a dataclass has no hash
    for name, part in parts:
        if isinstance(part, Module):
            first.setdefault(id(part), (name, part))
    return iter(first.values())


class Linear(Module):
    """``input @ weight.T + bias``, from (..., D) to (..., H).

    Parameters
    ----------
    in_features, out_features : int
        D and H.
    bias : bool
        Whether to add a bias.

    Raises
    ------
    ValueError
        If a number of features is not a positive integer.

    Attributes
    ----------
    weight : Parameter, float32, shape (H, D)
    bias : Parameter, float32, shape (H,), or None
        Both are drawn uniformly between -1/√D and 1/√D, as in PyTorch. A uniform number between
        -u and u has variance u²/3, here 1/(3D). The variances of independent numbers add up, so
        Σ_d x[d] W[h, d] has variance Σ_d x[d]² / (3D), a third of the mean square of x. Outputs
        neither grow nor shrink with D.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        for name, value in (("in_features", in_features), ("out_features", out_features)):
            if not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        self.in_features, self.out_features = int(in_features), int(out_features)
        self.weight = self._draw(self.out_features, self.in_features)
        self.bias = self._draw(self.out_features) if bias else None

    def _draw(self, *shape: int) -> Parameter:
        bound = 1 / self.in_features**0.5
        return Parameter(generator.uniform(-bound, bound, shape).astype(float32))

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        features = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{features}, bias={self.bias is not None}"


class ReLU(Module):
    """max(input, 0), elementwise."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input)


class Tanh(Module):
    """The hyperbolic tangent, elementwise."""

    def forward(self, input: Tensor) -> Tensor:
        return _as_tensor(input).tanh()


class Sigmoid(Module):
    """1 / (1 + e⁻ˣ), elementwise."""

    def forward(self, input: Tensor) -> Tensor:
        return _as_tensor(input).sigmoid()


class LogSoftmax(Module):
    """The logarithm of the softmax along ``dim``; see `functional.log_softmax`."""

    def __init__(self, dim: int):
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax(LogSoftmax):
    """exp(x[c]) / Σ_j exp(x[j]) along ``dim``: positive numbers whose sum is 1.

    Do not put it before a loss: `NLLLoss` needs `LogSoftmax` before it, `CrossEntropyLoss` neither.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, self.dim)


class Flatten(Module):
    """Merge the dimensions from ``start_dim`` to ``end_dim``: (N, 1, 28, 28) becomes (N, 784).

    Raises an IndexError if one of them does not exist, a RuntimeError if the end comes first.
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        input = _as_tensor(input)
        shape = input.shape or (1,)
        start = normalize_axis_index(self.start_dim, len(shape), "start_dim")
        end = normalize_axis_index(self.end_dim, len(shape), "end_dim")
        if start > end:
            raise RuntimeError(f"{self!r}: in shape {shape}, the end comes before the start")
        return input.reshape(*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class NLLLoss(Module):
    """The negative log-likelihood of the right classes: see `functional.nll_loss`.

    Parameters
    ----------
    weight : Tensor, shape (C,), optional
        How much an example of each class counts.
    ignore_index : int
        Examples with this target do not count.
    reduction : {"mean", "sum", "none"}
        Whether to return the mean of the losses, their sum, or the losses themselves; anything
        else raises a ValueError.
    """

    # Keyword-only, because PyTorch has other, long outdated settings in these positions.
    def __init__(self, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean"):
        F.check_reduction(type(self).__name__, reduction)
        self.weight, self.ignore_index, self.reduction = weight, ignore_index, reduction

    def _settings(self) -> dict[str, Any]:
        names = ("weight", "ignore_index", "reduction")
        return {name: getattr(self, name) for name in names}

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.nll_loss(input, target, **self._settings())


class CrossEntropyLoss(NLLLoss):
    """`NLLLoss` after log-softmax, for models that end without one; its settings are the same."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(input, target, **self._settings())


class MSELoss(Module):
    """The mean of (input - target)² over all elements, or their sum, or, with "none", all of them.

    Raises a ValueError if the shapes differ: (N,) and (N, 1) would broadcast to N² differences.
    """

    def __init__(self, reduction: str = "mean"):
        F.check_reduction("MSELoss", reduction)
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        input, target = _as_tensor(input), _as_tensor(target)
        if input.shape != target.shape:
            got = f"input {input.shape} and target {target.shape}"
            raise ValueError(f"MSELoss: wanted one shape, got {got}; use target.reshape()")
        squares = (input - target) ** 2
        return squares if self.reduction == "none" else getattr(squares, self.reduction)()


class Sequential(Module):
    """Modules applied one after the other; their names are 0, 1, 2, ...

    It has a length, an iterator and indices; a slice is a Sequential of the same Modules, which
    are numbered anew. Anything but Modules raises a TypeError.
    """

    def __init__(self, *modules: Module):
        for i, module in enumerate(modules):
            if not isinstance(module, Module):
                hint = "; write Sequential(*layers)" if isinstance(module, list) else ""
                raise TypeError(f"modules[{i}] must be a Module, got {type(module).__name__}{hint}")
            setattr(self, str(i), module)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Module]:
        return (part for part in vars(self).values() if isinstance(part, Module))

    def __getitem__(self, index: Any) -> Any:
        found = list(self)[index]
        return Sequential(*found) if isinstance(found, list) else found

    def forward(self, input: Tensor) -> Tensor:
        for module in self:
            input = module(input)
        return input


class MLP(Module):
    """A multi-layer perceptron: linear layers with ReLU between them, and log-softmax at the end.

    Its outputs are the log-probabilities of the classes. All linear layers except the last are
    called hidden. Without them, this is softmax regression, log(softmax(x @ Wᵀ + b)).

    Parameters
    ----------
    in_dim, out_dim : int
        The number of inputs of an example, and the number of classes.
    hidden_dims : sequence of int
        The number of units (outputs) of each hidden layer.
    use_bias : bool
        Whether the linear layers have a bias.
    """

    def __init__(self, in_dim: int = 784, out_dim: int = 10,
                 hidden_dims: Iterable[int] = (), use_bias: bool = True):  # fmt: skip
        if not isinstance(hidden_dims, Iterable):
            raise TypeError(f"hidden_dims must be a list, such as [100], got {hidden_dims!r}")
        self.in_dim = in_dim
        layers = []
        for hidden_dim in hidden_dims:
            layers += [Linear(in_dim, hidden_dim, use_bias), ReLU()]
            in_dim = hidden_dim
        self.main = Sequential(*layers, Linear(in_dim, out_dim, use_bias))

    def forward(self, input: Tensor) -> Tensor:
        """Log-probabilities (N, out_dim) of N examples, or of a single one, for which N is 1.

        An example may have any dimensions whose lengths multiply to in_dim: images of 28 x 28
        fit 784 inputs. Anything else raises a RuntimeError.
        """
        input = _as_tensor(input)
        shape, D = input.shape, self.in_dim
        if shape[1:] != (D,):
            if math.prod(shape) != D and (len(shape) < 2 or math.prod(shape[1:]) != D):
                several = (
                    f"{shape[0]} examples of {math.prod(shape[1:])}" if shape[1:] else "one example"
                )
                several = several if shape[1:] else "one example"
                raise RuntimeError(
                    f"MLP wanted examples of {D} numbers, (N, {D}), got shape {shape}: {several}"
                )
            input = input.reshape(-1, D)
        return F.log_softmax(self.main(input), dim=1)


if not TYPE_CHECKING:  # so that a type checker finds misspelt names
    __getattr__ = getattr_of("minigrad.nn")
