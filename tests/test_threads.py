"""Several threads share a product: the same bits for any number, also with forks and at exit."""

import os
import signal
import subprocess
import sys
import threading
import time

import numba
import numpy as np
import pytest
from helpers import child
from hypothesis import given, strategies as st

import minigrad as mg
from minigrad import functional as F, kernels, optim, parts, threads

pytestmark = pytest.mark.skipif(
    threads.controls is None or numba.config.DISABLE_JIT, reason="about compiled code and OpenBLAS"
)


@pytest.fixture(autouse=True)
def two_threads():
    before = mg.get_num_threads()
    mg.set_num_threads(2)
    threads.crew[[threads.ALONE, threads.MISSED]] = 0
    threads.crew[threads.PENALTY] = threads.LEAST_PENALTY
    yield
    mg.set_num_threads(before)


def product(a, b):
    out = np.full((len(a), b.shape[1]), np.nan, a.dtype)
    threads.start()
    kernels.matmul(a, b, out)
    return out


# On both sides of each limit: small, in small blocks, in two, in more
LENGTHS = st.one_of(st.integers(2, 40), st.integers(90, 130), st.sampled_from([300, 513, 2100]))


@given(
    sizes=st.tuples(LENGTHS, LENGTHS, LENGTHS), dtype=st.sampled_from(["f4", "f8"]),
    orders=st.tuples(st.booleans(), st.booleans()), number=st.sampled_from([1, 2, 8]),
)  # fmt: skip
def test_a_product_of_any_size_is_right_and_has_the_same_bits(sizes, dtype, orders, number):
    m, k, n = sizes
    rng = np.random.default_rng(m + k + n)
    a, b = rng.normal(size=(m, k)).astype(dtype), rng.normal(size=(k, n)).astype(dtype)
    a, b = (np.asfortranarray(x) if order else x for x, order in zip((a, b), orders))
    mg.set_num_threads(number)
    out = product(a, b)
    bound = np.finfo(dtype).eps * (np.abs(a) @ np.abs(b)) * np.sqrt(k)
    assert (np.abs(out - a.astype("f8") @ b) <= bound).all()
    mg.set_num_threads(1)
    np.testing.assert_array_equal(out, product(a, b))


@given(st.tuples(*[st.integers(2, 5000)] * 3))
def test_blocks_are_small_for_few_rows_and_few_otherwise(sizes):
    m, n, k = sizes
    blocks, longer, shorter = threads.blocks_of(m, n, k), max(m, n), min(m, n)
    if m * n * k <= 10**6:
        assert blocks == 1
    elif shorter <= 16 and 16 * shorter * k <= 500_000:
        assert 500_000 <= m * n * k / blocks < 1_000_000 and longer / blocks >= 16
    else:
        assert 2 <= blocks <= 16 and (blocks == 2 or longer / blocks >= 512)


def test_large_products_of_an_operation_take_part(rng=np.random.default_rng(0)):
    """x @ y and its gradients, as well as `linear`, which has kernels of its own."""
    x, y = (mg.tensor(rng.normal(size=(200, 200)), requires_grad=True) for _ in range(2))
    job = threads.crew[threads.FREE] >> 32
    (x @ y).sum().backward()
    F.linear(x, y).sum().backward()
    assert (threads.crew[threads.FREE] >> 32) - job == 6
    np.testing.assert_allclose(
        x.grad.numpy(), np.ones((200, 200)) @ (y.array.T + y.array), rtol=1e-9
    )


@pytest.mark.parametrize("dtype", ["f2", ">f4", "g"])
def test_numpy_multiplies_what_no_kernel_takes(dtype):
    a = mg.from_numpy(np.ones((100, 100), dtype))
    np.testing.assert_array_equal((a @ a).array, np.full((100, 100), 100))


TRAIN = """
import sys
import numpy as np
import minigrad as mg
from minigrad import nn, optim, functional as F

def train(steps=5):
    rng = np.random.default_rng(0)
    model = nn.MLP(784, 10, [100])
    for p in model.parameters():
        p.data = mg.from_numpy(rng.normal(0, 0.1, p.shape).astype("f4"))
    x, y = mg.from_numpy(rng.standard_normal((250, 784), "f4")), rng.integers(0, 10, 250)
    for _ in range(steps):
        optim.gradient_update(F.nll_loss(model(x), y), model.parameters(), lr=0.1)
    return b"".join(p.detach().numpy().tobytes() for p in model.parameters())
"""
exec(TRAIN)


