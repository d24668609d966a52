"""Mistakes: each raises one exception, of PyTorch's type, that says what is wrong. Nothing changes.

Mistakes in data files are in test_datasets.py, mistakes on the command line in test_examples.py.
"""

import io
import math
import pickle
import re

import numpy as np
import pytest
import torch

import minigrad as mg
from minigrad import datasets, functional as F, nn, optim
from minigrad.datasets import minibatches


class World:
    """The objects with which the mistakes are made."""

    def __init__(self, folder):
        self.folder = folder
        self.x = mg.ones(2, 3, requires_grad=True)
        self.x.grad = mg.ones(2, 3) * 5
        self.plain, self.ints = mg.ones(2, 3), mg.tensor([0, 2])
        self.unused = mg.ones(4, requires_grad=True)
        self.model = nn.MLP(3, 3, [4])
        self.graph = (self.x * self.plain).sum()
        self.loss = F.nll_loss(self.model(self.plain), self.ints)

    def snapshot(self):
        tensors = [self.x, self.plain, self.ints, self.unused, *self.model.parameters()]
        return pickle.dumps([(t.array, t.grad, t.requires_grad) for t in tensors])

    def file(self, content):
        path = self.folder / "model.npz"
        path.write_bytes(content)
        return path

    def saved(self, state):
        mg.save(state, self.folder / "saved.npz")
        return (self.folder / "saved.npz").read_bytes()


def state(model, **changes):
    """The state of a model, with entries changed, added, or (None) left out."""
    entries = model.state_dict() | {name.replace("_", "."): v for name, v in changes.items()}
    return {name: value for name, value in entries.items() if value is not None}


def with_objects():
    file = io.BytesIO()
    np.savez(file, a=np.array([{}], object))
    return file.getvalue()


def one_array():
    file = io.BytesIO()
    np.save(file, np.ones(3))
    return file.getvalue()


def of_pytorch(w):
    torch.save(torch.nn.Linear(3, 2).state_dict(), w.folder / "a.pt")
    return w.folder / "a.pt"


@mg.operation
def broken(x):
    return x * 1, lambda G: G[:1]


def update(w, lr):
    optim.gradient_update(w.loss, w.model.parameters(), lr=lr)


def colliding(w):
    """A model with two parameters of the same name."""
    model = nn.Sequential(w.model)
    model.heads = {1: nn.Parameter(w.plain), "1": nn.Parameter(w.unused)}
    return model


def frozen(parameter):
    parameter.array.flags.writeable = False


def step_frozen(w):
    optimizer = optim.SGD([w.x])
    frozen(w.x)
    optimizer.step()


def load_into_frozen(w):
    frozen(w.model.main[2].bias)
    w.model.load_state_dict(nn.MLP(3, 3, [4]).state_dict())


def load_into_adam(w, changes):
    """Load the state of an Adam with entries changed, added, or (None) left out."""
    optimizer = optim.Adam([w.x, w.unused])
    entries = optimizer.state_dict() | changes
    optimizer.load_state_dict({name: value for name, value in entries.items() if value is not None})


def set_later(w, name, value):
    optimizer = optim.Adam([w.x]) if name == "betas" else optim.RMSprop([w.x])
    optimizer = optim.SGD([w.x]) if name == "momentum" else optimizer
    setattr(optimizer, name, value)


def reshaped(optimizer):
    (param,) = optimizer.params
    param.data = mg.ones(30)
    (param * param).sum().backward()
    optimizer.step()


def halved(optimizer):
    (param,) = optimizer.params
    param.data = mg.ones(2, dtype="f2")
    param.grad = mg.ones(2, dtype="f2")
    optimizer.step()


def added(optimizer, param):
    optimizer.params.append(param)
    optimizer.step()


