"""Code as people write it who know PyTorch, NumPy, micrograd or a first course."""

import math
import pydoc
import re

import numpy as np
import pytest
import torch
from torch import nn as torch_nn

import minigrad as mg
from minigrad import functional as F, left_out, nn, optim
from minigrad.datasets import load_digits_data

# micrograd writes expressions of scalars


def ours(v):
    return mg.tensor(v, dtype=mg.float64, requires_grad=True)


def theirs(v):
    return torch.tensor(v, dtype=torch.float64, requires_grad=True)


def straight(Value):
    x = Value(-3.0)
    y = 3 * x + 1 - x
    z = (y * y).relu() + y * x
    return z + z * x, [x]


def with_everything(Value):
    a, b = Value(-2.5), Value(1.5)
    c = a + b
    d = a * b + b**3
    c += c + 1
    c += 1 + c + (-a)
    d += d * 2 + (b + a).relu()
    d += 3 * d + (b - a).relu()
    e = c - d
    f = e**2
    g = f / 2.0
    g += 10.0 / f
    return g, [a, b]


def neuron(Value):
    w, x, b = [Value(0.5), Value(-1.25)], [Value(2.0), Value(3.0)], Value(0.75)
    act = sum((wi * xi for wi, xi in zip(w, x)), b)
    return act.tanh() + (2 * act).exp() / ((2 * act).exp() + 1) - act.neg(), [*w, *x, b]


def reused(Value):
    a = Value(3.0)
    b = a + a
    b = b * b - a / b
    for _ in range(3):
        b = b * a.sigmoid() + a.sin() * b.abs().sqrt()
    return b, [a]


@pytest.mark.parametrize("expression", [straight, with_everything, neuron, reused])
def test_expressions_of_scalars(expression):
    results = []
    for Value in (ours, theirs):
        out, leaves = expression(Value)
        out.backward()
        results.append([out.item(), *(leaf.grad.item() for leaf in leaves)])
    np.testing.assert_allclose(*results, rtol=1e-12)


# A softmax classifier as in a first course: everything by hand


@pytest.mark.parametrize("seed", range(3))
def test_a_softmax_classifier_by_hand(seed):
    mg.manual_seed(seed)
    train_set, test_set = load_digits_data(change_tensors=True)
    X, y = train_set.data.flatten(1), train_set.targets
    W = (0.01 * mg.randn(784, 10)).requires_grad_()
    b = mg.zeros(10, requires_grad=True)
    losses = []
    for _ in range(60):
        scores = X @ W + b
        shifted = scores - scores.max(dim=1, keepdim=True).values
        exponentials = shifted.exp()
        probs = exponentials / exponentials.sum(dim=1, keepdim=True)
        right = -probs[range(len(y)), y].log()
        loss = right.mean() + 1e-3 * (W * W).sum()
        W.grad = b.grad = None
        loss.backward()
        with mg.no_grad():
            W -= 0.1 * W.grad
            b -= 0.1 * b.grad
        losses.append(loss.item())
    assert losses[-1] < 0.3 < 2 < losses[0]
    predicted = (test_set.data.flatten(1) @ W + b).argmax(dim=1)
    assert (predicted == test_set.targets).float().mean() > 0.9


# A model and a loop written for PyTorch, in which only the imports differ

PROGRAM = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU())
        self.out = nn.Linear(32, 10)

    def forward(self, x):
        x = self.layers(x)
        return self.out(F.relu(x)) if self.training else self.out(x)

torch.manual_seed(0)
model = Net()
load(model)
optimizer = optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)
criterion = nn.CrossEntropyLoss()
losses = []
for epoch in range(2):
    model.train()
    for start in range(0, len(inputs), 100):
        x, y = inputs[start : start + 100], targets[start : start + 100]
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        pred = model(inputs).argmax(dim=1, keepdim=True)
        correct = pred.eq(targets.view_as(pred)).sum().item()
        probabilities = F.softmax(model(inputs), dim=1)
        assert abs(probabilities.sum(dim=1) - 1).max() < 1e-5
