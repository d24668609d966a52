"""Layers, models and losses, as a user of PyTorch would write them."""

import copy
import re

import numpy as np
import pytest
import torch
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
    ours.load_state_dict(state)  # one of the names is enough
    with pytest.raises(RuntimeError, match="2.weight: differs from another name of the same"):
        ours.load_state_dict(state | {"0.weight": state["2.weight"] + 1})


# Modules of modules


def both(build):
    """The same model in minigrad and in PyTorch."""
    return build(nn), build(torch_nn)


def shared(library):
    layer = library.Linear(3, 3)
    block = library.Sequential(layer, library.Tanh())
    return library.Sequential(block, library.ReLU(), layer, block)


@pytest.mark.parametrize("cut", [slice(1), slice(None, -1), slice(1, None), slice(4, 9)])
def test_a_slice_of_a_sequential_is_one_too(cut):
    ours, theirs = both(shared)
    part = ours[cut]
    assert isinstance(part, nn.Sequential) and len(part) == len(theirs[cut])
    assert list(part) == list(ours)[cut]
    x = expected = mg.randn(2, 3)
    for module in part:
        expected = module(expected)
    assert part(x).tolist() == expected.tolist()


def test_modules_and_children_are_named_as_in_pytorch():
    ours, theirs = both(shared)
    for method in ("named_modules", "named_children"):
        names = [[(n, type(m).__name__) for n, m in getattr(x, method)()] for x in (ours, theirs)]
        assert names[0] == names[1]
    assert list(ours.modules()) == [module for _, module in ours.named_modules()]
    assert list(ours.children()) == [ours[0], ours[1], ours[2]]
    assert repr(ours) == repr(theirs)
    for prefix in ("", "here"):
        named = [[name for name, _ in x.named_parameters(prefix)] for x in (ours, theirs)]
        assert named[0] == named[1]


def test_train_and_eval_reach_every_module():
    class Own(nn.Module):
        def __init__(self):  # without super().__init__()
            self.parts = [nn.ReLU(), {"a": nn.Sequential(nn.Linear(2, 2))}]
            self.modules = self.children = "names of ours, which are taken"

    model = Own()
    modules = [model, model.parts[0], model.parts[1]["a"], model.parts[1]["a"][0]]
    assert all(module.training is True for module in modules)
    for change, expected in (
        (model.eval, False), (model.train, True), (lambda: model.train(False), False),
    ):  # fmt: skip
        assert change() is model
        assert all(module.training is expected for module in modules)
    assert nn.ReLU().training  # no other module has changed


def test_gradients_of_a_model_are_forgotten_and_switched_off():
    model = nn.MLP(3, 2, [4])
    model(mg.ones(1, 3)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())
    assert model.requires_grad_(False) is model
    assert not any(p.requires_grad for p in model.parameters())
    assert not model(mg.ones(1, 3)).requires_grad
    model.requires_grad_()
    assert all(p.requires_grad for p in model.parameters())


class Node(nn.Module):
    def __init__(self, size=2):
        self.weight = nn.Parameter(mg.randn(size))


def parent_in_a_list():
    root = Node()
    root.child = Node()
    root.child.parent = [root]
    return root, ["weight", "child.weight"]


def itself():
    root = Node()
    root.me = root
    return root, ["weight"]


def lists_that_hold_themselves():
    root = Node()
    root.parts = [Node()]
    root.parts += [root.parts, {"again": root.parts}, Node(3)]
    return root, ["weight", "parts.0.weight", "parts.3.weight"]


def everybody_knows_everybody():
    nodes = [Node() for _ in range(30)]
    for node in nodes:
        node.all = nodes
    return nodes[0], ["weight", *(f"all.{i}.weight" for i in range(1, 30))]


def a_chain_of_thousands():
    root = node = Node()
    for _ in range(1200):  # deeper than Python's recursion limit
        node.next = Node()
        node.next.before, node = node, node.next
    return root, ["next." * i + "weight" for i in range(1201)]


@pytest.mark.parametrize(
    "build",
    [
        parent_in_a_list, itself, lists_that_hold_themselves, everybody_knows_everybody,
        a_chain_of_thousands,
    ],
)  # fmt: skip
def test_modules_that_hold_each_other_are_visited_once(build):
    (model, names), (other, _) = build(), build()
    assert [name for name, _ in model.named_parameters()] == names == list(model.state_dict())
    assert [f"{name}.weight".lstrip(".") for name, _ in model.named_modules()] == names
    other.load_state_dict(model.state_dict())
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert one.tolist() == two.tolist()
    assert not any(module.training for module in model.eval().modules())


def test_the_repr_of_a_module_that_holds_its_parent():
    root, _ = parent_in_a_list()
    assert repr(root) == "Node(\n  (child): Node(\n    (parent.0): ...\n  )\n)"


