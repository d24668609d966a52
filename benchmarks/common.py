"""What the programs share: workers that take turns, tables, goals, the machine."""

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import math
import multiprocessing
import os
import platform
import signal
import statistics
import subprocess
import sys
import textwrap
import time
from multiprocessing import resource_tracker
from pathlib import Path
from unittest import mock

# Thread pools spin for a while after their last task (OpenBLAS for 2²⁸ cycles, 117 ms at 2.3 GHz):
# a system that has had its turn must come to rest, or it would disturb the next one.
SETTLE = 0.15  # seconds
WARM = 0.005  # seconds: after the rest, the first calls of a turn wake the threads


def positive(kind):
    """A type for argparse: positive, finite numbers."""

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"wanted a positive {kind.__name__}, got {text!r}")
        return value

    return parse


def output(text):
    """A path for argparse to which a file can be written: better to know before measuring."""
    path = Path(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        path.open("a").close()
        if new:
            path.unlink()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write {text!r}: {error.strerror}") from None
    return path


def picture(text):
    """The same, of a picture in a format that Matplotlib knows."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise argparse.ArgumentTypeError("needs Matplotlib: pip install -e '.[bench]'") from None
    kinds = Figure().canvas.get_supported_filetypes()
    if Path(text).suffix[1:].lower() not in kinds:
        wanted = ", ".join(f".{kind}" for kind in kinds)
        raise argparse.ArgumentTypeError(f"wanted a name that ends in {wanted}, got {text!r}")
    return output(text)


def parser(description, program, rounds=7, seconds=None):
    parser = argparse.ArgumentParser(f"python -m benchmarks.{program}", description=description)
    parser.set_defaults(program=program)
    option = parser.add_argument
    option("--json", type=output, metavar="FILE", help="write all figures there")
    option("--markdown", type=output, metavar="FILE", help="write the tables and goals there")
    drawn = f"figures/benchmark_{program}.png"
    option("--png", type=picture, default=drawn, metavar="FILE", help="picture (%(default)s)")
    option(
        "--rounds", type=positive(int), default=rounds, help="turns of each system (%(default)s)"
    )
    only = "measure the row of this name or else, all rows whose names contain TEXT"
    option("--only", metavar="TEXT", default="", help=only)
    if seconds:
        turn = "length of a turn in seconds (%(default)s)"
        option("--seconds", type=positive(float), default=seconds, help=turn)
    return parser


def chosen(rows, text):
    """The dict's value of this name, or else those whose names contain the text; none is an error."""
    found = [rows[text]] if text in rows else [row for name, row in rows.items() if text in name]
    if not found:
        names = textwrap.fill("; ".join(rows), 100, break_long_words=False)
        print(f"--only: no row's name contains {text!r}. The names are:\n{names}", file=sys.stderr)
        raise SystemExit(2)
    return found


def run_program(main):
    """Run `main`; Ctrl-C ends it with one line. (Workers end with their block.)"""
    try:
        main()
    except KeyboardInterrupt:
        print("\nStopped by Ctrl-C.", file=sys.stderr)
        raise SystemExit(130) from None  # what shells expect: 128 plus the number of the signal


def machine():
    """The date, the machine, the system and the versions, as one line of text each."""
    with open("/proc/cpuinfo") as file:
        models = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    lines = [
        f"{len(os.sched_getaffinity(0))} cores, {models[0] if models else platform.processor()}",
        f"Python {platform.python_version()}, {platform.system()} {platform.release()}",
    ]
    versions = []
    for name in ("numpy", "numba", "scipy", "torch", "jax", "autograd"):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {name}")
    settings = [f"{k}={v}" for k, v in sorted(os.environ.items()) if k.endswith("_NUM_THREADS")]
    return [datetime.date.today().isoformat(), *lines, ", ".join(versions + settings)]


def installed(systems):
    """The systems whose package (the first word of the name) can be imported."""
    packages = dict.fromkeys(name.split()[0] for name in systems)
    missing = [p for p in packages if p != "floor" and not importlib.util.find_spec(p)]
    for package in missing:
        print(f"{package} is left out: not installed (pip install -e '.[bench]')")
    return [name for name in systems if name.split()[0] not in missing]


def run(*command, **environment):
    """The seconds that Python takes with these arguments, and what it prints."""
    time.sleep(SETTLE)
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env=os.environ | environment, capture_output=True, text=True,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{done.stderr}A program that was to be timed has failed: see above.")
    return seconds, done.stdout.strip()


class Workers:
    """Processes that measure when asked, one at a time; the others sleep meanwhile.

    Each has our environment, with the changes that `environments` lists under its name.
    """

    def __init__(self, serve, names, environments=None):
        context = multiprocessing.get_context("spawn")
        self.connections, self.processes = {}, []
        # Ctrl-C is for us alone: the workers inherit that it is blocked, and we end them. Blocking
        # it does not keep it from another thread of ours, so it is also noted for later.
        pressed = []
        handler = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
        resource_tracker.ensure_running()  # which unblocks it, so not below
        signals = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        for name in names:
            here, there = context.Pipe()
            process = context.Process(target=serve, args=(there, name), daemon=True)
            with mock.patch.dict(os.environ, (environments or {}).get(name, {})):
                process.start()
            self.connections[name] = here
            self.processes.append(process)
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        signal.signal(signal.SIGINT, handler)
        if pressed and handler is signal.default_int_handler:  # a background job ignores it
            self.__exit__()
            raise KeyboardInterrupt

    def ask(self, name, *question):
        self.connections[name].send(question)
        answer = self.connections[name].recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self.processes:
            process.kill()


def serve(connection, answer):
    """Answer questions for ever, in a process of its own."""
    while True:
        question = connection.recv()
        try:
            connection.send(answer(*question))
        except Exception as error:
            connection.send(error)


def seconds_per_call(function, seconds):
    """The median and the mean time of a call, over the calls that fit into `seconds` (at least 3).

    The median is the time of an undisturbed call; the mean is what calls cost in the long run.
    """
    time.sleep(SETTLE)
    times, warm = [], time.perf_counter() + WARM
    function()
    while time.perf_counter() < warm:
        function()
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return statistics.median(times), statistics.fmean(times)


def take_turns(workers, names, rounds, *question):
    """Ask each of them in every round, in rotating order: a list of answers for each."""
    answers = {name: [] for name in names}
    for i in range(rounds):
        for name in rotated(names, i):
            answers[name].append(workers.ask(name, *question))
    return answers


def rotated(names, i):
    return names[i % len(names) :] + names[: i % len(names)]


def ratio(slower, faster):
    """The median over the rounds of slower / faster, and its quartiles."""
    ratios = [a / b for a, b in zip(slower, faster)]
    low, _, high = (
        statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    )
    return statistics.median(ratios), low, high


def shown(ratio, quartiles=False):
    """A ratio (with its quartiles) as text, or - where there is none."""
    if ratio is None:
        return "-"
    return "{:.2f} ({:.2f} to {:.2f})".format(*ratio) if quartiles else f"{ratio[0]:.2f}"


def print_table(header, rows):
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    for i, row in enumerate([header, *rows]):
        first, *rest = (cell.rjust(width) for cell, width in zip(row, widths))
        print("  ".join([row[0].ljust(widths[0]), *rest]))
        if i == 0:
            print("  ".join("-" * width for width in widths))


def goal(what, value, wanted, unit="x", at_least=True):
    """Print a figure, its goal and whether it is reached; return them for the JSON."""
    reached = value >= wanted if at_least else value <= wanted
    bound = "at least" if at_least else "at most"
    text = f"{what}: {value:.3g}{unit} (goal: {bound} {wanted:.4g}{unit})"
    print(f"{'pass' if reached else 'SHORT':5}  {text}")
    return {
        "goal": what, "value": value, "wanted": wanted, "at_least": at_least,
        "pass": reached, "text": text,
    }  # fmt: skip


def write_figures(args, tables, goals, **content):
    """Write what --json and --markdown ask for; `tables` maps titles to (header, rows)."""
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        content = {"machine": machine(), **content, "goals": goals}
        args.json.write_text(json.dumps(content, indent=1) + "\n")
        print(f"Figures: {args.json}")
    if args.markdown:
        args.markdown.parent.mkdir(parents=True, exist_ok=True)
        args.markdown.write_text(markdown(args, tables, goals))
        print(f"Tables: {args.markdown}")


def markdown(args, tables, goals):
    """The dated section of benchmarks/README.md."""
    date, cores, system, versions = machine()
    turns = f"turns: {args.rounds}" + (f" of {args.seconds:g} s" if "seconds" in args else "")
    lines = [f"## {date}: {args.program}, {cores}", "", f"{system}; {versions}; {turns}.", ""]
    for title, (header, rows) in tables.items():
        lines += [f"**{title}**", ""] if title else []
        lines += [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
        lines += [""]
    short = "; ".join(goal["text"] for goal in goals if not goal["pass"])
    reached = sum(goal["pass"] for goal in goals)
    text = f"{reached} of {len(goals)} goals are reached."
    lines += [text + f" Short of the goal: {short}." * bool(short)]
    return "\n".join([*lines, ""])


def write_picture(figure, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"Picture: {path}")
