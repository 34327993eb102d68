"""Editions differ from the book in what they say they differ, and in nothing else."""

import nbformat
import pytest

from tools import book, editions, pairs
from tools.book import BookError
from tools.execute import STAGE
from tools.stage import page

GUIDE = """\
# Guide

### [1. Small](../notebooks/01_small.ipynb)

- Ask for a [number](status.md).

### [2. Other](../notebooks/02_other.ipynb)

- Something else.
"""


@pytest.fixture
def chapter(small_book):
    """The small chapter as `make book` stages it, with an output of each check."""
    notebook = small_book.unfolded()
    for cell in book.code_cells(notebook):
        if book.CHECK in book.tags(cell):
            cell.outputs = [nbformat.v4.new_output("stream", text="right\n")]
    made = dict.fromkeys(("data", "profile", "seed", "minutes", "gigabytes", "device"), "")
    notebook.metadata["medsaga"] = made | {"versions": {}, "commit": "", "date": ""}
    return page(notebook, 1)


def test_students_get_everything_but_the_solutions(chapter):
    before = [(cell.source, book.tags(cell)) for cell in chapter.cells]
    after = editions.student(chapter).cells
    assert [cell.source for cell in after] == [
        source for source, tags in before if book.SOLUTION not in tags
    ]
    assert not any("2 * x" in cell.source or "0.5\n" in cell.source for cell in after)
    checks = [cell for cell in after if book.CHECK in book.tags(cell)]
    assert len(checks) == 3
    for cell in checks:
        assert cell.outputs == []
        assert "raises-exception" in book.tags(cell)


def test_instructors_get_times_notes_and_open_answers(chapter, small_book):
    (small_book.root / editions.GUIDE).write_text(GUIDE)
    notes = editions.notes_of(small_book.root, book.chapters(small_book.root)[0])
    assert notes == "- Ask for a [number](../book/status.md)."
    before = [cell.source.replace(' class="answers"', " open") for cell in chapter.cells]
    chapter.cells[-2].source += "\n<details><summary>Answer</summary>\n\nYes.\n</details>"
    slow = book.code_cells(chapter)[2]
    chapter.metadata["medsaga"]["slow"] = {slow["id"]: 12}
    after = editions.instructor(chapter, notes).cells
    assert after[after.index(slow) - 1].source == "**The next cell took 12 seconds.**"
    questions = [cell.source for cell in after if "question" in book.tags(cell)]
    assert len(questions) == 3
    assert all("<details open><summary>Answers" in one for one in questions)
    own = [cell for cell in after if editions.CHANGES in book.tags(cell)]
    assert [cell.source for cell in after if cell not in own][:-2] == before[:-2]
    assert after[1] is own[0]
    assert notes in own[0].source
    # 29 words are a quarter of a minute; the cells take 1 minute, each exercise 1
    assert "| the cells, run | 1 |\n| exercise 1 (easy) | 1 |\n| exercise 2 (easy) | 1 |\n" in (
        own[0].source
    )
    solutions = [cell for cell in after if book.SOLUTION in book.tags(cell)]
    assert len(solutions) == 3
    for cell in solutions:
        assert "hide-cell" not in book.tags(cell)
        assert after[after.index(cell) - 1].source == "**Expected answer**"
    assert "<details open><summary>Answer" in after[-2].source


def test_the_book_comes_first(small_book):
    with pytest.raises(BookError, match="run: make book"):
        editions.make(small_book.root, "student", editions.student)


@pytest.mark.slow
def test_the_student_edition_is_a_site_and_notebooks_without_solutions(small_book, chapter):
    root = small_book.root
    (root / STAGE).mkdir(parents=True)
    for name in ("_config.yml", "_toc.yml"):
        book.copy(root / name, root / STAGE / name)
    for file in (root / "book").rglob("*.*"):
        book.copy(file, root / STAGE / file.relative_to(root))
    book.write(root / STAGE / "notebooks" / "01_small.ipynb", nbformat.writes(chapter))
    said = editions.make(root, "student", editions.student)
    folder = root / "_build" / "student"
    assert said.startswith("student edition: _build/student/_build/html/index.html (")
    texts = [one for one in folder.rglob("*") if one.suffix in {".html", ".ipynb", ".js"}]
    assert {one.name for one in texts} >= {"01_small.ipynb", "01_small.html", "searchindex.js"}
    for one in texts:
        assert "2 * x" not in one.read_text(encoding="utf-8"), one
    settings = (folder / "stage" / "_config.yml").read_text(encoding="utf-8")
    assert "launch_buttons" not in settings  # the rocket opens the notebook with solutions
    assert "sphinx:" in settings
    own = pairs.read_notebook(folder / "notebooks" / "01_small.ipynb")
    assert not any(cell.get("outputs") for cell in own.cells)
    assert len(own.cells) == len(pairs.read_notebook(small_book.notebook).cells) - 3
