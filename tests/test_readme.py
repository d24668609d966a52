"""The README tells the truth: its code runs as printed, and its counts are those of the source."""

import ast
import os
import re
import site
import subprocess
import sys
from pathlib import Path

from test_examples import assert_drawn

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def run(folder, *command, typed="", **environment):
    return subprocess.run(
        [sys.executable, *command], cwd=folder, input=typed, env=os.environ | environment,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_the_code_runs_as_printed(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # no file name: hypothesis would read the file
    exec(compile("".join(blocks("python")), "<README>", "exec"), {})
    printed = capsys.readouterr().out
    assert re.search(r"^tensor\(0.9\d+\)$", printed, re.M)
    (explained,) = blocks("text")
    assert explained in printed
    assert_drawn(tmp_path / "graph.png")


def test_the_recipe_for_an_operation_as_printed(tmp_path):
    (recipe,) = (block for block in blocks("python") if "def test_" in block)
    assert len([line for line in recipe.splitlines() if line]) <= 15
    (name,) = re.findall(r"python -m pytest (\w+\.py)", README)
    (tmp_path / name).write_text(recipe)
    passed = run(tmp_path, "-m", "pytest", name)
    assert passed.returncode == 0 and "1 passed" in passed.stdout, passed.stdout
    (tmp_path / name).write_text(recipe.replace("(1 - out)", "(1 + out)"))
    failed = run(tmp_path, "-m", "pytest", name)
    assert failed.returncode == 1 and "finite difference" in failed.stdout, failed.stdout


def test_the_debugger_shows_what_is_printed(tmp_path):
    (script,), (session,) = blocks("py"), blocks("console")
    typed = [line.removeprefix("(Pdb) ") for line in session.splitlines() if "(Pdb)" in line]
    (tmp_path / "relu.py").write_text(script)
    seen = run(
        tmp_path, "-m", "pdb", "relu.py", typed="\n".join([*typed, "quit\n"]), NUMBA_DISABLE_JIT="1",
        HOME=str(tmp_path), PYTHONUSERBASE=site.getuserbase(),  # without anybody's .pdbrc
    )  # fmt: skip
    shown = seen.stdout.replace("(Pdb) ", "").replace(f"{ROOT}/", "").replace(f"{tmp_path}/", "")
    shown = re.sub(r"\(\d+\)", "(…)", re.sub(r"py:\d+", "py:…", shown))
    expected = [line for line in session.splitlines() if not line.startswith(("$", "(Pdb)"))]
    assert shown.splitlines() == expected, seen.stdout + seen.stderr


def source_lines(text):
    """Lines that are neither blank, nor comments, nor docstrings."""
    documented = set()
    for node in ast.walk(ast.parse(text)):
        documentable = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        if documentable and ast.get_docstring(node):
            documented.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and number not in documented
        for number, line in enumerate(text.splitlines(), 1)
    )


LINES = {
    path.stem: source_lines(path.read_text()) for path in sorted((ROOT / "minigrad").glob("*.py"))
}


def test_core_stays_within_700_source_lines():
    core = ["kernels", "tensor", "ops", "functional", "nn", "optim"]
    beside = ["creation", "operators"]  # comfort, without derivatives
    assert sum(LINES[room] for room in core) <= 700
    assert sum(LINES[room] for room in core + beside) <= 860


def test_the_tour_visits_every_room_and_counts_its_lines():
    rows = re.findall(r"^\| (`minigrad/.*?`) \| (\d+) \|", README, re.M)
    printed = {tuple(re.findall(r"`minigrad/(\w+)\.py`", files)): int(n) for files, n in rows}
    assert printed == {rooms: sum(LINES[room] for room in rooms) for rooms in printed}
    assert {room for rooms in printed for room in rooms} == set(LINES)