def test_a_parameter_loads_under_each_of_its_names():
    def build():
        root = Node()
        root.layers = root.blocks = [Node(3), (Node(4),)]
        root.child = root.heir = nn.Sequential(Node(5))
        root.child.parent = {"of.it": root}
        return root

    model, other = build(), build()
    state = model.state_dict()
    assert list(state) == ["weight", "layers.0.weight", "layers.1.0.weight", "child.0.weight"]
    aliases = [
        "heir.parent.of.it.weight", "blocks.0.weight", "child.parent.of.it.blocks.1.0.weight",
        "heir.0.weight",
    ]  # fmt: skip
    renamed = dict(zip(aliases, state.values(), strict=True))
    other.load_state_dict(renamed)
    assert [p.tolist() for p in other.parameters()] == [v.tolist() for v in state.values()]
    other.load_state_dict(state | renamed)
    renamed["heir.0.weight"] = state["child.0.weight"] + 1
    with pytest.raises(RuntimeError, match="heir.0.weight: differs from another name of the same"):
        other.load_state_dict(state | renamed)
    for name in ("blocks.0", "heir", "weight.", "", "blocks.2.weight", "child.parent.of.weight"):
        with pytest.raises(RuntimeError, match=f"\n  unexpected: {name}$"):
            other.load_state_dict(state | {name: mg.ones(2)})


def test_a_name_means_the_parameter_that_has_it_first():
    def build():
        root, block = nn.Module(), Node()
        root.z = block
        vars(root).update({"a.b": Node(), "a": {"b": block}})  # another name of z.weight
        return root

    model, other = build(), build()
    other.load_state_dict(model.state_dict())
    assert [p.tolist() for p in other.parameters()] == [p.tolist() for p in model.parameters()]


@pytest.mark.parametrize(
    "attributes",
    [
        lambda p, q: {"a": {1: p, "1": q}}, lambda p, q: {"a": [p], "a.0": q},
        lambda p, q: {"a": {"b.c": p, "b": {"c": q}}},
        lambda p, q: {"z": q, "a": {1: p, "1": q}},  # q has another name as well
    ],
)  # fmt: skip
def test_two_parameters_of_one_name_are_an_error(attributes):
    p, q = nn.Parameter(mg.ones(1)), nn.Parameter(mg.ones(2))
    model = nn.Module()
    vars(model).update(attributes(p, q))
    for method in (model.state_dict, model.named_parameters, lambda: model.load_state_dict({})):
        with pytest.raises(ValueError, match=r"two Parameters, .* both named a\."):
            method()
    vars(model).update(attributes(p, p))
    assert set(model.parameters()) == {p} | ({q} & {model.__dict__.get("z")})


def test_a_model_is_loaded_wholly_or_not_at_all():
    """The last parameter cannot hold its numbers: it is read-only, or they overflow."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    before = [p.tolist() for p in model.parameters()]
    state = {name: np.ones(value.shape) for name, value in model.state_dict().items()}
    with pytest.raises(RuntimeWarning, match="overflow"):
        model.load_state_dict(state | {"1.bias": np.full(2, 1e300)})
    assert [p.tolist() for p in model.parameters()] == before
    model[1].bias.array.flags.writeable = False
    with pytest.raises(RuntimeError, match="1.bias: is read-only"):
        model.load_state_dict(state)
    assert [p.tolist() for p in model.parameters()] == before


# Small modules and losses, compared with PyTorch's


def compare(ours, theirs, x, *targets):
    """Assert that result, gradient and repr are PyTorch's."""
    a, b = mg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    out = ours(a, *targets)
    expected = theirs(b, *map(torch.tensor, targets))
    weights = np.random.default_rng(1).normal(size=expected.shape)
    (out * mg.tensor(weights)).sum().backward()
    (expected * torch.tensor(weights)).sum().backward()
    assert out.shape == tuple(expected.shape)
    np.testing.assert_allclose(out.detach(), expected.detach(), rtol=1e-12)
    np.testing.assert_allclose(a.grad, b.grad, rtol=1e-10, atol=1e-14)
    assert repr(ours) == repr(theirs)
    plain = ours(x, *targets)  # arrays and lists work as well
    np.testing.assert_array_equal(plain, out.detach())


@pytest.mark.parametrize("shape", [(3, 4), (2, 1, 4, 3), (2, 3, 1), (5,)])
@pytest.mark.parametrize(
    "build",
    [
        lambda library: library.Tanh(), lambda library: library.Softmax(dim=-1),
        lambda library: library.Softmax(0), lambda library: library.LogSoftmax(dim=0),
        lambda library: library.LogSoftmax(-1), lambda library: library.Flatten(0),
        lambda library: library.Flatten(-1), lambda library: library.Flatten(0, -1),
    ],
)  # fmt: skip
def test_modules_of_one_input_as_in_pytorch(build, shape, rng):
    compare(*both(build), rng.normal(size=shape) * 10)


