"""The zip for a room without a network holds the site as it is, and a library that installs."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools import offline
from tools.book import BookError
from tools.build import HTML

PROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "medsaga-lib"
version = "0.1.0"

[tool.setuptools]
packages = ["medsaga_lib"]
"""


@pytest.fixture
def built(small_book, tmp_path_factory, monkeypatch):
    """A book with a site of two files; without weights, and with one file instead of phantoms."""
    root, drawn = small_book.root, tmp_path_factory.mktemp("phantoms")
    (drawn / "images").mkdir()
    (drawn / "images" / "one.png").write_bytes(b"drawn")
    (root / "pyproject.toml").write_text(PROJECT)
    (root / "LICENSE").write_text("free\n")
    (root / HTML / "_static").mkdir(parents=True)
    (root / HTML / "index.html").write_text("<p>A word.</p>")
    (root / HTML / "_static" / "book.css").write_text("p {}")
    (root / "notebooks" / "recorded").mkdir()
    (root / "notebooks" / "recorded" / "one.json").write_text("{}")
    monkeypatch.setattr(offline, "WEIGHTS", ())
    monkeypatch.setattr(offline, "write_once", lambda: drawn)
    return root


@pytest.mark.slow
def test_the_zip_is_complete_and_its_library_installs_without_a_network(built, tmp_path_factory):
    said = offline.make(built)
    assert said.startswith("offline: _build/offline/book.zip, 8 files, 0.0 MB")
    folder = tmp_path_factory.mktemp("stick")
    with zipfile.ZipFile(built / offline.OFFLINE) as packed:
        packed.extractall(folder)
    top = folder / offline.TOP
    for name in ("index.html", "_static/book.css"):
        assert (top / "site" / name).read_bytes() == (built / HTML / name).read_bytes()
    for name in ("notebooks/01_small.ipynb", "notebooks/recorded/one.json", "requirements.txt"):
        assert (top / name).read_bytes() == (built / name).read_bytes()
    assert (top / "data" / "phantom_cxr" / "images" / "one.png").read_bytes() == b"drawn"
    command = next(
        line.split()
        for line in (top / "README.txt").read_text().splitlines()
        if "--no-index" in line
    )
    options = ["--target", "installed", "--disable-pip-version-check", "-q"]
    subprocess.run([sys.executable, "-m", *command, *options], cwd=top, check=True)
    assert (top / "installed" / "medsaga_lib" / "one.py").read_text() == "one = 1\n"
    assert not (built / "build").exists()  # nothing is left behind
    assert not list(built.glob("*.egg-info"))


def test_what_pip_says_is_one_sentence(built, monkeypatch):
    (built / "pyproject.toml").write_text("[project\n")
    with pytest.raises(BookError, match=r"^the wheel of the library cannot be made \(.*\)\.$"):
        offline.wheel(built, built / "wheels")


def test_the_book_comes_first(tmp_path):
    with pytest.raises(BookError, match="run: make book"):
        offline.make(Path(tmp_path))
