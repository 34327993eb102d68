"""Fold the solution of an exercise, and prove what its check refuses, and that it says why.

Wrong answers that students give stand in `notebooks/answers/NN_name.toml`. Others are made from the
stub: a text instead of each number, and a function without `return`. The proofs are cells that run
with the chapter, each between a stub and its solution, and are removed afterwards. The cells of the
chapter itself prove that the solution passes.
"""

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from tools import book

ANSWERS = Path("notebooks") / "answers"
PROOF = "exercise-proof"  # tag of a cell that no reader sees
GUESSES = (None, "a guess")  # instead of each number of a stub
RAISES = "raises-exception"  # tag of a check: Jupyter runs the next cells even if it fails

# Markdown, because VS Code shows the code of each cell, also where the file says it is folded.
FOLDED = "<details><summary>Solution</summary>\n\n```python\n{}\n```\n\n</details>"
FOLDED_SOLUTION = re.compile(re.escape(FOLDED).replace(r"\{\}", "(.+)"), re.DOTALL)

# Each answer and the check run in a copy of the chapter's names, so that none reaches the solution.
# The random states are put back, so that the chapter's later cells print what a reader's do.
SOURCE = """\
def _proof(answers, check):
    import json, random, sys

    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    states = [(random.setstate, random.getstate())]
    states += [(numpy.random.set_state, numpy.random.get_state())] if numpy else []
    states += [(torch.set_rng_state, torch.get_rng_state())] if torch else []
    for answer in answers:
        names = dict(globals())
        where = "answer"
        try:
            exec(answer["source"], names)
            where = "check"
            exec(check, names)
            raised = None
        except Exception as error:
            raised = [where, type(error).__name__, str(error)]
        answer["raised"] = raised
        for put_back, state in states:
            put_back(state)
    return json.dumps(answers)


print("\\n" + _proof({answers!r}, {check!r}))"""


@dataclass(frozen=True)
class Answer:
    """A wrong answer: its code, and a part of what the check says about it."""

    name: str
    source: str
    says: str = ""


def folded(notebook: NotebookNode) -> NotebookNode:
    """Return a copy for readers: solutions are folded, and *Run all* goes on after a check."""
    notebook = deepcopy(notebook)
    for number, cell in enumerate(notebook.cells):
        if book.SOLUTION in book.tags(cell) and cell.cell_type == "code":
            source = FOLDED.format(cell.source.strip())
            notebook.cells[number] = nbformat.v4.new_markdown_cell(source, metadata=cell.metadata)
        elif book.CHECK in book.tags(cell) and RAISES not in book.tags(cell):
            cell.metadata["tags"] = [*book.tags(cell), RAISES]
    return notebook


def unfolded(notebook: NotebookNode) -> NotebookNode:
    """Return a copy for the build: solutions run, and a check that fails stops the chapter."""
    notebook = deepcopy(notebook)
    for number, cell in enumerate(notebook.cells):
        if book.SOLUTION in book.tags(cell) and (found := FOLDED_SOLUTION.fullmatch(cell.source)):
            opened = nbformat.v4.new_code_cell(found[1], metadata=cell.metadata, id=cell.id)
            notebook.cells[number] = opened
        elif book.CHECK in book.tags(cell):
            cell.metadata["tags"] = [tag for tag in book.tags(cell) if tag != RAISES]
    return notebook


def answers_path(root: Path, chapter: Path) -> Path:
    """Return the file with a chapter's wrong answers."""
    return root / ANSWERS / f"{chapter.stem}.toml"


def read_answers(root: Path, chapter: Path) -> dict[int, list[Answer]]:
    """Return the listed wrong answers of a chapter: number of the exercise -> answers.

    Raises:
        BookError: an entry is not a table with the texts `answer` and `says`.
    """
    path = answers_path(root, chapter)
    listed: dict[int, list[Answer]] = {}
    for number, entries in tomllib.loads(path.read_text(encoding="utf-8")).items():
        for count, entry in enumerate(entries, start=1):
            if {*entry} != {"answer", "says"} or not all(entry.values()):
                raise book.BookError(
                    f"{ANSWERS / path.name}: entry {count} of exercise {number} must have the "
                    "texts 'answer' and 'says'."
                )
            answer = Answer(f"wrong answer {count}", entry["answer"], entry["says"])
            listed.setdefault(int(number), []).append(answer)
    return listed


