"""Layers, models and losses, as a user of PyTorch would write them."""

import copy

import numpy as np
import pytest
from helpers import torch_mlp
from torch import nn as torch_nn

import minigrad as mg
from minigrad import functional as F, nn, optim


class Holder(torch_nn.Module):
    def __init__(self, main):
        super().__init__()
        self.main = main


@pytest.mark.parametrize("hidden_dims", [[], [30], [200, 100, 50]])
@pytest.mark.parametrize("use_bias", [True, False])
def test_mlp_looks_like_pytorchs(hidden_dims, use_bias):
    ours, theirs = (
        nn.MLP(hidden_dims=hidden_dims, use_bias=use_bias),
        Holder(torch_mlp(hidden_dims, use_bias)),
    )
    assert repr(ours) == repr(theirs).replace("Holder", "MLP")
    assert [(n, p.shape) for n, p in ours.named_parameters()] == [
        (n, tuple(p.shape)) for n, p in theirs.named_parameters()
    ]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert len(list(ours.parameters())) == len(list(theirs.parameters()))


def test_linear_is_initialised_as_in_pytorch():
    mg.manual_seed(0)
    layer = nn.Linear(400, 300)
    for parameter in (layer.weight, layer.bias):
        values = parameter.detach().numpy()
        assert parameter.requires_grad and parameter.dtype == np.float32
        assert np.abs(values).max() <= 1 / 20 and np.abs(values).max() > 0.9 / 20
        assert abs(values.std() - 1 / 20 / 3**0.5) < 0.005 and abs(values.mean()) < 0.005


def test_repr_of_a_parameter():
    parameter = nn.Parameter(mg.tensor([1.0]))
    assert repr(parameter) == "Parameter containing:\ntensor([1.], requires_grad=True)"
    assert "tensor([2.], grad_fn=<mul>)" == repr(parameter * 2)
    with pytest.raises(AttributeError):
        parameter.require_grad = False  # a slip of the pen


def test_mlp_gives_log_probabilities_of_images_of_any_shape():
    model = nn.MLP(hidden_dims=[20])
    out = model(mg.randn(5, 1, 28, 28))
    assert out.shape == (5, 10)
    np.testing.assert_allclose(out.exp().sum(1).detach().numpy(), np.ones(5), rtol=1e-6)


def test_deepcopy_of_a_model_is_independent():
    model = nn.MLP(hidden_dims=[5])
    twin = copy.deepcopy(model)
    x = mg.randn(2, 784)
    before = model(x).tolist()
    optim.gradient_update(twin(x).mean(), twin.parameters(), lr=1.0)
    assert model(x).tolist() == before and twin(x).tolist() != before
    assert all(p.grad is None for p in model.parameters())


def test_shared_parameters_come_once():
    layer = nn.Linear(3, 3)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias"]
    assert len(model) == 3 and model[2] is layer


def test_modules_in_lists_tuples_and_dicts_are_found():
    class Holder(nn.Module):
        def __init__(self):
            self.layers = [nn.Linear(4, 3), (nn.ReLU(), nn.Linear(3, 2))]
            self.heads = {"left": nn.Linear(2, 1), "scale": nn.Parameter(mg.ones(1))}
            self.sizes = [4, 3, 2]

    model = Holder()
    names = [name for name, _ in model.named_parameters()]
    assert names == [
        "layers.0.weight", "layers.0.bias", "layers.1.1.weight", "layers.1.1.bias",
        "heads.left.weight", "heads.left.bias", "heads.scale",
    ]  # fmt: skip
    assert list(model.state_dict()) == names and len(list(model.parameters())) == 7
    assert "(layers.0): Linear(in_features=4" in repr(model) and "(layers.1.0): ReLU()" in repr(
        model
    )
    other = Holder()
    other.load_state_dict(model.state_dict())
    assert other.layers[1][1].weight.tolist() == model.layers[1][1].weight.tolist()


def test_a_tied_weight_loads_under_both_names_as_pytorch_saves_it():
    def tied(library):
        model = library.Sequential(library.Linear(3, 3), library.ReLU(), library.Linear(3, 3))
        model[2].weight = model[0].weight
        return model

    ours, theirs = tied(nn), tied(torch_nn)
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    assert list(state) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    ours.load_state_dict(state)
    np.testing.assert_array_equal(ours[2].weight.detach().numpy(), state["2.weight"])
    del state["0.weight"]
    ours.load_state_dict(state)  # one of its names is enough
    with pytest.raises(RuntimeError, match="2.weight: differs from another name of the same"):
        ours.load_state_dict(state | {"0.weight": state["2.weight"] + 1})


