"""Data-parallel descent: how do many processes train one model, and when does it pay?

python examples/9_data_parallel.py
mpiexec -n 4 python -m mpi4py examples/9_data_parallel.py   on four real processes
"""

# %%
import common
from common import BLUE, GREEN, RED

import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import minigrad as mg
from minigrad import functional as F, nn, optim
from minigrad.datasets import sample_minibatch

world = common.world()  # one process, or those that mpiexec has started
args = common.arguments(
    __doc__,
    steps=(50, "steps of the training that is compared", 10),
    repeats=(100, "measurements of each time", 20),
    limit=(2000, "steps after which a rate is given up"),
)
train_set, test_set = common.load(args.data)
inputs, targets = train_set.data.reshape(-1, 784).to(mg.float64), train_set.targets
RANKS = world.size if world.size > 1 else 4  # simulated, if there is one process only

# %% [markdown]
# The loss is a mean over the examples of a batch, and so is its gradient. A mean can be computed
# in parts. Each process, or *rank*, takes a share of the batch and computes the gradient of its
# own mean. The average of these gradients, each weighted by its number of examples, is the
# gradient of the whole batch. That is the whole idea.
#
# Without the weights it is wrong when the shares are uneven. (All is float64 here, so that
# round-off does not blur the comparison.)


# %%
def make_model():
    mg.manual_seed(args.seed)
    model = nn.MLP(hidden_dims=[20])
    for parameter in model.parameters():
        parameter.data = parameter.data.to(mg.float64)
    return model


def gradient(model, images, labels):
    """The gradient of the mean loss, all parameters one after the other."""
    optim.SGD(model.parameters(), lr=1).zero_grad()
    F.nll_loss(model(images), labels).backward()
    return np.concatenate([p.grad.numpy().ravel() for p in model.parameters()])