TENSORS = {
    "string": (lambda w: mg.tensor("abc"), TypeError, "data must be real numbers, got 'abc'"),
    "strings": (lambda w: mg.tensor(["a", "b"]), TypeError, "data must be real numbers, got"),
    "object": (lambda w: mg.tensor(object()), TypeError, "data must be real numbers, got <object"),
    "None": (lambda w: mg.tensor(None), TypeError, "data must be real numbers, got None"),
    "complex": (lambda w: mg.tensor(1j), TypeError, r"must be real numbers, got 1j \(dtype complex"),
    "ragged": (lambda w: mg.tensor([[1, 2], [3]]), ValueError, "must be a regular array of numbers"),
    "ragged array": (lambda w: mg.tensor(np.array([1, "a"], object)), TypeError, "dtype object"),
    "from_numpy": (lambda w: mg.from_numpy([1]), TypeError, "takes a numpy.ndarray, got list"),
    "integers with grad": (
        lambda w: mg.tensor([1], requires_grad=True),
        RuntimeError, "only floating-point Tensors can require grad, not int64; write 2.0 instead",
    ),
    "a shape for numbers": (
        lambda w: mg.Tensor(2, 3), TypeError, r"requires_grad must be True or False, got 3; .* zeros\(2, 3\)",
    ),
    "to a GPU": (
        lambda w: w.x.to("cuda"), RuntimeError, r"on the CPU only; wanted a dtype or 'cpu', got 'cuda'",
    ),
    "much that is not a number": (
        lambda w: mg.tensor({"a": [1.5] * 100}), TypeError, r"real numbers, got .{,60} \(dtype object\)$",
    ),
    "integers get grad": (
        lambda w: setattr(w.ints, "requires_grad", True),
        RuntimeError, "only floating-point Tensors can require grad, not int64",
    ),
    "requires_grad of a result": (
        lambda w: setattr(w.graph, "requires_grad", False), RuntimeError, "leaves only",
    ),
    "integer data": (
        lambda w: setattr(w.x, "data", w.ints),
        RuntimeError, "a Tensor that requires grad cannot hold int64 data",
    ),
    "data of a result, another shape": (
        lambda w: setattr(w.graph, "data", w.x.detach()),
        RuntimeError, r"data of a result must stay float32 \(\)",
    ),
    "grad of another shape": (
        lambda w: setattr(w.x, "grad", mg.ones(3, 2)),
        RuntimeError, r"grad must be None or float32 \(2, 3\), got tensor",
    ),
    "grad an array": (
        lambda w: setattr(w.x, "grad", np.ones((2, 3), "f4")), RuntimeError, "grad must be .*array",
    ),
    "numpy of a leaf": (lambda w: w.x.numpy(), RuntimeError, r"detach\(\).numpy\(\)"),
    "NumPy's function": (lambda w: np.exp(w.x), RuntimeError, r"x\.exp\(\) instead of np\.exp"),
    "retain_grad": (lambda w: w.plain.retain_grad(), RuntimeError, "does not require grad"),
    "view": (lambda w: w.plain.T.view(6), RuntimeError, r"shape \(3, 2\).*use reshape\(\)"),
    "item": (lambda w: w.plain.item(), RuntimeError, r"shape \(2, 3\) is not one number, as item"),
    "if": (lambda w: bool(w.plain), RuntimeError, r"shape \(2, 3\) is neither true nor false: write \(x > 0\)\.all"),
    "len of a scalar": (lambda w: len(w.graph), TypeError, "0-d Tensor has no length"),
}  # fmt: skip

ENGINE = {
    "requires_grad forgotten": (
        lambda w: (w.plain * 2).sum().backward(), RuntimeError, "with requires_grad=True",
    ),
    "no graph": (lambda w: w.plain.sum().backward(), RuntimeError, "found no graph.*not require grad"),
    "no scalar": (
        lambda w: (w.x * 2).backward(), RuntimeError, r"not from shape \(2, 3\): take mean\(\) or sum\(\) first",
    ),
    "gradient of another shape": (
        lambda w: (w.x * 2).backward(np.ones(3)),
        RuntimeError, r"gradient has shape \(3,\), the Tensor \(2, 3\)",
    ),
    "gradient a string": (lambda w: w.graph.backward("1"), TypeError, "must be real numbers, got '1'"),
    "VJP of another shape": (
        lambda w: (w.x + broken(w.x)).sum().backward(),
        RuntimeError, r"VJP of broken returned shape \(1, 3\) for an input of shape \(2, 3\)",
    ),
    "VJP with a list": (
        lambda w: (w.x + mg.operation(lambda x: (x, lambda G: [G]))(w.x)).sum().backward(),
        RuntimeError, r"VJP of <lambda> must return an array, got list$",
    ),
    "operation without a VJP": (
        lambda w: mg.operation(lambda x: x * 2)(w.x),
        TypeError, r"<lambda> must return \(result, vjp\), got ndarray; a vjp is a function of G",
    ),
    "operation of two with one VJP": (
        lambda w: mg.operation(lambda x, y: (x * y, lambda G: G))(w.x, w.plain),
        TypeError, r"must return \(result, vjp, vjp\), got \(\w+, function\); .* a setting .* by keyword\)$",
    ),
    "operation with an array for a VJP": (
        lambda w: mg.operation(lambda x: (x * x, 2 * x))(w.x),
        TypeError, r"must return \(result, vjp\), got \(ndarray, ndarray\); .* lambda G: ",
    ),
    "rule without texts": (
        lambda w: mg.rule(lambda x: (x, lambda G: G)), TypeError, "rule takes texts, got <function .*write @rule",
    ),
}  # fmt: skip

