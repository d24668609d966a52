"""The examples, run as a user runs them: what they print, draw and leave behind."""

import ast
import contextlib
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from helpers import ROOT, assert_drawn, child
from PIL import Image

import minigrad as mg
from minigrad import datasets, nn

EXAMPLES = ROOT / "examples"


def run(folder, script, *arguments, fails=0, encoding="utf-8", **environment):
    """Run a script inside `folder`; return what it printed and what it wrote to stderr."""
    done = child(
        EXAMPLES / script, *arguments, fails=fails, cwd=folder, encoding=encoding,
        environment={"PYTHONIOENCODING": encoding} | environment,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def accuracy(printed):
    return float(re.search(r"Test accuracy: ([\d.]+)%", printed)[1])


# The main job


def test_train_mlp(tmp_path):
    printed, bar = run(
        tmp_path, "train_mlp.py", "--data", "digits", "--hidden", 50, "--epochs", 15,
        "--batch-size", 32, "--save", "models/model.npz", encoding="cp1252",
    )  # fmt: skip
    assert "Data: scikit-learn's digits, 1294 to train, 143 to validate, 360 to test" in printed
    assert "epoch 15/15: 100%" in bar and "linear 15/15: 100%" in bar
    assert accuracy(printed) > 90
    share = accuracy(printed) / 100
    deviation = 100 * (share * (1 - share) / 360) ** 0.5
    assert f"% ± {deviation:.1f} (binomial standard error of 360 images)" in printed
    assert (
        len(re.findall(r"^ +\d +[\d.]+%   (\d \(\d+ of \d+\)|nothing else)$", printed, re.M)) == 10
    )
    assert_drawn(tmp_path / "figures" / "train_mlp.png")
    assert_drawn(tmp_path / "figures" / "train_mlp_mistakes.png")

    model = nn.MLP(hidden_dims=[50])
    state = mg.load(tmp_path / "models" / "model.npz")
    parameters = {k: v for k, v in state.items() if k.startswith("model.")}
    model.load_state_dict({k.removeprefix("model."): v for k, v in parameters.items()})
    _, test_set = datasets.load_digits_data(change_tensors=True)
    right = (model(test_set.data).argmax(1) == test_set.targets).float().mean().item()
    assert accuracy(printed) == pytest.approx(100 * right, abs=0.0501)


def test_train_mlp_without_hidden_layers_or_seed_luck(tmp_path):
    arguments = "--data", "digits", "--hidden", "--epochs", 3, "--seed", 5
    first, _ = run(tmp_path, "train_mlp.py", *arguments)
    again, _ = run(tmp_path, "train_mlp.py", *arguments)
    assert first.count("Linear(") == 1 and "linear model" not in first  # it is its own baseline
    timing = r", [\d.]+ s of training"
    assert re.sub(timing, "", first) == re.sub(timing, "", again)


def test_train_mlp_on_mnist(tmp_path, mnist_root):
    printed, _ = run(
        tmp_path, "train_mlp.py", "--epochs", 1, "--lr", 0.1, "--out", "here",
        MINIGRAD_DATA=str(mnist_root),
    )  # fmt: skip
    assert "Data: MNIST, 54000 to train, 6000 to validate, 10000 to test" in printed
    assert accuracy(printed) > 92
    assert_drawn(tmp_path / "here" / "train_mlp.png")


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_train_mlp_fits_its_bar_into_80_columns(tmp_path):
    """In a terminal, a line that is too long would be cut: validation must come before the end."""
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, EXAMPLES / "train_mlp.py", "--data", "digits", "--epochs", "10"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs
    ) as process:
        os.close(theirs)
        written = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while read := os.read(ours, 4096):
                written += read
        os.close(ours)
    assert process.returncode == 0
    states = [re.sub(r"\x1b\[\w", "", state) for state in re.split(r"[\r\n]+", written.decode())]
    assert max(map(len, states)) <= 80
    last = [state for state in states if state.startswith("epoch 10/10: 100%")][-1]
    assert re.search(r"[#█]{5}.*valid loss \d\.\d{4}, accuracy \d\d\.\d\d%$", last)


HISTORY = """
import json, runpy, sys
{before}
sys.path.insert(0, {folder!r})
sys.argv = ["train_mlp.py", "--data", "digits", *sys.argv[1:]]
print(json.dumps(runpy.run_path({folder!r} + "/train_mlp.py")["history"]))
"""


def history(folder, *arguments, before="", **options):
    """What train_mlp.py prints, and the numbers that its curves are drawn from."""
    code = HISTORY.format(before=before, folder=str(EXAMPLES))
    done = child(*arguments, code=code, cwd=folder, **options)
    return done.stdout, json.loads(done.stdout.splitlines()[-1])


