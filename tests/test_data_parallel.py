"""The script on data-parallel descent: with real processes, without MPI, and with a wrong one."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import LECTURE, assert_drawn, child

(SCRIPT,) = (path for path in LECTURE if path.stem == "9_data_parallel")
SECONDS = 300  # for one run on a busy machine: a run that hangs fails
CLAIMS = [
    "The average of the shares' gradients, weighted by examples, is that of the whole batch",
    "Without the weights, uneven shares give another gradient",
    "Ranks with a share each reach the parameters of one process with the whole batches",
]


def held(printed):
    assert "DOES NOT HOLD" not in printed
    return re.findall(r"^Holds: ([^(\n]+) \(", printed, re.M)


@pytest.mark.mpi
def test_three_real_ranks(tmp_path):
    beside = Path(sys.executable).parent
    mpiexec = shutil.which("mpiexec", path=beside) or shutil.which("mpiexec")
    python = sys.executable, "-m", "mpi4py", SCRIPT, "--quick"
    with subprocess.Popen(
        [mpiexec, "-n", "3", *map(str, python)], cwd=tmp_path, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            printed, error = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.terminate()  # mpiexec then ends the ranks
            raise
    assert process.returncode == 0 and "Traceback" not in error, printed + error
    assert held(printed) == CLAIMS  # once: rank 0 alone prints
    assert "3 real ranks, 10 steps" in printed
    last = re.fullmatch("Seconds of 3 ranks: (.*)", printed.splitlines()[-1])
    figures = json.loads(last[1])
    assert min(figures["step"]) > 0 and min(figures["allreduce"]) > 0
    assert figures["step"] == sorted(figures["step"]) and len(figures["allreduce"]) == 7


@pytest.mark.mpi
def test_a_plain_run_measures_two_ranks(tmp_path):
    printed = child(SCRIPT, "--quick", cwd=tmp_path, timeout=2 * SECONDS).stdout
    assert "4 simulated ranks" in printed and "Without several" not in printed
    measured = re.findall(r"^Ranks: (\d+).* A step: ([\d.]+) ms", printed, re.M)
    assert [ranks for ranks, _ in measured] == ["1", "2"]
    assert all(float(milliseconds) > 0 for _, milliseconds in measured)
    assert len(re.findall(r"^   an Allreduce: ", printed, re.M)) == 1
    assert held(printed)[:3] == CLAIMS
    assert_drawn(tmp_path / "figures" / "9_data_parallel.png")


def without(code, *arguments):
    """A command that runs the script after `code`."""
    code = f"import runpy, sys\n{code}\nsys.argv = [{str(SCRIPT)!r}, *sys.argv[1:]]\n"
    code += f"sys.path.insert(0, {str(SCRIPT.parent)!r})\nrunpy.run_path(sys.argv[0])"
    return "-u", "-c", code, "--quick", *arguments


def test_without_mpi4py(tmp_path):
    done = child(*without("sys.modules['mpi4py'] = None"), cwd=tmp_path, timeout=2 * SECONDS)
    assert re.findall("^Without .*", done.stdout, re.M) == [
        "Without several ranks: to measure them, pip install -e '.[mpi]'"
    ]
    assert held(done.stdout)[:3] == CLAIMS and "Traceback" not in done.stderr
    assert re.findall(r"^Ranks: (\d+)", done.stdout, re.M) == ["1"]
    assert_drawn(tmp_path / "figures" / "9_data_parallel.png")


@pytest.mark.mpi
@pytest.mark.skipif(os.name != "posix", reason="mpiexec is a shell script here")
@pytest.mark.parametrize(
    "mpiexec, reason",
    [
        # each rank is alone
        (
            'shift 2; echo again >> log; [ $(wc -l < log) = 1 ] && exec "$@"',
            "started no such ranks",
        ),
        ("echo this is the reason >&2; exit 1", "started no such ranks. this is the reason"),
    ],
)
def test_another_mpiexec(tmp_path, mpiexec, reason):
    path = tmp_path / "mpiexec"
    path.write_text(f"#!/bin/sh\n{mpiexec}\n")
    path.chmod(0o755)
    command = without(f"import shutil\nshutil.which = lambda *_, **__: {str(path)!r}")
    with subprocess.Popen(
        [sys.executable, *command], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            lines = iter(process.stdout.readline, "")
            assert next(line for line in lines if line.startswith("Without 2 ranks: ")).endswith(
                f"{reason}\n" if "exit" in mpiexec else f"{reason}. \n"
            )
            assert next(lines).startswith("Ranks: 1. ")  # and it goes on
        finally:
            process.kill()
    if "log" in mpiexec:
        assert (tmp_path / "log").read_text() == "again\n"  # it has not started mpiexec itself


def running(folder):
    """The processes on whose command line the folder is."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(folder) in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # it has ended
            pass
    return found


@pytest.mark.mpi
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
def test_ctrl_c_ends_the_ranks(tmp_path):
    sleep = (
        "import os, time\nif 'PMI_RANK' in os.environ:\n    time.sleep(200)"  # not over too soon
    )
    (tmp_path / "sitecustomize.py").write_text(sleep)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path), "--quick"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": path},
        start_new_session=True,  # Ctrl-C reaches this process alone, not those it starts
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        try:
            while len(running(tmp_path)) < 4 and process.poll() is None:  # mpiexec, two ranks
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130 and error.endswith("Stopped by Ctrl-C.\n")
    ends = time.monotonic() + 30
    while running(tmp_path) and time.monotonic() < ends:
        time.sleep(0.1)
    left = running(tmp_path)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left
