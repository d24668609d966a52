"""What a release holds: the sdist every file of the repository, the wheel only the package."""

import email
import re
import shutil
import subprocess
import tarfile
import zipfile

import pytest
from helpers import ROOT, child


def build(kind, folder):
    """Build with the setuptools that is installed; return the path of the archive."""
    child(code=f"from setuptools import build_meta; build_meta.build_{kind}('dist')", cwd=folder)
    (archive,) = (folder / "dist").iterdir()
    return archive


@pytest.fixture(scope="module")
def tracked():
    """The names of the files that git tracks."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs the repository")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return {name for name in listed.split("\0") if (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def unpacked(tracked, tmp_path_factory):
    """The folder of an sdist, built from a copy, since setuptools packs what an old egg-info lists."""
    folder = tmp_path_factory.mktemp("packaging")
    for name in tracked:
        (folder / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "copy" / name)
    with tarfile.open(build("sdist", folder / "copy")) as file:
        file.extractall(folder / "unpacked", filter="data")
    (root,) = (folder / "unpacked").iterdir()
    return root


def names_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_sdist_holds_every_file_of_the_repository(tracked, unpacked):
    packed = {name for name in names_in(unpacked) if ".egg-info/" not in name}
    assert not tracked - packed, f"MANIFEST.in leaves out {sorted(tracked - packed)}"
    assert packed - tracked == {"PKG-INFO"}


def test_the_wheel_of_the_sdist_holds_the_package_alone(tracked, unpacked):
    with zipfile.ZipFile(build("wheel", unpacked)) as file:
        packed = {name for name in file.namelist() if ".dist-info/" not in name}
        (metadata,) = (name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(file.read(metadata))
    assert packed == {name for name in tracked if name.startswith("minigrad/")}
    assert metadata["Author"] in (ROOT / "LICENSE").read_text()


def test_the_page_on_an_index_stands_alone(capsys):
    """There, a relative link or picture leads nowhere."""
    page = (ROOT / "docs" / "package.md").read_text(encoding="utf-8")
    assert not re.search(r"\]\((?!https://)|<img|<a ", page)
    ((code, printed),) = re.findall("```python\n(.*?)```\n\n```text\n(.*?)```", page, re.S)
    exec(code, {})
    assert capsys.readouterr().out == printed
