"""A training step (forward, loss, backward, update) against PyTorch, JAX and HIPS autograd.

The floor is the time of the step's matrix products alone, through ``np.matmul(..., out=...)``,
in the memory layout that is fastest for them.
"""

import itertools
import math
import statistics
import textwrap
from dataclasses import dataclass
from functools import partial

import numpy as np

from . import common, versions

LR = 0.01
ADAM = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8}
STEPS_TO_COMPARE = 5  # after which the losses of all systems must agree


@dataclass(frozen=True)
class Problem:
    """A network and a batch for it."""

    hidden: tuple
    batch: int
    adam: bool = False  # or else gradient descent
    inputs: int = 784
    classes: int = 10

    @property
    def name(self):
        name = f"{list(self.hidden)}, batch {self.batch:,}" + ", Adam" * self.adam
        if (self.inputs, self.classes) == (784, 10):
            return name
        return f"{name}, {self.inputs} inputs, {self.classes} classes"

    @property
    def dims(self):
        return [self.inputs, *self.hidden, self.classes]

    @property
    def gflop(self):
        """Its matrix products: forward, weight gradients, and input gradients but the first."""
        sizes = [a * b for a, b in zip(self.dims, self.dims[1:])]
        return 2 * self.batch * (3 * sum(sizes) - sizes[0]) / 1e9

    def arrays(self):
        """Weights, biases, inputs and targets, the same in every process."""
        rng = np.random.default_rng(0)
        pairs = list(zip(self.dims, self.dims[1:]))
        weights = [rng.uniform(-1, 1, (b, a)).astype("f4") / np.float32(a**0.5) for a, b in pairs]
        biases = [rng.uniform(-1, 1, b).astype("f4") / np.float32(a**0.5) for a, b in pairs]
        inputs = rng.standard_normal((self.batch, self.inputs), "f4")
        return weights, biases, inputs, rng.integers(0, self.classes, self.batch)


LECTURE = [Problem((), 500)]
MLPS = [
    Problem((100, 100), 20),
    Problem((100, 100), 250),
    Problem((100, 100), 1000),
    Problem((200, 100, 50), 64),
    Problem((200, 100, 50), 64, adam=True),
    Problem((512, 512), 128),
    Problem((512, 512), 1024),
]
COST = [Problem((100,), batch) for batch in (1, 10, 100, 1000, 10_000, 50_000)]
OVERHEAD = Problem((20,), 10, inputs=8, classes=6)  # next to nothing to compute


# The systems: from a problem to a function that takes one step and returns the loss


def with_minigrad(problem):
    import minigrad as mg
    from minigrad import functional as F, nn, optim

    weights, biases, inputs, targets = problem.arrays()
    model = nn.MLP(problem.inputs, problem.classes, problem.hidden)
    names = [
        name for w in range(len(weights)) for name in (f"main.{2 * w}.weight", f"main.{2 * w}.bias")
    ]
    values = [array for pair in zip(weights, biases) for array in pair]
    model.load_state_dict(dict(zip(names, values)))
    parameters = list(model.parameters())
    inputs, targets = mg.from_numpy(inputs), mg.from_numpy(targets)
    adam = optim.Adam(parameters, **ADAM)

    def step():
        loss = F.nll_loss(model(inputs), targets)
        optim.gradient_update(loss, parameters, LR)
        return loss.item()

    def step_with_adam():
        loss = F.nll_loss(model(inputs), targets)
        adam.zero_grad()
        loss.backward()
        adam.step()
        return loss.item()

    return step_with_adam if problem.adam else step


