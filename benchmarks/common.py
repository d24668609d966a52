"""What the three programs share: workers that take turns, tables, goals, the machine."""

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import platform
import statistics
import time
from pathlib import Path

# Thread pools spin for a while after their last task (OpenBLAS for 25 ms): whoever has had
# his turn must come to rest, or he would be measured as part of the next.
SETTLE = 0.05  # seconds


def parser(description, picture):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--png", type=Path, default=Path("figures") / picture, help="picture (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=7, help="turns of each system (%(default)s)")
    parser.add_argument(
        "--only", metavar="TEXT", default="", help="only rows whose name holds TEXT"
    )
    return parser


def machine():
    """The machine and the versions, as one line of text each."""
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
    return [datetime.date.today().isoformat(), *lines, ", ".join(versions)]


def installed(systems):
    """Those of the systems whose package (the first word of the name) can be imported."""
    present = []
    for name in systems:
        package = name.split()[0]
        if package in ("minigrad", "floor") or importlib.util.find_spec(package):
            present.append(name)
        else:
            print(f"{package} is left out: not installed (pip install -e '.[bench]')")
    return present


class Workers:
    """Processes that measure when asked, one at a time; the others sleep meanwhile."""

    def __init__(self, serve, names):
        context = multiprocessing.get_context("spawn")
        self.connections, self.processes = {}, []
        for name in names:
            here, there = context.Pipe()
            process = context.Process(target=serve, args=(there, name), daemon=True)
            process.start()
            self.connections[name] = here
            self.processes.append(process)

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
    """Answer questions for ever, in a process of one's own."""
    while True:
        question = connection.recv()
        try:
            connection.send(answer(*question))
        except Exception as error:
            connection.send(error)


def seconds_per_call(function, seconds):
    """The median time of one call, of as many as fit into `seconds` (at least 3)."""
    time.sleep(SETTLE)
    function()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def take_turns(workers, names, rounds, *question):
    """Ask all of them in every round, in an order that rotates: one list of answers for each."""
    answers = {name: [] for name in names}
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            answers[name].append(workers.ask(name, *question))
    return answers


def ratio(slower, faster):
    """The median over the rounds of slower / faster, and its quartiles."""
    ratios = [a / b for a, b in zip(slower, faster)]
    low, _, high = (
        statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    )
    return statistics.median(ratios), low, high


def print_table(header, rows):
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    for i, row in enumerate([header, *rows]):
        first, *rest = (cell.rjust(width) for cell, width in zip(row, widths))
        print("  ".join([row[0].ljust(widths[0]), *rest]))
        if i == 0:
            print("  ".join("-" * width for width in widths))


def goal(what, value, wanted, unit="x", at_least=True):
    """Print whether a goal is reached, and by how much not; return it for the JSON."""
    reached = value >= wanted if at_least else value <= wanted
    bound = "at least" if at_least else "at most"
    verdict = "pass" if reached else "SHORT"
    print(f"{verdict:5}  {what}: {value:.3g}{unit} (goal: {bound} {wanted:g}{unit})")
    return {"goal": what, "value": value, "wanted": wanted, "at_least": at_least, "pass": reached}


def write_json(path, **content):
    if path:
        path.write_text(json.dumps({"machine": machine(), **content}, indent=1) + "\n")
        print(f"Figures: {path}")


def write_picture(figure, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"Picture: {path}")
