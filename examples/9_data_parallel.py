"""Data-parallel descent: how do many processes train one model, and when does that pay?

python examples/9_data_parallel.py
mpiexec -n 4 python -m mpi4py examples/9_data_parallel.py   on four real processes
"""

# %%
import common
from common import BLUE, GREEN, PINK, RED

import importlib.util
import json
import math
import os
import re
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
)
train_set, _ = common.load(args.data)
inputs, targets = train_set.data, train_set.targets

# %% [markdown]
# The loss is a mean over the examples of a batch, and so is its gradient. A mean can be computed
# in parts. Each process, or *rank*, takes a share of the batch and computes the gradient of its
# own mean. The average of these gradients, each weighted by its number of examples, is the
# gradient of the whole batch. That is the whole idea.
#
# Without the weights, it is wrong when the shares are uneven. (Everything is float64 here, so that
# round-off does not blur the comparison.)


# %%
def make_model():
    mg.manual_seed(args.seed)
    model = nn.MLP(hidden_dims=[20]).double()
    return model, optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def flat(arrays):
    return np.concatenate([array.numpy().ravel() for array in arrays])


def backward(model, optimizer, images, labels):
    """Compute the gradient of the mean loss; return it, all parameters one after the other."""
    optimizer.zero_grad()
    F.nll_loss(model(images), labels).backward()
    return flat(parameter.grad for parameter in model.parameters())