print_line = f"loss {loss.item():.4f}, accuracy {100. * correct / len(inputs):.1f}%"
"""


def test_a_program_for_pytorch_runs_with_other_imports():
    train_set, _ = load_digits_data(change_tensors=True)
    weights = {}
    results = []
    for lib, lib_nn, lib_F, lib_optim in (
        (torch, torch_nn, torch_nn.functional, torch.optim),
        (mg, nn, F, optim),
    ):

        def load(model, lib=lib):
            if weights:
                model.load_state_dict(weights)
            weights.update({k: v.detach().numpy().copy() for k, v in model.state_dict().items()})

        names = {
            "torch": lib, "nn": lib_nn, "F": lib_F, "optim": lib_optim, "load": load,
            "inputs": lib.from_numpy(train_set.data.numpy()),
            "targets": lib.from_numpy(train_set.targets.numpy()),
        }  # fmt: skip
        exec(PROGRAM, names)
        results.append((names["losses"], names["correct"]))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-4)
    assert abs(results[0][1] - results[1][1]) <= 1 and results[0][1] > 1200


# NumPy's names


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "argmax", "std", "var", "softmax"])
def test_axis_is_dim(name):
    x = mg.tensor([[1.0, 2.0], [4.0, 3.0]])
    for f in (getattr(x, name), lambda **settings: getattr(mg, name)(x, **settings)):
        with_dim, with_axis = f(dim=1), f(axis=1)
        np.testing.assert_array_equal(np.array(with_dim), np.array(with_axis))
    with pytest.raises(TypeError, match="both dim and axis"):
        getattr(x, name)(dim=0, axis=0)


@pytest.mark.parametrize("data", [np.array([0.5, 2.0]), [0.5, 2.0], np.array([0.5, 2.0], "f4")])
def test_functions_take_arrays_and_lists(data):
    x = mg.tensor(data)
    for f in (mg.exp, mg.max, mg.sum, mg.zeros_like, mg.ones_like, mg.sigmoid, mg.softmax, F.relu):
        settings = {"dim": 0} if f is mg.softmax else {}
        out, expected = f(data, **settings), f(x, **settings)
        assert out.dtype == expected.dtype and out.tolist() == expected.tolist()
    assert mg.randn_like(data).shape == (2,)


# What is left out says what to use

HOLDERS = {
    "minigrad": mg,
    "Module": nn.ReLU(),
    "Optimizer": optim.SGD([mg.zeros(2)]),
    "minigrad.functional": F,
    "minigrad.nn": nn,
    "minigrad.optim": optim,
    "Tensor": mg.zeros(2),
}


@pytest.mark.parametrize(
    "where, name", [(where, name) for where, names in left_out.USE.items() for name in names]
)
def test_a_name_that_is_left_out_says_what_to_use(where, name):
    use = left_out.USE[where][name]
    with pytest.raises(AttributeError, match=re.escape(f"{name!r}, on purpose; use {use}")):
        getattr(HOLDERS[where], name)
    for mentioned in re.findall(r"(\w+)\(", use):
        assert any(
            hasattr(place, mentioned) for place in (mg, mg.Tensor, mg.datasets, nn, nn.Module)
        ), f"{mentioned}() is not there"


@pytest.mark.parametrize("where", left_out.USE)
def test_a_name_that_nobody_knows(where):
    kind = type(HOLDERS[where]).__name__
    own = f"^({where}|'{kind}' object) has no attribute 'frobnicate'$"
    with pytest.raises(AttributeError, match=own):
        HOLDERS[where].frobnicate


def test_what_is_used_in_place_of_a_name_gives_the_same():
    x = mg.randn(4, 5)
    theirs = torch.tensor(x.numpy())
    for name, close in (("layer_norm", 1e-5), ("gelu", 0.03), ("leaky_relu", 1e-7)):
        use = left_out.USE["minigrad.functional"][name].split(", which")[0]
        settings = {"normalized_shape": (5,)} if name == "layer_norm" else {}
        expected = getattr(torch_nn.functional, name)(theirs, **settings)
        got = eval(use, {"x": x, "maximum": mg.maximum})
        np.testing.assert_allclose(got.numpy(), expected.numpy(), atol=close)
    odd = mg.tensor([1.0, float("nan"), float("inf")])
    cases = [("isnan", odd), ("isfinite", odd), ("equal", x, x + 0), ("equal", x, x + 1)]
    cases += [("isclose", x, x * 1), ("isclose", x, x + 1), ("allclose", x, x * 1)]
    for name, *inputs in [*cases, ("allclose", x, x + 1)]:
        got = eval(left_out.USE["minigrad"][name], dict(zip("xy", inputs), math=math))
        expected = getattr(torch, name)(*(torch.tensor(a.numpy()) for a in inputs))
        assert got.tolist() == torch.as_tensor(expected).tolist()


def test_a_loss_that_is_left_out_is_the_cross_entropy_of_two_classes():
    x, y = mg.tensor([-2.0, 0.0, 0.5], requires_grad=True), mg.tensor([1.0, 0.0, 1.0])
    theirs = torch.tensor([-2.0, 0.0, 0.5], requires_grad=True)
    use = left_out.USE["minigrad.functional"]["binary_cross_entropy_with_logits"]
    scores, classes = eval(use.split(": ")[1], {"x": x, "y": y, "stack": mg.stack})
    (ours := F.cross_entropy(scores, classes)).backward()
    loss = torch_nn.functional.binary_cross_entropy_with_logits(theirs, torch.tensor(y.numpy()))
    loss.backward()
    np.testing.assert_allclose(ours.item(), loss.item(), rtol=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), theirs.grad.numpy(), rtol=1e-6)


def test_the_weight_decay_that_is_used_in_place_of_adamw():
    w = mg.tensor([1.0, -2.0, 0.5], requires_grad=True)
    theirs = torch.tensor([1.0, -2.0, 0.5], requires_grad=True)
    ours, adamw = optim.Adam([w], lr=0.1), torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.2)
    shrink = re.search("`(.*)`", left_out.USE["minigrad.optim"]["AdamW"]).group(1)
    for _ in range(5):
        (w**3).sum().backward()
        with mg.no_grad():
            exec(shrink, {"p": w, "lr": 0.1, "decay": 0.2})
        (theirs**3).sum().backward()
        ours.step(), adamw.step()
        ours.zero_grad(), adamw.zero_grad()
    np.testing.assert_allclose(w.tolist(), theirs.tolist(), rtol=1e-5)


def test_rows_and_indices_gather():
    x, indices, N = mg.randn(4, 5), mg.tensor([[1, 4], [0, 0], [3, 2], [2, 2]]), 4
    rows = left_out.USE["Tensor"]["gather"].split("say, ")[1]
    got = x[eval(rows, {"arange": mg.arange, "N": N}), indices]
    expected = torch.tensor(x.numpy()).gather(1, torch.tensor(indices.numpy()))
    assert got.tolist() == expected.tolist()


def test_a_property_that_fails_gives_its_own_error():
    class Net(nn.Module):
        @property
        def width(self):
            return self.out.in_features

    with pytest.raises(AttributeError, match="^'Net' object has no attribute 'out'$"):
        Net().width


def test_help_on_a_function_shows_what_users_of_tensors_pass():
    for name in ("exp", "relu", "matmul", "maximum", "remainder", "abs", "sum"):
        shown = pydoc.render_doc(getattr(mg, name), renderer=pydoc.plaintext)
        assert f"{name}(self" in shown and "-> 'Tensor'" in shown, shown
        assert ">>>" not in shown and "Array ->" not in shown, shown
