"""Keep `notebooks/NN_name.ipynb`, for Colab, and `NN_name.py`, for review, equal.

`python -m tools.pairs` repairs the pairs, and `python -m tools.pairs --check` only checks them.
The notebook wins if it alone was changed since the last commit; otherwise the script wins.
"""

import argparse
import hashlib
import itertools
import shutil
import subprocess
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from tools import exercises
from tools.book import BUILD, COLAB, colab_cell, tags, write

NOTEBOOK_METADATA = {
    "jupytext": {"formats": "ipynb,py:percent", "notebook_metadata_filter": "-all"},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
CELL_METADATA = {"tags", "caption"}  # `caption` is that of the cell's table


def read_script(path: Path) -> NotebookNode:
    """Return the notebook that a percent script describes."""
    return jupytext.reads(path.read_text(encoding="utf-8"), fmt="py:percent")


def read_notebook(path: Path) -> NotebookNode:
    """Return the notebook in a file, as format 4."""
    return nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)


def tidy(notebook: NotebookNode, install: str) -> NotebookNode:
    """Return the same cells without outputs and other metadata, with ids from their content.

    The Colab cell is filled in, and solutions are folded.
    """
    seen: dict[str, itertools.count] = {}
    cells = []
    for old in exercises.folded(notebook).cells:
        source = install if COLAB in tags(old) else old.source.rstrip()
        metadata = {key: old.metadata[key] for key in sorted(CELL_METADATA & set(old.metadata))}
        if old.cell_type == "code":
            cell = nbformat.v4.new_code_cell(source, metadata=metadata)
        else:
            cell = nbformat.v4.new_markdown_cell(source, metadata=metadata)
        digest = hashlib.sha256(f"{cell.cell_type}\n{source}".encode()).hexdigest()[:8]
        repeat = next(seen.setdefault(digest, itertools.count()))
        cell["id"] = digest if repeat == 0 else f"{digest}-{repeat}"
        cells.append(cell)
    return nbformat.v4.new_notebook(cells=cells, metadata=NOTEBOOK_METADATA)


def notebook_text(notebook: NotebookNode, install: str) -> str:
    """Return the text of the `.ipynb` file."""
    return nbformat.writes(tidy(notebook, install), indent=1) + "\n"


def script_text(notebook: NotebookNode, install: str) -> str:
    """Return the text of the `.py` file."""
    return jupytext.writes(tidy(notebook, install), fmt="py:percent")


def difference(script: Path, notebook: Path) -> str | None:
    """Describe the first difference between the two files of a pair; None if there is none."""
    if not script.exists() or not notebook.exists():
        return f"notebooks/{(notebook if script.exists() else script).name} is missing"
    ours, theirs = read_script(script).cells, read_notebook(notebook).cells
    for number, (left, right) in enumerate(itertools.zip_longest(ours, theirs), start=1):
        where = f"notebooks/{script.name} and {notebook.name} differ in cell {number}"
        if left is None or right is None:
            return f"{where}: only {(notebook if left is None else script).name} has it"
        if left.cell_type != right.cell_type:
            return f"{where}: {left.cell_type} and {right.cell_type}"
        if left.source.rstrip() != right.source.rstrip():
            return f"{where}: the text"
        if left.metadata != right.metadata:
            return f"{where}: {dict(left.metadata)} and {dict(right.metadata)}"
    return None


def check(root: Path) -> list[str]:
    """Return the problems of the pairs under `root`, one sentence each."""
    install = colab_cell(root)
    problems = []
    for script, notebook in pairs(root):
        problem = difference(script, notebook)
        if problem is None and notebook.read_text(encoding="utf-8") != notebook_text(
            read_script(script), install
        ):
            problem = (
                f"notebooks/{notebook.name} has outputs, ids or metadata that do not belong there"
            )
        if problem is None and script.read_text(encoding="utf-8") != script_text(
            read_script(script), install
        ):
            problem = f"notebooks/{script.name} is not in the format of `make sync`"
        if problem is not None:
            problems.append(f"{problem}; run: make sync")
    return problems


def fix(root: Path) -> list[str]:
    """Make the pairs under `root` equal; return one sentence for each change."""
    install = colab_cell(root)
    done = []
    for script, notebook in pairs(root):
        if not script.exists() or (notebook.exists() and only_notebook_changed(script, notebook)):
            winner, cells = notebook, read_notebook(notebook)
        else:
            winner, cells = script, read_script(script)
        if notebook.exists() and winner == script and difference(script, notebook):
            kept = root / BUILD / "replaced" / notebook.name
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(notebook, kept)
        # Through the script and back, so that a second run finds nothing to do.
        text = script_text(cells, install)
        changed = [
            write(script, text),
            write(notebook, notebook_text(read_script(script), install)),
        ]
        if any(changed):
            done.append(f"{winner.relative_to(root)} won; the other file is rewritten")
    return done


def pairs(root: Path) -> list[tuple[Path, Path]]:
    """Return (script, notebook) of every chapter under `root`; one of the two may be missing."""
    folder = root / "notebooks"
    stems = sorted({path.stem for path in [*folder.glob("*.py"), *folder.glob("*.ipynb")]})
    return [(folder / f"{stem}.py", folder / f"{stem}.ipynb") for stem in stems]


def only_notebook_changed(script: Path, notebook: Path) -> bool:
    """Return whether the notebook was changed since the last commit, but not the script."""

    def changed(path: Path) -> bool:
        command = ["git", "status", "--porcelain", "--", path.name]
        try:
            answer = subprocess.run(
                command, cwd=path.parent, capture_output=True, text=True, check=False
            )
        except FileNotFoundError:  # a machine without git
            return True
        return answer.returncode != 0 or bool(answer.stdout.strip())

    return changed(notebook) and not changed(script)


def main() -> None:
    """Check or repair the pairs of the book in the current folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="Check without repairing.")
    root = Path.cwd()
    if parser.parse_args().check:
        if problems := check(root):
            raise SystemExit("\n".join(problems))
    else:
        for line in fix(root) or ["all pairs are equal"]:
            print(line)


if __name__ == "__main__":
    main()