OPS = {
    "a caret for a power": (
        lambda w: w.x ^ 2, TypeError, r"bitwise_xor needs .* got float32; .* a power is x\*\*2$",
    ),
    "add": (
        lambda w: w.x + mg.ones(4), RuntimeError, r"add cannot combine shapes \(2, 3\) and \(4,\)",
    ),
    "compare": (
        lambda w: w.x < mg.ones(4), RuntimeError, r"less cannot combine shapes \(2, 3\) and \(4,\)",
    ),
    "images not flattened": (
        lambda w: mg.zeros(5, 28, 28) @ mg.zeros(784, 10),
        RuntimeError, r"28, must be the last but one of the second, 784; flatten images with",
    ),
    "matmul of a vector": (
        lambda w: w.plain @ mg.zeros(2), RuntimeError, "3, must be the length of the second, 2",
    ),
    "matmul": (
        lambda w: w.x @ w.plain, RuntimeError, r"matmul of shapes \(2, 3\) and \(2, 3\): the last length of the first, 3, must be the last but one",
    ),
    "matmul of numbers": (
        lambda w: w.x.sum() @ w.x.sum(), RuntimeError, r"matmul of shapes \(\) and \(\): to multiply by a number, use \*",
    ),
    "matmul of two dtypes": (
        lambda w: w.x @ w.plain.double().T, RuntimeError, "matmul wanted one dtype, got x float32, y float64; convert with",
    ),
    "add a string": (lambda w: w.x + "one", TypeError, "must be real numbers, got 'one'"),
    "view": (
        lambda w: w.x.view(4, -1), RuntimeError, r"^reshape from shape \(2, 3\): cannot reshape array of size 6",
    ),
    "sum": (lambda w: w.x.sum(2), IndexError, "dim: axis 2 is out of bounds for .* dimension 2"),
    "sum twice": (lambda w: w.x.sum((0, 0)), ValueError, "repeated axis in `dim`"),
    "mean": (lambda w: w.x.mean(-3), IndexError, "dim: axis -3 is out of bounds"),
    "mean of integers": (lambda w: w.ints.mean(), RuntimeError, r"got int64; use float\(\)"),
    "max": (lambda w: w.x.max(-3), IndexError, "dim: axis -3 is out of bounds"),
    "max of nothing": (
        lambda w: w.x[:0].max(), RuntimeError, r"no elements \(shape \(0, 3\), dim None\)",
    ),
    "max over two": (lambda w: w.x.max((0, 1)), TypeError, "tuple"),
    "argmax": (lambda w: w.x.argmax(5), IndexError, "axis 5 is out of bounds"),
    "argmax over two": (lambda w: w.x.argmax((0, 1)), TypeError, "tuple"),
    "transpose": (lambda w: w.x.transpose(0, 2), IndexError, "axis 2 is out of bounds"),
    "index": (lambda w: w.x[2], IndexError, "index 2 is out of bounds for axis 0 with size 2"),
    "in place on a leaf": (
        lambda w: w.x.__iadd__(1), RuntimeError, r"requires grad may change in place only under no_grad",
    ),
    "zero_ a leaf": (lambda w: w.x.zero_(), RuntimeError, "may change in place only under no_grad"),
    "assign to a leaf": (lambda w: w.x.__setitem__(0, 1), RuntimeError, "in place only under no_grad"),
    "assign with a graph to integers": (
        lambda w: w.ints.__setitem__(0, w.x[0, 0]), RuntimeError, r"int64 has no gradient; assign",
    ),
    "assign with a graph beside a view": (
        lambda w: (w.plain[0], w.plain.__setitem__(0, w.x[0])),
        RuntimeError, r"x\[index\] = value: a view, .*shape \(2, 3\) .*: x = x.clone\(\) before it",
    ),
    "several dims": (
        lambda w: w.plain.sum(0, 1), TypeError, r"sum: keepdim must be True or False, got 1; several",
    ),
    "assign several numbers to one": (
        lambda w: w.plain.__setitem__((0, 0), mg.ones(2)),
        ValueError, r"value has shape \(2,\), x\[index\] \(\)$",
    ),
    "assign too much": (lambda w: w.plain.__setitem__(0, [1, 2]), ValueError, r"\(2,\).*\(3,\)"),
    "in place, shape": (lambda w: w.plain.__iadd__(np.ones(4)), RuntimeError, r"add cannot combine shapes \(2, 3\) and \(4,\)"),
    "in place, dtype": (lambda w: w.ints.__imul__(0.5), RuntimeError, "in-place mul: int64 .* cannot hold"),
    "in place, graph, shape": (
        lambda w: mg.ones(3).__iadd__(w.x),
        RuntimeError, r"in-place add: .* of shape \(3,\) cannot hold float32 of shape \(2, 3\)",
    ),
    "in place, graph, dtype": (
        lambda w: w.ints.__imul__(w.x[:, 0]),
        RuntimeError, r"in-place mul: int64 of shape \(2,\) cannot hold float32",
    ),
    "deepcopy of a result": (lambda w: pickle.dumps(w.graph), RuntimeError, "only leaves can be copied"),
}  # fmt: skip