@pytest.mark.parametrize("shape", [(0, 3, 2), (3,), (), (2, 3, 4, 5)])
@pytest.mark.parametrize(
    "dims", [(), (0,), (0, 0), (-1,), (1, 2), (-3, -2), (2, 1), (4,), (0, 4), (-4, -1)]
)
def test_flatten_takes_the_dimensions_that_pytorch_takes(dims, shape):
    ours, theirs = both(lambda library: library.Flatten(*dims))
    try:
        expected = tuple(theirs(torch.zeros(shape)).shape)
    except (IndexError, RuntimeError) as error:
        with pytest.raises(type(error)):
            ours(mg.zeros(shape))
    else:
        assert ours(mg.zeros(shape)).shape == expected


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_mse_loss_as_in_pytorch(reduction, rng):
    ours, theirs = both(lambda library: library.MSELoss(reduction=reduction))
    for shape in [(3, 4), (5,), ()]:
        compare(ours, theirs, rng.normal(size=shape), rng.normal(size=shape))
    target = mg.tensor(rng.normal(size=3), requires_grad=True)  # both inputs have a gradient
    ours(mg.zeros(3, dtype="f8"), target).sum().backward()
    np.testing.assert_allclose(target.grad, 2 * target.detach() / (3 if reduction == "mean" else 1))


@pytest.mark.filterwarnings("ignore:nll_loss")  # the numbers are not probabilities
@pytest.mark.parametrize("loss", ["NLLLoss", "CrossEntropyLoss"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weight", [None, [0.5, 1.0, 2.0]])
def test_losses_of_classes_as_in_pytorch(loss, reduction, weight, rng):
    for settings in ({}, {"ignore_index": 2}):
        ours, theirs = (
            getattr(library, loss)(weight and tensor(weight), reduction=reduction, **settings)
            for library, tensor in (
                (nn, lambda data: mg.tensor(data, dtype="f8")),
                (torch_nn, lambda data: torch.tensor(data, dtype=torch.float64)),
            )
        )
        compare(ours, theirs, rng.normal(size=(4, 3)), np.array([0, 2, 1, 0]))


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
    odd = {"file": [1], "allow_pickle": 2, "file.npy": 3, "npy": 4, ".npy": 5, "": 6}
    mg.save(odd, tmp_path / "odd.npz")
    assert {k: v.tolist() for k, v in mg.load(tmp_path / "odd.npz").items()} == odd
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
    got = f"{shape[0]} examples of {np.prod(shape[1:])}" if len(shape) > 1 else "one example"
    got = rf"784 numbers, \(N, 784\), got shape {re.escape(str(shape))}: {got}$"
    with pytest.raises(RuntimeError, match=got):
        nn.MLP(784, 10)(mg.zeros(*shape))


@pytest.mark.parametrize("value", [mg.zeros(10, 784), mg.zeros(10, 784, requires_grad=True), 5.0])
def test_a_parameter_is_not_replaced_by_something_else(value):
    for module, lib_nn in ((nn.Linear(784, 10), nn), (torch_nn.Linear(784, 10), torch_nn)):
        with pytest.raises(TypeError, match="weight"):
            module.weight = value
        assert sum(1 for _ in module.parameters()) == 2
    model = nn.Linear(784, 10)
    model.weight = nn.Parameter(mg.ones(10, 784))
    model.bias = None
    assert [name for name, _ in model.named_parameters()] == ["weight"]
    assert model.to("cpu") is model and model.weight.to("cpu") is model.weight


@pytest.mark.parametrize("convert", [lambda m: m.double(), lambda m: m.to(mg.float64)])
def test_a_model_changes_its_dtype_in_place(convert):
    model = nn.MLP(5, 3, [4])
    parameters = list(model.parameters())
    model(mg.randn(2, 5)).sum().backward()
    assert convert(model) is model and list(model.parameters()) == parameters
    assert all(p.dtype == mg.float64 and p.grad is None for p in parameters)
    optimizer = optim.SGD(parameters, lr=0.1, momentum=0.9)
    model(mg.randn(2, 5).double()).sum().backward()
    optimizer.step()
    assert {p.dtype for p in model.float().parameters()} == {mg.float32}


def test_a_model_takes_keyword_arguments():
    class Net(nn.Module):
        def forward(self, x, *, scale):
            return x * scale

    assert Net()(mg.ones(1), scale=3).item() == 3


def test_zero_grad_and_backward_take_pytorchs_arguments():
    for zeros_of in (nn.Linear, optim.SGD):
        model = nn.Linear(3, 2)
        holder = model if zeros_of is nn.Linear else optim.SGD(model.parameters())
        holder.zero_grad(set_to_none=False)
        assert model.weight.grad is None
        model(mg.ones(1, 3)).sum().backward(retain_graph=True)
        grad = model.weight.grad
        holder.zero_grad(set_to_none=False)
        assert model.weight.grad is grad and not grad.any()
        holder.zero_grad(set_to_none=True)
        assert model.weight.grad is None