# A clock that is 50 times as fast, and a thread that computes for this share of the time
CLOCKS = "import time; real = time.perf_counter; time.perf_counter = lambda: 50 * real(); "
CLOCKS += "time.thread_time = lambda: {} * time.perf_counter()"


@pytest.mark.parametrize("share, slow", [(1, False), (0.9, False), (0.5, True)])
def test_train_mlp_says_that_it_waits_for_a_cpu(tmp_path, share, slow):
    printed, _ = history(tmp_path, "--epochs", 5, before=CLOCKS.format(share))
    line = r"^Slow: the training spends \d+% of its time waiting .* other processes use them\.$"
    assert len(re.findall(line, printed, re.M)) == slow == printed.count("Slow")


def test_train_mlp_says_that_there_are_too_many_threads(tmp_path):
    arguments = "--threads", 10_000, "--batch-size", 8, "--epochs", 5  # too small for threads
    printed, _ = history(tmp_path, *arguments, before=CLOCKS.format(0))
    assert "100% of its time waiting for a CPU, because there are more --threads" in printed


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs one CPU of its own")
def test_train_mlp_notices_a_busy_machine(tmp_path):
    one_cpu = {min(os.sched_getaffinity(0))}
    pin = {"preexec_fn": lambda: os.sched_setaffinity(0, one_cpu)}
    with subprocess.Popen([sys.executable, "-c", "while True: pass"], **pin) as busy:
        try:
            printed, _ = history(tmp_path, **pin)
        finally:
            busy.kill()
    assert printed.count("Slow: the training spends") == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_train_mlp_does_not_swing(tmp_path, seed):
    _, curves = history(tmp_path, "--seed", seed)
    accuracies = np.array(curves["valid_accuracy"])  # the first is that of the untrained model
    assert len(accuracies) == 61 and accuracies[0] < 0.4
    assert max(accuracies[3:-1] - accuracies[4:]) < 0.1 and accuracies[-1] > 0.9


@pytest.fixture
def no_torchvision(tmp_path):
    """An environment without torchvision and without MNIST."""
    (tmp_path / "torchvision.py").write_text("raise ImportError('not here')")
    return {"PYTHONPATH": str(tmp_path), "MINIGRAD_DATA": str(tmp_path)}


def test_train_mlp_says_why_it_takes_the_digits(tmp_path, no_torchvision):
    printed, _ = run(tmp_path, "train_mlp.py", "--epochs", 1, **no_torchvision)
    assert printed.index("No MNIST: downloading MNIST needs torchvision") < printed.index(
        "Data: scikit"
    )


def test_train_mlp_stops_if_mnist_was_asked_for_and_is_not_there(tmp_path, no_torchvision):
    _, error = run(tmp_path, "train_mlp.py", "--data", "mnist", fails=1, **no_torchvision)
    assert re.search("^error: downloading MNIST needs torchvision", error, re.M)


def test_train_mlp_stops_when_the_loss_is_not_finite(tmp_path):
    _, error = run(tmp_path, "train_mlp.py", "--data", "digits", "--lr", 1e4, fails=1)
    assert re.search(r"error: the loss is (nan|inf) at step \d+ \(epoch 1\).* Try --lr 0.01", error)


def test_train_mlp_keeps_the_curves_at_ctrl_c(tmp_path):
    arguments = "--data", "digits", "--epochs", "5000", "--save", "model.npz"
    with subprocess.Popen(
        [sys.executable, EXAMPLES / "train_mlp.py", *arguments],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a parent may ignore it
    ) as process:  # fmt: skip
        try:
            while "valid loss" not in process.stderr.read(1000):
                pass
            process.send_signal(signal.SIGINT)
            printed, bar = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0 and "Traceback" not in bar
    assert "Stopped: here is what was learnt so far." in printed + bar
    assert re.search(r"Test accuracy: [\d.]+% ± .* after epoch \d+, ", printed)
    assert_drawn(tmp_path / "figures" / "train_mlp.png")
    assert sum(name.startswith("model.") for name in mg.load(tmp_path / "model.npz")) == 8


# Ctrl-C

INTERRUPT = """
import atexit, os, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent may ignore it
moment = os.environ["MOMENT"]

def press(event, arguments):
    global moment
    if moment and " ".join(map(str, (event, *arguments[:1]))).startswith(moment):
        moment = None
        os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(press)
atexit.register(press, "the end", ())  # the first to be registered, the last to be called
"""
STOPPED = "Stopped by Ctrl-C.\n"


