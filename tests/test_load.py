"""Under load and over time: memory, threads, processes, folders that cannot be written."""

import ctypes
import gc  # noqa: F401 (this and others: for the programs that `run` starts)
import os  # noqa: F401
import resource  # noqa: F401
import shutil
import signal  # noqa: F401
import sys  # noqa: F401
import threading  # noqa: F401
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import pytest
from helpers import child

import minigrad as mg
from minigrad import functional as F, kernels, nn, optim


def train(seed, steps):
    """The parameters of a small model after some steps, as one array."""
    rng = np.random.default_rng(seed)
    model = nn.MLP(20, 4, [16, 8])
    for parameter in model.parameters():
        parameter.data = rng.uniform(-0.3, 0.3, parameter.shape).astype("f4")
    for _ in range(steps):
        x = mg.from_numpy(rng.normal(size=(200, 20)).astype("f4"))
        loss = F.nll_loss(model(x), rng.integers(0, 4, 200))
        optim.gradient_update(loss, model.parameters(), lr=0.1)
    return np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])


def run(code, *arguments, environment=None, **options):
    """What a Python program prints; it may use `train` and everything that is imported here."""
    # compiled, even if the suite runs with plain Python: twenty thousand steps would take hours
    always = {"PYTHONPATH": str(Path(__file__).parent), "NUMBA_DISABLE_JIT": "0"}
    environment = always | (environment or {})
    code = "from test_load import *\n" + code
    return child(*arguments, code=code, environment=environment, **options).stdout.strip()


# Memory


def test_memory_stays_flat_without_the_garbage_collector():
    code = """
def measure():
    tensors = sum(issubclass(type(o), mg.Tensor) for o in gc.get_objects())
    return tensors, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
train(0, 500)
gc.collect()
gc.disable()
before = measure()
train(0, 20_000)
print(*before, *measure())
"""
    tensors, peak, tensors_after, peak_after = map(int, run(code).split())
    assert tensors == tensors_after
    assert peak_after - peak < 4096  # KiB; a graph that is not freed holds 50 a step


def test_keeping_freed_memory_can_be_turned_off():
    code = "from minigrad import memory; print(memory.keep_freed_memory())"
    assert run(code, environment={"MINIGRAD_KEEP_MEMORY": "0"}) == "False"
    assert run(code) == str(hasattr(ctypes.CDLL(None), "mallopt"))


# Threads and processes


@pytest.mark.parametrize("layer", ["default", "workqueue"])
def test_two_threads_train_as_one_after_the_other(layer):
    """Numba's workqueue layer aborts when two threads enter it: no kernel may."""
    code = """
alone = [train(seed, 300) for seed in (1, 2)]
together = {}
threads = [
    threading.Thread(target=lambda seed=seed: together.update({seed: train(seed, 300)}))
    for seed in (1, 2)
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for seed, expected in zip((1, 2), alone):
    np.testing.assert_array_equal(together[seed], expected)
print("equal")
"""
    assert run(code, environment={"NUMBA_THREADING_LAYER": layer}) == "equal"


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="about compiled kernels")
def test_no_kernel_enters_numbas_threading_layer():
    compiled = [k for k in vars(kernels).values() if hasattr(k, "targetoptions")]
    assert compiled and not any(k.targetoptions.get("parallel") for k in compiled)


def test_training_in_a_forked_child():
    code = """
expected = train(1, 50)
child = os.fork()
if child == 0:
    os._exit(0 if (train(1, 50) == expected).all() else 1)
signal.alarm(60)
print(os.waitpid(child, 0)[1])
"""
    assert run(code) == "0"


def test_same_seed_same_bits():
    code = "sys.stdout.write(train(3, 200).tobytes().hex())"
    first = run(code)
    assert len(first) > 1000 and run(code) == first


def without_rights():
    """Deny root the right to write where the permissions forbid it."""
    PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)


def test_a_read_only_installation_without_a_home(tmp_path):
    package = tmp_path / "site" / "minigrad"
    shutil.copytree(Path(mg.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (package, tmp_path / "site", tmp_path):
        folder.chmod(0o555)
    code = """
try:
    open("new", "w")
except PermissionError:
    print(Path(mg.__file__).parent, train(0, 3).dtype)
"""
    environment = {"HOME": str(tmp_path / "none"), "XDG_CACHE_HOME": str(tmp_path / "none")}
    environment["PYTHONPATH"] = f"{tmp_path / 'site'}:{Path(__file__).parent}"
    try:
        printed = run(code, cwd=package, environment=environment, preexec_fn=without_rights)
    finally:
        tmp_path.chmod(0o755)
    assert printed == f"{package} float32"
    assert not (package / "__pycache__").exists()


# Files


SAVE = "mg.save({name: np.full(200_000, float(sys.argv[2])) for name in 'ab'}, sys.argv[1])\n"


def test_processes_that_save_one_file_leave_one_whole_file(tmp_path):
    path = tmp_path / "model.npz"
    code = f"for _ in range(100):\n    {SAVE}    mg.load(sys.argv[1])"  # while another one saves
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda value: run(code, path, value), (1, 2)))
    saved = {value for array in mg.load(path).values() for value in array.numpy()}
    assert saved in ({1}, {2}) and list(tmp_path.iterdir()) == [path]


def test_a_process_killed_while_it_saves_does_no_harm(tmp_path):
    path = tmp_path / "model.npz"
    run(SAVE, path, 1)
    before = path.read_bytes()
    code = """
def die(file, *arguments, **settings):
    file.write(b"half a file")
    os.kill(os.getpid(), signal.SIGKILL)
np.lib.format.write_array = die
"""
    with pytest.raises(AssertionError):
        run(code + SAVE, path, 2)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 2


def test_an_interrupted_save_leaves_what_was_there(tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    path = tmp_path / "model.npz"
    mg.save({"a": 1}, path)
    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        mg.save({"a": 2}, path)
    assert mg.load(path)["a"].item() == 1 and list(tmp_path.iterdir()) == [path]
