"""From the start of a process: imports, the first step, the whole job, memory, a busy machine.

Every figure is a fresh process, timed from outside unless said otherwise; the systems take
turns. MNIST is read from $MINIGRAD_DATA, each system from a cache of its own kind.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import common

FIRST_STEP = """
import time
import numpy as np
import minigrad as mg
from minigrad import nn, optim, functional as F
started = time.perf_counter()
model = nn.MLP(784, 10, [100, 100])
loss = F.nll_loss(model(mg.randn(20, 784)), np.arange(20) % 10)
optim.gradient_update(loss, model.parameters(), lr=0.1)
print(time.perf_counter() - started)
"""

JOB = """
import sys
import numpy as np
{imports}
rng = np.random.default_rng(0)
with np.load(sys.argv[1]) as file:
    images, targets = file["train_data"], file["train_targets"]
    test_images, test_targets = file["test_data"], file["test_targets"]
def normalised(images):
    images = images.reshape(len(images), 784).astype("f4")
    images -= np.float32(33.3184)
    images /= np.float32(78.5675)
    return images
images, test_images = normalised(images), normalised(test_images)
{model}
epoch, accuracy = 0, 0
while accuracy < 0.97:
    epoch += 1
    order = rng.permutation(60000)
    for start in range(0, 60000, 64):
        chosen = order[start : start + 64]
        step(images[chosen], targets[chosen])
    accuracy = (predict(test_images) == test_targets).mean()
print(epoch, accuracy)
"""
MINIGRAD = {
    "imports": "import minigrad as mg\nfrom minigrad import nn, optim, functional as F",
    "model": """
mg.manual_seed(0)
model = nn.MLP(784, 10, [100, 100])
parameters = list(model.parameters())
def step(x, y):
    optim.gradient_update(F.nll_loss(model(mg.from_numpy(x)), y), parameters, lr=0.1)
def predict(x):
    with mg.no_grad():
        return model(mg.from_numpy(x)).argmax(1).numpy()
""",
}
TORCH = {
    "imports": "import torch\nfrom torch import nn\nfrom torch.nn import functional as F",
    "model": """
torch.manual_seed(0)
model = nn.Sequential(
    nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10)
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
def step(x, y):
    optimizer.zero_grad()
    F.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y).long()).backward()
    optimizer.step()
def predict(x):
    with torch.no_grad():
        return model(torch.from_numpy(x)).argmax(1).numpy()
""",
}

FULL_BATCH = """
import numpy as np
{imports}
rng = np.random.default_rng(0)
images, targets = rng.standard_normal((60000, 784), "f4"), rng.integers(0, 10, 60000)
{model}
for _ in range(5):
    step(images, targets)