@pytest.fixture
def interrupted(tmp_path):
    """A function that runs a script and presses Ctrl-C at a moment: when Python reports this."""
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])

    def run_until(moment, script, *arguments):
        return child(
            EXAMPLES / script, *arguments, fails=None, cwd=tmp_path,
            environment={"MOMENT": moment, "PYTHONPATH": path, "PYTHONUNBUFFERED": ""},
        )  # fmt: skip

    return run_until


@pytest.mark.parametrize("script", sorted(path.name for path in EXAMPLES.glob("[!c]*.py")))
def test_ctrl_c_during_the_first_long_import(interrupted, script):
    done = interrupted("import numpy", script)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", STOPPED)


@pytest.mark.parametrize(
    "moment, script",
    [
        ("import numba.core.types", "3_softmax_regression.py"),
        ("import minigrad.tensors", "7_optimizers.py"),
        ("import matplotlib.pyplot", "8_width.py"),
        ("import tqdm", "train_mlp.py"),
        ("import sklearn", "5_momentum.py"),  # in a `try` that catches ImportErrors
        ("open figures/1_autograd.png", "1_autograd.py"),
    ],
)
def test_ctrl_c_later(interrupted, moment, script):
    done = interrupted(moment, script)
    assert (done.returncode, done.stderr) == (130, STOPPED)
    assert ("its derivative: 42" in done.stdout) == (script == "1_autograd.py")  # not lost


def test_ctrl_c_while_kernels_run(tmp_path):
    with subprocess.Popen(
        [sys.executable, EXAMPLES / "6_minibatches.py", "--steps", "100000"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        try:
            while not (tmp_path / "figures").exists() and process.poll() is None:
                time.sleep(0.05)
            time.sleep(1)
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, error) == (130, STOPPED)


def test_ctrl_c_after_the_last_line(interrupted):
    done = interrupted("the end", "1_autograd.py", "--steps", 1)
    assert (done.returncode, done.stderr) == (0, "") and "Picture: " in done.stdout


def test_ctrl_c_lets_a_half_made_file_be_removed(interrupted, tmp_path):
    done = interrupted(
        "open model.npz.", "train_mlp.py", "--data", "digits", "--hidden", "--epochs", 1,
        "--save", "model.npz",
    )  # fmt: skip
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert "Stopped: here is what was learnt so far." in done.stdout + done.stderr
    assert "after epoch 0" in done.stdout and not list(tmp_path.glob("model*"))


@pytest.mark.parametrize("data", ["auto", "mnist"])
def test_ctrl_c_is_not_taken_for_a_missing_package(interrupted, tmp_path, data, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("MINIGRAD_DATA", str(tmp_path / "empty"))
    (tmp_path / "torchvision.py").write_text(
        "try:\n    import wave\nexcept BaseException:\n    raise ImportError('not here')"
    )
    done = interrupted("import wave", "train_mlp.py", "--data", data)
    waiting, stopped = done.stderr.splitlines(keepends=True)
    assert (done.returncode, done.stdout, stopped) == (130, "", STOPPED)
    assert waiting.startswith("importing torchvision")


@pytest.mark.parametrize(
    "before, handler, inherited",
    [
        ("", "<function stop at", signal.SIG_DFL),
        ("", str(signal.Handlers.SIG_IGN), signal.SIG_IGN),  # a shell's background job
        ("sys.ps1 = '>>> '", "<built-in function default_int_handler>", signal.SIG_DFL),
        ("sys.modules['ipykernel'] = None", "<built-in", signal.SIG_DFL),
        ("signal.signal(2, print)", "<built-in function print>", signal.SIG_DFL),
    ],
)
def test_who_handles_ctrl_c(before, handler, inherited):
    code = f"import signal, sys; {before}\nimport common; print(signal.getsignal(2))"
    done = child(code=code, cwd=EXAMPLES, preexec_fn=lambda: signal.signal(2, inherited))
    assert done.stdout.startswith(handler)


# Typing mistakes


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--data", "minst"], "invalid choice: 'minst'"),
        (["--lr", "fast"], "wanted a finite float of at least 1e-12, got 'fast'"),
        (["--lr", "nan"], "--lr: wanted a finite float of at least 1e-12, got 'nan'"),
        (["--epochs", "0"], "--epochs: wanted a finite int of at least 1, got '0'"),
        (["--hidden", "100", "-5"], "--hidden: wanted a finite int of at least 1, got '-5'"),
        (["--seed", "-1"], "--seed: wanted a finite int of at least 0, got '-1'"),
        (["--optimiser", "adam"], "unrecognized arguments: --optimiser adam"),
        (["--optimizer", "sgd"], "argument --optimizer: invalid choice: 'sgd'"),
    ],
)
def test_train_mlp_explains_typing_mistakes(tmp_path, arguments, complaint):
    _, error = run(tmp_path, "train_mlp.py", *arguments, fails=2)
    assert error.startswith("usage:") and complaint in error


