"""This minigrad against that of another commit, by turns: did a change cost speed?

This is ``python -m benchmarks.training --against COMMIT``. Each version runs in its own process and
compiles its own kernels; both take the same steps from the same weights.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import zipfile
from functools import partial
from pathlib import Path

from . import common

ROOT = Path(__file__).resolve().parents[1]


def git(*arguments):
    try:
        return subprocess.run(
            ["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.strip()
    except FileNotFoundError:
        raise SystemExit("--against needs git, which is not installed") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"--against: git says {error.stderr.strip()!r}") from None


def check_out(commit, folder):
    """Put the minigrad of that commit into the folder."""
    archive = folder / "minigrad.zip"
    git("archive", "--format=zip", f"--output={archive}", commit, "minigrad")
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)


def serve(folders, caches, serve_minigrad, connection, version):
    """Serve with the minigrad in the folder of that version."""
    os.environ["NUMBA_CACHE_DIR"] = str(caches / version)
    sys.path.insert(0, str(folders[version]))
    import minigrad

    assert Path(minigrad.__file__).parent == folders[version] / "minigrad", minigrad.__file__
    serve_minigrad(connection, "minigrad")


def compare(problem, there, here):
    """One row, from what the two versions answered: first losses, then (median, mean) seconds."""
    old, new = there[0][0][-1], here[0][0][-1]
    if not abs(old - new) < 1e-4 * max(1, abs(old)):
        raise SystemExit(f"{problem.name}: the loss is {old} there, {new} here")
    old, old_means = zip(*(times for _, times in there))
    new, new_means = zip(*(times for _, times in here))
    return {
        "name": problem.name,
        "microseconds": {"there": 1e6 * statistics.median(old), "here": 1e6 * statistics.median(new)},
        "ratio": common.ratio(old, new),
        "ratio of means": common.ratio(old_means, new_means),
        "ratio of the best": min(old) / min(new),
    }  # fmt: skip


def main(args, problems, serve_minigrad):
    """Compare; `serve_minigrad` answers a worker's questions about the minigrad it can import."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder).resolve()
        check_out(args.against, folder)
        commit = git("log", "-1", "--format=%h of %as", args.against)
        print(f"there: commit {commit}; here: the files as they are", flush=True)
        versions = {"there": folder, "here": ROOT}
        with common.Workers(partial(serve, versions, folder, serve_minigrad), versions) as workers:
            for problem in problems:
                turns = args.rounds, problem, args.seconds
                rows.append(compare(problem, **common.take_turns(workers, list(versions), *turns)))
                print(f"  measured: {problem.name}", flush=True)
    header = [
        "hidden, batch", "there µs", "here µs", "there/here (quartiles)", "of the means",
        "of the best",
    ]  # fmt: skip
    table = [
        [
            row["name"], *(f"{t:,.0f}" for t in row["microseconds"].values()),
            common.shown(row["ratio"], quartiles=True), common.shown(row["ratio of means"]),
            f"{row['ratio of the best']:.2f}",
        ]
        for row in rows
    ]  # fmt: skip
    print()
    common.print_table(header, table)
    print()
    goals = [
        common.goal(f"{what}, {row['name']}", row[key][0], 0.97)
        for row in rows
        for what, key in (("there / here", "ratio"), ("the same, of means", "ratio of means"))
    ]
    title = f"there: commit {commit}"
    common.write_figures(args, {title: (header, table)}, goals, against=commit, rows=rows)


if __name__ == "__main__":
    raise SystemExit("To compare two versions: python -m benchmarks.training --against COMMIT")