with open("/proc/self/status") as file:  # ru_maxrss may be that of the parent process
    print(next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM")))
"""

STEPS = """
import time
import numpy as np
{imports}
rng = np.random.default_rng(0)
images, targets = rng.standard_normal((64, 784), "f4"), rng.integers(0, 10, 64)
{model}
for _ in range(50):
    step(images, targets)
started = time.perf_counter()
for _ in range(1000):
    step(images, targets)
print(time.perf_counter() - started)
"""

BUSY = "while True: pass"


def run(code, *arguments, **environment):
    """The seconds that a Python program takes, and what it prints."""
    time.sleep(common.SETTLE)
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return time.perf_counter() - started, done.stdout.strip()


def median(function, rounds):
    return statistics.median(function() for _ in range(rounds))


def imports(rounds):
    times = {name: [] for name in ("numba", "minigrad", "torch")}
    for _ in range(rounds):
        for name, given in times.items():
            given.append(run(f"import {name}")[0])
    for name, given in times.items():
        print(f"import {name}: {statistics.median(given):.2f} s")
    over = statistics.median(a - b for a, b in zip(times["minigrad"], times["numba"]))
    return [
        common.goal("import minigrad over import numba", over, 0.15, " s", at_least=False)
    ], times


def first_step(rounds):
    cold, warm = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            cold.append(float(run(FIRST_STEP, NUMBA_CACHE_DIR=folder)[1]))
            warm.append(float(run(FIRST_STEP, NUMBA_CACHE_DIR=folder)[1]))
    return [
        common.goal("first step, cold", statistics.median(cold), 6, " s", at_least=False),
        common.goal("first step, warm", statistics.median(warm), 0.6, " s", at_least=False),
    ]


def whole_job(rounds, cache, torch_import):
    times = {"minigrad": [], "torch": []}
    for i in range(rounds):
        for name, parts in (("minigrad", MINIGRAD), ("torch", TORCH)):
            seconds, printed = run(JOB.format(**parts), cache)
            times[name].append(seconds)
            if i == 0:
                print(f"whole job with {name}: epochs, accuracy: {printed}")
    for name, given in times.items():
        print(f"whole job with {name}: {statistics.median(given):.2f} s")
    faster, *_ = common.ratio(times["torch"], times["minigrad"])
    return [
        common.goal("whole job to 97 %, torch / minigrad", faster, 4),
        common.goal(
            "import torch alone / whole job with minigrad",
            torch_import / statistics.median(times["minigrad"]), 1,
        ),
    ]  # fmt: skip


def memory(rounds):
    peaks = {}
    for name, parts in (("minigrad", MINIGRAD), ("torch", TORCH)):
        peaks[name] = median(lambda: float(run(FULL_BATCH.format(**parts))[1]), rounds)
        print(f"peak memory, full batch of 60,000 with {name}: {peaks[name]:.0f} MB")
    return [common.goal("memory, torch / minigrad", peaks["torch"] / peaks["minigrad"], 1)]


def beside_a_busy_process(rounds):
    slower = {"minigrad": [], "torch": []}
    for _ in range(rounds):
        for name, parts in (("minigrad", MINIGRAD), ("torch", TORCH)):
            alone = float(run(STEPS.format(**parts))[1])
            busy = subprocess.Popen([sys.executable, "-c", BUSY])
            try:
                slower[name].append(float(run(STEPS.format(**parts))[1]) / alone)
            finally:
                busy.kill()
                busy.wait()
    medians = {name: statistics.median(given) for name, given in slower.items()}
    for name, given in medians.items():
        print(f"steps beside a busy process, {name}: {given:.2f} times as long as alone")
    return [
        common.goal(
            "slow-down beside a busy process, torch / minigrad",
            medians["torch"] / medians["minigrad"], 1,
        )
    ]  # fmt: skip


def main():
    parser = common.parser(__doc__.splitlines()[0], "benchmark_startup.png")
    args = parser.parse_args()
    print("\n".join(common.machine()), end="\n\n")
    root = Path(os.environ.get("MINIGRAD_DATA", "data"))
    goals, times = imports(args.rounds)
    goals += first_step(args.rounds)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "mnist.npz"
        prepare(root, cache)
        goals += whole_job(args.rounds, cache, statistics.median(times["torch"]))
    goals += memory(min(args.rounds, 3))
    goals += beside_a_busy_process(args.rounds)
    common.write_json(args.json, goals=goals, imports=times)
    draw(goals, args.png)


def prepare(root, cache):
    """One file with the arrays of MNIST, for both systems."""
    import numpy as np

    from minigrad import datasets

    train_set, test_set = datasets.load_mnist_data(root=root)
    np.savez(
        cache,
        train_data=train_set.data.numpy(), train_targets=train_set.targets.numpy(),
        test_data=test_set.data.numpy(), test_targets=test_set.targets.numpy(),
    )  # fmt: skip


def draw(goals, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), dpi=110, layout="constrained")
    axes = figure.subplots()
    margins = [
        g["value"] / g["wanted"] if g["at_least"] else g["wanted"] / g["value"] for g in goals
    ]
    colours = ["#0072B2" if g["pass"] else "#D55E00" for g in goals]
    axes.barh([g["goal"] for g in goals], margins, color=colours)
    axes.axvline(1, color="black", linewidth=1)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("how many times better than the goal (left of 1: short of it)")
    common.write_picture(figure, path)


if __name__ == "__main__":
    main()