def test_one_two_and_eight_threads_give_the_same_bits():
    results = set()
    for number in (1, 2, 8):
        mg.set_num_threads(number)
        results.add(train())  # noqa: F821
    assert len(results) == 1


def test_two_threads_of_python_train_as_one_alone():
    alone, before = train(20), threads.controls[1]()  # noqa: F821
    results = []
    started = [threading.Thread(target=lambda: results.append(train(20))) for _ in range(2)]  # noqa: F821
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    assert results == [alone, alone]
    assert threads.controls[1]() == before


def test_the_library_has_its_threads_again_after_a_product():
    for number in (1, 2):
        threads.controls[0](number)
        product(np.ones((200, 200)), np.ones((200, 200)))
        assert threads.controls[1]() == number
    with pytest.raises(ValueError, match="shapes do not fit"):
        kernels.matmul(np.ones((200, 200)), np.ones((201, 200)), np.ones((200, 200)))
    assert threads.controls[1]() == 2 and threads.crew[threads.INSIDE] == 0


@pytest.fixture
def no_workers():
    """The workers have ended and are not replaced."""
    threads.start()
    threads.crew[threads.STOP] = 1
    os.write(threads._pipe[1], b".")
    for worker in threads._workers:
        worker.join()
    os.set_blocking(threads._pipe[0], False)
    yield
    os.set_blocking(threads._pipe[0], True)


def test_a_worker_that_is_late_is_not_waited_for(no_workers):
    a = np.random.default_rng(0).normal(size=(300, 300))
    np.testing.assert_allclose(product(a, a), a @ a, rtol=1e-9)


def test_as_many_sleepers_are_woken_as_there_are_blocks_for(no_workers):
    threads.crew[threads.ASLEEP] = 5
    product(np.ones((2100, 100)), np.ones((100, 2100)))  # four blocks, one for the caller
    assert len(os.read(threads._pipe[0], 100).replace(b".", b"")) == 3
    assert threads.crew[threads.ASLEEP] == 2


def test_after_an_interruption_nobody_is_called_for_a_while():
    a = np.ones((200, 200))
    threads.crew[threads.ALONE] = 3 * 9  # three products, as `work_in` counts them
    job = threads.crew[threads.FREE] >> 32
    for _ in range(5):
        product(a, a)
    assert (threads.crew[threads.FREE] >> 32) - job == 2


def test_nobody_is_called_for_a_while_if_nobody_comes(no_workers):
    a, penalties = np.ones((200, 200)), []
    for _ in range(120):
        product(a, a)
        penalties.append(int(threads.crew[threads.ALONE]))
    assert penalties[:20] == [0] * 20 and penalties[20:22] == [256, 247]
    assert max(penalties) == 512


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_after_a_fork_trains_and_ends():
    code = (
        TRAIN
        + """
import os
from minigrad import threads
mg.set_num_threads(2)
before = train()
child = os.fork()
if child == 0:
    os._exit(0 if train() == before and threads.crew[threads.INSIDE] == 0 else 3)
assert os.waitpid(child, 0)[1] == 0
assert train() == before
"""
    )
    child(code=code, timeout=120)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forks_during_products_of_other_threads():
    code = """
import os, signal, threading as python
import numpy as np
import minigrad as mg
from minigrad import ops, threads

threads.controls[0](2)  # around each product, the library is told its number of threads
mg.set_num_threads(2)
a = np.random.default_rng(0).normal(size=(128, 128))
right = ops.multiplied(a, a)

def multiply():
    while children < 100:
        assert np.array_equal(ops.multiplied(a, a), right)

children = 0
multiplying = [python.Thread(target=multiply) for _ in range(3)]
for thread in multiplying:
    thread.start()
for children in range(1, 101):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        same = np.array_equal(ops.multiplied(a, a), right)
        os._exit(0 if same and threads.controls[1]() == 2 else 3)
    status = os.waitpid(child, 0)[1]
    if status:
        break
children = 100
for thread in multiplying:
    thread.join()
assert status == 0 and threads.controls[1]() == 2, status
"""
    child(code=code, timeout=120)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_forked_while_a_worker_compiles_can_compile(tmp_path):
    code = """
import os, signal
import numpy as np
import minigrad as mg
from minigrad import functional as F, ops
mg.set_num_threads(2)
ops.multiplied(np.ones((100, 100)), np.ones((100, 100)))
child = os.fork()
if child == 0:
    signal.alarm(60)
    F.relu(mg.randn(5))
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    child(code=code, timeout=200, environment={"NUMBA_CACHE_DIR": str(tmp_path)})


@pytest.mark.parametrize("owner, name", [(os, "pipe"), (threading.Thread, "start")])
def test_without_files_or_threads_to_be_had_a_product_takes_one(owner, name, monkeypatch):
    def refuse(*_):
        raise (OSError if name == "pipe" else RuntimeError)("no more of them")

    a = np.random.default_rng(0).normal(size=(200, 200))
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, refuse)
        np.testing.assert_allclose(product(a, a), a @ a, rtol=1e-9)
    mg.set_num_threads(2)
    product(a, a)
    assert len(threads._workers) == 1


def test_a_signal_handler_may_multiply_while_workers_start():
    code = """