FUNCTIONAL = {
    "linear": (
        lambda w: F.linear(w.x, mg.ones(4, 5)),
        RuntimeError, r"linear: wanted input \(..., D\), .* got input \(2, 3\), weight \(4, 5\)",
    ),
    "linear's bias": (
        lambda w: F.linear(w.x, mg.ones(4, 3), mg.ones(3)),
        RuntimeError, r"linear: .* bias \(H,\), got input \(2, 3\), weight \(4, 3\), bias \(3,\)",
    ),
    "linear of two dtypes": (
        lambda w: F.linear(w.x, mg.ones(4, 3).double()),
        RuntimeError, "linear wanted all float32 or all float64, got input float32, weight float64; convert with x.float\\(\\) or x.double\\(\\)$",
    ),
    "a NumPy array of another dtype": (
        lambda w: np.arange(6).reshape(2, 3) @ mg.ones(3, 2).double(),
        RuntimeError, r"got x int64, y float64; convert .* or x.double\(\), a NumPy array with mg.tensor\(x\) first$",
    ),
    "linear of images": (
        lambda w: w.model(mg.tensor(np.ones((2, 3), "u1"))),
        RuntimeError, "linear wanted .* got input uint8, weight float32, bias float32; .*uint8 images by 255",
    ),
    "linear of a number": (lambda w: w.model.main[0](mg.ones(())), RuntimeError, r"input \(\)"),
    "relu of integers": (
        lambda w: F.relu(w.ints), RuntimeError, "relu wanted all float32 or all float64, got input int64",
    ),
    "log_softmax": (lambda w: F.log_softmax(w.x, dim=2), IndexError, "dim: axis 2 is out of bounds"),
    "arguments swapped": (
        lambda w: F.nll_loss(w.ints, w.x),
        RuntimeError, r"log_probs must be floating-point .*got int64 \(2,\); are .*swapped",
    ),
    "argmax for log_probs": (
        lambda w: F.nll_loss(w.x.argmax(dim=1), w.ints), RuntimeError, "or is this an argmax",
    ),
    "one-hot floats": (
        lambda w: F.nll_loss(w.x, np.eye(3)[:2]), ValueError, r"argmax\(dim=1\)",
    ),
    "targets floats": (
        lambda w: F.nll_loss(w.x, [0.0, 1.0]),
        RuntimeError, r"targets must be integers, got float32; use long\(\)",
    ),
    "targets too large": (
        lambda w: F.nll_loss(w.x, [0, 3]), IndexError, r"targets\[1\] is 3, wanted 0..2",
    ),
    "targets negative": (
        lambda w: F.nll_loss(w.x, [-1, 0]), IndexError, r"targets\[0\] is -1, wanted 0..2",
    ),
    "cross_entropy": (
        lambda w: F.cross_entropy(w.x, [0, 3]), IndexError, r"^cross_entropy: target\[1\] is 3, wanted 0..2",
    ),
    "cross_entropy, shapes": (
        lambda w: nn.CrossEntropyLoss()(w.x, [0]),
        ValueError, r"^cross_entropy: .* got input \(2, 3\) and target \(1,\)$",
    ),
    "targets too few": (
        lambda w: F.nll_loss(w.x, [0]),
        ValueError, r"\(N, C\) and \(N,\), got log_probs \(2, 3\) and targets \(1,\)",
    ),
    "targets one-hot": (
        lambda w: F.nll_loss(w.x, np.eye(3, dtype=int)[:2]), ValueError, r"of shape \(2,\), got targets \(2, 3\); .*argmax\(dim=1\)",
    ),
    "empty batch": (
        lambda w: F.nll_loss(w.x[:0], w.ints[:0]), ValueError, "mean over an empty batch does not exist",
    ),
    "reduction": (
        lambda w: F.nll_loss(w.x, w.ints, "avg"), ValueError, "must be mean, sum or none, got 'avg'",
    ),
}  # fmt: skip

