"""Layers and models: where the parameters live, the numbers that training changes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import functional as F
from .arrays import as_array, float32
from .creation import generator
from .left_out import getattr_of
from .tensors import Tensor


class Parameter(Tensor):
    """A Tensor that `Module.parameters` finds; it requires grad unless told otherwise."""

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True):
        super().__init__(data, requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


class Module:
    """Base class of layers and models: build the parts in `__init__`, use them in `forward`.

    Attributes that are Parameters or Modules are found by themselves, in the order in which
    they were assigned, and so are those in lists, tuples and dicts: of
    ``self.layers = [Linear(4, 3)]``, the parameters are ``layers.0.weight`` and
    ``layers.0.bias``.
    """

    def forward(self, *inputs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} needs a method forward()")

    def __call__(self, *inputs: Any) -> Any:
        return self.forward(*inputs)

    def _named_parts(self) -> Iterator[tuple[str, Any]]:
        """Yield ``(name, part)`` for each Module and Parameter among the attributes."""
        unexplored = list(vars(self).items())[::-1]
        while unexplored:
            name, value = unexplored.pop()
            if isinstance(value, (Module, Parameter)):
                yield name, value
            elif isinstance(value, (list, tuple, dict)):
                items = value.items() if isinstance(value, dict) else enumerate(value)
                unexplored += [(f"{name}.{key}", part) for key, part in items][::-1]

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield ``(name, module)`` for each Module among the attributes."""
        return ((name, part) for name, part in self._named_parts() if isinstance(part, Module))

    def _all_names(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """Yield ``(name, parameter)``; one that is used in two places comes under both names."""
        for name, part in self._named_parts():
            if isinstance(part, Parameter):
                yield prefix + name, part
            else:
                yield from part._all_names(f"{prefix}{name}.")

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """Yield ``(name, parameter)``, with dotted names: of an `MLP`, ``main.0.weight`` first.

        A Parameter that is used in two places comes once, under its first name.
        """
        names: dict[Parameter, str] = {}
        for name, parameter in self._all_names(prefix):
            names.setdefault(parameter, name)
        return ((name, parameter) for parameter, name in names.items())

    def parameters(self) -> Iterator[Parameter]:
        """Yield the parameters."""
        return (parameter for _, parameter in self.named_parameters())

    def state_dict(self) -> dict[str, Tensor]:
        """The parameters by name, as Tensors that share memory with the model."""
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy numbers into the parameters, in place.

        Parameters
        ----------
        state : mapping from name to Tensor or array
            What `state_dict` gave, or `load` has read from a file. A Parameter that is used in
            two places may come under one of its names or, as in PyTorch, under all.

        Raises
        ------
        TypeError
            If `state` is no mapping, such as a file name, or holds something else than numbers.
        RuntimeError
            If names are missing or unexpected, a shape differs, or two names of one Parameter
            come with different numbers; all are listed, and the model is as it was.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state must map names to Tensors, got {type(state).__name__}")
        names: dict[Parameter, list[str]] = {}
        for name, parameter in self._all_names():
            names.setdefault(parameter, []).append(name)
        unexpected = [name for name in state if not any(name in known for known in names.values())]
        problems = "".join(f"\n  unexpected: {name}" for name in unexpected)
        new: dict[Parameter, np.ndarray] = {}
        for parameter, known in names.items():
            given = {name: as_array(state[name]) for name in known if name in state}
            if not given:
                problems += f"\n  {known[0]}: got nothing, wanted {parameter.shape}"
            for name, array in given.items():
                if array.shape != parameter.shape:
                    problems += f"\n  {name}: got {array.shape}, wanted {parameter.shape}"
                elif not np.array_equal(array, new.setdefault(parameter, array), equal_nan=True):
                    problems += f"\n  {name}: differs from another name of the same parameter"
        if problems:
            raise RuntimeError(f"state does not fit {type(self).__name__}:{problems}")
        copies = [(parameter, array.copy()) for parameter, array in new.items()]
        for parameter, array in copies:  # the state may share memory with this very model
            parameter.set_numbers(..., array)

    def extra_repr(self) -> str:
        """What stands between the parentheses of a module without parts."""
        return ""

    def __repr__(self) -> str:
        parts = "".join(f"\n({n}): {m!r}" for n, m in self.named_children())
        inside = parts.replace("\n", "\n  ") + "\n" if parts else self.extra_repr()
        return f"{type(self).__name__}({inside})"


class Linear(Module):
    """``input @ weight.T + bias``, from (..., D) to (..., H).

    Parameters
    ----------
    in_features, out_features : int
        D and H.
    bias : bool
        Whether to add a bias.

    Attributes
    ----------
    weight : Parameter, float32, shape (H, D)
    bias : Parameter, float32, shape (H,), or None
        Both are drawn uniformly between -1/√D and 1/√D, as PyTorch does. A uniform number
        between -u and u has variance u²/3, here 1/(3D). Variances of independent numbers add
        up: over the draws, Σ_d x[d] W[h, d] has the variance Σ_d x[d]² / (3D), a third of the
        mean square of x. So outputs neither grow nor shrink with D.
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


class Sequential(Module):
    """Modules applied one after the other; their names are 0, 1, 2, ..."""

    def __init__(self, *modules: Module):
        for i, module in enumerate(modules):
            if not isinstance(module, Module):
                raise TypeError(f"Sequential: item {i} is no Module but {type(module).__name__}")
            setattr(self, str(i), module)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Module]:
        return (part for part in vars(self).values() if isinstance(part, Module))

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]

    def forward(self, input: Tensor) -> Tensor:
        for module in self:
            input = module(input)
        return input


class MLP(Module):
    """A multi-layer perceptron: linear layers with ReLU between them, and log-softmax at the end.

    Its outputs are the logarithms of the probabilities of the classes. Layers but the last
    are called hidden. Without one, this is softmax regression, log(softmax(x @ Wᵀ + b)).

    Parameters
    ----------
    in_dim, out_dim : int
        The number of inputs of one example and of classes.
    hidden_dims : sequence of int
        The number of units (outputs) of each hidden layer.
    use_bias : bool
        Whether the linear layers have a bias.
    """

    def __init__(self, in_dim: int = 784, out_dim: int = 10,
                 hidden_dims: Iterable[int] = (), use_bias: bool = True):  # fmt: skip
        if not isinstance(hidden_dims, Iterable):
            raise TypeError(f"hidden_dims must be several sizes, as in [100], got {hidden_dims!r}")
        self.in_dim = in_dim
        layers = []
        for hidden_dim in hidden_dims:
            layers += [Linear(in_dim, hidden_dim, use_bias), ReLU()]
            in_dim = hidden_dim
        self.main = Sequential(*layers, Linear(in_dim, out_dim, use_bias))

    def forward(self, input: Tensor) -> Tensor:
        """Log-probabilities (N, out_dim) of N examples, or of a single one, for which N is 1.

        The dimensions of an example may be any whose lengths multiply to in_dim: images of
        28 x 28 fit 784 inputs. Anything else is a RuntimeError.
        """
        input = input if isinstance(input, Tensor) else Tensor(input)
        shape, D = input.shape, self.in_dim
        if shape[1:] != (D,):
            if math.prod(shape) != D and (len(shape) < 2 or math.prod(shape[1:]) != D):
                raise RuntimeError(
                    f"MLP wanted examples of {D} numbers, got shape {shape}: "
                    f"{shape[0] if shape else 1} examples of {math.prod(shape[1:])}"
                )
            input = input.reshape(-1, D)
        return F.log_softmax(self.main(input), dim=1)


if not TYPE_CHECKING:  # a type checker is to find misspelt names
    __getattr__ = getattr_of("minigrad.nn")