import numpy as np
from minigrad import ops, threads
with threads._starting:  # interrupted here
    ops.multiplied(np.ones((100, 100)), np.ones((100, 100)))
"""
    child(code=code, timeout=60)


def test_products_after_the_end_of_minigrad_start_no_workers():
    """In other threads, or in exit handlers. Python 3.12 cannot start threads then."""
    code = """
import atexit, os
def late():
    assert (ops.multiplied(a, a) == 200).all()
    os._exit(3 if threads._workers else 0)
atexit.register(late)
import numpy as np
import minigrad as mg
from minigrad import ops, threads
mg.set_num_threads(2)
a = np.ones((200, 200))
ops.multiplied(a, a)
"""
    child(code=code, timeout=60)


@pytest.mark.parametrize("end", ["pass", "sys.exit(0)", "import time; time.sleep(0.1)"])
def test_the_interpreter_ends_with_workers_awake_or_asleep(end):
    started = time.monotonic()
    child(code=TRAIN + f"mg.set_num_threads(8); train(); {end}", timeout=60)
    assert time.monotonic() - started < 60


@pytest.mark.skipif(os.name != "posix", reason="signals as on POSIX")
def test_ctrl_c_with_workers():
    code = TRAIN + "mg.set_num_threads(2); train(); print('ready', flush=True); train(10**6)"
    process = subprocess.Popen(
        [sys.executable, "-c", "import signal; signal.signal(2, signal.default_int_handler)\n" + code],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT and errors.rstrip().endswith("KeyboardInterrupt")


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2", None])
def test_a_number_of_threads_that_makes_no_sense(n):
    with pytest.raises(ValueError, match="n must be a positive integer, got"):
        mg.set_num_threads(n)
    assert mg.get_num_threads() == 2


def defaults(monkeypatch, **variables):
    for name in ("MINIGRAD", "OPENBLAS", "OMP"):
        monkeypatch.delenv(f"{name}_NUM_THREADS", raising=False)
        if name in variables:
            monkeypatch.setenv(f"{name}_NUM_THREADS", variables[name])
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(12), raising=False)
    return threads.default_num_threads()


def test_the_default_is_the_smallest_limit(monkeypatch, tmp_path):
    monkeypatch.setattr(threads, "_quotas", lambda: [])
    assert defaults(monkeypatch) == 12
    assert defaults(monkeypatch, OPENBLAS="3", OMP="5") == 3
    assert defaults(monkeypatch, OPENBLAS="nonsense", OMP="0") == 12
    assert defaults(monkeypatch, OMP="5", MINIGRAD="7") == 7
    monkeypatch.setattr(threads, "_quotas", lambda: [2, 6])
    assert defaults(monkeypatch) == 2
    assert defaults(monkeypatch, MINIGRAD="7") == 7
    monkeypatch.setattr(threads, "_quotas", lambda: [0])  # a quota below one CPU
    assert defaults(monkeypatch) == 1
    monkeypatch.setattr(threads, "_quotas", lambda: [])
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64), raising=False)
    assert threads.default_num_threads() == 16


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "1.5"])
def test_a_variable_that_makes_no_sense(wrong, monkeypatch):
    with pytest.raises(ValueError, match=f"MINIGRAD_NUM_THREADS must be .*, got '{wrong}'"):
        defaults(monkeypatch, MINIGRAD=wrong)


def test_quotas_of_control_groups(monkeypatch, tmp_path):
    (tmp_path / "self").write_text("0::/outer/inner\n")
    (tmp_path / "cgroup/outer/inner").mkdir(parents=True)
    (tmp_path / "cgroup/outer/inner/cpu.max").write_text("max 100000\n")
    (tmp_path / "cgroup/outer/cpu.max").write_text("250000 100000\n")
    monkeypatch.setattr(threads, "CONTROL_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(threads, "OWN_GROUP", tmp_path / "self")
    assert threads._quotas() == [2]
    monkeypatch.setattr(threads, "OWN_GROUP", tmp_path / "nowhere")
    assert threads._quotas() == []


SHAPES = [
    ((200, 150), (150, 200)), ((4, 60, 300), (300, 70)), ((2, 1, 90, 90), (3, 90, 90)),
    ((300,), (2, 300, 100)), ((100, 300), (300,)), ((20_000,), (20_000,)), ((300,), (300, 100)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("shapes", SHAPES)
def test_the_library_never_multiplies_with_several_threads(shapes, dtype, monkeypatch):
    """Its bits would depend on whether another Python thread multiplies at that moment."""
    rng = np.random.default_rng(0)
    x, y = (mg.tensor(rng.normal(size=shape).astype(dtype), requires_grad=True) for shape in shapes)
    expected = x.array @ y.array
    grads = []
    for number in (1, 2):
        threads.controls[0](number)
        x.grad = y.grad = None
        out = x @ y
        out.backward(np.ones(out.shape))
        grads.append((out.array.tobytes(), x.grad.array.tobytes(), y.grad.array.tobytes()))
    assert grads[0] == grads[1] and out.shape == expected.shape
    np.testing.assert_allclose(out.array, expected, rtol=1e-3, atol=1e-3)


# Elementwise kernels


def jobs_of(function):
    """How many jobs the threads shared."""
    before = threads.crew[threads.FREE] >> 32
    function()
    return (threads.crew[threads.FREE] >> 32) - before


CASES = {  # kernel: how many arrays, which of them is written, settings
    kernels.relu_forward: (2, 1, ()),
    kernels.relu_backward: (3, 2, ()),
    kernels.gradient_descent: (2, 0, (0.1,)),
    kernels.log_softmax_forward: (3, 1, ()),
    kernels.log_softmax_backward: (3, 2, ()),
}


def test_every_part_is_tested():
    assert CASES.keys() == parts.PARTS.keys()


@pytest.mark.parametrize("kernel", CASES, ids=lambda kernel: kernel.__name__)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_parts_of_large_arrays_make_the_whole(kernel, dtype, rng):
    count, written, settings = CASES[kernel]
    least = 2 * parts.PARTS[kernel][1]
    for size in (least - 7, least, 3 * least + 14):
        shape = (size,) if "relu" in kernel.__name__ else (size // 7, 7)
        arrays = [rng.normal(size=shape).astype(dtype) for _ in range(count)]
        whole = [array.copy() for array in arrays]
        arrays[written][arrays[written] > 2] = np.nan if written else 3
        whole[written][whole[written] > 2] = np.nan if written else 3
        kernel(*whole, *settings)
        shared = jobs_of(lambda: parts.run(kernel, *arrays, settings=settings))
        for ours, expected in zip(arrays, whole):
            np.testing.assert_array_equal(ours, expected)
        assert shared == (dtype == "f4" and arrays[0].size >= least)


def test_large_arrays_that_do_not_fit_a_part_are_left_to_one_thread():
    strided = np.zeros((300_000, 2), "f4")[:, 0]
    update = kernels.gradient_descent
    assert not jobs_of(lambda: parts.run(update, strided, np.ones_like(strided), settings=(1.0,)))
    assert (strided == -1).all()
    state = [np.zeros(300_000, "f4") for _ in range(3)]
    assert not jobs_of(lambda: parts.run(kernels.momentum, *state, settings=(0.1, 0.9)))
    mg.set_num_threads(1)
    assert not jobs_of(lambda: parts.run(kernels.relu_forward, state[0], state[1]))


def test_operations_and_updates_on_large_arrays_are_shared():
    w = mg.tensor(np.linspace(-1, 1, 300_000, dtype="f4"), requires_grad=True)
    assert jobs_of(lambda: optim.gradient_update(F.relu(w).sum(), [w], lr=1.0)) == 3
    np.testing.assert_array_equal(w.grad.array, np.linspace(-1, 1, 300_000, dtype="f4") > 0)
    assert jobs_of(lambda: optim.SGD([w], lr=1.0).step()) == 1
    matrix = mg.ones(400, 500, requires_grad=True)
    assert jobs_of(lambda: optim.gradient_update(matrix.sum(), [matrix], lr=1.0)) == 1
    assert (matrix.array == 0).all()
    assert jobs_of(lambda: F.log_softmax(w.view(-1, 10), dim=1)[:, 0].sum().backward()) == 2
