"""The benchmarks, each on one small row: table, goals, figures and picture."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest
from helpers import ROOT, child

from benchmarks import common, kernels, training, versions

PROGRAMS = "kernels", "training", "busy", "startup"
ROWS = [("kernels", "log_softmax 32x10"), ("training", "[], batch 500"), ("busy", "[], batch 500")]


def run(program, *arguments, **options):
    return child("-m", f"benchmarks.{program}", *arguments, cwd=ROOT, **options)


@pytest.mark.parametrize("program, row", ROWS)
def test_a_benchmark_measures_a_row(program, row, tmp_path):
    printed = run(
        program, "--only", row, "--rounds", "2", "--seconds", "0.001",
        "--json", tmp_path / "figures.json", "--markdown", tmp_path / "section.md",
        "--png", tmp_path / "picture.png",
    ).stdout  # fmt: skip
    figures = json.loads((tmp_path / "figures.json").read_text())
    (found,) = figures["rows"]
    assert found["name"] == row
    ratios = found["two busy processes"]["ratio"]["mean"] if program == "busy" else found["ratio"]
    ratio, low, high = ratios["torch"]
    assert 0 < low <= ratio <= high
    assert {goal["pass"] for goal in figures["goals"]} <= {True, False} and figures["goals"]
    assert (tmp_path / "picture.png").stat().st_size > 10_000

    section = (tmp_path / "section.md").read_text()
    assert re.match(rf"## \d{{4}}-\d\d-\d\d: {program}, \d+ cores", section)
    lines = [line for line in printed.splitlines() if line.startswith(f"{row}  ")]
    assert len(lines) == (3 if program == "busy" else 1)
    for line in lines:
        assert f"\n| {' | '.join(re.split(' {2,}', line))} |\n" in section
    assert f" of {len(figures['goals'])} goals are reached." in section


def test_a_section_counts_the_goals_and_names_the_short_ones():
    code = """
from argparse import Namespace
from benchmarks import common
goals = [common.goal("speed", 1.5, 2), common.goal("size", 3, 4, " MB", at_least=False)]
tables = {"Title": (["row", "x"], [["a", "1"], ["b", "2"]])}
print(common.markdown(Namespace(program="this", rounds=3, seconds=0.5), tables, goals))
"""
    section = child(code=code, cwd=ROOT).stdout
    assert section.endswith("""; turns: 3 of 0.5 s.

**Title**

| row | x |
| --- | --- |
| a | 1 |
| b | 2 |

1 of 2 goals are reached. Short of the goal: speed: 1.5x (goal: at least 2x).

