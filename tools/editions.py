"""Make the editions of students and of instructors from the chapters that `make book` executed.

Students get exercises without solutions. Instructors get times, notes and open solutions. Each
edition is a site and a folder of notebooks.
"""

import argparse
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from tools import book, build, exercises, pairs, syllabus
from tools.book import BUILD, BookError
from tools.execute import STAGE, inputs

GUIDE = Path("book/instructors.md")
CHANGES = "changes"  # tag of what an edition adds to a chapter
LAUNCH = re.compile(r"^launch_buttons:\n(?: .*\n)+", re.MULTILINE)  # of _config.yml
DETAILS = re.compile(r'<details(?: class="answers")?><summary>')

Change = Callable[[NotebookNode, str], NotebookNode]


def student(notebook: NotebookNode, notes: str = "") -> NotebookNode:
    """Return a chapter without solutions, and without what its checks say about them."""
    notebook.cells = [cell for cell in notebook.cells if book.SOLUTION not in book.tags(cell)]
    for cell in book.code_cells(notebook):
        if book.CHECK in book.tags(cell):
            cell.outputs, cell.execution_count = [], None
    return exercises.folded(notebook)


def instructor(notebook: NotebookNode, notes: str) -> NotebookNode:
    """Return a chapter with its times and notes below the title, and with open answers."""
    notebook = exercises.unfolded(notebook)
    cells = [notebook.cells[0], added(f"## For instructors\n\n{timing(notebook)}\n\n{notes}")]
    slow = notebook.metadata.get("medsaga", {}).get("slow", {})
    for cell in notebook.cells[1:]:
        if seconds := slow.get(cell.get("id")):
            cells.append(added(f"**The next cell took {seconds} seconds.**"))
        if book.SOLUTION in book.tags(cell):
            cell.metadata.pop("mystnb", None)
            cell.metadata["tags"] = [tag for tag in book.tags(cell) if tag != "hide-cell"]
            cells.append(added("**Expected answer**"))
        elif cell.cell_type == "markdown":
            # without their class, the answers to a question do not become a form
            cell.source = DETAILS.sub("<details open><summary>", cell.source)
        cells.append(cell)
    notebook.cells = cells
    return notebook


def added(source: str) -> NotebookNode:
    """Return a Markdown cell that only an edition has."""
    return nbformat.v4.new_markdown_cell(source.strip(), metadata={"tags": [CHANGES]})


def timing(notebook: NotebookNode) -> str:
    """Return a table with the minutes of a chapter: lesson, running and exercises."""
    minutes = syllabus.minutes(notebook)
    rows = [
        "| part | minutes |",
        "| --- | --- |",
        f"| the text, read aloud | {minutes.text} |",
        f"| the predictions | {minutes.predictions} |",
        f"| the cells, run | {minutes.cells} |",
    ]
    for number, one in minutes.exercises.items():
        rows.append(f"| exercise {number} ({one.level}) | {one.minutes} |")
    return "\n".join([*rows, f"| **all** | **{minutes.lesson + minutes.all_exercises}** |"])


def notes_of(root: Path, chapter: Path) -> str:
    """Return the notes on a chapter, which stand below its heading in the instructor's guide.

    Links to pages beside the guide become links from the folder of the chapters.
    """
    guide = (root / GUIDE).read_text(encoding="utf-8") if (root / GUIDE).exists() else ""
    heading = rf"^### \[[^\]]*\]\([^)]*{re.escape(chapter.name)}\)\n(?P<notes>.*?)(?=^##|\Z)"
    found = re.search(heading, guide, re.MULTILINE | re.DOTALL)
    notes = found["notes"].strip() if found else ""
    return re.sub(r"\]\((?=[\w-]+\.md\b)", f"](../{GUIDE.parent}/", notes)


def make(root: Path, name: str, change: Change) -> str:
    """Make an edition in `_build/NAME`; return a line that says what and where it is.

    Raises:
        BookError: the book is not built, or jupyter-book warns.
    """
    if not (root / STAGE / "_toc.yml").exists():
        raise BookError("the book is not built yet; run: make book.")
    folder = BUILD / name
    mirror(root, root / folder / "stage", change)
    build.render(root, folder / "stage", folder)
    notebooks = hand_out(root, root / folder, change)
    site = folder / BUILD / "html"
    size = book.megabytes(root / site)
    return f"{name} edition: {site}/index.html ({size}), and {notebooks} notebooks beside it"


def mirror(root: Path, folder: Path, change: Change) -> None:
    """Copy the staged tree into `folder` with changed chapters; files that are equal keep times."""
    written = set()
    chapters = set(book.chapters(root))
    for source in sorted(path for path in (root / STAGE).rglob("*") if path.is_file()):
        file = source.relative_to(root / STAGE)
        written.add(folder / file)
        if file in chapters:
            notebook = change(pairs.read_notebook(source), notes_of(root, file))
            book.write(folder / file, nbformat.writes(notebook, indent=1))
        elif change is student and file.name == "_config.yml":
            # the rocket would open the published notebook, which has the solutions
            book.write(folder / file, LAUNCH.sub("", source.read_text(encoding="utf-8")))
        else:
            book.copy(source, folder / file)
    for path in [path for path in folder.rglob("*") if path.is_file() and path not in written]:
        path.unlink()


def hand_out(root: Path, folder: Path, change: Change) -> int:
    """Write the notebooks without outputs, and what they read, to run; return how many."""
    shutil.rmtree(folder / "notebooks", ignore_errors=True)
    chapters = book.chapters(root)
    for chapter in chapters:
        notebook = change(pairs.read_notebook(root / chapter), notes_of(root, chapter))
        book.write(folder / chapter, nbformat.writes(notebook, indent=1) + "\n")
    for file in inputs(root):
        book.copy(root / file, folder / file)
    return len(chapters)


EDITIONS: dict[str, Change] = {"student": student, "instructor": instructor}


def main() -> None:
    """Make one edition in the current folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("edition", choices=EDITIONS)
    name = parser.parse_args().edition
    try:
        print(make(Path.cwd(), name, EDITIONS[name]))
    except BookError as error:
        raise SystemExit(f"make {name} stopped: {error}") from error


if __name__ == "__main__":
    main()
