"""The conclusions of the lecture's scripts hold for every seed; each script also runs quickly."""

import re

import pytest
from helpers import LECTURE, ROOT, assert_drawn, child

PAGE = ROOT / "docs" / "lecture.md"


def claims(folder, script, *arguments, **environment):
    """Run a script of the lecture and return {claim: whether it holds}; no picture may be blank."""
    done = child(
        script, "--out", folder / "pictures", *arguments, timeout=600,
        environment={"PYTHONIOENCODING": "ascii"} | environment,
    )  # fmt: skip
    assert "?" not in done.stdout  # every character that ASCII lacks has its replacement
    named = re.findall(r"pictures[\\/](\w+\.\w+)", done.stdout)
    assert named and sorted(named) == sorted(p.name for p in (folder / "pictures").iterdir())
    for name in named:
        if not name.endswith("html"):
            assert_drawn(folder / "pictures" / name)
    found = re.findall(r"^(Holds|DOES NOT HOLD): ([^(\n]+)", done.stdout, re.M)
    sentences = {sentence.strip(): verdict == "Holds" for verdict, sentence in found}
    assert len(sentences) == len(found) >= 2
    return sentences


@pytest.mark.parametrize("script", LECTURE, ids=lambda path: path.stem)
def test_quick(script, tmp_path):
    found = claims(tmp_path, script, "--quick")
    assert all(found.values()), found
    section = (
        PAGE.read_text(encoding="utf-8")
        .split(f"`python examples/{script.name}`")[1]
        .split("\n## ")[0]
    )
    assert re.findall("^- (.*)", section, re.M) == list(found)


def test_the_page_shows_every_picture_and_names_every_script():
    text = PAGE.read_text(encoding="utf-8")
    shown = re.findall(r"\]\(pictures/(\S+)\)", text)
    there = {path.name for path in (PAGE.parent / "pictures").iterdir()}
    assert {*shown, "graph.png"} == there - {"steps.gif", "steps.py"}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in (*LECTURE, ROOT / "examples" / "train_mlp.py"):
        assert f"`python examples/{path.name}" in text and f"`examples/{path.name}`" in readme
    assert set(re.findall(r"docs/pictures/([\w.]+)", readme)) <= {*shown, "graph.png", "steps.gif"}


@pytest.mark.slow
@pytest.mark.parametrize("data", ["digits", "mnist"])
@pytest.mark.parametrize("script", LECTURE, ids=lambda path: path.stem)
def test_every_seed(script, data, tmp_path, request):
    root = str(request.getfixturevalue("mnist_root")) if data == "mnist" else ""
    sentences = set()
    for seed in range(10):
        arguments = "--seed", seed, "--data", data
        found = claims(tmp_path / str(seed), script, *arguments, MINIGRAD_DATA=root)
        assert all(found.values()), (seed, found)
        sentences.add(tuple(found))
    assert len(sentences) == 1  # a claim is not chosen by its numbers