NN = {
    "hidden_dims zero": (
        lambda w: nn.MLP(hidden_dims=[10, 0]), ValueError, "out_features must be a positive integer, got 0",
    ),
    "hidden_dims negative": (lambda w: nn.MLP(hidden_dims=[-1]), ValueError, "positive integer, got -1"),
    "hidden_dims float": (lambda w: nn.MLP(hidden_dims=[2.5]), ValueError, "positive integer, got 2.5"),
    "hidden_dims string": (lambda w: nn.MLP(hidden_dims="10"), ValueError, "positive integer, got '1'"),
    "hidden_dims a number": (lambda w: nn.MLP(hidden_dims=100), TypeError, "hidden_dims .*, got 100"),
    "in_dim": (lambda w: nn.MLP(in_dim=0), ValueError, "in_features must be a positive integer, got 0"),
    "a function as layer": (
        lambda w: nn.Sequential(nn.ReLU(), F.relu), TypeError, r"modules\[1\] must be a Module, got function",
    ),
    "a list of layers": (
        lambda w: nn.Sequential([nn.ReLU()]), TypeError, r"modules\[0\] .* got list; write Sequential\(\*layers\)",
    ),
    "no forward": (lambda w: nn.Module()(1), NotImplementedError, r"Module needs a method forward\(\)"),
    "images of another size": (lambda w: w.model(mg.ones(5)), RuntimeError, r"examples of 3 numbers, \(N, 3\), got shape \(5,\): one example"),
    "state, all at once": (
        lambda w: w.model.load_state_dict(
            state(w.model, main_0_weight=None, main_2_bias=mg.zeros(7), extra=["no", "numbers"])
        ),
        RuntimeError, r"MLP:\n  unexpected: extra\n  main.0.weight: got nothing, wanted \(4, 3\)\n"
        r"  main.2.bias: got \(7,\), wanted \(3,\)$",
    ),
    "state of another model": (
        lambda w: w.model.load_state_dict(nn.MLP(3, 3, [5]).state_dict()),
        RuntimeError, r"main.0.weight: got \(5, 3\), wanted \(4, 3\)",
    ),
    "state with words": (
        lambda w: w.model.load_state_dict(state(w.model, main_2_bias="words")),
        TypeError, r"state\['main.2.bias'\] must be .*, got str: .* got 'words'",
    ),
    "state in a state": (
        lambda w: w.model.load_state_dict(state(w.model, main_2_bias=w.model.state_dict())),
        TypeError, r"state\['main.2.bias'\] must be .* numbers, got dict; each dict needs a file of its own$",
    ),
    "model to a GPU": (lambda w: w.model.to("cuda:0"), RuntimeError, "on the CPU only; .*, got 'cuda:0'"),
    "model to integers": (
        lambda w: w.model.to(mg.int64), RuntimeError, r"parameters must be floating-point, got dtype\('int64'\)",
    ),
    "a part that is not there": (
        lambda w: w.model.layers, AttributeError, "^'MLP' object has no attribute 'layers'$",
    ),
    "state a file name": (
        lambda w: w.model.load_state_dict("model.npz"),
        TypeError, r"must map names to Tensors, got str; mg.load\(path\) reads a file",
    ),
    "state a model": (
        lambda w: w.model.load_state_dict(nn.MLP(3, 3, [4])),
        TypeError, r"must map names to Tensors, got MLP; pass its state_dict\(\)",
    ),
    "state_dict not called": (
        lambda w: w.model.load_state_dict(w.model.state_dict),
        TypeError, r"must map names to Tensors, got method; call it: its \(\) is missing",
    ),
    "state into a read-only parameter": (
        load_into_frozen, RuntimeError, "MLP:\n  main.2.bias: is read-only in the model$",
    ),
    "two parameters of one name": (
        lambda w: colliding(w).state_dict(),
        ValueError, r"two Parameters, of shapes \(2, 3\) and \(4,\), are both named heads.1: the keys",
    ),
    "train with data": (lambda w: w.model.train(w.plain), ValueError, "mode must be True or False, got tensor"),
    "reduction of a loss": (
        lambda w: nn.CrossEntropyLoss(reduction="avg"),
        ValueError, "CrossEntropyLoss: reduction must be mean, sum or none, got 'avg'",
    ),
    "reduction of MSELoss": (
        lambda w: nn.MSELoss(w.plain), ValueError, "MSELoss: reduction must be mean, sum or none, got tensor",
    ),
    "MSELoss of two shapes": (
        lambda w: nn.MSELoss()(w.plain[:, 0], w.plain[:, :1]),
        ValueError, r"MSELoss: wanted one shape, got input \(2,\) and target \(2, 1\)",
    ),
    "Flatten nothing": (
        lambda w: nn.Flatten(2, 1)(mg.ones(2, 3, 4)),
        RuntimeError, r"Flatten\(start_dim=2, end_dim=1\): in shape \(2, 3, 4\), the end comes before",
    ),
    "Flatten a vector": (lambda w: nn.Flatten()(w.unused), IndexError, "start_dim: axis 1 is out of bounds"),
    "Softmax": (lambda w: nn.Softmax(2)(w.plain), IndexError, "dim: axis 2 is out of bounds"),
}  # fmt: skip

