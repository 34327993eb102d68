"""Proves that an exercise can be failed: without its solution, its check must say what is wrong.

That the solution passes is proven by executing the chapter, solutions and checks included.
"""

from pathlib import Path

from nbclient import NotebookClient
from nbformat import NotebookNode

from tools import book, pairs
from tools.execute import HUNG, kernel_environment


def unsolved(notebook: NotebookNode) -> NotebookNode:
    """The notebook as a reader finds it, up to its last check: without the solutions."""
    checks = [number for number, cell in enumerate(notebook.cells) if is_check(cell)]
    cells = notebook.cells[: checks[-1] + 1] if checks else []
    notebook.cells = [cell for cell in cells if book.SOLUTION not in book.tags(cell)]
    return notebook


def is_check(cell: NotebookNode) -> bool:
    """Whether a cell checks an exercise."""
    return book.CHECK in book.tags(cell)


def unfailed(root: Path, chapter: Path) -> list[str]:
    """What is wrong with the checks of a chapter: those that a stub does not fail as it should.

    A check must raise an AssertionError that says what is wrong; the stub itself must run.
    Executes the chapter in a kernel of its own, in the folder of the notebooks.
    """
    notebook = unsolved(pairs.read_notebook(root / chapter))
    client = NotebookClient(
        notebook,
        timeout=HUNG,
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": str((root / chapter).parent)}},
    )
    client.execute(env=kernel_environment())
    problems, count = [], 0
    for cell in book.code_cells(notebook):
        errors = [output for output in cell.outputs if output.output_type == "error"]
        if is_check(cell):
            count += 1
            where = f"{chapter}: the check of exercise {count}"
            if not errors:
                problems.append(f"{where} passes without the solution")
            elif errors[0].ename != "AssertionError" or not errors[0].evalue.strip():
                said = f"{errors[0].ename}: {errors[0].evalue}"
                problems.append(f"{where} must raise an AssertionError that says why, not '{said}'")
        elif errors and book.EXERCISE in book.tags(cell):
            problems.append(f"{chapter}: a stub does not run: {errors[0].ename}")
    return problems
