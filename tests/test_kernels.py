"""The kernels: compiled as a whole, on NumPy's BLAS, cached on disk; and as plain Python."""

import ctypes
import re  # noqa: F401 (for programs that `child` runs)
import signal
from pathlib import Path

import numba
import numpy as np
import pytest
from helpers import child
from hypothesis import given, strategies as st

from minigrad import blas, caching, kernels, products
from minigrad.testing import arrays

compiled = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="about compiled kernels")
wheels = pytest.mark.skipif(blas.find() is None, reason="NumPy has another BLAS than its wheels")
HERE = {"PYTHONPATH": str(Path(__file__).parent)}
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
CALLED_BACK = "from minigrad import blas; blas.register(blas.callbacks())\n"


def assert_same_training(one, other):
    with np.load(one) as ours, np.load(other) as theirs:
        assert len(ours.files) == 6
        for name in ours.files:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-6)


def test_plain_python_does_what_the_compiled_kernels_do(tmp_path):
    for name, disable in (("compiled.npz", "0"), ("plain.npz", "1")):
        child(tmp_path / name, code=TRAIN, environment={"NUMBA_DISABLE_JIT": disable})
    assert_same_training(tmp_path / "compiled.npz", tmp_path / "plain.npz")


@compiled
def test_nothing_needs_scipy(tmp_path):
    (tmp_path / "scipy.py").write_text("raise ImportError('not here')")
    environment = {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path)}
    child(tmp_path / "model.npz", code=TRAIN, environment=environment)
    assert (tmp_path / "model.npz").exists()


def test_scipy_is_loaded_only_by_those_who_need_it():
    code = """
import sys
import numba, numpy as np
import minigrad as mg
mg.relu(mg.ones(3))
print("scipy.linalg" in sys.modules)
a = np.arange(3.0)
print(numba.njit(lambda a: (np.dot(a, a), np.convolve(a, a)[2]))(a), "scipy.linalg" in sys.modules)
"""
    assert child(code=code).stdout.splitlines() == ["False", "(5.0, 1.0) True"]


def test_nothing_is_compiled_at_import():
    code = (
        "import minigrad.kernels as k; "
        "print([n for n, f in vars(k).items() if getattr(f, 'signatures', None)])"
    )
    assert child(code=code).stdout.strip() == "[]"


COUNT = """
from minigrad import kernels as k
stats = [f.stats for f in vars(k).values() if hasattr(f, 'stats')]
print(sum(sum(s.cache_hits.values()) for s in stats), sum(sum(s.cache_misses.values()) for s in stats))
"""


@compiled
@pytest.mark.parametrize("cold, warm", [("", ""), ("", CALLED_BACK), (CALLED_BACK, "")])
def test_kernels_are_cached_on_disk(cold, warm, tmp_path):
    """Whichever function did the products when they were compiled, and does them now."""
    counts = []
    for name, register in (("cold.npz", cold), ("warm.npz", warm)):
        code, environment = register + TRAIN + COUNT, {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        counts.append(child(tmp_path / name, code=code, environment=environment).stdout.split())
    (cold_hits, cold_misses), (warm_hits, warm_misses) = counts
    assert cold_hits == warm_misses == "0"
    # `exp` is compiled into the kernel that calls it, and need not be loaded by itself.
    assert int(cold_misses) - 1 == int(warm_hits) > 0
    assert_same_training(tmp_path / "cold.npz", tmp_path / "warm.npz")


@compiled
def test_without_a_place_for_the_cache_kernels_still_compile():
    def add_one(x):
        return x + 1

    add_one.__code__ = add_one.__code__.replace(co_filename="<nowhere>")
    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(cache=True)(add_one)
    assert caching.kernel(add_one)(1) == 2


# The matrix product


@given(
    st.sampled_from(["float32", "float64"]).flatmap(
        lambda dtype: st.tuples(*[st.integers(0, 4)] * 3).flatmap(
            lambda n: st.tuples(arrays((n[0], n[1]), dtype), arrays((n[1], n[2]), dtype))
        )
    )
)
def test_the_product_is_its_definition(pair):
    """In plain Python, with which the compiled kernels are compared below."""
    a, b = pair
    out = np.full((len(a), b.shape[1]), np.nan, a.dtype)
    products.product(a, b, out)
    expected = np.zeros(out.shape)
    for i, j, k in np.ndindex(*out.shape, a.shape[1]):
        expected[i, j] += float(a[i, k]) * float(b[k, j])
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "gaps": lambda a: np.repeat(a, 2, 1)[:, ::2],
    "backwards": lambda a: np.ascontiguousarray(a[::-1])[::-1],
}