@pytest.mark.parametrize("arguments", [["--out", "taken"], ["--save", "folder"]])
def test_train_mlp_finds_out_early_that_it_cannot_write(tmp_path, arguments):
    (tmp_path / "taken").write_text("a file")
    (tmp_path / "folder").mkdir()
    printed, error = run(tmp_path, "train_mlp.py", "--data", "digits", *arguments, fails=1)
    assert error.startswith("error: ") and arguments[1] in error and printed == ""


# The lecture


def numbers(pattern, printed):
    """What the groups of the pattern hold, as floats, for the one place where it fits."""
    (found,) = re.findall(pattern, printed)
    return [
        float(text.replace(",", "")) for text in (found if isinstance(found, tuple) else (found,))
    ]


def lecture(folder, script, *arguments, encoding="ascii"):
    """What a script of the lecture prints; its pictures must not be blank."""
    printed, _ = run(folder, script, "--out", "pictures", *arguments, encoding=encoding)
    assert "?" not in printed  # every character that is not in ASCII has a replacement
    named = re.findall(r"pictures/(\w+\.\w+)", printed)
    assert named and sorted(named) == sorted(p.name for p in (folder / "pictures").iterdir())
    for name in named:
        if name.endswith(("png", "gif")):
            assert_drawn(folder / "pictures" / name)
    return printed


def digits():
    """The training set's inputs (N, 784) and targets, as NumPy arrays."""
    train_set, _ = datasets.load_digits_data(change_tensors=True)
    return train_set.data.numpy().reshape(-1, 784), train_set.targets.numpy()


def in_torch(model):
    """PyTorch's tensors with the numbers of a minigrad model."""
    return [torch.tensor(p.detach().numpy(), requires_grad=True) for p in model.parameters()]


def torch_loss(x, y, *parameters):
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    for i in range(0, len(parameters), 2):
        x = torch.nn.functional.linear(x if i == 0 else x.relu(), *parameters[i : i + 2])
    return torch.nn.functional.cross_entropy(x, y)


def test_from_scratch_beside_pytorch(tmp_path):
    printed = lecture(tmp_path, "0_from_scratch.py", "--seed", 3)
    assert "y = 2584x: 2584 paths to x, 17 turns" in printed
    assert "that arrives at x: 15.0\n" in printed and "that arrive at x: 2.0 2.0 1.0\n" in printed

    x, y = digits()
    chosen = np.random.default_rng(3).permutation(np.flatnonzero(y < 2))
    train_set, _ = datasets.load_digits_data()
    pixels = train_set.data.numpy()[chosen, 10:18].astype(float) / 2.55
    ink = [pixels[:, :, columns].mean((1, 2)) for columns in (np.r_[10:18], np.r_[2:10, 18:26])]
    inputs = np.stack(ink, 1)
    inputs = torch.tensor((inputs - inputs[:100].mean(0)) / inputs[:100].std(0))
    labels = torch.tensor(y[chosen].astype(float))
    neuron = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([neuron], lr=1.0)
    for _ in range(60):
        z = inputs[:100] @ neuron[:2] + neuron[2]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(z, labels[:100])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    *learnt, last = numbers(r"w1 = (.+), w2 = (.+), b = (.+); its last loss is (.+)", printed)
    assert learnt == pytest.approx(neuron.tolist(), abs=0.006)
    assert last == pytest.approx(loss.item(), abs=6e-4)
    right = ((inputs[100:] @ neuron[:2] + neuron[2] > 0) == (labels[100:] > 0)).double().mean()
    assert numbers(r"answer \(([\d.]+)%,", printed) == pytest.approx([100 * right.item()], abs=0.06)


def test_from_scratch_is_short_and_names_places_that_exist():
    text = (EXAMPLES / "0_from_scratch.py").read_text()
    engine = ["Number", "operation", "add", "mul", "arrivals", "sweep", "softplus"]
    found = [node for node in ast.parse(text).body if getattr(node, "name", "") in engine]
    assert [node.name for node in found] == engine
    assert len("\n".join(map(ast.unparse, found)).splitlines()) <= 45  # "about 40", it says

    places = re.findall(r"^# - `(\w+)\.py`, `(\w+)`: ", text, re.M)
    assert len(places) == 7
    for room, name in places:
        source = (ROOT / "minigrad" / f"{room}.py").read_text()
        assert re.search(rf"^def {name}\(", source, re.M), (room, name)


