"""Minutes of the chapters for teaching, and the tables of the page Syllabus made from them.

A chapter declares the minutes of its cells and of its exercises; the minutes of its text follow
from its words and from its questions to predict. `book/syllabus.md` names chapters and the numbers
of exercises, and the build fills in their kinds and all minutes.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from tools import book, pairs

PAGE = Path("book/syllabus.md")
# Our choice: the words of a talk, and the time to write down a prediction
WORDS_A_MINUTE, PREDICTION_MINUTES = 130, 1
BREAKS = 0.25  # of the minutes, for breaks and questions; our choice
PREDICT = "> **Predict.**"
EXERCISES_HEADING = re.compile(r"^## (Exercises|Questions|Sources)$", re.MULTILINE)
# | when | [chapter](../notebooks/NN_name.ipynb) | exercises | minutes | minutes | minutes |
ROW = re.compile(
    r"^\| (?P<when>[^|]*) \| (?P<link>\[[^\]]*\]\(\.\./(?P<chapter>[^)]*\.ipynb)\)) "
    r"\| (?P<exercises>[\d, ]*?) ?\|(?: \|){3}$"
)
SUM = re.compile(r"^\| \*\*(?P<name>[^|*]*)\*\* \| \| \|(?: \|){3}$")


@dataclass(frozen=True)
class Exercise:
    """An exercise: its kind, how hard it is, and its minutes, as its title says."""

    kind: str
    level: str
    minutes: int


@dataclass(frozen=True)
class Minutes:
    """Minutes of a chapter: text read aloud, predictions, cells run, and exercises by number."""

    text: int
    predictions: int
    cells: int
    exercises: dict[int, Exercise]

    @property
    def lesson(self) -> int:
        """Minutes of text, predictions and cells."""
        return self.text + self.predictions + self.cells

    @property
    def all_exercises(self) -> int:
        """Minutes of all exercises."""
        return sum(one.minutes for one in self.exercises.values())


def minutes(notebook: NotebookNode) -> Minutes:
    """Return the minutes of a chapter."""
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    declared = book.budget(notebook)
    start = EXERCISES_HEADING.search(prose)
    words = len(prose[: start.start() if start else None].split())
    return Minutes(
        text=round(words / WORDS_A_MINUTE),
        predictions=prose.count(PREDICT) * PREDICTION_MINUTES,
        cells=round(declared.minutes) if declared else 0,
        exercises={
            int(one["number"]): Exercise(one["kind"], one["level"], int(one["minutes"]))
            for one in book.EXERCISE_TITLE.finditer(prose)
        },
    )


def fill(page: str, root: Path) -> str:
    """Return the text of the page with its minutes.

    Raises:
        KeyError: a row names an exercise that its chapter does not have.
        FileNotFoundError: a row names a chapter that does not exist.
    """
    lines, sums = [], (0, 0, 0)  # of lesson, exercises, and both with breaks
    for line in page.splitlines():
        if row := ROW.match(line):
            found = minutes(pairs.read_notebook(root / row["chapter"]))
            named = {number: found.exercises[number] for number in numbers(row["exercises"])}
            chosen = sum(one.minutes for one in named.values())
            kinds = ", ".join(f"{number}: {one.kind}" for number, one in named.items())
            whole = round((found.lesson + chosen) * (1 + BREAKS))
            line = f"| {row['when']} | {row['link']} | {kinds} "
            line += f"| {found.lesson} | {chosen or ''} | {whole} |"
            sums = sums[0] + found.lesson, sums[1] + chosen, sums[2] + whole
        elif row := SUM.match(line):
            line = f"| **{row['name']}** | | | {' | '.join(f'**{one}**' for one in sums)} |"
        elif not line.startswith("|"):
            sums = 0, 0, 0
        lines.append(line)
    return "\n".join(lines) + "\n"


def numbers(cell: str) -> list[int]:
    """Return the numbers of exercises in a cell such as `1, 3`."""
    return [int(one) for one in re.findall(r"\d+", cell)]


def problems(root: Path) -> Iterator[str]:
    """Yield rows of the page that name what is not there."""
    path = root / PAGE
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        if ".ipynb" not in line or not line.startswith("|"):
            continue
        row = ROW.match(line)
        if row is None:
            yield f"{PAGE}: the row '{line}' must be '| when | [chapter](link) | 1, 2 | | | |'"
        elif not (root / row["chapter"]).exists():
            yield f"{PAGE}: there is no {row['chapter']}"
        else:
            known = minutes(pairs.read_notebook(root / row["chapter"])).exercises
            for number in numbers(row["exercises"]):
                if number not in known:
                    yield f"{PAGE}: {row['chapter']} has no exercise {number}"