PRODUCTS = """
rng = np.random.default_rng(0)
for lay_out in LAYOUTS.values():
    for dtype in ("f4", "f8"):
        for m, k, n in np.ndindex(4, 4, 4):
            a, b = rng.normal(size=(m, k)).astype(dtype), rng.normal(size=(k, n)).astype(dtype)
            x, y = lay_out(a), lay_out(b)
            x.flags.writeable = y.flags.writeable = lay_out is LAYOUTS["C"]
            out = np.full((m, n), np.nan, dtype)
            kernels.linear_backward_input(x, y, out)
            np.testing.assert_allclose(out, a @ b, rtol=1e-4, atol=1e-6)
print(blas.library())
"""


@compiled
@pytest.mark.parametrize("by", [pytest.param("NumPy has loaded", marks=wheels), "np.matmul"])
def test_the_compiled_product_in_any_layout(by):
    """Including lengths of 0 and 1, for which our own loops take over."""
    code = "from test_kernels import *\n" + (CALLED_BACK if by == "np.matmul" else "") + PRODUCTS
    assert by in child(code=code, environment=HERE).stdout


@compiled
def test_shapes_that_do_not_fit_are_an_error():
    for a, b, out in (((2, 3), (2, 3), (2, 3)), ((2, 3), (3, 4), (4, 2)), ((1, 2), (3, 1), (1, 1))):
        with pytest.raises(ValueError, match="the shapes do not fit"):
            kernels.linear_backward_input(np.ones(a), np.ones(b), np.ones(out))


@wheels
def test_a_function_that_is_missing_or_computes_something_else_is_not_trusted(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(blas, "TRANSPOSED", blas.PLAIN)  # gives a wrong result in the trial
        assert blas.find() is None
    without_gemm = ctypes.CDLL(None)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: without_gemm)
    assert blas.find() is None


LLVM = """
x, w, b, g = np.ones((3, 4), "f4"), np.ones((20, 4), "f4"), np.ones(20, "f4"), np.ones((3, 20), "f4")
kernels.linear_forward(x, w, b, g.copy())
kernels.linear_backward_input(g, w, x.copy())
kernels.linear_backward_weight(g, x, w.copy())
kernels.linear_backward_bias(g, np.ones(20))
for name, dispatcher in vars(kernels).items():
    if name.startswith("linear_"):
        code = "".join(dispatcher.inspect_llvm().values())
        whole = len(dispatcher.nopython_signatures) == len(dispatcher.signatures) == 1
        print(name, whole, *sorted(set(re.findall(r"[a-z_]+gemm\\b", code))))
"""


@compiled
def test_no_product_goes_through_another_blas(tmp_path):
    """Kernels are compiled as a whole, with our symbols in them and none of Numba's."""
    environment = HERE | {"NUMBA_CACHE_DIR": str(tmp_path)}  # Numba caches no LLVM
    printed = child(code="from test_kernels import *\n" + LLVM, environment=environment).stdout
    assert printed.splitlines() == [
        "linear_forward True minigrad_dgemm minigrad_sgemm",
        "linear_backward_input True minigrad_dgemm minigrad_sgemm",
        "linear_backward_weight True minigrad_dgemm minigrad_sgemm",
        "linear_backward_bias True",
    ]


INTERRUPTED = """
import random, signal
import numpy as np
from minigrad import kernels
a = np.random.default_rng(0).normal(size=(30, 30))
right, out, caught = a @ a, np.empty((30, 30)), 0
kernels.matmul(a, a, out)
while caught < 50:
    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.001, 0.01))
    try:
        for _ in range(10_000):
            out.fill(7)
            kernels.matmul(a, a, out)
            assert np.allclose(out, right), "a product that was interrupted"
        raise SystemExit("an interrupt was lost")
    except KeyboardInterrupt:
        caught += 1
"""


@compiled
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")
def test_ctrl_c_during_a_product_that_is_called_back_ends_it():
    code = "import signal; signal.signal(signal.SIGALRM, signal.default_int_handler)\n"
    child(code=code + CALLED_BACK + INTERRUPTED, timeout=100)


COUNTED = """
import minigrad as mg
from minigrad import functional as F, nn, optim
calls = []
def counting(dtype, function):
    def gemm(*arguments):
        calls.append(dtype)
        function(*arguments)
    return type(function)(gemm)
blas.register({dtype: counting(dtype, function) for dtype, function in blas.callbacks().items()})
model, y = nn.MLP(8, 6, [20]), np.arange(10) % 6
for dtype in ("f4", "f8"):
    for lay_out in LAYOUTS.values():
        x = lay_out(np.random.default_rng(0).normal(size=(10, 8)).astype(dtype))
        x.flags.writeable = lay_out is LAYOUTS["C"]
        for p in model.parameters():
            p.data = lay_out(p.array.astype(dtype)) if p.ndim == 2 else p.array.astype(dtype)
        del calls[:]
        optim.gradient_update(F.nll_loss(model(mg.from_numpy(x)), y), model.parameters())
        print(*calls)
"""


