"""Prove that the check of an exercise fails without the solution and says what is wrong.

The proofs are cells that run with the chapter, each between a stub and its solution, and are
removed afterwards. The cells of the chapter itself prove that the solution passes.
"""

import json

import nbformat
from nbformat import NotebookNode

from tools import book

PROOF = "exercise-proof"  # tag of a cell that no reader sees

# The check runs in a copy of the chapter's names, so its own names do not reach the solution.
SOURCE = """\
def _proof():
    import json

    try:
        exec({check!r}, dict(globals()))
    except Exception as error:
        return json.dumps([type(error).__name__, str(error)])
    return json.dumps(None)


print("\\n" + _proof())"""


def with_proofs(notebook: NotebookNode) -> NotebookNode:
    """Return the notebook with a proof before each solution, made from the check after it."""
    cells = []
    for cell, after in zip(notebook.cells, [*notebook.cells[1:], None], strict=True):
        if after is not None and book.SOLUTION in book.tags(cell):
            source = SOURCE.format(check=after.source)
            cells.append(nbformat.v4.new_code_cell(source, metadata={"tags": [PROOF]}))
        cells.append(cell)
    notebook.cells = cells
    return notebook


def without_proofs(notebook: NotebookNode) -> tuple[NotebookNode, list[str]]:
    """Return the executed notebook without proofs, and the problems of its checks.

    A check must raise an AssertionError that says what is wrong.
    """
    proofs = [cell for cell in notebook.cells if PROOF in book.tags(cell)]
    notebook.cells = [cell for cell in notebook.cells if PROOF not in book.tags(cell)]
    problems = []
    for count, cell in enumerate(proofs, start=1):
        printed = "".join(out.text for out in cell.outputs if out.get("name") == "stdout")
        raised = json.loads(printed.splitlines()[-1])
        if raised is None:
            problems.append(f"the check of exercise {count} passes without the solution")
        elif raised[0] != "AssertionError" or not raised[1].strip():
            problems.append(
                f"the check of exercise {count} must raise an AssertionError that says what is "
                f"wrong, not '{raised[0]}: {raised[1]}'"
            )
    return notebook, problems
