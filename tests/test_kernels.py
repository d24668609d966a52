"""The kernels as plain Python, cached on disk, and never compiled at import."""

import os
import subprocess
import sys

import numpy as np
import pytest

from minigrad import kernels

TRAIN = """
import sys
import numpy as np
import minigrad as mg
from minigrad import nn, optim, functional as F
mg.manual_seed(0)
model = nn.MLP(6, 3, [5, 4])
x, y = mg.randn(7, 6), np.arange(7) % 3
for _ in range(5):
    optim.gradient_update(F.nll_loss(model(x), y), model.parameters(), lr=0.1)
np.savez(sys.argv[1], **model.state_dict())
"""


def run(code, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | environment, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip


def test_plain_python_does_what_the_compiled_kernels_do(tmp_path):
    for name, disable in (("compiled.npz", "0"), ("plain.npz", "1")):
        run(TRAIN, tmp_path / name, NUMBA_DISABLE_JIT=disable)
    with np.load(tmp_path / "compiled.npz") as compiled, np.load(tmp_path / "plain.npz") as plain:
        assert len(compiled.files) == 6
        for name in compiled.files:
            np.testing.assert_allclose(compiled[name], plain[name], rtol=1e-5, atol=1e-6)


def test_nothing_is_compiled_at_import():
    code = (
        "import minigrad.kernels as k; "
        "print([n for n, f in vars(k).items() if getattr(f, 'signatures', None)])"
    )
    assert run(code).strip() == "[]"


def test_kernels_are_cached_on_disk(tmp_path):
    counts = []
    for name in ("cold.npz", "warm.npz"):
        code = TRAIN + (
            "from minigrad import kernels as k\n"
            "stats = [f.stats for f in vars(k).values() if hasattr(f, 'stats')]\n"
            "print(sum(sum(s.cache_hits.values()) for s in stats),"
            " sum(sum(s.cache_misses.values()) for s in stats))"
        )
        counts.append(run(code, tmp_path / name, NUMBA_CACHE_DIR=str(tmp_path / "cache")).split())
    (cold_hits, cold_misses), (warm_hits, warm_misses) = counts
    assert cold_hits == warm_misses == "0" and cold_misses == warm_hits != "0"


def test_without_a_place_for_the_cache_kernels_still_compile(monkeypatch):
    def add_one(x):
        return x + 1

    add_one.__code__ = add_one.__code__.replace(co_filename="<nowhere>")
    with pytest.raises(RuntimeError, match="cannot cache"):
        kernels.numba.njit(cache=True)(add_one)
    assert kernels.kernel(add_one)(1) == 2


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float64", 1e-12)])
def test_kernels_compute_their_formulas_and_write_only_where_told(dtype, tolerance):
    """Every kernel by name, against its formula in NumPy."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.normal(size=shape).astype(dtype)

    x, w, b, g, targets = draw(5, 4), draw(3, 4), draw(3), draw(5, 3), np.array([0, 2, 1, 1, 0])
    y = x @ w.T + b
    probabilities = np.exp(y) / np.exp(y).sum(1, keepdims=True)
    picked = np.eye(3)[targets]
    expected = {
        "linear_forward": ((x, w, b), y),
        "linear_backward_input": ((g, w), g @ w),
        "linear_backward_weight": ((g, x), g.T @ x),
        "linear_backward_bias": ((g,), g.sum(0)),
        "relu_forward": ((y.ravel(),), y.clip(0).ravel()),
        "relu_backward": ((g.ravel(), y.clip(0).ravel()), (g * (y > 0)).ravel()),
        "log_softmax_forward": ((y,), np.log(probabilities)),
        "log_softmax_backward": (
            (g, probabilities), g - probabilities * g.sum(1, keepdims=True),
        ),
        "nll_loss_forward": ((y, targets), -y[np.arange(5), targets]),
        "nll_loss_backward": ((b[targets], targets), -picked * b[targets][:, None]),
    }  # fmt: skip
    for name, (inputs, result) in expected.items():
        before = [a.copy() for a in inputs]
        out = np.full(result.shape, np.nan, dtype)
        getattr(kernels, name)(*inputs, out)
        np.testing.assert_allclose(out, result, rtol=tolerance, atol=tolerance, err_msg=name)
        for a, kept in zip(inputs, before):
            np.testing.assert_array_equal(a, kept, err_msg=name)
    v, s, m = draw(5, 4), draw(5, 4) ** 2, draw(5, 4)
    g = draw(5, 4)
    new_v, new_s, new_m = 0.5 * v - 0.25 * g, s + 0.125 * (g**2 - s), m + 0.5 * (g - m)
    updates = {  # states, settings, the parameter and the states after the step
        "gradient_descent": ((), (0.25,), x - 0.25 * g),
        "momentum": ((v,), (0.5, -0.25, 2.0), x + 2 * new_v, new_v),
        "rmsprop": (
            (s,), (0.875, 0.125, 0.5, 2.0, 3.0), x - 0.5 * g / (np.sqrt(new_s + 2) + 3), new_s,
        ),
        "adam": (
            (m, s), (0.5, 0.5, 0.875, 0.125, 0.25, 2.0, 3.0),
            x - 0.25 * new_m / (np.sqrt(new_s) / 2 + 3), new_m, new_s,
        ),
    }  # fmt: skip
    for name, (states, settings, *expected) in updates.items():
        for order in "CF":
            param, grad, *states = (np.array(a, dtype, order=order) for a in (x, g, *states))
            getattr(kernels, name)(param, grad, *states, *map(np.dtype(dtype).type, settings))
            for got, wanted in zip((param, *states), expected, strict=True):
                np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)
            states = updates[name][0]


def test_nll_loss_forward_names_the_first_bad_row():
    for targets, row in (([0, 2, -1, 5], 2), ([3, 0, 0, 0], 0), ([0, 1, 2, 0], -1)):
        assert kernels.nll_loss_forward(np.zeros((4, 3)), np.array(targets), np.empty(4)) == row