@compiled
def test_a_step_makes_five_products():
    """Two forward, two for the weights, one for the hidden layer, and no product elsewhere."""
    printed = child(code="from test_kernels import *\n" + COUNTED, environment=HERE).stdout
    assert printed.splitlines() == [
        " ".join([d] * 5) for d in ("float32", "float64") for _ in "1234"
    ]


# The formulas


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
    out, softmax = np.empty_like(y), np.empty_like(y)
    kernels.log_softmax_forward(y, out, softmax)
    np.testing.assert_allclose(out, np.log(probabilities), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(softmax, probabilities, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float64", 1e-12)])
def test_updates_compute_their_formulas(dtype, tolerance):
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.normal(size=shape).astype(dtype)

    x, v, s, m = draw(5, 4), draw(5, 4), draw(5, 4) ** 2, draw(5, 4)
    g = draw(5, 4)
    new_v, sgd_v = 0.5 * v - 0.25 * g, 0.5 * v + g
    new_s, new_m = 0.75 * s + 0.25 * g**2, 0.5 * m + 0.5 * g
    m_hat, s_hat = new_m / (1 - 0.5**3), new_s / (1 - 0.75**3)
    updates = {  # states, settings, the parameter and the states after the step
        "gradient_descent": ((), (0.25,), x - 0.25 * g),
        "momentum": ((v,), (0.25, 0.5), x + new_v, new_v),
        "sgd_momentum": ((v,), (0.25, 0.5), x - 0.25 * sgd_v, sgd_v),
        "rmsprop_inside": ((s,), (0.5, 0.75, 2.0), x - 0.5 * g / np.sqrt(new_s + 2), new_s),
        "rmsprop_outside": ((s,), (0.5, 0.75, 2.0), x - 0.5 * g / (np.sqrt(new_s) + 2), new_s),
        "adam": (
            (m, s), (0.25, 0.5, 0.75, 3.0, 3.0),
            x - 0.25 * m_hat / (np.sqrt(s_hat) + 3), new_m, new_s,
        ),
    }  # fmt: skip
    for name, (states, settings, *expected) in updates.items():
        for order in "CF":
            param, grad, *states = (np.array(a, dtype, order=order) for a in (x, g, *states))
            getattr(kernels, name)(param, grad, *states, *settings)
            for got, wanted in zip((param, *states), expected, strict=True):
                np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)
            states = updates[name][0]


@given(st.data(), st.sampled_from(["float32", "float64"]))
def test_the_exponential_of_numbers_up_to_0(data, dtype):
    width = np.dtype(dtype).itemsize * 8
    numbers = st.floats(-87, 0, width=width) | st.sampled_from([0.0, -0.0, -np.inf, -1e30, np.nan])
    x = data.draw(st.lists(numbers).map(lambda values: np.array(values, dtype)))
    out = np.full(x.shape, np.nan, dtype)
    with np.errstate(all="ignore"):
        kernels.exp(x, out)
        expected = np.exp(x.astype("float64"))
    np.testing.assert_allclose(out, expected, rtol={"float32": 1.5e-7, "float64": 1e-15}[dtype])


def test_the_exponential_of_a_dense_grid():
    x = np.linspace(-87, 0, 2**16 if numba.config.DISABLE_JIT else 2**22, dtype="f4")
    out = np.empty_like(x)
    kernels.exp(x, out)
    assert np.abs(out / np.exp(x.astype("f8")) - 1).max() < 1.5e-7


def test_nll_loss_forward_names_the_first_bad_row():
    for targets, row in (([0, 2, -1, 5], 2), ([3, 0, 0, 0], 0), ([0, 1, 2, 0], -1)):
        bad, _ = kernels.nll_loss_forward(np.zeros((4, 3)), np.array(targets), np.empty(4))
        assert bad == row


def test_nll_loss_forward_adds_up_in_double_precision():
    losses = np.array([1] + [1e-5] * 1000, "f4")
    log_probs, targets = -losses[:, None], np.zeros(1001, int)
    _, total = kernels.nll_loss_forward(log_probs, targets, np.empty_like(losses))
    assert abs(total - losses.sum(dtype="f8")) < 1e-12
