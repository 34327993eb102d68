"""Read the questions for self-test, which are plain Markdown in the chapters.

On the site, `book/_static/questions.js` makes a form of each. Elsewhere readers see the options,
and the answers in `<details>`.
"""

import re
from collections.abc import Iterator

from nbformat import NotebookNode

from tools import book

QUESTION = "question"  # tag of a cell with one question
HEADING = "## Questions"
PER_CHAPTER = 3
RIGHT, WRONG = "Yes", "No"  # the first word of what is said about an option

FORM = re.compile(
    r"\*\*Question (?P<number>\d)\.\*\* (?P<text>\S[^\n]*)\n\n"
    r"(?P<options>(?:- \*\*[A-D]\.\*\* [^\n]+\n)+)\n"
    r'<details class="answers"><summary>Answers</summary>\n\n'
    r"(?P<answers>(?:- \*\*[A-D]\.\*\* [^\n]+\n)+)\n?</details>"
)
LINE = re.compile(r"- \*\*([A-D])\.\*\* ([^\n]+)")


def problems(notebook: NotebookNode) -> Iterator[str]:
    """Yield what is wrong with the questions of a chapter."""
    cells = [cell for cell in notebook.cells if QUESTION in book.tags(cell)]
    if len(cells) != PER_CHAPTER:
        yield f"it has {len(cells)} questions; it should have {PER_CHAPTER}"
    heads = [cell.source.splitlines()[0] for cell in notebook.cells if cell.source]
    if cells and HEADING not in heads:
        yield f"there is no cell that begins with '{HEADING}'"
    for count, cell in enumerate(cells, start=1):
        if (form := FORM.fullmatch(cell.source.strip())) is None:
            yield f"question {count} has not the form in CONTRIBUTING.md"
            continue
        if int(form["number"]) != count:
            yield f"question {count} is called question {form['number']}"
        options, answers = (dict(LINE.findall(form[part])) for part in ("options", "answers"))
        if [*options] != [*answers] or [*options] != [*"ABCD"[: len(options)]] or len(options) < 3:
            yield f"question {count} needs 3 or 4 options A, B, ... and an answer to each"
        firsts = [re.match(r"\w+", answer) for answer in answers.values()]
        words = sorted(first[0] if first else "" for first in firsts)
        if words != [WRONG] * (len(answers) - 1) + [RIGHT]:
            yield (
                f"question {count}: 1 answer must begin with '{RIGHT}', and the others "
                f"with '{WRONG}'"
            )
