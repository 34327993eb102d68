"""The zip for a room without a network holds the site as it is, and a library that installs."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import sync_playwright

from medsaga_lib.models.weights import weight_file
from tools import offline, site
from tools.book import BookError
from tools.build import HTML

ROOT = Path(__file__).parents[2]
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


WITHOUT_A_NETWORK = """\
import socket, sys

def refused(*given, **named):
    raise OSError("this test has no network")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refused
from medsaga_lib.cli import main
from medsaga_lib.models.weights import path_of, weight_file
import medsaga_lib
files = [path_of(weight_file(name)) for name in ("lite_medsam", "minilm", "pocket")]
for file in (medsaga_lib.__file__, *files):
    assert str(file).startswith(sys.argv[1]), file
sys.argv = ["medsaga", *sys.argv[2:]]
main()
"""


@pytest.mark.slow
def test_the_stick_of_this_book_trains_without_a_network(tmp_path):
    """The zip of the built book, unpacked elsewhere: its wheels, weights and data do for a run."""
    if not (ROOT / HTML / "index.html").exists():
        pytest.skip("the book is not built: run make book first")
    try:
        offline.make(ROOT)
    except BookError as error:
        if "check the network" not in str(error):
            raise
        pytest.skip(str(error))
    with zipfile.ZipFile(ROOT / offline.OFFLINE) as packed:
        packed.extractall(tmp_path)
    top = tmp_path / offline.TOP
    pages = {page.relative_to(ROOT / HTML) for page in (ROOT / HTML).rglob("*.html")}
    assert {page.relative_to(top / "site") for page in (top / "site").rglob("*.html")} == pages
    installed = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "-q"]
    options = ["--find-links", "wheels", "--target", installed, "--disable-pip-version-check"]
    subprocess.run([*install, *options, "medsaga-lib", *offline.WEIGHTS], cwd=top, check=True)
    home = {"HOME": str(tmp_path), "MEDSAGA_CACHE": str(tmp_path / "cache")}
    environment = {**os.environ, **home, "PYTHONPATH": str(installed)}
    environment.pop("MEDSAGA_DATA", None)
    run = ["train", "--data", "data/phantom_cxr", "--shots", "2", "--out", tmp_path / "run"]
    run += ["--set", "steps=1", "--set", "image_encoder.copies=1", "--set", "batch=1"]
    command = [sys.executable, "-c", WITHOUT_A_NETWORK, installed, *run]
    done = subprocess.run(
        command, cwd=top, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert f"sha256:{run['backbone_sha256']}" == weight_file("lite_medsam").known_hash
    assert_page_is_whole(top / "site" / "notebooks" / "01_images_and_metrics.html")


# Images that wait until they are scrolled to are loaded first; 0 is the width of a missing one
WIDTHS = """all => Promise.all(all.map(async one => {
  one.loading = "eager";
  await one.decode().catch(() => {});
  return one.naturalWidth;
}))"""


def assert_page_is_whole(page: Path):
    """The page opens in a browser from its folder: its files load, and its links have a target."""
    if site.browser_path() is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=site.browser_path(), args=site.FLAGS)
        opened, asked, failed = browser.new_page(), [], []
        opened.on("request", lambda request: asked.append(request.url))
        opened.on("requestfailed", lambda request: failed.append(request.url))
        opened.goto(page.as_uri(), wait_until="load")
        images = opened.locator("article img")
        assert images.count() > 3
        widths = images.evaluate_all(WIDTHS)
        links = set(opened.locator("a[href]").evaluate_all("all => all.map(one => one.href)"))
        browser.close()
    assert all(widths)
    assert failed == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    files = {Path(unquote(urlsplit(link).path)) for link in links if link.startswith("file:")}
    assert len(files) > 20  # the chapters and the other pages
    assert [file for file in files if not file.exists()] == []