SERIALIZATION = {
    "no file": (lambda w: mg.load(w.folder / "none.npz"), FileNotFoundError, "none.npz"),
    "file truncated": (
        lambda w: mg.load(w.file(w.saved(w.model.state_dict())[:-50])),
        RuntimeError, "model.npz is not an intact file of named arrays",
    ),
    "file empty": (lambda w: mg.load(w.file(b"")), RuntimeError, "is not an intact file of named arrays"),
    "file pickled": (
        lambda w: mg.load(w.file(pickle.dumps({"main.0.weight": 1}))),
        RuntimeError, "not an intact file of named arrays: .*allow_pickle",
    ),
    "file with objects": (
        lambda w: mg.load(w.file(with_objects())),
        RuntimeError, "not an intact file of named arrays: .*allow_pickle",
    ),
    "file of PyTorch": (
        lambda w: mg.load(of_pytorch(w)), RuntimeError, r"a.pt is not .*: it is PyTorch's; write numpy.savez\(",
    ),
    "file of one array": (
        lambda w: mg.load(w.file(one_array())), RuntimeError, r"holds one array; write from_numpy\(numpy.load",
    ),
    "saving words": (
        lambda w: mg.save({"a": "words"}, w.folder / "a.npz"), TypeError, r"state\['a'\] .*, got str: .* 'words'",
    ),
    "saving two states in one": (
        lambda w: mg.save({"model": w.model.state_dict(), "lr": 0.1}, w.folder / "a.npz"),
        TypeError, r"state\['model'\] must be a Tensor or an array of numbers, got dict; each dict needs a file",
    ),
    "file of another model": (
        lambda w: w.model.load_state_dict(mg.load(w.file(w.saved(nn.MLP(3, 3).state_dict())))),
        RuntimeError, r"main.2.weight: got nothing.*\n  main.2.bias: got nothing",
    ),
    "saving a model": (
        lambda w: mg.save(w.model, w.folder / "a.npz"),
        TypeError, r"state must map names to Tensors, got MLP; pass its state_dict\(\)",
    ),
    "saving an optimiser": (
        lambda w: mg.save(optim.SGD([w.x]), w.folder / "a.npz"),
        TypeError, r"state must map names to Tensors, got SGD; pass its state_dict\(\)",
    ),
    "saving a method": (
        lambda w: mg.save(w.model.state_dict, w.folder / "a.npz"),
        TypeError, r"got method; call it: its \(\) is missing",
    ),
    "saving the wrong way round": (
        lambda w: mg.save("a.npz", w.model.state_dict()),
        TypeError, r"got str; mg.load\(path\) reads a file, mg.save\(state, path\) writes one",
    ),
    "saving a list": (
        lambda w: mg.save([w.x], w.folder / "a.npz"), TypeError, "state must map names to Tensors, got list$",
    ),
    "saving under a number": (
        lambda w: mg.save({1: w.x, "1": w.plain}, w.folder / "a.npz"), TypeError, "names must be strings, got 1$",
    ),
    "loading into a model": (
        lambda w: mg.load(w.model),
        TypeError, r"path must be a file name, got MLP; .* write model.load_state_dict\(mg.load\(path\)\)",
    ),
    "loading not called": (
        lambda w: w.model.load_state_dict(mg.load), TypeError, r"got function; call it: its \(\) is missing",
    ),
    "file of a model into an optimiser": (
        lambda w: optim.SGD([w.x]).load_state_dict(mg.load(w.file(w.saved(w.model.state_dict())))),
        RuntimeError, r"(?s)SGD:\n  unexpected: main.0.weight\n.*\n  lr: got nothing, .*\n  0.momentum_buffer: got nothing",
    ),
    "file as params": (
        lambda w: optim.SGD(mg.load(w.file(w.saved(w.model.state_dict())))),
        TypeError, r"params must list Tensors, got dict; write \[w\] or model.parameters\(\)",
    ),
    "file that is open": (
        lambda w: mg.save({}, io.BytesIO()), TypeError, "path must be a file name, got BytesIO$",
    ),
    "file into no folder": (lambda w: mg.save({}, w.folder / "no" / "a.npz"), FileNotFoundError, "no/"),
}  # fmt: skip