def with_torch(problem, update="optim"):
    import torch
    from torch import nn
    from torch.nn import functional as F

    weights, biases, inputs, targets = problem.arrays()
    layers = []
    for weight, bias in zip(weights, biases):
        layers += [nn.Linear(weight.shape[1], weight.shape[0]), nn.ReLU()]
        layers[-2].weight.data, layers[-2].bias.data = torch.tensor(weight), torch.tensor(bias)
    model = nn.Sequential(*layers[:-1])
    parameters = list(model.parameters())
    inputs, targets = torch.tensor(inputs), torch.tensor(targets)
    by_hand = update == "by hand"
    if problem.adam:
        optimizer = torch.optim.Adam(parameters, **ADAM, fused=by_hand)
    else:
        optimizer = torch.optim.SGD(parameters, LR)

    def step():
        loss = F.nll_loss(F.log_softmax(model(inputs), dim=1), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    def step_by_hand():
        loss = F.nll_loss(F.log_softmax(model(inputs), dim=1), targets)
        for parameter in parameters:
            parameter.grad = None
        loss.backward()
        with torch.no_grad():
            for parameter in parameters:
                parameter -= LR * parameter.grad
        return loss.item()

    return step_by_hand if by_hand and not problem.adam else step


def with_jax(problem):
    import jax
    import jax.numpy as jnp

    weights, biases, inputs, targets = problem.arrays()
    layers = [(jnp.array(w), jnp.array(b)) for w, b in zip(weights, biases)]
    inputs, targets = jnp.array(inputs), jnp.array(targets)

    def loss_of(layers, inputs, targets):
        x = inputs
        for w, b in layers[:-1]:
            x = jnp.maximum(x @ w.T + b, 0)
        w, b = layers[-1]
        log_probs = jax.nn.log_softmax(x @ w.T + b)
        return -jnp.take_along_axis(log_probs, targets[:, None], 1).mean()

    lr, (beta1, beta2), eps = ADAM.values()

    @partial(jax.jit, donate_argnums=0)
    def update(state, inputs, targets):
        layers, means, squares, t = state
        loss, grads = jax.value_and_grad(loss_of)(layers, inputs, targets)
        if not problem.adam:
            layers = jax.tree.map(lambda p, g: p - LR * g, layers, grads)
            return (layers, means, squares, t), loss
        t = t + 1
        means = jax.tree.map(lambda m, g: m + (1 - beta1) * (g - m), means, grads)
        squares = jax.tree.map(lambda s, g: s + (1 - beta2) * (g * g - s), squares, grads)
        rate, root = lr / (1 - beta1**t), jnp.sqrt(1 - beta2**t)
        layers = jax.tree.map(
            lambda p, m, s: p - rate * m / (jnp.sqrt(s) / root + eps), layers, means, squares
        )
        return (layers, means, squares, t), loss

    zeros = [jax.tree.map(jnp.zeros_like, layers) if problem.adam else () for _ in range(2)]
    state = (layers, *zeros, jnp.zeros(()))

    def step():
        nonlocal state
        state, loss = update(state, inputs, targets)
        jax.block_until_ready(state)
        return float(loss)

    return step


def with_autograd(problem):
    import autograd
    import autograd.numpy as anp

    weights, biases, inputs, targets = problem.arrays()
    parameters = [array for pair in zip(weights, biases) for array in pair]
    rows = np.arange(problem.batch)

    def loss_of(parameters):
        x = inputs
        for w, b in zip(parameters[:-2:2], parameters[1:-2:2]):
            x = anp.maximum(anp.dot(x, w.T) + b, 0)
        x = anp.dot(x, parameters[-2].T) + parameters[-1]
        x = x - anp.max(x, axis=1, keepdims=True)
        log_probs = x - anp.log(anp.sum(anp.exp(x), axis=1, keepdims=True))
        return -anp.mean(log_probs[rows, targets])

    value_and_grad = autograd.value_and_grad(loss_of)
    lr, (beta1, beta2), eps = ADAM.values()
    states = [(np.zeros_like(p), np.zeros_like(p)) for p in parameters]
    steps = itertools.count(1)

    def step():
        loss, grads = value_and_grad(parameters)
        for p, g in zip(parameters, grads):
            p -= np.float32(LR) * g
        return float(loss)

    def step_with_adam():
        loss, grads = value_and_grad(parameters)
        t = next(steps)
        for p, g, (m, s) in zip(parameters, grads, states):
            m += (1 - beta1) * (g - m)
            s += (1 - beta2) * (g * g - s)
            p -= lr / (1 - beta1**t) * m / (np.sqrt(s) / math.sqrt(1 - beta2**t) + eps)
        return float(loss)

    return step_with_adam if problem.adam else step


def floor(problem):
    weights, _, inputs, _ = problem.arrays()
    weights = [np.asfortranarray(weight) for weight in weights]  # the faster layout
    outs = [np.ones((problem.batch, len(w)), "f4") for w in weights]
    x_grads = [np.ones_like(out) for out in outs]
    w_grads = [np.empty_like(w) for w in weights]

    def step():
        x = inputs
        for weight, out in zip(weights, outs):
            np.matmul(x, weight.T, out=out)
            x = out
        for i in reversed(range(len(weights))):
            np.matmul(outs[i].T, outs[i - 1] if i else inputs, out=w_grads[i])
            if i:
                np.matmul(outs[i], weights[i], out=x_grads[i - 1])

    return step


SYSTEMS = {
    "minigrad": with_minigrad,
    "floor": floor,
    "torch": with_torch,
    "torch by hand": partial(with_torch, update="by hand"),
    "jax": with_jax,
    "autograd": with_autograd,
}


def serve(connection, system):
    ready = {}

    def measure(problem, seconds):
        """The losses of the first steps, and the seconds of later ones: median, mean."""
        if problem not in ready:
            ready.clear()  # one problem at a time: the large ones take much memory
            step = SYSTEMS[system](problem)
            ready[problem] = step, [step() for _ in range(STEPS_TO_COMPARE)]
        step, losses = ready[problem]
        return losses, common.seconds_per_call(step, seconds)

    common.serve(connection, measure)


def measure(workers, problem, rounds, seconds):
    answers = common.take_turns(workers, list(workers.connections), rounds, problem, seconds)
    compare_losses(problem, answers)
    times = {name: [median for _, (median, _) in given] for name, given in answers.items()}
    means = [mean for _, (_, mean) in answers["minigrad"]]
    compared = {"jax": "jax", "autograd": "autograd", "floor": "floor"}
    if "torch" in times:
        ways = "torch", "torch by hand"
        compared["torch"] = min(ways, key=lambda name: statistics.median(times[name]))
    return {
        "name": problem.name,
        "batch": problem.batch,
        "gflop": problem.gflop,
        "microseconds": {name: 1e6 * statistics.median(t) for name, t in times.items()},
        "mean microseconds": 1e6 * statistics.median(means),
        "ratio": {
            key: common.ratio(times[name], times["minigrad"])
            for key, name in compared.items()
            if name in times
        },
    }


def compare_losses(problem, answers):
    """End the program unless all losses equal PyTorch's (if it is missing, JAX's, and so on)."""
    losses = {name: given[0][0][-1] for name, given in answers.items() if name != "floor"}
    reference = next(name for name in ("torch", "jax", "autograd", "minigrad") if name in losses)
    expected = losses[reference]
    for name, loss in losses.items():
        if not abs(loss - expected) < 1e-4 * max(1, abs(expected)):
            raise SystemExit(
                f"{problem.name}: the loss of {name} is {loss}, of {reference} {expected}"
            )


def draw(rows, cost, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7), dpi=110, layout="constrained")
    bars, curve = figure.subplots(1, 2, width_ratios=[3, 2])
    systems = {
        "torch": ("PyTorch", "#D55E00"), "jax": ("jax.jit", "#009E73"),
        "autograd": ("HIPS autograd", "#999999"),
    }  # fmt: skip
    systems = {name: look for name, look in systems.items() if name in rows[0]["ratio"]}
    height = 0.8 / max(1, len(systems))
    for i, (system, (label, colour)) in enumerate(systems.items()):
        places = [y + (i - (len(systems) - 1) / 2) * height for y in range(len(rows))]
        values, lows, highs = zip(*(row["ratio"][system] for row in rows))
        errors = np.subtract(values, lows), np.subtract(highs, values)
        lengths = np.subtract(values, 1)  # from 1: to the left, minigrad is slower
        bars.barh(places, lengths, height, left=1, xerr=errors, color=colour, label=label)
    bars.axvline(1, color="black", linewidth=1)
    for y in range(1, len(rows)):
        bars.axhline(y - 0.5, color="black", linewidth=0.3)
    names = [textwrap.fill(row["name"], 26) for row in rows]
    bars.set_yticks(range(len(rows)), names, fontsize="large")
    bars.set_ylim(len(rows) - 0.5, -0.5)
    bars.set_xscale("log")
    bars.set_xticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
    bars.set_xticks([], minor=True)
    left, right = bars.get_xlim()
    bars.axvspan(left, 1, color="#D55E00", alpha=0.1, linewidth=0, zorder=0)
    bars.set_xlim(left, right)
    bars.set_xlabel("times as long as minigrad's step (shaded: minigrad is slower)")
    if systems:
        bars.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)
    for system, label, colour in (
        ("minigrad", "minigrad", "#0072B2"), ("torch", "PyTorch", "#D55E00"),
        ("jax", "jax.jit", "#009E73"), ("floor", "matrix products alone", "black"),
    ):  # fmt: skip
        if system not in rows[0]["microseconds"]:
            continue
        times = [row["microseconds"][system] / 1e3 for row in cost]
        style = "--" if system == "floor" else "-"
        curve.plot(
            [row["batch"] for row in cost],
            times,
            style,
            marker="o",
            markersize=3,
            color=colour,
            label=label,
        )
    if cost:
        curve.set_xscale("log")
        curve.set_yscale("log")
    curve.set_xlabel("examples in the batch")
    curve.set_ylabel("time of a step (ms), hidden [100]")
    curve.grid(alpha=0.3)
    curve.legend()
    common.write_picture(figure, path)


