"""Common parts of the tools: address and chapters of the book, conventions of a chapter, files."""

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from nbformat import NotebookNode

from medsaga_lib.files import replacing

BUILD = Path("_build")

# Cell tags with a meaning for the tools; CONTRIBUTING.md explains them.
COLAB, PARAMETERS, DATA, REAL = "colab", "parameters", "data", "real"
FIGURE = "figure"
EXERCISE, SOLUTION, CHECK = "exercise", "solution", "exercise-check"

KINDS = "calculate", "experiment", "find the fault"
EXERCISE_TITLE = re.compile(
    rf"^### Exercise (?P<number>\d): (?P<kind>{'|'.join(KINDS)}) "
    r"\((?P<level>easy|medium|hard), (?P<minutes>\d+) minutes?\)$",
    re.MULTILINE,
)

BUDGET = re.compile(
    r"^\*\*Budget\*\* (?P<minutes>[\d.]+) minutes? on two CPU cores, "
    r"(?P<gigabytes>[\d.]+) GB of memory, (?P<megabytes>\d+) MB to download$",
    re.MULTILINE,
)

COLAB_CELL = """\
# Colab only: fetch the book and its library. Colab's torch and numpy stay.
import importlib.util, os, subprocess, sys

if "google.colab" in sys.modules:
    book = "/content/book"
    if not os.path.isdir(book):
        address = "{address}"
        clone = ["git", "clone", "-q", "--depth", "1", address, book]
        subprocess.run(clone, check=True)
    if importlib.util.find_spec("medsaga_lib") is None:
        subprocess.run([sys.executable, book + "/tools/colab.py"], check=True)
    os.chdir(book + "/notebooks")
"""

TABLE = re.compile(r"^\|.*\|\n\| ?:?-", re.MULTILINE)  # in Markdown
TABLE_CAPTION = re.compile(r"^Table: (?=.+\n\n\|)", re.MULTILINE)
DRAWS = re.compile(r"\bdisplay\.(show|interactive)\(")


class BookError(Exception):
    """An error in the book: its message says what is wrong, where, and what to do."""


@dataclass(frozen=True)
class Budget:
    """Declared cost of a chapter: minutes, GB of memory (10^9 bytes), MB to download (10^6)."""

    minutes: float
    gigabytes: float
    megabytes: int


def settings(root: Path) -> dict[str, Any]:
    """Content of the book's `_config.yml`."""
    return yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))


def address(root: Path) -> str:
    """Web address of the repository, from `_config.yml`."""
    return settings(root)["repository"]["url"].rstrip("/")


def colab_cell(root: Path) -> str:
    """Source of the first code cell of every chapter, which prepares Colab."""
    return COLAB_CELL.format(address=address(root)).rstrip()


def pages(root: Path) -> list[str]:
    """All files in `_toc.yml`, in reading order."""

    def walk(entry: Any) -> Iterator[str]:
        for item in entry if isinstance(entry, list) else [entry]:
            if "root" in item or "file" in item:
                yield item.get("root") or item["file"]
            for key in ("parts", "chapters", "sections"):
                yield from walk(item.get(key, []))

    return list(walk(yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))))


def chapters(root: Path) -> list[Path]:
    """Paths of the notebooks in `_toc.yml`, relative to `root`, in reading order."""
    return [Path(page) for page in pages(root) if page.endswith(".ipynb")]


def tags(cell: NotebookNode) -> list[str]:
    """Tags of a cell."""
    return cell.metadata.get("tags", [])


def is_figure(cell: NotebookNode) -> bool:
    """Return whether a cell draws a figure, or prepares one, and teaches nothing else."""
    return FIGURE in tags(cell) or (EXERCISE not in tags(cell) and bool(DRAWS.search(cell.source)))


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Code cells of a notebook."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def budget(notebook: NotebookNode) -> Budget | None:
    """Budget that the first cell declares, or None if it declares none."""
    found = BUDGET.search(notebook.cells[0].source) if notebook.cells else None
    if found is None:
        return None
    return Budget(float(found["minutes"]), float(found["gigabytes"]), int(found["megabytes"]))


def in_ci() -> bool:
    """Whether this runs on a build server, which treats warnings as errors."""
    return os.environ.get("CI", "").lower() in {"1", "true"}


def write(path: Path, text: str) -> bool:
    """Write `text` if it differs from the file, which otherwise keeps its time; True if written.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return True


def megabytes(path: Path) -> str:
    """Size of a file, or of all files in a folder, as `12.3 MB` (10^6 bytes)."""
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return f"{sum(one.stat().st_size for one in files) / 1e6:.1f} MB"


def copy(source: Path, target: Path) -> None:
    """Copy a file together with its time."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)
