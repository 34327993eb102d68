"""Proves that an exercise can be failed: where its stub stands, its check must say what is wrong.

The proofs are cells that run with the chapter, each between a stub and its solution, and are taken
out of it again. That the solution passes is proven by the cells of the chapter itself.
"""

import json

import nbformat
from nbformat import NotebookNode

from tools import book

PROOF = "exercise-proof"  # tag of a cell that no reader sees

# In a copy of the chapter's names: what a check imports or defines is not there for the solution.
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
    """The notebook with a proof before each solution, of the check that follows it."""
    cells = []
    for cell, after in zip(notebook.cells, [*notebook.cells[1:], None], strict=True):
        if after is not None and book.SOLUTION in book.tags(cell):
            source = SOURCE.format(check=after.source)
            cells.append(nbformat.v4.new_code_cell(source, metadata={"tags": [PROOF]}))
        cells.append(cell)
    notebook.cells = cells
    return notebook


def without_proofs(notebook: NotebookNode) -> tuple[NotebookNode, list[str]]:
    """The executed notebook as its readers know it, and what is wrong with its checks.

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
                f"the check of exercise {count} must raise an AssertionError that says why, "
                f"not '{raised[0]}: {raised[1]}'"
            )
    return notebook, problems