def check_goals(rows):
    goals = []
    for system in ("torch", "jax"):
        for row in rows:
            if system in row["ratio"]:
                ratio, *_ = row["ratio"][system]
                goals.append(common.goal(f"{system} / minigrad, {row['name']}", ratio, 1.0))
    ratios = [
        row["ratio"]["torch"][0]
        for row in rows
        if "torch" in row["ratio"] and row["name"] != OVERHEAD.name
    ]
    if ratios:
        mean = statistics.geometric_mean(ratios)
        goals.append(common.goal("torch / minigrad, geometric mean", mean, 1.4))
    for row in rows:
        if row["gflop"] > 0.3:
            ratio, *_ = row["ratio"]["floor"]
            goals.append(common.goal(f"floor / minigrad, {row['name']}", ratio, 0.88))
        if row["name"] == OVERHEAD.name:
            step = row["microseconds"]["minigrad"]
            goals.append(common.goal(f"step, {row['name']}", step, 45, " µs", at_least=False))
    return goals


def main():
    parser = common.parser(__doc__.splitlines()[0], "training", seconds=0.2)
    parser.add_argument(
        "--against",
        metavar="COMMIT",
        help="compare with the minigrad of that commit instead (15 rounds of 0.15 s; no picture)",
    )
    args = parser.parse_args()
    if args.against is not None:
        parser.set_defaults(rounds=15, seconds=0.15)
        args = parser.parse_args()
    problems = {problem.name: problem for problem in [*LECTURE, *MLPS, *COST, OVERHEAD]}
    problems = common.chosen(problems, args.only)
    print("\n".join(common.machine()), end="\n\n")
    if args.against is not None:
        return versions.main(args, problems, serve)
    rows = []
    with common.Workers(serve, common.installed(SYSTEMS)) as workers:
        for problem in problems:
            rows.append(measure(workers, problem, args.rounds, args.seconds))
            print(f"  measured: {problem.name}", flush=True)
    header = [
        "hidden, batch", "GFLOP", "minigrad µs", "mean", "floor µs", "torch/mg (quartiles)",
        "jax/mg", "autograd/mg", "floor/mg",
    ]  # fmt: skip
    table = []
    for row in rows:
        times, ratios = row["microseconds"], row["ratio"]
        table.append([
            row["name"], f"{row['gflop']:.3f}", f"{times['minigrad']:,.0f}",
            f"{row['mean microseconds']:,.0f}", f"{times['floor']:,.0f}",
            common.shown(ratios.get("torch"), quartiles=True),
            *(common.shown(ratios.get(key)) for key in ("jax", "autograd", "floor")),
        ])  # fmt: skip
    print()
    common.print_table(header, table)
    print()
    goals = check_goals(rows)
    common.write_figures(args, {"": (header, table)}, goals, rows=rows)
    names = {problem.name for problem in COST}
    draw(rows, [row for row in rows if row["name"] in names], args.png)


if __name__ == "__main__":
    common.run_program(main)
