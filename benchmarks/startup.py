"""From the start of a process: imports, the first step, the whole job, memory.

Every figure comes from a fresh process; imports and the whole job are timed from outside. The
systems take turns. MNIST is read from $MINIGRAD_DATA, and both systems get it in one file.
"""

import statistics
import tempfile
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
    order = rng.permutation(60000).reshape(2400, 25)
    for i, chosen in enumerate(order):  # the rate falls evenly to 0: one epoch is then enough
        step(images[chosen], targets[chosen], 0.2 * (1 - i / 2400))
    accuracy = (predict(test_images) == test_targets).mean()
print(epoch, accuracy)
"""
MINIGRAD = {
    "imports": "import minigrad as mg\nfrom minigrad import nn, optim, functional as F",
    "model": """
mg.manual_seed(0)
model = nn.MLP(784, 10, [100, 100])
parameters = list(model.parameters())
def step(x, y, lr=0.1):
    optim.gradient_update(F.nll_loss(model(mg.from_numpy(x)), y), parameters, lr)
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
def step(x, y, lr=0.1):
    optimizer.param_groups[0]["lr"] = lr
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

PROGRAMS = {"minigrad": MINIGRAD, "torch": TORCH}


# The parts: from the systems that are installed to figures, by name, and goals


def run(code, *arguments, **environment):
    return common.run("-c", code, *arguments, **environment)


def by_turns(names, rounds, measure):
    """The figures that `measure` gives for each name, in every round."""
    figures = {name: [] for name in names}
    for i in range(rounds):
        for name in common.rotated(list(names), i):
            figures[name].append(measure(name))
    return figures


def imports(systems, rounds):
    names = ["numba", *systems]
    times = by_turns(names, rounds, lambda name: run(f"import {name}")[0])
    over = statistics.median(a - b for a, b in zip(times["minigrad"], times["numba"]))
    return {f"import {name}": (given, "s") for name, given in times.items()}, [
        common.goal("import minigrad over import numba", over, 0.15, " s", at_least=False)
    ]


def first_step(systems, rounds):
    cold, warm = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            cold.append(float(run(FIRST_STEP, NUMBA_CACHE_DIR=folder)[1]))
            warm.append(float(run(FIRST_STEP, NUMBA_CACHE_DIR=folder)[1]))
    return {"first step, cold": (cold, "s"), "first step, warm": (warm, "s")}, [
        common.goal("first step, cold", statistics.median(cold), 6, " s", at_least=False),
        common.goal("first step, warm", statistics.median(warm), 0.6, " s", at_least=False),
    ]


def whole_job(systems, rounds):
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "mnist.npz"
        prepare(cache)
        codes = {f"whole job with {name}": JOB.format(**PROGRAMS[name]) for name in systems}
        codes |= {f"import {name} alone": f"import {name}" for name in systems[1:]}
        answers = by_turns(codes, rounds, lambda name: run(codes[name], cache))
    times = {name: [seconds for seconds, _ in given] for name, given in answers.items()}
    for name in systems:
        epochs, accuracy = answers[f"whole job with {name}"][0][1].split()
        print(f"whole job with {name}: {epochs} epochs, to {float(accuracy):.2%}")
    goals = []
    if "torch" in systems:
        ours = times["whole job with minigrad"]
        faster, *_ = common.ratio(times["whole job with torch"], ours)
        alone, *_ = common.ratio(times["import torch alone"], ours)
        goals = [
            common.goal("whole job to 97%, torch / minigrad", faster, 3),
            common.goal("import torch alone / whole job with minigrad", alone, 1),
        ]
    return {name: (given, "s") for name, given in times.items()}, goals


def memory(systems, rounds):
    peaks = by_turns(
        systems, min(rounds, 3), lambda name: float(run(FULL_BATCH.format(**PROGRAMS[name]))[1])
    )
    goals = []
    if "torch" in systems:
        less, *_ = common.ratio(peaks["torch"], peaks["minigrad"])
        goals = [common.goal("memory, torch / minigrad", less, 1)]
    what = "peak memory, full batch of 60,000 with"
    return {f"{what} {name}": (given, "MB") for name, given in peaks.items()}, goals


PARTS = {"imports": imports, "first step": first_step, "whole job": whole_job, "memory": memory}


def main():
    parser = common.parser(__doc__.splitlines()[0], "startup")
    args = parser.parse_args()
    parts = common.chosen(PARTS, args.only)
    if whole_job in parts:
        find_mnist()  # or else end before anything is measured
    print("\n".join(common.machine()), end="\n\n")
    systems = common.installed(PROGRAMS)
    figures, goals = {}, []
    for part in parts:
        more_figures, more_goals = part(systems, args.rounds)
        print(f"  measured: {part.__name__.replace('_', ' ')}", flush=True)
        figures |= more_figures
        goals += more_goals
    header = ["what", "median", "least", "most"]
    table = [
        [name, *(f"{f(given):{digits}} {unit}" for f in (statistics.median, min, max))]
        for name, (given, unit) in figures.items()
        for digits in [",.0f" if unit == "MB" else ".2f"]
    ]
    print()
    common.print_table(header, table)
    print()
    common.write_figures(args, {"": (header, table)}, goals, figures=figures)
    draw(goals, args.png)


def find_mnist():
    """MNIST's training and test set."""
    from minigrad import datasets

    try:
        return datasets.load_mnist_data()
    except (OSError, RuntimeError) as error:
        where = "from the folder that MINIGRAD_DATA names, or else from data/"
        raise SystemExit(f"The whole job reads MNIST {where}: {error}") from None


def prepare(cache):
    """One file with the arrays of MNIST, for both systems."""
    import numpy as np

    train_set, test_set = find_mnist()
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
    common.run_program(main)