def made_answers(stub: str, solution: str) -> Iterator[Answer]:
    """Yield answers that the stub's own code suggests: no number, a text, a missing return."""
    body, solved = ast.parse(stub).body, made_names(ast.parse(solution))
    answers = [node for node in body if made_names(node) and made_names(node) <= solved]
    for guess in GUESSES:
        lines = [with_guess(node, guess) for node in answers if isinstance(node, ast.Assign)]
        if source := "\n".join(line for line in lines if line):
            yield Answer(f"{guess!r} as the answer", source)
    for node in answers:
        if isinstance(node, ast.FunctionDef):
            source = f"def {node.name}(*given, **named):\n    pass"
            yield Answer(f"{node.name}() without return", source)


def made_names(tree: ast.AST) -> set[str]:
    """Return the names that the outermost statements of a tree make."""
    if isinstance(tree, ast.FunctionDef):
        return {tree.name}
    if isinstance(tree, ast.Module):
        return {name for node in tree.body for name in made_names(node)}
    stored = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return {node.id for node in stored if isinstance(node.ctx, ast.Store)}


def with_guess(node: ast.Assign, guess: str | None) -> str:
    """Return an assignment with a guess for each number or None in it, or "" without any."""
    replaced = Guesses(guess)
    value = replaced.visit(node.value)
    return ast.unparse(ast.Assign(node.targets, value, lineno=1)) if replaced.count else ""


class Guesses(ast.NodeTransformer):
    """A transformer that replaces the numbers and None in tuples, lists and values of dicts."""

    def __init__(self, guess: str | None) -> None:
        self.guess, self.count = guess, 0

    def visit(self, node: ast.AST) -> Any:
        """Replace a constant; visit what holds constants, and nothing else."""
        if isinstance(node, ast.Constant) and not isinstance(node.value, str | bool):
            self.count += 1
            return ast.Constant(self.guess)
        if isinstance(node, ast.Tuple | ast.List):
            elements = [self.visit(element) for element in node.elts]
            return type(node)(elements, ast.Load())
        if isinstance(node, ast.Dict):
            return ast.Dict(node.keys, [self.visit(value) for value in node.values])
        return node


def with_proofs(notebook: NotebookNode, listed: dict[int, list[Answer]]) -> NotebookNode:
    """Return the notebook with a proof before each solution, made from the cells around it."""
    cells: list[NotebookNode] = []
    number = 0
    for cell, after in zip(notebook.cells, [*notebook.cells[1:], None], strict=True):
        if after is not None and book.SOLUTION in book.tags(cell):
            number += 1
            made = made_answers(cells[-1].source, cell.source)
            answers = [Answer("the stub", ""), *made, *listed.get(number, [])]
            source = SOURCE.format(answers=[asdict(one) for one in answers], check=after.source)
            cells.append(nbformat.v4.new_code_cell(source, metadata={"tags": [PROOF]}))
        cells.append(cell)
    notebook.cells = cells
    return notebook


def without_proofs(notebook: NotebookNode) -> tuple[NotebookNode, list[str]]:
    """Return the executed notebook without proofs, and the problems of its checks."""
    proofs = [cell for cell in notebook.cells if PROOF in book.tags(cell)]
    notebook.cells = [cell for cell in notebook.cells if PROOF not in book.tags(cell)]
    found: list[str] = []
    for number, cell in enumerate(proofs, start=1):
        printed = "".join(out.text for out in cell.outputs if out.get("name") == "stdout")
        found += problems(number, printed.splitlines()[-1])
    return notebook, found


def problems(number: int, printed: str) -> Iterator[str]:
    """Yield what is wrong with an exercise, from what its proof printed.

    A check must raise an AssertionError that says what is wrong.
    """
    for answer in json.loads(printed):
        name, raised = answer["name"], answer["raised"]
        if raised is None:
            yield f"the check of exercise {number} accepts {name}"
            continue
        where, kind, message = raised
        if where == "answer":
            yield f"{name} of exercise {number} does not run: '{kind}: {message}'"
        elif kind != "AssertionError" or not message.strip():
            yield (
                f"the check of exercise {number} must raise an AssertionError that says what is "
                f"wrong with {name}, not '{kind}: {message}'"
            )
        elif answer["says"] not in message:
            yield (
                f"the check of exercise {number} says '{message}' about {name}, "
                f"not '{answer['says']}'"
            )