""")


def test_the_summary_of_the_page_has_figures_of_its_tables():
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    summary, measured = page.split("## How to measure")
    rows = [line.split("|") for line in summary.splitlines() if line.startswith("| ")]
    figures = [figure for row in rows for figure in re.findall(r"\d[\d,.]*", " ".join(row[2:]))]
    assert len(figures) >= 10
    for figure in figures:
        assert re.search(rf"(?<![\d.,]){re.escape(figure)}(?![\d.,]*\d)", measured), figure


@pytest.mark.slow
def test_busy_measures_the_first_command_of_a_newcomer(tmp_path):
    run("busy", "--only", "train_mlp", "--rounds", "1", "--json", tmp_path / "figures.json")
    seconds = json.loads((tmp_path / "figures.json").read_text())["seconds"]
    assert len(seconds) == 3 and all(given > 0 for (given,) in seconds.values())


@pytest.mark.parametrize("program", PROGRAMS)
def test_wrong_arguments_are_refused_in_a_sentence(program):
    assert "--json FILE" in run(program, "--help").stdout
    said = run(program, "--only", "xyz", fails=2)
    assert said.stderr.startswith("--only: no row's name contains 'xyz'. The names are:\n")
    known = {"kernels": "nll 500x10;", "startup": "whole job;"}.get(program, "[], batch 500;")
    assert known in said.stderr and not said.stdout
    said = run(program, "--rounds", "0", fails=2).stderr
    assert "argument --rounds: wanted a positive int, got '0'" in said


@pytest.mark.parametrize(
    "option, path, wrong",
    [
        ("json", "file/x.json", "cannot write 'file/x.json': "),
        ("markdown", "folder", "cannot write 'folder': Is a directory"),
        ("png", "file/x.png", "cannot write 'file/x.png': "),
        ("png", "x.foo", "wanted a name that ends in .eps, "),
        ("png", "x", "wanted a name that ends in .eps, "),
    ],
)
def test_a_path_is_tried_before_anything_is_measured(option, path, wrong, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    said = child(
        "-m", "benchmarks.kernels", f"--{option}", path,
        cwd=tmp_path, environment={"PYTHONPATH": str(ROOT)}, fails=2,
    )  # fmt: skip
    assert f"argument --{option}: {wrong}" in said.stderr and not said.stdout


def test_a_path_that_is_tried_stays_as_it_is(tmp_path):
    (tmp_path / "old.json").write_text("old")
    common.output(tmp_path / "old.json"), common.output(tmp_path / "new" / "new.json")
    assert (tmp_path / "old.json").read_text() == "old"
    assert not list((tmp_path / "new").iterdir())


def test_every_row_can_be_measured_alone():
    """Also if other names contain its name, as "[100], batch 10" contains "[100], batch 1"."""
    rows = {case.name: case for case in kernels.cases()}
    rows |= {problem.name: problem for problem in training.COST}
    assert all(common.chosen(rows, name) == [row] for name, row in rows.items())
    assert len(common.chosen(rows, "[100], ")) == len(training.COST) > 1


def test_the_whole_job_asks_for_mnist_first(tmp_path):
    nowhere = {"MINIGRAD_DATA": str(tmp_path / "missing")}
    said = run("startup", "--rounds", "1", fails=1, environment=nowhere)
    assert said.stderr.startswith("The whole job reads MNIST from ") and not said.stdout
    assert said.stderr.count("\n") == 1 and "this folder does not exist" in said.stderr


def test_a_program_that_fails_shows_why():
    code = "from benchmarks import common; common.run('-c', '1 / 0')"
    said = child(code=code, cwd=ROOT, fails=1).stderr
    assert "ZeroDivisionError: division by zero" in said and "CalledProcessError" not in said


def test_versions_says_how_it_is_run():
    assert "python -m benchmarks.training --against COMMIT" in run("versions", fails=1).stderr


@pytest.mark.skipif(os.name != "posix", reason="needs a group of processes")
@pytest.mark.parametrize("program", PROGRAMS)
def test_ctrl_c_ends_a_benchmark_with_one_line(program, tmp_path):
    command = [sys.executable, "-m", f"benchmarks.{program}", "--rounds", "1000000"]
    with subprocess.Popen(
        [*command, "--png", tmp_path / "picture.png", "--only", "s" if program == "startup" else "0"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a parent may ignore it
    ) as process:  # fmt: skip
        process.stdout.readline()  # the date: it has begun
        time.sleep(2)  # the workers have, too
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and said == "\nStopped by Ctrl-C.\n"
    end = time.monotonic() + 10
    while is_running_group(process.pid):
        assert time.monotonic() < end
        time.sleep(0.01)


def twice(connection, _):
    common.serve(connection, lambda number: 2 * number)


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C reaches a group of processes")
def test_ctrl_c_does_not_reach_the_workers():
    with common.Workers(twice, ["first", "second"]) as workers:
        for process in workers.processes:
            os.kill(process.pid, signal.SIGINT)
        assert [workers.ask(name, 3) for name in ("first", "second")] == [6, 6]


@pytest.mark.skipif(os.name != "posix", reason="blocks a signal")
def test_ctrl_c_while_workers_start_ends_them(monkeypatch):
    started, start = [], SpawnProcess.start

    def interrupted(process):
        start(process)
        started.append(process)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(SpawnProcess, "start", interrupted)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent may ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            common.Workers(twice, ["first", "second"])
    finally:
        signal.signal(signal.SIGINT, handler)
    for process in started:
        process.join(10)
    assert [process.exitcode for process in started] == [-signal.SIGKILL] * 2


def is_running_group(number):
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("option, text", [("rounds", "-1"), ("rounds", "x"), ("seconds", "nan")])
def test_a_number_must_be_one_and_positive(option, text):
    said = run("training", f"--{option}", text, fails=2).stderr
    assert f"argument --{option}: wanted a positive" in said and said.endswith(f"got '{text}'\n")


WITHOUT = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name in {1} else find(name)
from benchmarks import {0}
{0}.main()
"""


PEERS = ["torch", "jax", "autograd"]


@pytest.mark.parametrize(
    "program, row, missing",
    [(*row, PEERS) for row in [*ROWS, ("startup", "imports")]] + [(*ROWS[1], ["torch"])],
)
def test_a_benchmark_runs_without_torch(program, row, missing, tmp_path):
    seconds = ["--seconds", "0.001"] * (program != "startup")
    said = child(
        "--only", row, "--rounds", "1", *seconds, "--png", tmp_path / "picture.png",
        code=WITHOUT.format(program, missing), cwd=ROOT,
    )  # fmt: skip
    assert said.stdout.count("torch is left out: not installed") == 1
    assert "torch / minigrad" not in said.stdout and not said.stderr
    if program != "startup":
        assert f"\n{row} " in said.stdout and "  -" in said.stdout


