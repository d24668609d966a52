"""Each kernel beside NumPy, PyTorch and the machine's own limits, as a table and a roofline.

The limits are measured in the same run: the peak of a large matrix product in GFLOP/s, and the
bandwidth of a large copy in GB/s. What a kernel could reach at best is the smaller of the
peak and of bandwidth times its arithmetic intensity (FLOP per byte that must be moved).
"""

import statistics
from dataclasses import dataclass

import numpy as np

from . import common

ROWS = [32, 500, 1000, 10_000, 60_000]
LAYERS = [(784, 10), (784, 100), (100, 100), (100, 10)]  # D, H
LARGE = 16_000_000  # elements: 64 MB, past any last-level cache of a small machine


@dataclass(frozen=True)
class Case:
    """A kernel and a size: N rows of D inputs (and H outputs)."""

    kernel: str
    n: int
    d: int
    h: int = 0

    @property
    def name(self):
        return f"{self.kernel} {self.n}x{self.d}" + (f"x{self.h}" if self.h else "")

    @property
    def flop(self):
        """Operations, roughly: an exp or log counts as one."""
        n, d, h = self.n, self.d, self.h
        each = {"relu": 1, "relu backward": 1, "update": 2, "nll": 1, "nll backward": 1}
        each |= {"log_softmax": 5, "log_softmax backward": 4, "bias gradient": 1}
        return 2 * n * d * h if h else each[self.kernel] * n * d

    @property
    def bytes(self):
        """What must be read and written at least, in float32."""
        n, d, h = self.n, self.d, self.h
        if h:
            return 4 * (n * d + d * h + n * h)
        arrays = {"relu backward": 3, "update": 3, "log_softmax backward": 3, "bias gradient": 1}
        if self.kernel == "nll":
            return n * (64 + 8 + 4)  # a cache line for one number of each row
        return 4 * arrays.get(self.kernel, 1 if self.kernel == "nll backward" else 2) * n * d


def cases():
    for n in ROWS:
        for d, h in LAYERS:
            for kernel in ("linear", "weight gradient", "input gradient"):
                yield Case(kernel, n, d, h)
        yield Case("bias gradient", n, 100)
        for kernel in ("relu", "relu backward"):
            yield Case(kernel, n, 100)
        for kernel in ("log_softmax", "log_softmax backward", "nll", "nll backward"):
            yield Case(kernel, n, 10)
    for d, h in LAYERS:
        yield Case("update", h, d)
    for kernel in ("relu", "relu backward", "update"):
        yield Case(kernel, 1, LARGE)


