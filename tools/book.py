"""What every tool knows of the book: its address, its chapters, the conventions of a chapter."""

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from nbformat import NotebookNode

BUILD = Path("_build")

# Tags that the tools give a meaning to; CONTRIBUTING.md says which.
COLAB, PARAMETERS, DATA = "colab", "parameters", "data"
EXERCISE, SOLUTION, CHECK = "exercise", "solution", "exercise-check"

BUDGET = re.compile(
    r"^\*\*Budget\*\* (?P<minutes>[\d.]+) minutes? on two CPU cores, "
    r"(?P<gigabytes>[\d.]+) GB of memory, (?P<megabytes>\d+) MB to download$",
    re.MULTILINE,
)

COLAB_CELL = """\
# Colab only: fetch the book and its library, leave Colab's own torch and numpy as they are.
import importlib.util, os, subprocess, sys

if "google.colab" in sys.modules:
    if not os.path.isdir("/content/book"):
        clone = ["git", "clone", "-q", "--depth", "1", "{address}", "/content/book"]
        subprocess.run(clone, check=True)
    if importlib.util.find_spec("medsaga_lib") is None:
        install = [sys.executable, "-m", "pip", "install", "-q", "/content/book[galore]"]
        subprocess.run(install, check=True)
    os.chdir("/content/book/notebooks")
"""
SOLUTION_TITLE = "# @title Solution"  # what Colab shows of a folded cell


class BookError(Exception):
    """What is wrong with the book, where, and what to do: shown without a traceback."""


@dataclass(frozen=True)
class Budget:
    """What a chapter says it costs, in minutes, GB (10^9 bytes) and MB (10^6 bytes)."""

    minutes: float
    gigabytes: float
    megabytes: int


def settings(root: Path) -> dict[str, Any]:
    """The book's `_config.yml`."""
    return yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))


def address(root: Path) -> str:
    """The repository's web address, which is written down in `_config.yml` only."""
    return settings(root)["repository"]["url"].rstrip("/")


def colab_cell(root: Path) -> str:
    """The first code cell of every chapter."""
    return COLAB_CELL.format(address=address(root)).rstrip()


def pages(root: Path) -> list[str]:
    """All files that `_toc.yml` names, in reading order."""

    def walk(entry: Any) -> Iterator[str]:
        for item in entry if isinstance(entry, list) else [entry]:
            if "root" in item or "file" in item:
                yield item.get("root") or item["file"]
            for key in ("parts", "chapters", "sections"):
                yield from walk(item.get(key, []))

    return list(walk(yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))))


def chapters(root: Path) -> list[Path]:
    """The notebooks that `_toc.yml` names, relative to `root`, in reading order."""
    return [Path(page) for page in pages(root) if page.endswith(".ipynb")]


def tags(cell: NotebookNode) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells of a notebook."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def budget(notebook: NotebookNode) -> Budget | None:
    """What the first cell declares, or None where it does not."""
    found = BUDGET.search(notebook.cells[0].source) if notebook.cells else None
    if found is None:
        return None
    return Budget(float(found["minutes"]), float(found["gigabytes"]), int(found["megabytes"]))


def in_ci() -> bool:
    """Whether this runs on a build server, where what is elsewhere a warning is an error."""
    return os.environ.get("CI", "").lower() in {"1", "true"}


def write(path: Path, text: str) -> bool:
    """Writes `text` only where it differs, so that the file's time says when it last changed."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
    return True


def copy(source: Path, target: Path) -> None:
    """Copies a file with its time."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)