def test_losses_that_differ_end_the_program():
    code = """
from benchmarks import training
losses = {name: [([9.0, loss], None)] for name, loss in (("minigrad", 1.0), ("jax", 1.001))}
training.compare_losses(training.OVERHEAD, losses)
"""
    said = child(code=code, fails=1, cwd=ROOT).stderr
    assert said.endswith("8 inputs, 6 classes: the loss of minigrad is 1.0, of jax 1.001\n")


def test_each_worker_has_its_environment(tmp_path):
    (tmp_path / "probe.py").write_text("""
import os
from benchmarks import common
def serve(connection, name):
    common.serve(connection, os.environ.get)
if __name__ == "__main__":
    with common.Workers(serve, ["a", "b", "c"], {"b": {"PROBE": "b"}}) as workers:
        print(*(workers.ask(name, "PROBE") for name in "abc"), os.environ["PROBE"])
""")
    environment = {"PROBE": "ours", "PYTHONPATH": str(ROOT)}
    assert child(tmp_path / "probe.py", environment=environment).stdout == "ours b ours ours\n"


BESIDE_TWO = """
import os, signal, time
from pathlib import Path
from benchmarks.busy import busy
try:
    with busy(2) as processes:
        for process in processes:
            print(process.pid, flush=True)
            ticks = 0
            while ticks < 30:  # of CPU time; starting Python takes some three
                time.sleep(0.01)
                ticks = sum(map(int, Path(f"/proc/{process.pid}/stat").read_text().split()[13:15]))
        ENDING
except (ZeroDivisionError, KeyboardInterrupt):
    pass
for process in processes:
    process.wait(10)
"""
SIGNAL = "os.kill(os.getpid(), signal.{})".format


@pytest.mark.parametrize("ending", ["pass", "1 / 0", SIGNAL("SIGINT"), SIGNAL("SIGKILL")])
def test_busy_processes_end_with_their_block_or_the_program(ending):
    killed = -9 if "KILL" in ending else 0
    code = BESIDE_TWO.replace("ENDING", ending)
    pids = child(code=code, fails=killed, cwd=ROOT, timeout=60).stdout.split()
    assert len(pids) == 2
    end = time.monotonic() + 10
    while any(map(is_running, pids)):
        assert time.monotonic() < end
        time.sleep(0.01)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""  # empty once it has ended
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the repository")
def test_two_versions_are_compared(tmp_path):
    (tmp_path / "aside").mkdir()
    printed = run(
        "training", "--against", "HEAD", "--only", "8 inputs", "--rounds", "1", "--seconds", "0.001",
        "--json", tmp_path / "figures.json",
        environment={"TMPDIR": str(tmp_path / "aside"), "NUMBA_DISABLE_JIT": "1"},
    ).stdout  # fmt: skip
    [row] = json.loads((tmp_path / "figures.json").read_text())["rows"]
    there, here = row["microseconds"].values()
    assert row["name"] in printed and row["ratio"] == pytest.approx([there / here] * 3)
    assert not list((tmp_path / "aside").iterdir())  # the other version has been removed
    said = run("training", "--against", "nothing", fails=1).stderr
    assert said.startswith("--against: git says") and said.count("\n") == 1


def test_versions_are_compared_by_losses_and_three_ratios():
    def turns(loss, *times):
        return [([9.0, loss], seconds) for seconds in times]

    there = turns(1.0, (2.0, 3.0), (4.0, 5.0), (6.0, 60.0))
    row = versions.compare(training.OVERHEAD, there, turns(1.0, (1.0, 3.0), (1.0, 2.5), (1.0, 5.0)))
    assert row["microseconds"] == {"there": 4e6, "here": 1e6}
    assert row["ratio"] == (4.0, 3.0, 5.0) and row["ratio of means"][0] == 2.0
    assert row["ratio of the best"] == 2.0
    with pytest.raises(SystemExit, match="the loss is 1.0 there, 1.01 here"):
        versions.compare(training.OVERHEAD, there, turns(1.01, *[(1.0, 1.0)] * 3))


def test_the_limit_of_a_kernel_depends_on_the_size_of_its_arrays():
    def limit(kernel, *sizes):
        return kernels.limit(kernels.Case(kernel, *sizes), 100, [50, 40, 30, 20, 10])

    assert limit("relu", 32, 100) == pytest.approx(2 * 4 * 3200 / 50e9)  # smaller than all SETS
    assert limit("relu", 1000, 1000) == pytest.approx(8e6 / 40e9)  # between 4 and 16 MB
    assert limit("relu", 1, kernels.LARGE) == pytest.approx(128e6 / 10e9)
    assert limit("linear", 1000, 784, 100) == pytest.approx(2 * 78.4e6 / 100e9)