OPTIM = {
    "lr negative": (lambda w: update(w, -0.1), ValueError, "lr must be a finite .* not negative, got -0.1"),
    "lr NaN": (lambda w: update(w, math.nan), ValueError, "lr must be a finite number .*, got nan"),
    "lr infinite": (lambda w: update(w, math.inf), ValueError, "lr must be a finite number .*, got inf"),
    "lr a string": (lambda w: update(w, "0.1"), ValueError, "lr must be a finite .*, got '0.1'"),
    "loss without graph": (
        lambda w: optim.gradient_update(w.plain.sum(), [w.x]), RuntimeError, "loss must be one number computed from params, got tensor",
    ),
    "params one Tensor": (
        lambda w: optim.zero_grad(w.x), TypeError, r"params must list Tensors, got Tensor; write \[w\] or",
    ),
    "params a model": (
        lambda w: optim.zero_grad(w.model), TypeError, r"list Tensors, got MLP; write model.parameters\(\)",
    ),
    "params a model of an optimiser": (
        lambda w: optim.SGD(w.model.main), TypeError, r"list Tensors, got Sequential; write model.parameters\(\)",
    ),
    "params a model of an update": (
        lambda w: optim.gradient_update(w.loss, w.model), TypeError, r"got MLP; write model.parameters\(\)",
    ),
    "params a method": (
        lambda w: optim.SGD(w.model.parameters),
        TypeError, r"params must list Tensors, got method; .* \(\) is missing after it: model.parameters\(\)",
    ),
    "params a method of an update": (
        lambda w: optim.gradient_update(w.loss, w.model.parameters), TypeError, r"got method; .* \(\) is missing",
    ),
    "params empty": (lambda w: optim.SGD([]), ValueError, "params must list Tensors; this list has none$"),
    "params arrays": (
        lambda w: optim.zero_grad([np.ones(3)]), TypeError, r"params\[0\] must be a Tensor, got ndarray",
    ),
    "params in groups": (
        lambda w: optim.SGD([{"params": [w.x], "lr": 0.1}]),
        TypeError, r"params\[0\] must be a Tensor, got dict; make one optimiser for each group",
    ),
    "params half precision": (
        lambda w: optim.gradient_update(w.graph, [w.x, mg.ones(2, dtype="f2")]),
        TypeError, r"params\[1\] must be writeable and float32 or float64, got .*float16",
    ),
    "params used up": (
        lambda w: optim.SGD(p for p in ()),
        ValueError, r"this generator has none left: it was used before \(make a list of it\), or",
    ),
    "params of a model without any": (
        lambda w: optim.SGD(nn.ReLU().parameters()), ValueError, "or the model has no Parameters$",
    ),
    "beta": (
        lambda w: optim.momentum_update(w.graph, [w.x], [mg.zeros_like(w.x)], beta=-1),
        ValueError, "beta must be a finite number that is not negative, got -1",
    ),
    "velocity of another shape": (
        lambda w: optim.momentum_update(w.x.sum(), [w.x], [mg.zeros(3)]),
        ValueError, "grad_vel must hold one Tensor like each of params",
    ),
    "squares missing": (
        lambda w: optim.rmsprop_update(w.x.sum(), [w.x, mg.ones(1)], [mg.zeros_like(w.x)]),
        ValueError, "grad_sq must hold one Tensor like each of params",
    ),
    "params twice": (lambda w: optim.SGD([w.x, w.x]), ValueError, "params holds a Tensor twice"),
    "betas one number": (lambda w: optim.Adam([w.x], betas=0.9), ValueError, "betas must be two .* 0.9"),
    "params no leaf": (
        lambda w: optim.SGD([w.x * 1]), TypeError, r"params\[0\] is a result of mul, not a leaf: set requires_grad last",
    ),
    "parameter of a new shape": (
        lambda w: reshaped(optim.SGD([mg.ones(2, requires_grad=True)], momentum=0.9)),
        RuntimeError, r"now float32 of shape \(30,\), no longer fits its gradient or state, float32 \(2,\)",
    ),
    "parameter read-only": (
        step_frozen,
        RuntimeError, r"a parameter of shape \(2, 3\) and its state must be writeable .*, got float32, read-only",
    ),
    "parameter half precision": (
        lambda w: halved(optim.SGD([mg.ones(2, requires_grad=True)])),
        RuntimeError, r"a parameter of shape \(2,\) and its state .* float32 or float64, got float16$",
    ),
    "step without gradients": (
        lambda w: optim.Adam([w.unused]).step(),
        RuntimeError, r"no parameter has a gradient: call loss.backward\(\) before step\(\), and zero_grad\(\)",
    ),
    "params added": (
        lambda w: added(optim.SGD([w.x]), w.unused),
        ValueError, "may be replaced, not added or removed: there were 1, now there are 2",
    ),
    **{
        f"{name} {value!r} later": (
            lambda w, name=name, value=value: set_later(w, name, value),
            ValueError, f"{name} must be .*, got {re.escape(repr(value))}",
        )
        for name, value in [
            ("lr", -1), ("lr", math.nan), ("lr", math.inf), ("lr", "fast"), ("lr", None),
            ("momentum", -0.9), ("alpha", math.nan), ("eps", -1e-8), ("weight_decay", -1),
            ("betas", (0.9, 1)), ("betas", (0.9, math.nan)), ("betas", 0.9), ("betas", ("a", "b")),
        ]
    },
    "lr by another name": (
        lambda w: setattr(optim.SGD([w.x]), "learning_rate", 3),
        AttributeError, "^SGD has no setting 'learning_rate'; its settings are lr, momentum, weight_decay$",
    ),
    "weight_decay": (
        lambda w: optim.SGD([w.x], weight_decay=-0.1),
        ValueError, "weight_decay must be a finite number that is not negative, got -0.1",
    ),
    "state of an optimiser, all at once": (
        lambda w: load_into_adam(
            w,
            {
                "lr": -1.0, "betas": [0.9, 2.0], "eps": None, "steps": [3, -1], "momentum": 0.9,
                "0.exp_avg": mg.zeros(3), "1.exp_avg": np.zeros(4), "1.exp_avg_sq": "words",
            },
        ),
        RuntimeError, r"Adam:\n  unexpected: momentum\n  lr must be .*, got -1.0\n  betas must be .*\n"
        r"  eps: got nothing, wanted float64 \(\)\n  steps must not be negative, got \[3, -1\]\n"
        r"  0.exp_avg: got float32 \(3,\), wanted float32 \(2, 3\)\n"
        r"  1.exp_avg: got float64 \(4,\), wanted float32 \(4,\)\n"
        r"  1.exp_avg_sq: got <U5 \(\), wanted float32 \(4,\)$",
    ),
    "state of an optimiser a file name": (
        lambda w: optim.SGD([w.x]).load_state_dict("a.npz"), TypeError, r"got str; mg.load\(path\) reads",
    ),
    "num_points": (
        lambda w: datasets.sample_minibatch(w.plain, w.ints, 0), ValueError, "num_points must be positive, got 0",
    ),
    "minibatch of nothing": (
        lambda w: datasets.sample_minibatch(w.plain[:0], w.ints[:0]), ValueError, "no inputs to draw from",
    ),
    "betas": (lambda w: optim.Adam([w.x], betas=(0.9, 1)), ValueError, r"betas must be .* got \(0.9, 1\)"),
    "eps": (lambda w: optim.RMSprop([w.x], eps=-1e-8), ValueError, "eps must be a finite .*, got -1e-08"),
}  # fmt: skip

