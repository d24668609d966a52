"""Training steps while other processes are busy: how much of the speed is left?

The busy processes do nothing but compute, each in one thread. This program starts and ends them.
"""

import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

from . import common, training

ROOT = Path(__file__).resolve().parents[1]
ONE_THREAD = {"MINIGRAD_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
SYSTEMS = {  # the system of training.py, and additions to its environment
    "minigrad": ("minigrad", {}),
    "minigrad 1 thread": ("minigrad", ONE_THREAD),
    "torch": ("torch", {}),
    "torch 1 thread": ("torch", {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}),
    "jax": ("jax", {}),
}
OURS = [name for name, (system, _) in SYSTEMS.items() if system == "minigrad"]
KINDS = "median", "mean"  # of the times of the steps of a turn
SITUATIONS = {"idle": 0, "one busy process": 1, "two busy processes": 2}
BUSY = list(SITUATIONS)[1:]
PROBLEMS = training.LECTURE + training.MLPS
PROBLEMS += [problem for problem in training.COST if problem.batch in (10, 100, 1000)]
COMMAND = "train_mlp.py on the digits"

# It ends when its standard input does: with the block below, or with us, even if we are killed.
LOOP = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
print(flush=True)
while True: pass
"""


@contextmanager
def busy(count):
    """Keep `count` processes busy inside the block."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen([sys.executable, "-c", LOOP], **pipes))
            for _ in range(count)
        ]
        for process in processes:
            process.stdout.readline()  # it has begun
        yield processes


def serve(connection, name):
    training.serve(connection, SYSTEMS[name][0])


def measure(workers, problem, rounds, seconds):
    names = list(workers.connections)
    answers = {situation: {name: [] for name in names} for situation in SITUATIONS}
    for i in range(rounds):
        for situation, count in SITUATIONS.items():
            with busy(count):
                for name in common.rotated(names, i):
                    answers[situation][name].append(workers.ask(name, problem, seconds))
    training.compare_losses(problem, answers["idle"])
    times = {situation: times_of(given) for situation, given in answers.items()}
    situations = {situation: summary(given, times["idle"]) for situation, given in times.items()}
    return {"name": problem.name, "gflop": problem.gflop, **situations}


def times_of(answers):
    """The median and the mean time of a step in each turn, for each system."""
    return {
        kind: {name: [times[i] for _, times in given] for name, given in answers.items()}
        for i, kind in enumerate(KINDS)
    }


def summary(times, idle):
    """The figures of one problem in one situation; ratios compare turns of the same round."""
    medians, means = times.values()
    found = {
        "microseconds": {}, "better": {}, "ratio": {},
        "mean/median": {name: common.ratio(means[name], medians[name]) for name in means},
        "slow-down": {name: common.ratio(means[name], idle["mean"][name]) for name in means},
    }  # fmt: skip
    for kind, given in times.items():
        typical = {name: statistics.median(turns) for name, turns in given.items()}
        found["microseconds"][kind] = {name: 1e6 * seconds for name, seconds in typical.items()}
        better = min(OURS, key=typical.get)
        found["better"][kind] = common.ratio(given[better], given["minigrad"])
        found["ratio"][kind] = {
            name: common.ratio(turns, given["minigrad"])
            for name, turns in given.items()
            if name not in OURS
        }
    return found


def newcomer(rounds):
    """Seconds that the README's first training command takes in three situations."""
    two = "two busy processes"
    situations = {"idle": (0, {}), two: (2, {}), f"{two}, 1 thread": (2, ONE_THREAD)}
    seconds = {situation: [] for situation in situations}
    with tempfile.TemporaryDirectory() as folder:
        command = [ROOT / "examples" / "train_mlp.py", "--data", "digits", "--epochs", "20"]
        command += ["--out", folder]
        path = {"PYTHONPATH": str(ROOT)}
        common.run(*command, **path)  # fills the caches
        for i in range(rounds):
            for situation in common.rotated(list(situations), i):
                count, environment = situations[situation]
                with busy(count):
                    seconds[situation].append(common.run(*command, **path, **environment)[0])
    return seconds


