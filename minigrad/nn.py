"""Layers and models: where the parameters live, the numbers that training changes."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import functional as F
from .creation import generator
from .tensor import Tensor, as_array, float32


class Parameter(Tensor):
    """A Tensor that `Module.parameters` finds; it requires grad unless told otherwise."""

    __slots__ = ()

    def __init__(self, data: ArrayLike, requires_grad: bool = True):
        super().__init__(data, requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


class Module:
    """Base class of layers and models: build the parts in `__init__`, use them in `forward`.

    Attributes that are Parameters or Modules are found by themselves, in the order in which
    they were assigned.
    """

    def forward(self, *inputs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} needs a method forward()")

    def __call__(self, *inputs: Any) -> Any:
        return self.forward(*inputs)

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """Yield ``(name, module)`` for each Module that is an attribute of this one."""
        return ((name, part) for name, part in vars(self).items() if isinstance(part, Module))

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """Yield ``(name, parameter)``, with dotted names: of an `MLP`, ``main.0.weight`` first.

        A Parameter that is used in two places comes once, under its first name.
        """
        names: dict[Parameter, str] = {}
        for name, value in vars(self).items():
            if isinstance(value, Parameter):
                names.setdefault(value, prefix + name)
            elif isinstance(value, Module):
                for inner, parameter in value.named_parameters(f"{prefix}{name}."):
                    names.setdefault(parameter, inner)
        return ((name, parameter) for parameter, name in names.items())

    def parameters(self) -> Iterator[Parameter]:
        """Yield the parameters."""
        return (parameter for _, parameter in self.named_parameters())

    def state_dict(self) -> dict[str, Tensor]:
        """The parameters by name, as Tensors that share memory with the model."""
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        """Copy numbers into the parameters, in place.

        Parameters
        ----------
        state : mapping from name to Tensor or array
            What `state_dict` gave, or `load` has read from a file.

        Raises
        ------
        TypeError
            If `state` is no mapping, such as a file name, or holds something else than numbers.
        RuntimeError
            If names are missing or unexpected or a shape differs; all are listed, and the
            model is as it was.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state must map names to Tensors, got {type(state).__name__}")
        parameters = dict(self.named_parameters())
        new = {name: as_array(state[name]).copy() for name in parameters if name in state}
        problems = "".join(f"\n  unexpected: {name}" for name in state if name not in parameters)
        for name, parameter in parameters.items():
            got = new[name].shape if name in new else "nothing"
            if got != parameter.shape:
                problems += f"\n  {name}: got {got}, wanted {parameter.shape}"
        if problems:
            raise RuntimeError(f"state does not fit {type(self).__name__}:{problems}")
        for name, array in new.items():
            parameters[name].array[...] = array

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
        mean square of x. So outputs neither grow nor shrink with D. The weight lies column by
        column in memory, so that ``weight.view(-1)`` is a copy.
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
        # Column by column in memory: for small batches, BLAS is up to a third faster then.
        return Parameter(generator.uniform(-bound, bound, shape).astype(float32, order="F"))

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
        return (module for _, module in self.named_children())

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
        """Log-probabilities (N, out_dim) of inputs of any shape with N * in_dim elements."""
        return F.log_softmax(self.main(input.view(-1, self.in_dim)), dim=1)