@pytest.mark.parametrize(
    "encoding, titles",
    [
        ("ascii", ["y = (3x + 1)^2 at", "f(x) = x^2 + 2x + 1,", "x^4 + x^3 - 2x^2 - 2x,"]),
        ("cp1252", ["y = (3x + 1)² at", "f(x) = x² + 2x + 1,", "x^4 + x³ - 2x² - 2x,"]),
        ("utf-8", ["y = (3x + 1)² at", "f(x) = x² + 2x + 1,", "x⁴ + x³ - 2x² - 2x,"]),
    ],
)
def test_autograd(tmp_path, encoding, titles):
    printed = lecture(tmp_path, "1_autograd.py", encoding=encoding)
    assert all(title in printed for title in titles)
    assert "its derivative: 42" in printed and "doubles the gradient" in printed
    assert re.search(r"\n  at y = pow\(v\d, v\d\), G = 1\n.*= 14\n", printed)  # explain(y)
    ends = [float(x) for x in re.findall(r"to x = +([-.\d]+),", printed)]
    worse, top, better = sorted(np.roots([4, 3, -4, -2]).real)  # of the derivative
    too_large = -1 - 0.4 * (1 - 2 * 1.1) ** 10
    assert ends == pytest.approx([-1] * 2 + [worse] * 2 + [better] * 2 + [too_large], abs=2e-4)


def test_data(tmp_path):
    printed = lecture(tmp_path, "2_data.py", "--steps", 5)
    train_set, test_set = datasets.load_digits_data()
    pixels, test_pixels = (set_.data.numpy().astype(float) for set_ in (train_set, test_set))
    mean, std = pixels.mean(), pixels.std()
    assert numbers(r"0 to 255: ([\d.]+) and ([\d.]+)", printed) == pytest.approx(
        [mean, std], abs=1e-4
    )
    assert numbers(r"training set: (-?0.0000) and (1.0000)", printed)
    normalised = (test_pixels - mean) / std
    expected = [normalised.mean(), normalised.std()]
    assert numbers(r"test set: ([-.\d]+) and ([.\d]+)", printed) == pytest.approx(
        expected, abs=1e-4
    )
    shares = [100 * where.mean() for where in (pixels == 0, (0 < pixels) & (pixels < 250))]
    assert numbers(r"([.\d]+)% paper \(0\), ([.\d]+)% grey", printed) == pytest.approx(
        shares, abs=0.06
    )

    order = np.random.default_rng(0).permutation(len(pixels))[:1000]
    x, y = pixels[order].reshape(1000, -1).astype(np.float32), train_set.targets.numpy()[order]
    rates = [float(rate) for rate in re.search("at the rates (.*)", printed)[1].split()]
    for name, inputs, fitting in (
        ("stored, 0 to 255", x, 1e-4),
        ("divided by 255, 0 to 1", x / 255, 0.1),
        ("normalised", (x - np.float32(mean)) / np.float32(std), 0.1),
    ):
        losses = [float(loss) for loss in re.search(f"^ *{name}: (.*)", printed, re.M)[1].split()]
        assert len(losses) == len(rates)
        mg.manual_seed(0)
        parameters = in_torch(nn.MLP(hidden_dims=[50]))
        descend(inputs, y, parameters, lr=fitting, steps=5)
        expected = torch_loss(inputs, y, *parameters).item()
        assert losses[rates.index(fitting)] == pytest.approx(expected, abs=2e-3)


def descend(x, y, parameters, lr, steps=1):
    """Gradient descent by PyTorch, in place."""
    optimizer = torch.optim.SGD(parameters, lr)
    for _ in range(steps):
        optimizer.zero_grad()
        torch_loss(x, y, *parameters).backward()
        optimizer.step()