def tables_of(rows, seconds):
    header = [
        "hidden, batch", *(head for name in OURS for head in (f"{name} µs", "mean")),
        "better/mg", "of means", "mean/median", "JAX's",
        "torch/mg", "of means", "jax/mg", "of means",
    ]  # fmt: skip
    tables = {}
    for situation in SITUATIONS if rows else []:
        table = []
        for row in rows:
            found = row[situation]
            medians, means = found["microseconds"].values()
            ratios = [found["ratio"][kind].get(name) for name in ("torch", "jax") for kind in KINDS]
            spreads = [found["mean/median"].get(name) for name in ("minigrad", "jax")]
            table.append([
                row["name"],
                *(f"{times[name]:,.0f}" for name in OURS for times in (medians, means)),
                *map(common.shown, [*found["better"].values(), *spreads, *ratios]),
            ])  # fmt: skip
        tables[situation] = header, table
    if seconds:
        table = [
            [situation, *(f"{f(given):.2f}" for f in (statistics.median, min, max))]
            for situation, given in seconds.items()
        ]
        tables[COMMAND] = ["situation", "seconds", "least", "most"], table
    return tables


def check_goals(rows, seconds):
    goals = []
    for situation in BUSY if rows else []:
        for kind in KINDS:
            ratios = []
            for row in rows:
                ratios.append(row[situation]["better"][kind][0])
                what = f"{situation}, {kind}, better / default, {row['name']}"
                goals.append(common.goal(what, ratios[-1], 0.9))
            what = f"{situation}, {kind}, better / default, geometric mean"
            goals.append(common.goal(what, statistics.geometric_mean(ratios), 0.95))
        for row in rows:
            spread = row[situation]["mean/median"]
            if "jax" in spread:
                what = f"{situation}, mean / median against JAX's, {row['name']}"
                ours, theirs = spread["minigrad"][0], spread["jax"][0]
                goals.append(common.goal(what, ours, theirs, at_least=False))
    if seconds:
        two = "two busy processes"
        for other, wanted in (("idle", 2.5), (f"{two}, 1 thread", 1.15)):
            slower, *_ = common.ratio(seconds[two], seconds[other])
            what = f"{COMMAND}, {two} / {other}"
            goals.append(common.goal(what, slower, wanted, at_least=False))
    return goals


def draw(rows, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 2 + 0.4 * len(rows)), dpi=110, layout="constrained")
    styles = {
        "minigrad": ("minigrad", "#0072B2", "o"),
        "minigrad 1 thread": ("minigrad, 1 thread", "#56B4E9", "s"),
        "torch": ("PyTorch", "#D55E00", "^"),
        "jax": ("jax.jit", "#009E73", "D"),
    }
    styles = {name: style for name, style in styles.items() if name in rows[0]["idle"]["slow-down"]}
    for axes, situation in zip(figure.subplots(1, 2, sharex=True, sharey=True), BUSY):
        for i, (name, (label, colour, marker)) in enumerate(styles.items()):
            places = [y + (i - (len(styles) - 1) / 2) * 0.2 for y in range(len(rows))]
            values = [row[situation]["slow-down"][name][0] for row in rows]
            axes.hlines(places, 1, values, color=colour, linewidth=1.5)
            axes.plot(values, places, marker, markersize=5, color=colour, label=label)
        axes.axvline(1, color="black", linewidth=1)
        axes.set_xscale("log")
        axes.set_xticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
        axes.set_xticks([], minor=True)
        axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
        axes.grid(axis="x", alpha=0.3)
        axes.set_title(situation)
    axes.invert_yaxis()
    figure.supxlabel("times as long as idle, mean of a step (further left is better)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=len(styles))
    common.write_picture(figure, path)


def main():
    parser = common.parser(__doc__.splitlines()[0], "busy", rounds=5, seconds=1.5)
    args = parser.parse_args()
    names = {problem.name: problem for problem in PROBLEMS} | {COMMAND: None}
    chosen = common.chosen(names, args.only)
    problems = [problem for problem in chosen if problem]
    print("\n".join(common.machine()), end="\n\n")
    rows, seconds = [], {}
    if problems:
        environments = {name: environment for name, (_, environment) in SYSTEMS.items()}
        with common.Workers(serve, common.installed(SYSTEMS), environments) as workers:
            for problem in problems:
                rows.append(measure(workers, problem, args.rounds, args.seconds))
                print(f"  measured: {problem.name}", flush=True)
    if None in chosen:
        seconds = newcomer(args.rounds)
        print(f"  measured: {COMMAND}", flush=True)
    tables = tables_of(rows, seconds)
    for title, table in tables.items():
        print(f"\n{title}")
        common.print_table(*table)
    print()
    goals = check_goals(rows, seconds)
    common.write_figures(args, tables, goals, rows=rows, seconds=seconds)
    if rows:
        draw(rows, args.png)


if __name__ == "__main__":
    common.run_program(main)
