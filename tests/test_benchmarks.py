"""The benchmarks, each on one small row: table, goals, figures and picture."""

import json

import pytest
from helpers import ROOT, child


def run(program, *arguments):
    return child("-m", f"benchmarks.{program}", *arguments, cwd=ROOT).stdout


@pytest.mark.parametrize(
    "program, row", [("kernels", "log_softmax 32x10"), ("training", "[], batch 500")]
)
def test_a_benchmark_measures_a_row(program, row, tmp_path):
    printed = run(
        program, "--only", row, "--rounds", "2", "--seconds", "0.001",
        "--json", tmp_path / "figures.json", "--png", tmp_path / "picture.png",
    )  # fmt: skip
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert row in printed and figures["rows"][0]["name"] == row
    ratio, low, high = figures["rows"][0]["ratio"]["torch"]
    assert 0 < low <= ratio <= high
    assert {goal["pass"] for goal in figures["goals"]} <= {True, False} and figures["goals"]
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_every_benchmark_has_help():
    for program in ("kernels", "training", "startup"):
        assert "--json FILE" in run(program, "--help")