def arrays(case):
    """x (N, D), weight (H, D), bias (H,), g like the output, targets; the same everywhere."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((case.n, case.d), "f4")
    weight = rng.standard_normal((case.h, case.d), "f4")
    g = rng.standard_normal((case.n, case.h or case.d), "f4")
    return (
        x,
        weight,
        rng.standard_normal(case.h or case.d, "f4"),
        g,
        rng.integers(0, case.d, case.n),
    )


def with_minigrad(case):
    from minigrad import kernels

    x, weight, bias, g, targets = arrays(case)
    out, like_x, like_w = np.empty_like(g), np.empty_like(x), np.empty_like(weight)
    losses, totals = np.empty(case.n, "f4"), np.empty(case.d)
    log_probs, softmax = np.empty_like(x), np.empty_like(x)
    if case.kernel.startswith(("log_softmax", "nll")):
        kernels.log_softmax_forward(x, log_probs, softmax)
    return {
        "linear": lambda: kernels.linear_forward(x, weight, bias, out),
        "weight gradient": lambda: kernels.linear_backward_weight(g, x, like_w),
        "input gradient": lambda: kernels.linear_backward_input(g, weight, like_x),
        "bias gradient": lambda: kernels.linear_backward_bias(g, totals),
        "relu": lambda: kernels.relu_forward(x.reshape(-1), out.reshape(-1)),
        "relu backward": lambda: kernels.relu_backward(
            g.reshape(-1), x.reshape(-1), out.reshape(-1)
        ),
        "log_softmax": lambda: kernels.log_softmax_forward(x, out, softmax),
        "log_softmax backward": lambda: kernels.log_softmax_backward(g, softmax, out),
        "nll": lambda: kernels.nll_loss_forward(log_probs, targets, losses),
        "nll backward": lambda: kernels.nll_loss_backward(losses, targets, out),
        "update": lambda: kernels.gradient_descent(x, g, 1e-6),
    }[case.kernel]


def with_numpy(case):
    x, weight, bias, g, targets = arrays(case)
    out, like_x, like_w = np.empty_like(g), np.empty_like(x), np.empty_like(weight)
    rows, lr = np.arange(case.n), np.float32(1e-6)
    log_probs = x - np.log(np.exp(x).sum(1, keepdims=True))

    def log_softmax():
        np.subtract(x, x.max(1, keepdims=True), out=out)
        return np.subtract(out, np.log(np.exp(out).sum(1, keepdims=True)), out=out)

    def nll_backward():
        out[...] = 0
        out[rows, targets] = -1

    return {
        "linear": lambda: np.add(np.matmul(x, weight.T, out=out), bias, out=out),
        "weight gradient": lambda: np.matmul(g.T, x, out=like_w),
        "input gradient": lambda: np.matmul(g, weight, out=like_x),
        "bias gradient": lambda: g.sum(0),
        "relu": lambda: np.maximum(x, 0, out=out),
        "relu backward": lambda: np.multiply(g, x > 0, out=out),
        "log_softmax": log_softmax,
        "log_softmax backward": lambda: np.subtract(
            g, np.exp(log_probs) * g.sum(1, keepdims=True), out=out
        ),
        "nll": lambda: -log_probs[rows, targets],
        "nll backward": nll_backward,
        "update": lambda: np.subtract(x, lr * g, out=x),
    }[case.kernel]


def with_torch(case):
    import torch
    from torch.nn import functional as F

    torch.set_grad_enabled(False)
    x, weight, bias, g, targets = map(torch.from_numpy, arrays(case))
    like_x, like_w = torch.empty_like(x), torch.empty_like(weight)
    aten = torch.ops.aten
    log_probs, none = F.log_softmax(x, 1), torch.tensor(0.0)
    losses = torch.ones(case.n)
    return {
        "linear": lambda: F.linear(x, weight, bias),
        "weight gradient": lambda: torch.mm(g.T, x, out=like_w),
        "input gradient": lambda: torch.mm(g, weight, out=like_x),
        "bias gradient": lambda: g.sum(0),
        "relu": lambda: F.relu(x),
        "relu backward": lambda: aten.threshold_backward(g, x, 0),
        "log_softmax": lambda: F.log_softmax(x, 1),
        "log_softmax backward": lambda: aten._log_softmax_backward_data(
            g, log_probs, 1, torch.float32
        ),
        "nll": lambda: F.nll_loss(log_probs, targets, reduction="none"),
        "nll backward": lambda: aten.nll_loss_backward(
            losses, log_probs, targets, None, 0, -100, none
        ),
        "update": lambda: x.sub_(g, alpha=1e-6),
    }[case.kernel]


SYSTEMS = {"minigrad": with_minigrad, "numpy": with_numpy, "torch": with_torch}


def measure_limits(seconds):
    """GFLOP/s of a large matrix product and GB/s of a large copy."""
    a, b, out = (np.ones((2048, 2048), "f4") for _ in range(3))
    product, _ = common.seconds_per_call(lambda: np.matmul(a, b, out=out), seconds)
    source, target = np.ones(LARGE, "f4"), np.ones(LARGE, "f4")
    copy, _ = common.seconds_per_call(lambda: np.copyto(target, source), seconds)
    return 2 * 2048**3 / product / 1e9, 2 * source.nbytes / copy / 1e9


def serve(connection, system):
    ready = {}

    def measure(case, seconds):
        if case == "limits":
            return measure_limits(seconds)
        if case not in ready:
            ready.clear()
            ready[case] = SYSTEMS[system](case)
            ready[case]()
        return common.seconds_per_call(ready[case], seconds)

    common.serve(connection, measure)


def draw(rows, peak, bandwidth, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), dpi=110, layout="constrained")
    axes = figure.subplots()
    intensities = [row["flop"] / row["bytes"] for row in rows]
    line = np.geomspace(min(intensities) / 2, max(intensities) * 2, 200)
    roof = np.minimum(peak, bandwidth * line)
    axes.plot(
        line,
        roof,
        color="black",
        label="limit of peak and memory (what fits a cache may lie above)",
    )
    groups = {
        "linear": ("o", "#0072B2"), "weight gradient": ("^", "#0072B2"),
        "input gradient": ("v", "#56B4E9"), "relu": ("s", "#D55E00"),
        "log_softmax": ("D", "#009E73"), "update": ("P", "#CC79A7"),
    }  # fmt: skip
    for kernel, (marker, colour) in groups.items():
        chosen = [row for row in rows if row["kernel"] == kernel]
        axes.scatter(
            [row["flop"] / row["bytes"] for row in chosen],
            [row["flop"] / row["seconds"]["minigrad"] / 1e9 for row in chosen],
            s=[8 + 10 * np.log10(row["n"] * row["d"] / 100) for row in chosen],
            marker=marker, color=colour, alpha=0.8, label=kernel,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("arithmetic intensity (FLOP per byte that must be moved)")
    axes.set_ylabel("GFLOP/s reached; larger marks are larger arrays")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    common.write_picture(figure, path)


def check_goals(rows, bandwidth):
    goals = [
        common.goal(f"torch / minigrad, {row['name']}", row["ratio"]["torch"][0], 1.0)
        for row in rows
        if "torch" in row["ratio"]
    ]
    for row in rows:
        if row["n"] * row["d"] == LARGE:
            reached = row["bytes"] / row["seconds"]["minigrad"] / 1e9 / bandwidth
            goals.append(common.goal(f"share of copy bandwidth, {row['name']}", reached, 0.8))
    for n in (500, 60_000):
        pair = [
            row for row in rows
            if row["name"] in (f"linear {n}x784x10", f"weight gradient {n}x784x10")
        ]  # fmt: skip
        if len(pair) == 2:
            theirs, ours = (sum(r["seconds"][s] for r in pair) for s in ("numpy", "minigrad"))
            goals.append(
                common.goal(
                    f"np.matmul / minigrad, linear {n}x784x10, both ways", theirs / ours, 1.0
                )
            )
    return goals


def main():
    parser = common.parser(__doc__.splitlines()[0], "kernels", seconds=0.02)
    args = parser.parse_args()
    measured = common.chosen({case.name: case for case in cases()}, args.only)
    print("\n".join(common.machine()))
    systems = common.installed(SYSTEMS)
    rows = []
    with common.Workers(serve, systems) as workers:
        limits = [workers.ask("numpy", "limits", 50 * args.seconds)]
        for case in measured:
            answers = common.take_turns(workers, systems, args.rounds, case, args.seconds)
            times = {name: [median for median, _ in given] for name, given in answers.items()}
            means = [mean for _, mean in answers["minigrad"]]
            others = [name for name in systems if name != "minigrad"]
            rows.append({
                "name": case.name, "kernel": case.kernel, "n": case.n, "d": case.d,
                "flop": case.flop, "bytes": case.bytes,
                "seconds": {name: statistics.median(t) for name, t in times.items()},
                "mean seconds": statistics.median(means),
                "ratio": {name: common.ratio(times[name], times["minigrad"]) for name in others},
            })  # fmt: skip
        limits.append(workers.ask("numpy", "limits", 50 * args.seconds))
    peak, bandwidth = map(max, zip(*limits))
    limits = f"Limits: {peak:.0f} GFLOP/s in a large product, {bandwidth:.1f} GB/s in a copy"
    print(f"{limits}\n")
    table = []
    for row in rows:
        ours = row["seconds"]["minigrad"]
        limit = max(row["flop"] / peak, row["bytes"] / bandwidth) / 1e9
        table.append([
            row["name"], f"{1e6 * ours:,.1f}", f"{1e6 * row['mean seconds']:,.1f}",
            f"{row['flop'] / ours / 1e9:.1f}", f"{row['bytes'] / ours / 1e9:.1f}",
            f"{limit / ours:.2f}", common.shown(row["ratio"]["numpy"]),
            common.shown(row["ratio"].get("torch"), quartiles=True),
        ])  # fmt: skip
    header = [
        "kernel, size", "µs", "mean", "GFLOP/s", "GB/s", "of the limit", "numpy/mg",
        "torch/mg (quartiles)",
    ]  # fmt: skip
    common.print_table(header, table)
    print()
    goals = check_goals(rows, bandwidth)
    tables = {limits: (header, table)}
    common.write_figures(args, tables, goals, peak=peak, bandwidth=bandwidth, rows=rows)
    draw(rows, peak, bandwidth, args.png)


if __name__ == "__main__":
    main()
