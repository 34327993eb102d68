"""A chapter is built only where each exercise's check fails its stub and says why."""

import pytest
from nbformat.v4 import new_output

from tools import execute, exercises, pairs
from tools.book import BookError

SMALL = "notebooks/01_small.ipynb"


def test_a_chapter_is_the_same_before_and_after_its_proofs(small_book):
    cells = list(pairs.read_notebook(small_book.notebook).cells)
    proven = exercises.with_proofs(pairs.read_notebook(small_book.notebook))
    assert len(proven.cells) == len(cells) + 2
    for cell in proven.cells:
        if exercises.PROOF in cell.metadata.get("tags", []):
            cell.outputs = [new_output("stream", name="stdout", text='said\n["A", "b"]\n')]
    left, problems = exercises.without_proofs(proven)
    assert left.cells == cells
    assert len(problems) == 2


def test_checks_that_cannot_fail_or_do_not_say_why_are_found(small_book):
    small_book.edit_chapter('assert double(3) == 6, f"twice', 'assert double(0) == 0, f"twice')
    small_book.edit_chapter('assert half == 0.5, "half is one over two"', "half + 1")
    with pytest.raises(BookError) as raised:
        execute.execute(small_book.root, "quick")
    assert str(raised.value).splitlines() == [
        f"{SMALL}: the check of exercise 1 passes without the solution",
        f"{SMALL}: the check of exercise 2 must raise an AssertionError that says what is wrong, "
        "not 'TypeError: unsupported operand type(s) for +: 'NoneType' and 'int''",
    ]


def test_an_assertion_without_a_word_is_found(small_book):
    small_book.edit_chapter('assert half == 0.5, "half is one over two"', "assert half == 0.5")
    with pytest.raises(BookError, match="exercise 2 must raise an AssertionError"):
        execute.execute(small_book.root, "quick")


def test_a_solution_does_not_see_what_its_check_imports(small_book):
    small_book.edit_chapter("assert half == 0.5", "import math\nassert half == 0.5")
    small_book.edit_chapter("\nhalf = 0.5", "\nhalf = math.cos(0) / 2")
    with pytest.raises(BookError, match="name 'math' is not defined"):
        execute.execute(small_book.root, "quick")