def shares(count, ranks):
    """For each rank the slice of its examples: of 10, four ranks take 2, 3, 2 and 3."""
    return [slice(count * rank // ranks, count * (rank + 1) // ranks) for rank in range(ranks)]


model, batch, labels = make_model(), inputs[:10], targets[:10]
whole = gradient(model, batch, labels)
parts = np.array([gradient(model, batch[s], labels[s]) for s in shares(10, 4)])
counts = np.array([s.stop - s.start for s in shares(10, 4)])
weighted = counts @ parts / counts.sum()
common.claim(
    "The average of the shares' gradients, weighted by examples, is that of the whole batch",
    abs(weighted - whole).max() < 1e-12,
    f"largest difference {abs(weighted - whole).max():.1e}",
)
away = np.linalg.norm(parts.mean(axis=0) - whole) / np.linalg.norm(whole)
common.claim(
    "Without the weights, uneven shares give another gradient",
    away > 1e-3,
    f"{away:.1%} away from it",
)

# %% [markdown]
# Ranks that start alike, draw the same batches and average their gradients make the same steps.
# So they stay alike, and they go where one process with the whole batches goes. Under `mpiexec`
# the ranks below are real, and `minigrad.distributed` averages; alone, one process plays them all.


# %%
def average(everybody, counts):
    """What `minigrad.distributed` does with real ranks, here for those of one process."""
    for same in zip(*everybody):
        mean = sum(count * p.grad.numpy() for count, p in zip(counts, same)) / sum(counts)
        for parameter in same:
            parameter.grad = mg.tensor(mean)


def descend(models, split, average):
    """Train the models, each on its share of every batch; return the parameters of the first."""
    generator = np.random.default_rng(args.seed)
    everybody = [list(model.parameters()) for model in models]
    optimizers = [optim.SGD(parameters, lr=0.1, momentum=0.9) for parameters in everybody]
    for _ in range(args.steps):
        chosen = generator.choice(len(inputs), 50 * RANKS - 1, replace=False)  # shares are uneven
        parts = split(inputs[chosen], targets[chosen])
        for model, optimizer, (batch, labels) in zip(models, optimizers, parts):
            optimizer.zero_grad()
            F.nll_loss(model(batch), labels).backward()
        average(everybody, [len(labels) for _, labels in parts])
        for optimizer in optimizers:
            optimizer.step()
    return np.concatenate([p.detach().numpy().ravel() for p in everybody[0]])


def split(batch, labels):
    return [(batch[s], labels[s]) for s in shares(len(labels), RANKS)]


together = descend([make_model()], lambda *batch: [batch], lambda *_: None)
if world.size == 1:
    apart = descend([make_model() for _ in range(RANKS)], split, average)
else:
    one = make_model()
    world.broadcast(one.parameters())
    apart = descend(
        [one],
        lambda *batch: [world.shard(*batch)],
        lambda everybody, counts: world.average_gradients(everybody[0], *counts),
    )
print(f"{RANKS} {'simulated' if world.size == 1 else 'real'} ranks, {args.steps} steps")
common.claim(
    "Ranks with a share each reach the parameters of one process with the whole batches",
    abs(apart - together).max() < 1e-11,
    f"largest difference {abs(apart - together).max():.1e}",
)

# %% [markdown]
# What does it cost? Each step ends with an *Allreduce*: every rank needs the sum of all gradients.
# The time of a step is that of the slowest rank plus that of the Allreduce. Each is measured here,
# with one thread for each rank. The cell ends a script that runs under `mpiexec`.

# %%
BATCH = 1024
BYTES = [4**i * 1000 for i in range(7)]  # 1 kB to 4 MB
mg.set_num_threads(1)


def measure(function):
    """Call `function` often; return the sorted seconds of a call, each of the slowest rank."""
    times = np.empty(args.repeats)
    for i in range(-3, args.repeats):  # the first three warm up, and are overwritten
        if world.size > 1:
            world.comm.Barrier()
        started = time.perf_counter()
        function()
        times[i] = time.perf_counter() - started
    return np.sort(times if world.size == 1 else np.max(world.comm.allgather(times), axis=0))


def step_times(count):
    mg.manual_seed(args.seed)
    model = nn.MLP(hidden_dims=[100, 100])
    optimizer = optim.SGD(model.parameters(), lr=0.001)
    world.broadcast(model.parameters())
    batch, labels = train_set.data[:count], targets[:count]

    def step():
        optimizer.zero_grad()
        F.nll_loss(model(batch), labels).backward()
        world.average_gradients(model.parameters(), count)
        optimizer.step()

    return measure(step)


def allreduce_time(size):
    numbers, total = np.ones(size // 4, np.float32), np.empty(size // 4, np.float32)
    return np.median(measure(lambda: world.comm.Allreduce(numbers, total)))


if world.size > 1:
    quartiles = np.quantile(step_times(BATCH // world.size), (0.25, 0.5, 0.75)).tolist()
    figures = {"step": quartiles, "allreduce": [allreduce_time(size) for size in BYTES]}
    print(f"Seconds of {world.size} ranks: {json.dumps(figures)}")
    sys.exit()

# %% [markdown]
# One process measures its own steps, with 1 to 1,024 examples. Then it starts `mpiexec` with two
# and four ranks, which run the cells above. Ranks beyond the number of CPUs take turns on them.


# %%
def run(ranks):
    """The figures of so many real ranks; without MPI nothing, and a line that says why."""
    beside = Path(sys.executable).parent
    mpiexec = shutil.which("mpiexec", path=beside) or shutil.which("mpiexec")
    if not mpiexec or not importlib.util.find_spec("mpi4py"):
        return print("Not measured with several ranks: that needs pip install -e '.[mpi]'")
    script = Path(common.__file__).with_name("9_data_parallel.py")
    command = [mpiexec, "-n", ranks, sys.executable, "-m", "mpi4py", script, "--data", args.data]
    command += ["--out", args.out, "--steps", args.steps, "--repeats", args.repeats]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300)
    if done.returncode:
        return print(f"Not measured with {ranks} ranks: {done.stderr.strip()}")
    return json.loads(done.stdout.partition(" ranks: ")[2])


alone = {2**i: step_times(2**i) for i in range(11)}  # by the number of examples
cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
measured = {1: {"step": np.quantile(alone[BATCH], (0.25, 0.5, 0.75))}}
for ranks in common.progress([2] if args.quick else [2, 4], "ranks"):
    if figures := run(ranks):
        measured[ranks] = figures
for ranks, figures in measured.items():
    low, middle, high = (1e3 * seconds for seconds in figures["step"])
    crowded = f", on {cpus} CPUs" if ranks > cpus else ""
    print(f"Ranks: {ranks}{crowded}. A step: {middle:.2f} ms (quartiles {low:.2f} to {high:.2f})")

# %% [markdown]
# On paper, to 1,024 ranks. The step of one rank is measured above, for its own small batch. The
# step of all is that of the slowest: with `p` ranks, the expected largest of `p` draws from the
# measured times. The Allreduce of `n` bytes costs a latency α for each message and a time n/β for
# the bytes. Three algorithms, from Thakur, Rabenseifner and Gropp, "Optimization of Collective
# Communication Operations in MPICH" (2005), without the time of the additions:
#
# - ring: 2(p - 1) messages of n/p bytes: 2(p - 1) α + 2 (p - 1)/p · n/β
# - recursive doubling (a tree): log₂ p messages of n bytes: log₂ p · (α + n/β)
# - Rabenseifner's: halving, then doubling: 2 log₂ p · α + 2 (p - 1)/p · n/β
#
# The model takes the fastest of the three. The networks are assumptions, not measurements: a fast
# one with a latency of 2 µs and 25 GB/s, and a slow one (10-gigabit Ethernet) with 50 µs and
# 1.25 GB/s.

# %%
NETWORKS = {"fast network": (2e-6, 25e9), "slow network": (50e-6, 1.25e9)}
size = sum(p.detach().numpy().nbytes for p in nn.MLP(hidden_dims=[100, 100]).parameters())


def allreduce(ranks, size, latency, bandwidth):
    turns, halves = math.log2(ranks), 2 * (ranks - 1) / ranks * size / bandwidth
    return min(
        2 * (ranks - 1) * latency + halves,
        turns * (latency + size / bandwidth),
        2 * turns * latency + halves,
    )


def slowest_of(ranks, times):
    """The expected largest of so many draws from sorted `times`."""
    below = np.arange(len(times) + 1) / len(times)  # the chance to draw one of the first i
    return times @ np.diff(below**ranks)


def on_paper(ranks, count, network):
    """Seconds of a step of ranks with so many examples each."""
    return slowest_of(ranks, alone[count]) + allreduce(ranks, size, *network)


print(f"\nThe model: {BATCH:,} examples, {size / 1e3:.0f} kB of gradients (at the end: 64 a rank)")
print("ranks   network        step (ms)   speed-up   of it waiting   64 a rank: efficiency")
for ranks in (8, 64, 1024):
    for name, network in NETWORKS.items():
        seconds = on_paper(ranks, BATCH // ranks, network)
        waits = 1 - np.median(alone[BATCH // ranks]) / seconds
        faster = on_paper(1, BATCH, network) / seconds
        weak = on_paper(1, 64, network) / on_paper(ranks, 64, network)
        numbers = f"{1e3 * seconds:11.2f} {faster:10.1f} {waits:15.0%} {weak:23.0%}"
        print(f"{ranks:5,}   {name} {numbers}")
for name, network in NETWORKS.items():
    ranks = min(alone, key=lambda ranks: on_paper(ranks, BATCH // ranks, network))
    print(f"On the {name}, the step is shortest with {ranks} ranks")

# %% [markdown]
# A larger batch gives every rank enough to do. But does it help to learn? Below are the steps
# until the loss over a thousand fixed examples is under 0.3, at the best of several rates. As
# long as the noise of the gradient limits the rate, a batch of twice the size bears twice the
# rate (*linear scaling*), and needs half the steps. A large batch has little noise left: then the
# curvature of the loss limits the rate, and more examples save no steps.

# %%
SIZES = [16, 64, 256, 1024]
RATES = [0.025 * 2**i for i in range(6)]


def steps_needed(size, rate, limit):
    """Steps until the loss is under 0.3; infinity if that takes more than `limit`."""
    mg.manual_seed(args.seed)
    model = nn.MLP(hidden_dims=[50])
    parameters, look = list(model.parameters()), 1
    for step in range(1, int(limit) + 1):
        batch, labels = sample_minibatch(train_set.data, targets, size)
        optim.gradient_update(F.nll_loss(model(batch), labels), parameters, rate)
        if step >= look:
            look = 1.03 * step  # an evaluation costs as much as several steps
            if F.nll_loss(model(train_set.data[:1000]), targets[:1000]).item() < 0.3:
                return step
    return math.inf


needed, best = [], []
with np.errstate(all="ignore"):  # a rate that is too large ends in NaN
    for count in common.progress(SIZES, "batch sizes"):
        fewest = args.limit, None
        for rate in RATES:
            fewest = min(fewest, (steps_needed(count, rate, fewest[0] - 1), rate))
        needed.append(fewest[0])
        best.append(fewest[1])
print("\nSteps to a loss of 0.3, at the best rate")
for count, steps, rate in zip(SIZES, needed, best):
    print(f"batches of {count:5,}: {steps:4} steps at rate {rate:g}")
common.claim(
    "From 16 to 64 examples the steps fall by a larger factor than from 256 to 1,024",
    needed[0] / needed[1] > needed[2] / needed[3],
    f"{needed[0] / needed[1]:.1f} and {needed[2] / needed[3]:.1f}",
)
common.claim(
    "From 256 to 1,024 examples less than half of the steps are saved",
    needed[3] > needed[2] / 2,
    f"{needed[2]} and {needed[3]}",
)
common.claim(
    "Batches of 1,024 do not bear 16 times the rate of batches of 16",
    best[3] < 16 * best[0],
    f"{best[3]:g} and {best[0]:g}",
)
inside = all(rate in RATES[1:-1] for rate in best)
common.claim("Every best rate lies inside the grid", inside, ", ".join(f"{r:g}" for r in best))

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 4.6))
paper, kilobytes = np.array(list(alone)), np.array(BYTES) / 1000
for (name, network), style in zip(NETWORKS.items(), ("-", "--")):
    times = [1e3 * on_paper(ranks, BATCH // ranks, network) for ranks in paper]
    left.plot(paper, times, style, color=BLUE, label=f"model, {name}")
    times = [1e3 * allreduce(64, size, *network) for size in BYTES]
    middle.plot(kilobytes, times, style, color=BLUE, label=f"model, 64 ranks, {name}")
left.plot(paper, 1e3 * np.median(alone[BATCH]) / paper, ":", color="black", label="no overhead")
for ranks, figures in measured.items():
    face, there = (RED, "here") if ranks <= cpus else ("white", f"on {cpus} CPUs")
    style = {"color": RED, "markerfacecolor": face, "label": f"measured, {ranks} {there}"}
    left.plot(ranks, 1e3 * figures["step"][1], "o", **style)
    if ranks > 1:
        times = np.array(figures["allreduce"])
        slope, start = np.polyfit(BYTES, times, 1, w=1 / times)
        middle.plot(kilobytes, 1e3 * times, "o", **style)
        middle.plot(kilobytes, 1e3 * (start + slope * np.array(BYTES)), color=RED, linewidth=1)
        print(f"Allreduce, {ranks} ranks {there}: {1e6 * start:.0f} µs + {1e9 * slope:.2f} ms/MB")
left.set(title=f"A step with {BATCH:,} examples", xlabel="ranks", ylabel="time (ms)")
middle.set(title="An Allreduce", xlabel="size (kB)", ylabel="time (ms)")
right.plot(SIZES, needed, "-o", color=GREEN, label="needed, at the best rate")
right.plot(SIZES, needed[0] * SIZES[0] / np.array(SIZES), ":", color="black",
           label="half for a batch of twice the size")  # fmt: skip
for count, steps, rate in zip(SIZES, needed, best):
    right.annotate(f"rate {rate:g}", (count, steps), (0, 8), color=GREEN,
                   textcoords="offset points", ha="center")  # fmt: skip
right.set(title="Steps to a loss of 0.3", xlabel="examples in a batch", ylabel="steps")
for axes in (left, middle, right):
    axes.loglog()
    axes.yaxis.set_major_formatter("{x:g}")
    axes.legend(fontsize=10)
right.set_xticks(SIZES, [f"{count:,}" for count in SIZES])
right.set_xticks([], minor=True)
figure.savefig(args.out / "9_data_parallel.png")
print(f"Picture: {args.out / '9_data_parallel.png'}")