def test_softmax_regression_beside_pytorch(tmp_path):
    printed = lecture(tmp_path, "3_softmax_regression.py", "--steps", 5, "--seed", 3)
    inputs, targets = digits()
    chosen = np.random.default_rng(3).permutation(len(inputs))[:500]
    x, y = inputs[chosen], targets[chosen]

    def start(*hidden_dims):
        mg.manual_seed(3)
        return [in_torch(nn.MLP(hidden_dims=dims)) for dims in hidden_dims]

    def expect(pattern, *values, digits=4):
        assert numbers(pattern, printed) == pytest.approx(
            [value.item() for value in values], abs=2 * 10**-digits
        )

    (parameters,) = start([])
    expect(r"Loss before the update: ([\d.]+)", torch_loss(x, y, *parameters), digits=6)
    pixels = [28 * int(i) + int(j) for i, j in re.findall(r"\((\d+), (\d+)\)", printed)][:6]
    ink = x.mean(0)
    assert len(set(pixels)) == 6 and ink[pixels].min() >= np.sort(ink)[-6]
    shown, after = printed.split("Loss before")[0].split("After one update")
    assert repr(parameters[0].detach()[:, pixels]) in shown
    assert repr(parameters[1].detach()) in shown
    for rate in (0.001, 1, 0.05):
        (parameters,) = start([])
        descend(x, y, parameters, rate)
        loss = torch_loss(x, y, *parameters)
        expect(rf"update with learning rate {rate}: ([\d.]+)", loss, digits=5)
    expected = torch.cat([parameters[0][:, pixels].flatten(), parameters[1]]).tolist()
    written = [float(number) for number in re.findall(r"-?\d\.\d{4}", after)]
    assert written == pytest.approx(expected, abs=2e-4)

    models = start([], [], [10], [10])
    for parameters in models:
        descend(x, y, parameters, 0.05, steps=5)
    W1, b1, W2, b2 = models[2]
    moved = [9, *range(9)]
    for name, one, other in (
        ("two linear models", models[0], models[1]),
        ("two networks with 10 hidden units", models[2], models[3]),
        (
            "a network and itself, units permuted",
            models[2],
            [W1[moved], b1[moved], W2[:, moved], b2],
        ),
    ):
        middle = [(a + b) / 2 for a, b in zip(one, other)]
        losses = (torch_loss(x, y, *point) for point in (one, other, middle))
        expect(rf"  {name}: ([\d.]+), ([\d.]+), ([\d.]+)", *losses, digits=5)
    assert numbers(r"at most ([-.e\d]+) above it", printed)[0] < 1e-9

    _, test_set = datasets.load_digits_data(change_tensors=True)
    test_x, test_y = test_set.data.numpy().reshape(-1, 784), test_set.targets.numpy()
    weight, bias = (p.detach().numpy() for p in models[0])
    right = (test_x @ weight.T + bias).argmax(1) == test_y
    shares = [100 * right[test_y == digit].mean() for digit in range(10)]
    line = re.search("of each class (.*)", printed)[1]
    assert [float(n) for n in re.findall(r"[\d.]+", line)] == pytest.approx(shares, abs=0.06)


def test_why_the_gradient_beside_pytorch(tmp_path):
    printed = lecture(tmp_path, "4_why_the_gradient.py", "--directions", 10, "--tries", 20)
    x, y = (part[:1000] for part in digits())
    mg.manual_seed(0)
    parameters = in_torch(nn.MLP(hidden_dims=[50]))
    start = torch.nn.utils.parameters_to_vector(parameters).detach()

    def loss_at(point):
        torch.nn.utils.vector_to_parameters(point, parameters)
        return torch_loss(x, y, *parameters)

    def gradient_at(point):
        return torch.cat([g.ravel() for g in torch.autograd.grad(loss_at(point), parameters)])

    top, size = loss_at(start).item(), gradient_at(start).norm().item()
    generator, random = np.random.default_rng(0), []
    for _ in range(10):
        direction = torch.from_numpy(generator.standard_normal(len(start), dtype="f4"))
        random.append(loss_at(start + 0.1 * direction / direction.norm()).item() - top)
    found = numbers(r"directions: best ([-+.\d]+), worst ([-+.\d]+), spread ([.\d]+)", printed)
    assert found == pytest.approx([min(random), max(random), np.std(random)], abs=2e-5)
    predicted = numbers(r"predicted: spread ([.\d]+), limit ([.\d]+)", printed)
    assert predicted == pytest.approx([0.1 * size / len(start) ** 0.5, 0.1 * size], abs=2e-5)

    point, losses = start, [top]
    for _ in range(20):
        gradient = gradient_at(point)
        point = point - 0.1 * gradient / gradient.norm()
        losses.append(loss_at(point).item())
    (downhill,) = numbers(r"against the gradient: ([-+][.\d]+)", printed)
    assert downhill == pytest.approx(losses[1] - top, abs=2e-5)
    reached = numbers(r"1 step reaches ([.\d]+), 20 reach ([.\d]+)", printed)
    assert reached == pytest.approx([losses[1], losses[20]], abs=1e-3)
    assert losses[1] < numbers(r"20 random tries reach ([.\d]+)", printed)[0] < top