DATASETS_AND_CHECKING = {
    "lengths": (lambda w: next(minibatches(w.plain, w.ints[:1], 1)), ValueError, "2 inputs, but 1 targets"),
    "batch_size": (lambda w: next(minibatches(w.plain, w.ints, 0)), ValueError, "positive, got 0"),
    "set index": (
        lambda w: datasets.Digits(np.ones((2, 28, 28), "u1"), np.ones(2), 0, 1, False)[2],
        IndexError, "index 2 is out of bounds",
    ),
    "gradcheck of float32": (
        lambda w: mg.gradcheck(lambda x: x, w.x),
        TypeError, r"input 0 is float32; finite differences need .*float64, so use x.double\(\)",
    ),
    "gradcheck of nothing": (lambda w: mg.gradcheck(lambda x: x, w.plain), TypeError, "no input requires"),
}  # fmt: skip


ROOMS = {
    "tensors": TENSORS,
    "engine": ENGINE,
    "ops": OPS,
    "functional": FUNCTIONAL,
    "nn": NN,
    "serialization": SERIALIZATION,
    "optim": OPTIM,
    "datasets and checking": DATASETS_AND_CHECKING,
}


@pytest.mark.parametrize(
    "mistake, error, message",
    [
        pytest.param(*case, id=f"{room}, {name}")
        for room, cases in ROOMS.items()
        for name, case in cases.items()
    ],
)
def test_a_mistake_is_explained_and_changes_nothing(mistake, error, message, tmp_path):
    world = World(tmp_path)
    before = world.snapshot()
    with pytest.raises(error, match=message) as raised:
        mistake(world)
    assert type(raised.value).__module__ in ("builtins", "numpy.exceptions")
    assert world.snapshot() == before