def test_a_view_of_a_fresh_weight_shares_memory():
    layer = nn.Linear(3, 2)
    with mg.no_grad():
        layer.weight.view(-1)[0] += 1
        assert np.shares_memory(layer.weight.view(-1).array, layer.weight.array)


def test_state_dict_goes_through_a_file(tmp_path):
    model, other = nn.MLP(hidden_dims=[5]), nn.MLP(hidden_dims=[5])
    mg.save(dict(model.named_parameters()), tmp_path / "model.npz")
    other.load_state_dict(mg.load(tmp_path / "model.npz"))
    assert [path.name for path in tmp_path.iterdir()] == ["model.npz"]
    mg.save({"file": mg.ones(1), "allow_pickle": 2}, tmp_path / "odd.npz")
    assert {k: v.tolist() for k, v in mg.load(tmp_path / "odd.npz").items()} == {
        "file": [1],
        "allow_pickle": 2,
    }
    x = mg.randn(2, 784)
    assert other(x).tolist() == model(x).tolist()
    model.state_dict()["main.0.bias"].zero_()  # shares memory, as in PyTorch
    assert model.main[0].bias.tolist() == [0] * 5 and other.main[0].bias.tolist() != [0] * 5


# A user's own model and loop, as written for PyTorch


def test_a_model_and_loop_written_for_pytorch():
    class Classifier(nn.Module):
        def __init__(self, in_dim, out_dim, hidden_dims):
            super().__init__()
            self.in_dim = in_dim
            layers = []
            for hidden_dim in hidden_dims:
                layers.append(nn.Linear(in_dim, hidden_dim))
                layers.append(nn.ReLU())
                in_dim = hidden_dim
            layers.append(nn.Linear(in_dim, out_dim))
            self.main = nn.Sequential(*layers)

        def forward(self, x):
            x = x.view(-1, self.in_dim)
            x = self.main(x)
            return F.log_softmax(x, dim=1)

    mg.manual_seed(0)
    model = Classifier(16, 3, [20])
    inputs = mg.randn(60, 4, 4)
    targets = inputs.view(60, 16)[:, :3].argmax(1)
    losses = []
    for _ in range(100):
        loss = F.nll_loss(model(inputs), targets)
        for par in model.parameters():
            if par.grad is not None:
                par.grad.data.zero_()
        loss.backward()
        with mg.no_grad():
            for par in model.parameters():
                par.data -= 0.5 * par.grad.data
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    accuracy = (model(inputs).argmax(1) == targets).float().mean().item()
    assert accuracy > 0.95


def test_a_loss_below_zero_says_that_log_softmax_is_missing():
    scores, targets = mg.tensor([[1.0, 2.0], [3.0, 4.0]]), [1, 0]
    with pytest.warns(UserWarning, match="is log_softmax missing before nll_loss"):
        F.nll_loss(scores, targets)
    F.nll_loss(F.log_softmax(scores), targets)  # warnings are errors in these tests
    F.nll_loss(F.log_softmax(mg.tensor([[100.0, 0.0]])), [0])


def test_nll_loss_keeps_the_targets_it_was_given():
    log_probs, targets = mg.zeros(2, 3, requires_grad=True), np.array([0, 1])
    loss = F.nll_loss(log_probs, targets, reduction="sum")
    targets[:] = 2
    loss.backward()
    assert log_probs.grad.tolist() == [[-1, 0, 0], [0, -1, 0]]


@pytest.mark.parametrize(
    "shape, examples",
    [
        ((5, 784), 5), ((5, 28, 28), 5), ((5, 1, 28, 28), 5), ((784,), 1), ((28, 28), 1),
        ((1, 784), 1), ((0, 784), 0), ((0, 28, 28), 0), ((784, 1), 1),
    ],
)  # fmt: skip
def test_an_mlp_takes_a_batch_or_one_example(shape, examples):
    model = nn.MLP(784, 10)
    x = mg.randn(*shape)
    out = model(x)
    assert out.shape == (examples, 10)
    np.testing.assert_array_equal(out.detach(), model(x.reshape(-1, 784)).detach())
    np.testing.assert_array_equal(out.detach(), model(x.numpy()).detach())


@pytest.mark.parametrize("shape", [(784, 4), (49, 32, 32), (28, 28, 5), (2, 393), (5,)])
def test_an_mlp_refuses_examples_of_another_size(shape):
    got = rf"784 numbers, got shape \({', '.join(map(str, shape))},?\).* of {np.prod(shape[1:], dtype=int)}"
    with pytest.raises(RuntimeError, match=got):
        nn.MLP(784, 10)(mg.zeros(*shape))
