"""The derivations and questions tell the truth where their code, which test_readme runs, does not
show it: the places in the source, the figures of a real layer, and what an answer says happens."""

import importlib
import re

import numpy as np
import pytest
import torch
from helpers import ROOT

import minigrad as mg
from minigrad import functional as F, nn, optim

DERIVATIONS = (ROOT / "docs" / "derivations.md").read_text(encoding="utf-8")
QUESTIONS = (ROOT / "docs" / "questions.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [DERIVATIONS, QUESTIONS], ids=["derivations", "questions"])
def test_the_places_in_the_source_exist(page):
    sources = re.findall(r"^Source: (.*)$", page, re.M)
    assert len(sources) == len(re.findall(r"^## \d+\.", page, re.M)) >= 18
    for source in sources:
        place = r"([^\[\]]*?)\[(\w+)\.py\]\(\.\./minigrad/(\w+)\.py\)"
        for names, shown, module in re.findall(place, source):
            assert shown == module
            room = importlib.import_module(f"minigrad.{module}")
            for name in re.findall(r"`(\w+)`", names):
                homes = [room, *(x for x in vars(room).values() if isinstance(x, type))]
                assert any(name in vars(home) for home in homes), (name, module)


def test_the_layer_whose_jacobian_is_not_built_is_that_of_the_main_job():
    script = (ROOT / "examples" / "train_mlp.py").read_text(encoding="utf-8")
    N = int(re.search(r'BATCH_SIZE = .*"mnist": (\d+)', script)[1])
    H = int(re.search(r'"--hidden".*default=\[(\d+)', script)[1])
    layer, D = nn.MLP(hidden_dims=[H]).main[0], 784
    assert layer.weight.shape == (H, D)
    assert f"a batch of {N} images, {D} pixels, {H} units" in DERIVATIONS
    for numbers in ((N, H), (D, H), (N * H, D * H)):
        assert r" \cdot ".join(f"{n:,}".replace(",", "{,}") for n in numbers) in DERIVATIONS
    jacobian = N * H * D * H
    assert f"{jacobian:.0e}" == "2e+09" and f"{4 * jacobian / 1e9:.0f} GB" == "8 GB"
    assert f"{N * D * H:.0e}" == "1e+07"


@pytest.mark.parametrize("lib", [mg, torch], ids=["minigrad", "PyTorch"])
def test_what_a_recorded_update_does_to_the_next_step(lib):
    old = w = lib.tensor([3.0], requires_grad=True)
    (w * w).sum().backward()
    w = w - 0.1 * w.grad
    assert not w.is_leaf
    (w * w).sum().backward()
    assert np.allclose(old.grad, 2 * 3 + 2 * 2.4)  # the gradient of the new w has gone on to it
    with pytest.warns(UserWarning, match="leaves|leaf"):
        assert w.grad is None
    with lib.no_grad():
        w = old - 0.1 * old.grad
    with pytest.raises(RuntimeError, match="does not require grad"):
        (w * w).sum().backward()


def test_units_that_are_alike_stay_alike():
    model = nn.MLP(4, 3, [5])
    for layer in (model.main[0], model.main[2]):
        layer.weight.data = mg.full(layer.weight.shape, 0.1)
        layer.bias.data = mg.full(layer.bias.shape, 0.1)
    inputs, targets = mg.randn(8, 4), np.arange(8) % 3
    for _ in range(10):
        optim.gradient_update(F.nll_loss(model(inputs), targets), model.parameters(), lr=0.5)
    weight = model.main[0].weight.detach().numpy()
    assert np.ptp(weight[0]) > 1e-3 and np.allclose(weight, weight[0], atol=1e-6)


def test_which_long_sums_keep_their_digits():
    N = 1_000_000
    x = np.full((N, 2), 0.1, np.float32)

    def relative_error(shape, f):
        w = mg.zeros(shape, requires_grad=True)
        f(w)
        return np.abs(w.grad.numpy() / 1e5 - 1).max()

    zeros, ones, matrix = mg.zeros(N, 2), mg.ones(N, 1), mg.zeros(2, 1)
    assert relative_error(2, lambda w: (zeros + w).backward(x)) < 1e-7
    assert relative_error(2, lambda w: F.linear(ones, matrix, w).backward(x)) < 1e-7
    assert relative_error((1, 2), lambda w: F.linear(x, w).backward(np.ones((N, 1)))) > 5e-3
    assert relative_error(1, lambda w: w[np.zeros(N, int)].backward(x[:, 0])) > 5e-3
