"""Data-parallel training: several processes under mpiexec, checkpoints, and what happens without MPI."""

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import descending
import numpy as np
import pytest
from helpers import ROOT, assert_drawn, child

import minigrad as mg
from minigrad import nn

TRAIN = ROOT / "examples" / "train_mlp.py"
SECONDS = 120  # for one run on a busy machine: a run that hangs fails


def mpi(processes, *command, code=None, folder, module="mpi4py", fails=0, seconds=SECONDS,
        **environment):  # fmt: skip
    """Run Python under mpiexec; return what it printed, and what it wrote to stderr."""
    if code is not None:
        (folder / "script.py").write_text(code)
        command = "script.py", *command
    beside_python = os.path.dirname(sys.executable)  # where pip's mpich puts it
    mpiexec = shutil.which("mpiexec", path=beside_python) or shutil.which("mpiexec")
    python = [sys.executable, "-m", module] if module else [sys.executable]
    environment = (
        os.environ | {"OPENBLAS_NUM_THREADS": "1", "MINIGRAD_NUM_THREADS": "1"} | environment
    )
    with subprocess.Popen(
        [mpiexec, "-n", str(processes), *python, *map(str, command)], cwd=folder, env=environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            printed, error = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.terminate()  # mpiexec then ends the ranks
            printed, error = process.communicate()
            pytest.fail(f"it hangs\n{printed}\n{error}")
    assert fails is None or (process.returncode != 0) == fails, printed + error
    return printed, error


# The gradient of the whole batch


@pytest.mark.mpi
@pytest.mark.parametrize("processes, sizes", [(1, [251]), (2, [251]), (3, [251]), (4, [3, 251])])
def test_several_processes_descend_as_one(tmp_path, processes, sizes):
    mpi(processes, descending.__file__, *sizes, folder=tmp_path)
    for name in descending.OPTIMIZERS:
        for size in sizes:
            parameters, losses = descending.on_one_process(name, size)
            for rank in range(processes):
                found = np.load(tmp_path / f"rank{rank}.npz")
                assert np.abs(found[f"{name} {size}"] - parameters).max() < 1e-11
                assert np.abs(found[f"{name} {size} losses"] - losses).max() < 1e-11


DETAILS = """
import contextlib
import re
import numpy as np
import minigrad as mg
from minigrad import distributed as d, optim

@contextlib.contextmanager
def raises(kind, match):
    try:
        yield
    except kind as error:
        assert re.search(match, str(error)), error
    else:
        raise AssertionError(f"no {kind}")

assert d.size == 3
pick = lambda *of_the_ranks: of_the_ranks[d.rank]

# shares: all rows, once, in order, as evenly as can be
for n in range(12):
    rows = np.arange(2 * n).reshape(n, 2)
    mine, numbers, letters = d.shard(mg.tensor(rows), rows, list(map(str, rows)))
    assert isinstance(mine, mg.Tensor) and np.array_equal(mine.numpy(), numbers)
    assert letters == list(map(str, numbers))
    shares = d.comm.allgather(numbers)
    assert np.array_equal(np.concatenate(shares), rows)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
with raises(ValueError, match=r"same length, got \\[3, 4\\]"):
    d.shard([1, 2, 3], [1, 2, 3, 4])

# the start: the numbers of rank 0, in place, and the graph knows
single = mg.tensor(float(d.rank), requires_grad=True)  # of no dimension
double = mg.tensor(np.full((2, 3), float(d.rank)), dtype=mg.float64, requires_grad=True)
turned = mg.tensor(np.full((3, 2), d.rank, "f4").T, requires_grad=True)
turned.data = np.arange(6.0).reshape(3, 2).astype("f4").T + d.rank  # in the other order
unused, rare = (mg.tensor([1.0, 2.0], requires_grad=True) for _ in range(2))
everything = [single, double, turned, unused, rare]
with raises(RuntimeError, match="call broadcast"):
    d.average_gradients(everything, 1)
optimizer = optim.Adam(everything)
arrays, before = [p.array for p in everything], double * double
d.broadcast(p for p in everything)
assert all(p.array is array for p, array in zip(everything, arrays))
assert single.item() == 0 and not double.array.any()
assert np.array_equal(turned.array, [[0, 2, 4], [1, 3, 5]])
with raises(RuntimeError, match="changed"):
    before.sum().backward()

# the mean: weighed by the counts; rank 1 has no examples
counts = 3, 0, 2**22
count = pick(*counts)
values = np.array([2.0, np.nan, -1.0])
for p in (single, double, turned):
    p.grad = mg.tensor(np.full(p.shape, values[d.rank]), dtype=p.dtype)
if d.rank == 2:
    rare.grad = mg.tensor([5.0, 6.0])
loss, weight = d.average_gradients(iter(everything), np.int64(count), values[d.rank], 1.0)
total = sum(counts)
expected = (3 * 2.0 + 2**22 * -1.0) / total
assert loss == expected and weight == 1
assert abs(double.grad.numpy() - expected).max() < 1e-15
for p in (single, turned):
    assert p.grad.dtype == p.dtype and p.grad.shape == p.shape
    assert abs(p.grad.numpy() - expected).max() < 1e-7
assert unused.grad is None
assert np.allclose(rare.grad.numpy(), np.array([5.0, 6.0]) * 2**22 / total, rtol=1e-6)
optimizer.step()
assert optimizer.steps == [1, 1, 1, 0, 1]
assert len(set(d.comm.allgather(single.item()))) == 1

# float32 alone: counts are exact
(lonely,) = [mg.tensor([1.0], requires_grad=True)]
d.broadcast([lonely])
lonely.grad = mg.tensor([1.0])
(share,) = d.average_gradients([lonely], pick(2**23 - 1, 1, 2**23), pick(0.0, 1.0, 0.0))
assert share == 1 / 2**24 and lonely.grad.item() == 1

# mistakes
with raises(ValueError, match="count must be the number of this rank's examples, got -1"):
    d.average_gradients([lonely], -1)
with raises(ValueError, match="count is 0 on all ranks"):
    d.average_gradients([lonely], 0)
with raises(TypeError, match="parameters must list Tensors"):
    d.broadcast(lonely)
with raises(RuntimeError, match=r"rank 0 has .*\\(2,\\).*, rank 1 has .*\\(1,\\)"):
    d.broadcast([mg.zeros(pick(2, 1, 2))])
print("through")
"""


@pytest.mark.mpi
def test_details(tmp_path):
    printed, _ = mpi(3, code=DETAILS, folder=tmp_path)
    assert printed.count("through") == 3


PAGE = (ROOT / "docs" / "distributed.md").read_text(encoding="utf-8")


@pytest.mark.mpi
def test_the_script_of_the_page(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    printed, _ = mpi(3, code=code, folder=tmp_path)
    assert re.fullmatch(r"tensor\(0\.9\d+\)\n", printed)  # once
    assert child("script.py", cwd=tmp_path).stdout == printed


# When a rank fails

FAIL = """
import os, signal, sys
import minigrad as mg
from minigrad import distributed

w = mg.tensor([1.0], requires_grad=True)
distributed.broadcast([w] if "shapes" not in sys.argv or distributed.rank == 0 else [w, mg.zeros(2)])

for step in range(20):
    if distributed.rank == 1 and step == 5:
        open("moment", "w").close()
        if "raise" in sys.argv:
            raise ValueError("this is the reason")
        if "kill" in sys.argv:
            os.kill(os.getpid(), signal.SIGKILL)
        if "exit" in sys.argv:
            sys.exit("this is the reason")
        if "fewer" in sys.argv:
            break
    if "fewer" in sys.argv and distributed.rank == 0:
        open("moment", "w").close()
    w.grad = mg.ones(1)
    distributed.average_gradients([w], 1)
"""


@pytest.mark.mpi
@pytest.mark.parametrize(
    "how, module, message",
    [
        ("raise", None, r"Error on rank 1 of 3:\nTraceback (.*\n)+ValueError: this is the reason"),
        ("kill", None, ""),
        ("exit", "mpi4py", "this is the reason"),
        ("fewer", None, r"1 of 3 ranks have ended, .* all must make the same number of steps"),
        ("shapes", None, r"the same shapes and dtypes on all ranks: rank 0 has .* rank 1 has"),
    ],
)  # fmt: skip
def test_a_rank_that_fails_ends_all(tmp_path, how, module, message):
    printed, error = mpi(3, how, code=FAIL, folder=tmp_path, module=module, fails=True)
    if how != "shapes":
        assert time.time() - (tmp_path / "moment").stat().st_mtime < 20
    assert re.search(message, error), error
    if how == "raise":
        assert error.count("Error on rank") == 1  # the other ranks have not gone on


CATCH = """
import minigrad as mg
from minigrad import distributed

w = mg.tensor([1.0], requires_grad=True)
distributed.broadcast([w])
try:
    for _ in range(1 + distributed.rank):
        w.grad = mg.ones(1)
        distributed.average_gradients([w], 1)
except RuntimeError:
    print("caught")
"""


@pytest.mark.mpi
def test_a_rank_that_catches_the_error_can_end(tmp_path):
    printed, _ = mpi(2, code=CATCH, folder=tmp_path)
    assert printed == "caught\n"


# The example


def numbers(path, part=""):
    """The arrays of a checkpoint, by name, as bytes."""
    return {k: v.numpy() for k, v in mg.load(path).items() if k.startswith(part)}


ARGUMENTS = "--data digits --hidden 20 --epochs 5 --batch-size 50 --optimizer adam".split()
ARGUMENTS += "--save model.npz --resume".split()


def train(processes, folder, script=TRAIN, *before, dies=False):
    """Run train_mlp.py; return what it printed, and what it wrote to stderr."""
    command = script, *before, *ARGUMENTS
    if processes > 1:
        return mpi(processes, *command, folder=folder, fails=dies)
    done = child(*command, cwd=folder, fails=-signal.SIGKILL if dies else 0)
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A function that trains on so many processes, once; it returns the folder and the output."""

    @functools.cache
    def run(processes):
        folder = tmp_path_factory.mktemp(f"processes{processes}")
        return folder, *train(processes, folder)

    return run


@pytest.mark.mpi
def test_train_mlp_on_two_processes(undisturbed):
    (one, alone, _), (two, printed, bar) = undisturbed(1), undisturbed(2)
    assert printed.count("Test accuracy: ") == printed.count("Curves: ") == 1
    assert printed.count("Nothing to resume: model.npz does not exist yet\n") == 1
    assert "Processes: 2; threads of each: 1\n" in printed
    accuracies = [re.search(r"Test accuracy: ([\d.]+)%", x)[1] for x in (alone, printed)]
    assert abs(float(accuracies[0]) - float(accuracies[1])) <= 0.5
    assert len(re.findall("epoch 5/5: 100%[^\r]*accuracy", bar)) <= 2  # one bar: rank 0's
    for picture in ("train_mlp.png", "train_mlp_mistakes.png"):
        assert_drawn(two / "figures" / picture)
    expected, found = (numbers(folder / "model.npz", "model.") for folder in (one, two))
    assert expected.keys() == found.keys()
    for name in expected:
        assert np.abs(expected[name] - found[name]).max() < 1e-4
    (how_to_load,) = re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL)
    model = nn.MLP(hidden_dims=[20])
    exec(how_to_load.replace("model.npz", str(two / "model.npz")), {"mg": mg, "model": model})
    assert np.array_equal(model.main[0].weight.array, found["model.main.0.weight"])


@pytest.mark.slow
@pytest.mark.parametrize("data", ["digits", "mnist"])
def test_a_whole_training_ends_as_on_one_process(data, tmp_path, request):
    pytest.importorskip("mpi4py")
    root = str(request.getfixturevalue("mnist_root")) if data == "mnist" else ""
    command = TRAIN, "--data", data
    alone = child(*command, cwd=tmp_path, environment={"MINIGRAD_DATA": root}).stdout
    for processes in (2, 4):
        printed, _ = mpi(processes, *command, folder=tmp_path, seconds=500, MINIGRAD_DATA=root)
        one, several = (float(re.search(r"accuracy: ([\d.]+)%", x)[1]) for x in (alone, printed))
        assert abs(one - several) <= 0.5 and one > 90


KILL = f"""
import os, runpy, signal, sys
from minigrad import optim

moment, sys.argv = sys.argv[1], [{str(TRAIN)!r}, *sys.argv[2:]]
sys.path.insert(0, {str(TRAIN.parent)!r})
is_last = int(os.environ.get("PMI_RANK", 0)) == int(os.environ.get("PMI_SIZE", 1)) - 1
step, left = optim.Optimizer.step, {{"step": 60, "move": 4}}

def count(what):
    left[what] -= 1
    if moment == what and left[what] == 0:
        os.kill(os.getpid(), signal.SIGKILL)

def counted_step(optimizer):
    if is_last:
        count("step")
    step(optimizer)

def look(event, arguments):
    if event == "os.rename" and os.fspath(arguments[1]) == "model.npz":
        count("move")

optim.Optimizer.step = counted_step
sys.addaudithook(look)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    "processes, moment", [(1, "move"), pytest.param(2, "step", marks=pytest.mark.mpi)]
)
def test_a_killed_training_continues_where_it_was(tmp_path, undisturbed, processes, moment):
    (tmp_path / "kill.py").write_text(KILL)
    # in epoch 3, or between the writing and the moving of its checkpoint
    train(processes, tmp_path, "kill.py", moment, dies=True)
    in_the_middle = numbers(tmp_path / "model.npz")
    assert len(list(tmp_path.glob("model.npz.*.tmp"))) == (moment == "move")
    assert "Resumed: model.npz, after epoch 2\n" in train(processes, tmp_path)[0]
    expected = numbers(undisturbed(processes)[0] / "model.npz")
    resumed = numbers(tmp_path / "model.npz")
    assert expected.keys() == resumed.keys()
    for name in expected:
        assert expected[name].tobytes() == resumed[name].tobytes(), name
    assert (resumed["model.main.0.weight"] != in_the_middle["model.main.0.weight"]).any()


RESUME = """
import runpy, sys

def resume(name):
    sys.argv = ["train_mlp.py", "--data", "digits", "--hidden", "4", "--resume"]
    sys.argv += "--save", name, "--out", folder
    try:
        runpy.run_path("train_mlp.py")
    except SystemExit as error:
        print(error)

*names, folder = sys.argv[1:]
for name in names:
    resume(name)
"""


def test_a_checkpoint_that_does_not_fit_is_an_error(tmp_path):
    text, model, other = (tmp_path / f"{name}.npz" for name in ("text", "model", "other"))
    text.write_text("nothing")
    mg.save(nn.Linear(2, 1).state_dict(), model)
    rest = json.dumps([{"data": "digits", "hidden": [3]}, {}, []]).encode()
    mg.save({"rest": np.frombuffer(rest, np.uint8)}, other)
    printed = child(text, model, other, tmp_path, code=RESUME, cwd=TRAIN.parent).stdout
    assert f"error: {text} is not a checkpoint: RuntimeError" in printed
    assert f"error: {model} is not a checkpoint: KeyError('rest')\n" in printed
    assert f"error: {other} was made with other settings: hidden [3], now [4]; " in printed
    needs = child(TRAIN, "--resume", cwd=tmp_path, fails=2)
    assert "error: --resume needs --save FILE.npz" in needs.stderr


# Without MPI, or with another one


@pytest.mark.parametrize("use", ["import minigrad.distributed", "minigrad.distributed.rank"])
def test_without_mpi4py(use):
    code = f"import sys, minigrad; sys.modules['mpi4py'] = None; {use}"
    error = child(code=code, fails=1).stderr.splitlines()[-1]
    assert error.startswith(
        "ImportError: minigrad.distributed needs mpi4py and an MPI library: pip install mpi4py mpich"
    )


def test_without_an_mpi_library(tmp_path):
    (tmp_path / "mpi4py").mkdir()
    (tmp_path / "mpi4py" / "__init__.py").touch()
    (tmp_path / "mpi4py" / "MPI.py").write_text("raise RuntimeError('cannot load MPI library')")
    path = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = child(code="import minigrad.distributed", environment=path, fails=1)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: minigrad.distributed needs") and "cannot load" in last


def test_minigrad_itself_needs_no_mpi():
    code = "import sys; sys.modules['mpi4py'] = None\n"
    code += "import minigrad, minigrad.datasets, minigrad.plot, minigrad.testing, common\n"
    code += "assert 'minigrad.distributed' not in sys.modules; assert common.world().size == 1"
    child(code=code, cwd=TRAIN.parent)


def test_train_mlp_on_several_processes_without_mpi4py():
    code = "import sys; sys.modules['mpi4py'] = None; import common; common.world()"
    error = child(code=code, cwd=TRAIN.parent, environment={"PMI_SIZE": "2"}, fails=1).stderr
    assert re.match("error: minigrad.distributed needs mpi4py and an MPI library: pip", error)


ALONE = """
import importlib, os, pytest
import common

assert common.PROCESSES == 1
for name in common.STARTED:
    os.environ[name] = "4"
    with pytest.raises(RuntimeError, match="4 processes were started, but each is alone.*mpiexec"):
        import minigrad.distributed
    importlib.reload(common)
    assert common.PROCESSES == 4
    del os.environ[name]
import minigrad.distributed
assert minigrad.distributed.size == 1
"""


@pytest.mark.mpi
@pytest.mark.filterwarnings("ignore")
def test_processes_that_do_not_find_each_other():
    child(code=ALONE, cwd=TRAIN.parent)


def test_several_processes_have_one_thread_each_unless_told():
    code = """
import os
for name in ("MINIGRAD_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.pop(name, None)
os.environ |= eval(os.environ["TOLD"])
import common
import minigrad as mg
print(mg.get_num_threads())
"""
    for told, threads in (({}, 1), ({"MINIGRAD_NUM_THREADS": "3"}, 3)):
        environment = {"PMI_SIZE": "2", "TOLD": repr(told)}
        printed = child(code=code, cwd=TRAIN.parent, environment=environment).stdout
        assert int(printed) == threads