def shares(count, ranks):
    """For each rank the slice of its examples: of 10, four ranks take 2, 3, 2 and 3."""
    return [slice(count * rank // ranks, count * (rank + 1) // ranks) for rank in range(ranks)]


start, batch, labels = make_model(), inputs[:10].to(mg.float64), targets[:10]
whole = backward(*start, batch, labels)
parts = np.array([backward(*start, batch[s], labels[s]) for s in shares(10, 4)])
counts = [s.stop - s.start for s in shares(10, 4)]
error = abs(np.average(parts, axis=0, weights=counts) - whole).max()
common.claim(
    "The average of the shares' gradients, weighted by examples, is that of the whole batch",
    error < 1e-12,
    f"largest difference {error:.1e}",
)
away = np.linalg.norm(parts.mean(axis=0) - whole) / np.linalg.norm(whole)
common.claim(
    "Without the weights, uneven shares give another gradient", away > 1e-3, f"{away:.1%} away"
)

# %% [markdown]
# Ranks that start alike, draw the same batches and average their gradients make the same steps.
# So they stay alike, and they go where one process with the whole batches goes. Under `mpiexec`
# the ranks are real, and `minigrad.distributed` averages. Without it, one process plays them all.


# %%
def batches():
    """Of 199 examples, so that the shares are uneven."""
    generator = np.random.default_rng(args.seed)
    for _ in range(args.steps):
        chosen = generator.choice(len(inputs), 199, replace=False)
        yield inputs[chosen].to(mg.float64), targets[chosen]


def descend(world):
    """Train this rank's model in `world`; return its parameters."""
    model, optimizer = make_model()
    world.broadcast(model.parameters())
    for batch in batches():
        images, labels = world.shard(*batch)
        backward(model, optimizer, images, labels)
        world.average_gradients(model.parameters(), len(labels))
        optimizer.step()
    return flat(parameter.detach() for parameter in model.parameters())


def simulate(ranks):
    """The same, for so many models in one process."""
    pairs = [make_model() for _ in range(ranks)]
    everybody = [list(model.parameters()) for model, _ in pairs]
    for batch, labels in batches():
        parts = shares(len(labels), ranks)
        for pair, part in zip(pairs, parts):
            backward(*pair, batch[part], labels[part])
        for same in zip(*everybody):
            grads = [parameter.grad.numpy() for parameter in same]
            mean = np.average(grads, axis=0, weights=[part.stop - part.start for part in parts])
            for parameter in same:
                parameter.grad = mg.tensor(mean)
        for _, optimizer in pairs:
            optimizer.step()
    return [flat(parameter.detach() for parameter in parameters) for parameters in everybody]


together = descend(common.Alone())
apart = np.array(world.comm.allgather(descend(world)) if world.size > 1 else simulate(4))
error = abs(apart - together).max()
print(f"{len(apart)} {'real' if world.size > 1 else 'simulated'} ranks, {args.steps} steps")
common.claim(
    "Ranks with a share each reach the parameters of one process with the whole batches",
    error < 1e-11,
    f"largest difference {error:.1e}",
)

# %% [markdown]
# What does it cost? Each step ends with an *Allreduce*: every rank needs the sum of all gradients.
# A step takes the time of the slowest rank, plus that of the Allreduce. Both are measured here,
# with one thread for each rank. A script that runs under `mpiexec` ends with this cell.

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
    return np.sort(np.max(world.comm.allgather(times), axis=0) if world.size > 1 else times)


def step_times(count):
    mg.manual_seed(args.seed)
    model = nn.MLP(hidden_dims=[100, 100])
    optimizer = optim.SGD(model.parameters(), lr=0.001)
    world.broadcast(model.parameters())
    batch, labels = inputs[:count], targets[:count]

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
if world.size > 1 or "MINIGRAD_MEASURE_ONLY" in os.environ:  # never start mpiexec from within it
    sys.exit()

# %% [markdown]
# One process measures its own steps, with 1 to 1,024 examples. Then it starts `mpiexec` with two
# and with four ranks, which run the cells above. Ranks beyond the number of CPUs take turns.


# %%
def run(ranks):
    """The figures of so many real ranks; or None, and a line that says why there are none."""
    beside = Path(sys.executable).parent  # where pip puts mpich's
    mpiexec = shutil.which("mpiexec", path=beside) or shutil.which("mpiexec")
    if not mpiexec or not importlib.util.find_spec("mpi4py"):
        return print("Without several ranks: to measure them, pip install -e '.[mpi]'")
    script = Path(common.__file__).with_name("9_data_parallel.py")  # a notebook has no __file__
    command = [mpiexec, "-n", ranks, sys.executable, "-m", "mpi4py", script, "--data", args.data]
    command += ["--out", args.out, "--steps", 1, "--repeats", args.repeats, "--seed", args.seed]
    try:
        with common.interruptible(ends=True):
            done = subprocess.run(
                [*map(str, command)], env=os.environ | {"MINIGRAD_MEASURE_ONLY": "1"},
                stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                timeout=300,
            )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return print(f"Without {ranks} ranks: {error}")
    if found := re.search(f"^Seconds of {ranks} ranks: (.*)", done.stdout, re.M):
        return json.loads(found[1])
    print(f"Without {ranks} ranks: {mpiexec} started no such ranks. {done.stderr.strip()}")


alone = {2**i: step_times(2**i) for i in range(11)}  # by the number of examples
cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
measured = {1: {"step": np.quantile(alone[BATCH], (0.25, 0.5, 0.75))}}
for ranks in common.progress([2] if args.quick else [2, 4], "ranks"):
    if not (figures := run(ranks)):
        break
    measured[ranks] = figures
for ranks, figures in measured.items():
    low, middle, high = (1e3 * seconds for seconds in figures["step"])
    crowded = f", on {cpus} CPUs" if ranks > cpus else ""
    print(f"Ranks: {ranks}{crowded}. A step: {middle:.2f} ms (quartiles {low:.2f} to {high:.2f})")
    if ranks > 1:
        times = np.array(figures["allreduce"])  # fitted so that the relative errors are small
        figures["fit"] = slope, constant = np.polyfit(BYTES, times, 1, w=1 / times)
        print(f"   an Allreduce: {1e6 * constant:.0f} µs, and {1e9 * slope:.2f} ms for each MB")

# %% [markdown]
# On paper, to 1,024 ranks. The time of one rank is measured above, for its own small batch. All
# wait for the slowest, the *straggler*: the expected largest of p draws from the measured times.
# (No draw is longer than the longest measured, so for many ranks this is too little.) An Allreduce
# of n bytes pays a latency α for each message, one after the other, and n/β for its bytes:
#
# - ring: 2 (p - 1) α + 2 (p - 1)/p · n/β, for 2 (p - 1) messages of n/p bytes
# - tree (recursive doubling): log₂ p · (α + n/β), for log₂ p messages of n bytes
# - halving, then doubling (Rabenseifner): 2 log₂ p · α + 2 (p - 1)/p · n/β
#
# Sources: for the ring, Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters
# of workstations" (2009); for the others, with p a power of two, Thakur, Rabenseifner and Gropp,
# "Optimization of collective communication operations in MPICH" (2005). The model takes the fastest
# of the three. It leaves out the additions, and messages that share a cable, which a ring avoids.
#
# The networks are assumptions, not measurements, at the ends of a range: 2 µs and 25 GB/s, as of
# InfiniBand, and 50 µs and 1.25 GB/s, as of 10-gigabit Ethernet.

# %%
NETWORKS = {"fast": (2e-6, 25e9), "slow": (50e-6, 1.25e9)}  # α in s, β in bytes a second
GRADIENT = sum(4 * math.prod(p.shape) for p in nn.MLP(hidden_dims=[100, 100]).parameters())


def allreduce(ranks, size, latency, bandwidth):
    """Seconds with the ring, the tree, and halving and doubling."""
    turns, twice = math.log2(ranks), 2 * (ranks - 1) / ranks * size / bandwidth
    ring, tree = 2 * (ranks - 1) * latency + twice, turns * (latency + size / bandwidth)
    return ring, tree, 2 * turns * latency + twice


def slowest_of(ranks, times):
    """The expected largest of so many draws from sorted `times`."""
    at_most = np.arange(len(times) + 1) / len(times)  # the chance that a draw is the i-th or less
    return times @ np.diff(at_most**ranks)


# How many examples each rank has
SCALINGS = {"1,024 in all": lambda ranks: BATCH // ranks, "64 for each": lambda ranks: 64}


def speed_up(ranks, examples, network):
    """How many times as many examples a second as one rank alone."""
    seconds = slowest_of(ranks, alone[examples(ranks)])
    seconds += min(allreduce(ranks, GRADIENT, *network))
    return ranks * examples(ranks) / seconds / (examples(1) / alone[examples(1)].mean())


print(f"\nThe model (times in ms), with {GRADIENT / 1e3:.0f} kB of gradients")
print("                 computing 1,024/p           Allreduce              speed-up")
print("ranks   network   average  slowest     ring     tree  halving  of 1,024  64 each")
for ranks in (8, 64, 1024):
    for name, network in NETWORKS.items():
        times = alone[BATCH // ranks]
        numbers = times.mean(), slowest_of(ranks, times), *allreduce(ranks, GRADIENT, *network)
        row = "".join(f"{1e3 * seconds:9.2f}" for seconds in numbers)
        row += "".join(f"{speed_up(ranks, each, network):9.1f}" for each in SCALINGS.values())
        print(f"{ranks:5,}   {name:7}" + row)
for name, network in NETWORKS.items():
    gains = {ranks: speed_up(ranks, SCALINGS["1,024 in all"], network) for ranks in alone}
    used = max(ranks for ranks in gains if gains[ranks] >= ranks / 2)
    print(f"{name.capitalize()} network: 1,024 in all are fastest on {max(gains, key=gains.get)} "
          f"ranks; up to {used}, each does at least half as much as alone")  # fmt: skip

# %% [markdown]
# So a fixed batch soon stops paying (*strong scaling*). With 64 examples for each (*weak scaling*),
# ranks stay busy, but 1,024 of them make a batch of 65,536. Does it help to learn? Below are the
# steps until the loss over a thousand fixed examples is under 0.3, at the best of several rates.
# While the noise of the gradient limits the rate, four times as many examples have a quarter of
# its variance: they bear up to four times the rate (*linear scaling*; Goyal et al., 2017, up to
# 8,192 images), and need a quarter of the steps. A large batch has little noise left. Then the
# curvature of the loss limits the rate, and more examples hardly save steps.

# %%
SIZES = [4, 16, 64, 256, 1024]
RATES = [0.00625 * 2**i for i in range(8)]


def steps_needed(size, rate, limit):
    """Steps until the loss is under 0.3; infinity if that takes `limit` or more."""
    mg.manual_seed(args.seed)
    model = nn.MLP(hidden_dims=[50])
    parameters, look = list(model.parameters()), 1
    for step in range(1, limit):
        batch, labels = sample_minibatch(inputs, targets, size)
        optim.gradient_update(F.nll_loss(model(batch), labels), parameters, rate)
        if step >= look:
            look = 1.03 * step  # an evaluation costs as much as several steps
            if F.nll_loss(model(inputs[:1000]), targets[:1000]).item() < 0.3:
                return step
    return math.inf


needed, best = [], []
with np.errstate(all="ignore"):  # a rate that is too large ends in NaN
    for count in common.progress(SIZES, "batch sizes"):
        fewest, likely = (3000, math.nan), best[-1] if best else 0.02
        # The rates near the last best one come first: they leave few steps to the others.
        for rate in sorted(RATES, key=lambda rate: abs(math.log(rate / likely))):
            fewest = min(fewest, (steps_needed(count, rate, fewest[0]), rate))
        needed.append(fewest[0])
        best.append(fewest[1])
print("\nSteps to a loss of 0.3, at the best rate")
for count, steps, rate in zip(SIZES, needed, best):
    print(f"batches of {count:5,}: {steps:4} steps at rate {rate:g}")
common.claim(
    "From 4 to 16 examples, more than half of the steps are saved",
    needed[1] < needed[0] / 2,
    f"{needed[0]} and {needed[1]}",
)
common.claim(
    "From 256 to 1,024 examples, less than half of the steps are saved",
    needed[4] > needed[3] / 2,
    f"{needed[3]} and {needed[4]}",
)
common.claim(
    "From 64 to 1,024 examples, the best rate grows less than fourfold",
    best[4] < 4 * best[2],
    f"{best[2]:g} and {best[4]:g}",
)
inside = all(rate in RATES[1:-1] for rate in best)
common.claim("Every best rate lies inside the grid", inside, ", ".join(f"{r:g}" for r in best))

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 5.8))
kilobytes, ranks = np.array(BYTES) / 1000, np.array(list(alone))
for (name, network), style in zip(NETWORKS.items(), ("-", "--")):
    times = [1e3 * min(allreduce(64, size, *network)) for size in BYTES]
    left.plot(kilobytes, times, style, color=BLUE, label=f"model: 64 ranks, {name} network")
    for (kind, examples), colour in zip(SCALINGS.items(), (BLUE, PINK)):
        gains = [speed_up(count, examples, network) for count in ranks]
        middle.plot(ranks, gains, style, color=colour, label=f"model: {kind}, {name} network")
for count, figures in measured.items():
    crowded = f" on {cpus} CPUs" if count > cpus else ""
    style = {"color": RED, "markerfacecolor": "white" if crowded else RED, "zorder": 3}
    label = f"measured: {count} ranks{crowded}"
    gain = measured[1]["step"][1] / figures["step"][1]
    middle.plot(count, gain, "o", label=label if count > 1 else None, **style)
    if count > 1:
        left.plot(kilobytes, 1e3 * np.array(figures["allreduce"]), "o", label=label, **style)
        left.plot(kilobytes, 1e3 * np.polyval(figures["fit"], BYTES), color=RED, linewidth=1)
left.axvline(GRADIENT / 1e3, color="gray", linestyle=":", label="gradients of the MLP")
left.set(title="Allreduce: small messages cost\nlatency, large ones bandwidth")
left.set(xlabel="size (kB)", ylabel="time (ms)")
middle.plot(ranks, ranks, ":", color="black", label="p times as fast")
middle.set(title="More ranks pay if each\nhas enough to compute", xlabel="ranks p")
middle.set(ylabel="speed-up")
right.plot(SIZES, needed, "-o", color=GREEN, label="at the best rate")
quarter = needed[0] * SIZES[0] / np.array(SIZES)
right.plot(SIZES, quarter, ":", color="black", label="a quarter for four times the size")
right.set(title="Larger batches save\nfewer and fewer steps", ylabel="steps to a loss of 0.3")
right.set(xlabel="examples in a batch, best rate")
for axes in (left, middle, right):
    axes.loglog()
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.legend(fontsize=10, loc="upper center", bbox_to_anchor=(0.5, -0.26))  # hides no data
right.set_xticks(SIZES, [f"{count:,}\n{rate:.2g}" for count, rate in zip(SIZES, best)])
right.set_xticks([], minor=True)
figure.savefig(args.out / "9_data_parallel.png", bbox_inches="tight")
print(f"Picture: {args.out / '9_data_parallel.png'}")
