"""Each kernel against NumPy, PyTorch and the machine's own limits, as a table and a picture.

The limits are measured in the same run: the peak of a large matrix product in GFLOP/s, and the
bandwidth in GB/s, by size, because a cache is faster than memory. At best, a kernel takes the
time of its operations at the peak or, if that is longer, of its bytes at their bandwidth.
"""

import bisect
import os
import statistics
import time
import timeit
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from . import common

ROWS = [32, 500, 1000, 10_000, 60_000]
LAYERS = [(784, 10), (784, 100), (100, 100), (100, 10)]  # D, H
LARGE = 16_000_000  # elements: 64 MB, past any last-level cache of a small machine
SETS = [10**6 * n for n in (1, 4, 16, 64, 128)]  # bytes: from a core's cache to memory


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
        """The least that must be read and written, in float32."""
        n, d, h = self.n, self.d, self.h
        if h:
            return 4 * (n * d + d * h + n * h)
        arrays = {"relu backward": 3, "update": 3, "log_softmax backward": 3, "bias gradient": 1}
        if self.kernel == "nll":
            return n * (min(64, 4 * d) + 8 + 4)  # one cache line of each row
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
    from minigrad import kernels, parts, threads

    threads.start()
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
        "relu": lambda: parts.run(kernels.relu_forward, x.reshape(-1), out.reshape(-1)),
        "relu backward": lambda: parts.run(
            kernels.relu_backward, g.reshape(-1), x.reshape(-1), out.reshape(-1)
        ),
        "log_softmax": lambda: parts.run(kernels.log_softmax_forward, x, out, softmax),
        "log_softmax backward": lambda: parts.run(kernels.log_softmax_backward, g, softmax, out),
        "nll": lambda: kernels.nll_loss_forward(log_probs, targets, losses),
        "nll backward": lambda: kernels.nll_loss_backward(losses, targets, out),
        "update": lambda: parts.run(
            kernels.gradient_descent, x.reshape(-1), g.reshape(-1), settings=(1e-6,)
        ),
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
    """GFLOP/s of a large product, GB/s of the largest copy, and the GB/s for each of SETS.

    Each is the best of several tries, with a thread for each core. Copies and additions in place
    are tried: most processors read what a copy overwrites, so it moves more than is counted.
    """

    def fastest(function):
        times, end = [], time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            times.append(timeit.timeit(function, number=1))
        return min(times)

    def gigabytes(move, arrays, size):
        halves = [np.ones((2, size // 8 // cores), "f4") for _ in range(cores)]
        times = max(1, SETS[-1] // size)  # a small array many times: threads start slowly

        def repeat(pair):
            for _ in range(times):
                move(*pair)

        moved = arrays * halves[0][0].nbytes * cores * times
        return moved / fastest(lambda: list(pool.map(repeat, halves))) / 1e9

    def add(a, b):
        np.add(a, b, out=a)

    a, b, out = (np.ones((2048, 2048), "f4") for _ in range(3))
    peak = 2 * 2048**3 / fastest(lambda: np.matmul(a, b, out=out)) / 1e9
    cores = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(cores) as pool:
        copies = [gigabytes(np.copyto, 2, size) for size in SETS]
        additions = [gigabytes(add, 3, size) for size in SETS]
    return [peak, copies[-1], *map(max, copies, additions)]


def limit(case, peak, bandwidths):
    """The least time, in seconds: of the operations or, if that is longer, of moving the bytes.

    The bandwidth is that of the largest of SETS that is not larger than the bytes.
    """
    bandwidth = bandwidths[max(0, bisect.bisect(SETS, case.bytes) - 1)]
    return max(case.flop / peak, case.bytes / bandwidth) / 1e9


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


COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7"]
PANELS = [  # of the picture: kernels, what their sizes count, and how many numbers that is
    *(([kernel], "rows", None) for kernel in ("linear", "weight gradient", "input gradient")),
    (["relu", "relu backward", "bias gradient"], "rows of 100", 100),
    (["log_softmax", "log_softmax backward", "nll", "nll backward"], "rows of 10", 10),
    (["update"], "weights", 1),
]


def draw(rows, limits, path):
    """The share of the limit that is reached, by size: a line for each layer or kernel."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    short = EngFormatter(sep="")  # 60k, 16M
    figure = Figure(figsize=(11, 7.5), dpi=110, layout="constrained")
    figure.suptitle(f"{limits}\nLines: minigrad. Dots: PyTorch. 1: the limit.", fontsize="medium")
    for axes, (kernels, unit, numbers) in zip(figure.subplots(2, 3, sharey=True).flat, PANELS):
        lines, sizes = {}, set()
        for row in rows:
            if row["kernel"] in kernels:
                name = f"{row['d']} to {row['h']}" if row["h"] else row["kernel"]
                size = row["n"] * row["d"] // (numbers or row["d"])
                lines.setdefault(name, {})[size] = row
                sizes.add(size)
        if not lines:
            axes.set_axis_off()
            continue
        sizes = sorted(sizes)
        for colour, (name, points) in zip(COLOURS, lines.items()):
            for system, style in (("minigrad", "o-"), ("torch", ".:")):
                shares = {
                    sizes.index(size): points[size]["limit"] / points[size]["seconds"][system]
                    for size in sorted(points)
                    if system in points[size]["seconds"]
                }
                label = name if system == "minigrad" else None
                axes.plot(shares.keys(), shares.values(), style, color=colour, label=label)
        axes.axhline(1, color="black")
        axes.set_xticks(range(len(sizes)), map(short, sizes))
        axes.set_xlabel(unit)
        axes.set_ylabel("share of the limit")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        title = None if numbers else kernels[0]
        axes.legend(
            loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, title=title, frameon=False
        )
    common.write_picture(figure, path)


def check_goals(rows, copy):
    goals = [
        common.goal(f"torch / minigrad, {row['name']}", row["ratio"]["torch"][0], 1.0)
        for row in rows
        if "torch" in row["ratio"]
    ]
    for row in rows:
        if row["n"] * row["d"] == LARGE:
            reached = row["bytes"] / row["seconds"]["minigrad"] / 1e9 / copy
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
    parser = common.parser(__doc__.splitlines()[0], "kernels", seconds=0.03)
    args = parser.parse_args()
    measured = common.chosen({case.name: case for case in cases()}, args.only)
    print("\n".join(common.machine()), end="\n\n")
    systems = common.installed(SYSTEMS)
    rows = []
    with common.Workers(serve, systems) as workers:
        limits = [workers.ask("numpy", "limits", 20 * args.seconds)]
        for case in measured:
            answers = common.take_turns(workers, systems, args.rounds, case, args.seconds)
            times = {name: [median for median, _ in given] for name, given in answers.items()}
            means = [mean for _, mean in answers["minigrad"]]
            others = [name for name in systems if name != "minigrad"]
            rows.append({
                "name": case.name, "kernel": case.kernel, "n": case.n, "d": case.d, "h": case.h,
                "flop": case.flop, "bytes": case.bytes,
                "seconds": {name: statistics.median(t) for name, t in times.items()},
                "mean seconds": statistics.median(means),
                "ratio": {name: common.ratio(times[name], times["minigrad"]) for name in others},
            })  # fmt: skip
            print(f"  measured: {case.name}", flush=True)
        limits.append(workers.ask("numpy", "limits", 20 * args.seconds))
    peak, copy, *bandwidths = map(max, zip(*limits))
    for row, case in zip(rows, measured):
        row["limit"] = limit(case, peak, bandwidths)
    sizes = ", ".join(f"{b:.0f} from {size / 1e6:.0f} MB" for size, b in zip(SETS, bandwidths))
    limits = f"Limits: {peak:.0f} GFLOP/s in a large product, GB/s by the bytes moved: {sizes}"
    print(f"\n{limits}\n")
    table = []
    for row in rows:
        ours = row["seconds"]["minigrad"]
        table.append([
            row["name"], f"{1e6 * ours:,.1f}", f"{1e6 * row['mean seconds']:,.1f}",
            f"{row['flop'] / ours / 1e9:.1f}", f"{row['bytes'] / ours / 1e9:.1f}",
            f"{row['limit'] / ours:.2f}", common.shown(row["ratio"]["numpy"]),
            common.shown(row["ratio"].get("torch"), quartiles=True),
        ])  # fmt: skip
    header = [
        "kernel, size", "µs", "mean", "GFLOP/s", "GB/s", "of the limit", "numpy/mg",
        "torch/mg (quartiles)",
    ]  # fmt: skip
    common.print_table(header, table)
    print()
    goals = check_goals(rows, copy)
    tables = {limits: (header, table)}
    common.write_figures(args, tables, goals, peak=peak, bandwidths=bandwidths, rows=rows)
    draw(rows, limits, args.png)


if __name__ == "__main__":
    common.run_program(main)