def test_momentum_beside_pytorch(tmp_path):
    printed = lecture(
        tmp_path, "5_momentum.py", "--steps", 20, "--lr", 0.9, "--beta", 0.5, "--quick"
    )
    assert printed.count("Holds: ") == 1 and "No claims about the paths" in printed
    x, y = (part[:1000] for part in digits())
    mg.manual_seed(0)
    frozen = in_torch(nn.MLP())
    optimizer = torch.optim.SGD(frozen, lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        torch_loss(x, y, *frozen).backward()
        optimizer.step()
    pixel = (x**2).mean(0).argmin()
    assert numbers(r"at pixel \((\d+), (\d+)\)", printed) == [*divmod(pixel, 28)]
    best = numbers(r"lowest point: weight ([-.\d]+), bias ([-.\d]+)", printed)

    def loss_at(point):
        weight, bias = (p.detach().clone() for p in frozen)
        weight[0, pixel], bias[7] = point
        return torch_loss(x, y, weight, bias)

    lowest = torch.tensor(best, requires_grad=True)
    (slope,) = torch.autograd.grad(loss_at(lowest), lowest)
    assert slope.abs().max() < 1e-5
    hessian = torch.autograd.functional.hessian(loss_at, lowest)
    curvatures = torch.linalg.eigvalsh(hessian).tolist()
    printed_curvatures = numbers(r"than ten \(([.\d]+) and ([.\d]+):", printed)
    assert printed_curvatures == pytest.approx(curvatures, abs=1e-4)
    lr, *start = numbers(r"rate ([.\d]+), from weight ([-.\d]+), bias ([-.\d]+)", printed)
    assert lr == pytest.approx(0.9 / curvatures[1], rel=2e-3)
    for beta in (0, 0.3, 0.5, 0.9):
        point = [torch.tensor(number, requires_grad=True) for number in start]
        optimizer = torch.optim.SGD(point, lr=lr, momentum=beta)
        for _ in range(20):
            optimizer.zero_grad()
            loss_at(point).backward()
            optimizer.step()
        point = [p.item() for p in point]
        away, *end = numbers(rf"  beta {beta}: ([.\d]+) away, at \(([-.\d]+), ([-.\d]+)\)", printed)
        assert end == pytest.approx(point, abs=2e-3)
        assert away == pytest.approx(np.hypot(point[0] - best[0], point[1] - best[1]), abs=3e-3)


@pytest.mark.slow
@pytest.mark.parametrize("data", ["digits", "mnist"])
def test_the_animation_moves_and_is_small(tmp_path, data, request):
    if data == "mnist":
        request.getfixturevalue("mnist_root")
    lecture(tmp_path, "5_momentum.py", "--data", data)
    path = tmp_path / "pictures" / "5_momentum.gif"
    assert path.stat().st_size < 1e6
    with Image.open(path) as animation:
        assert animation.n_frames == 51
        frames = []
        for i in (0, 25, 50):
            animation.seek(i)
            frames.append(np.asarray(animation.convert("RGB")).astype(int))
    for one, other in zip(frames, frames[1:]):
        assert 0.003 < (np.abs(one - other) > 50).any(-1).mean() < 0.2


def test_momentum_needs_a_beta_below_1(tmp_path):
    _, error = run(tmp_path, "5_momentum.py", "--beta", 1, fails=1)
    assert error == "error: --beta must be below 1, got 1\n"


def test_minibatches_beside_pytorch(tmp_path):
    printed = lecture(tmp_path, "6_minibatches.py", "--steps", 2, "--seed", 3)
    train_set, _ = datasets.load_digits_data(change_tensors=True)
    inputs, targets = train_set.data.view(-1, 784), train_set.targets
    tables = {  # the numbers of a row, by what all sizes have the same number of
        what: {
            int(size.replace(",", "")): [float(x) for x in row.split()]
            for size, row in re.findall(r"^batches of +([\d,]+) +(\d.*)$", table, re.M)
        }
        for what, table in re.findall(
            r"Loss after 2(,000 examples| steps).*\n.*\n((?:batches of +[\d,]+ +\d.*\n)+)", printed
        )
    }
    for size in (20, 250, 1000):
        mg.manual_seed(3)
        parameters, losses = in_torch(nn.MLP(hidden_dims=[50])), []
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        for _ in range(2000 // size):
            batch, labels = datasets.sample_minibatch(inputs, targets, num_points=size)
            optimizer.zero_grad()
            torch_loss(batch.numpy(), labels.numpy(), *parameters).backward()
            optimizer.step()
            fixed = inputs[:1000].numpy(), targets[:1000].numpy()
            losses.append(torch_loss(*fixed, *parameters).item())
        by_examples, by_steps = (table[size] for table in tables.values())
        assert by_examples[2] == pytest.approx(losses[-1], abs=2e-3)  # of 0.025, 0.05, 0.1, ...
        assert by_steps[2] == pytest.approx(losses[1], abs=2e-3)
        best = 0.025 * 2 ** np.argmin(by_examples)
        assert f"batches of {size:,} at rate {best:g}: test accuracy" in printed
    assert len(re.findall(r"examples +[.\d]+ +[.\d]+ +[.\d]+$", printed, re.M)) == 7


def test_optimizers_beside_pytorch(tmp_path):
    printed = lecture(tmp_path, "7_optimizers.py", "--steps", 20, "--starts", 2, "--seed", 3)
    train_set, _ = datasets.load_digits_data(change_tensors=True)
    inputs, targets = train_set.data[:500].view(-1, 784), train_set.targets[:500]
    make = {
        "gradient descent": lambda params, lr: torch.optim.SGD(params, lr),
        "momentum 0.9": lambda params, lr: torch.optim.SGD(params, lr, momentum=0.9),
        "RMSprop": torch.optim.RMSprop,
        "Adam": torch.optim.Adam,
    }

    def ends(name, rate, seed):
        mg.manual_seed(seed)
        parameters = in_torch(nn.MLP(hidden_dims=[20]))
        optimizer = make[name](parameters, lr=rate)
        for _ in range(20):
            batch, labels = datasets.sample_minibatch(inputs, targets, num_points=100)
            optimizer.zero_grad()
            torch_loss(batch.numpy(), labels.numpy(), *parameters).backward()
            optimizer.step()
        return torch_loss(inputs.numpy(), targets.numpy(), *parameters).item()

    ranking = []
    for name in make:
        table, best = re.findall(rf"^{name} +([-.\d].*)", printed, re.M)
        row = table.split()  # the rates are 10**-4.5, 10**-4, ...
        for i, rate in ((4, 10**-2.5), (5, 10**-2)):
            expected = np.median([ends(name, rate, seed) for seed in (6, 7)])
            assert float(row[i]) == pytest.approx(expected, abs=2e-3), (name, rate)
        rate, median, low, high = map(float, re.findall(r"[.\d]+", best))
        assert median == min(float(loss) for loss in row if loss != "-")
        assert low <= median <= high
        assert median == pytest.approx((low + high) / 2, abs=2e-4)
        ranking.append((median, name))
    shown = re.findall(rf"^({'|'.join(make)}) ", printed, re.M)
    assert shown == [*make, *(name for _, name in sorted(ranking))]


def test_width_beside_pytorch(tmp_path):
    printed = lecture(tmp_path, "8_width.py", "--steps", 40, "--starts", 4, "--seed", 2)
    rows = re.findall(
        r"^ *(\d+) +([\d,]+) +(\d+) +([.\d]+) to ([.\d]+) +([.\d]+)% +([.\d]+)%$", printed, re.M
    )
    table = {int(row[0]): [float(x.replace(",", "")) for x in row[1:]] for row in rows}
    assert len(table) == 8
    inputs, targets = (part[:200] for part in digits())
    for width, row in table.items():
        losses, dead, fits = [], [], []
        for seed in range(8, 12):
            mg.manual_seed(seed)
            parameters = in_torch(nn.MLP(hidden_dims=[width]))
            optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
            for _ in range(40):
                optimizer.zero_grad()
                torch_loss(inputs, targets, *parameters).backward()
                optimizer.step()
            losses.append(torch_loss(inputs, targets, *parameters).item())
            W, b, V, c = (p.detach().numpy() for p in parameters)
            hidden = np.maximum(inputs @ W.T + b, 0)
            dead.append((hidden == 0).all())
            fits.append(((hidden @ V.T + c).argmax(1) == targets).mean())
        expected = [sum(p.numel() for p in parameters), sum(dead), min(losses), max(losses)]
        assert row[:4] == pytest.approx(expected, abs=2e-3)
        assert row[4] == pytest.approx(100 * np.mean(fits), abs=0.3)  # one example or two of 800
    assert table[1][1] > 0 and table[100][5] > 80 > table[1][5]


@pytest.mark.parametrize("optimizer", ["momentum", "rmsprop", "adam"])
def test_train_mlp_with_the_variants(tmp_path, optimizer):
    printed, _ = run(
        tmp_path, "train_mlp.py", "--data", "digits", "--epochs", 10, "--optimizer", optimizer
    )
    assert accuracy(printed) > 92
