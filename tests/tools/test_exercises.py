"""The stub of every exercise fails its check, in the small book and in the book itself."""

import pathlib

import pytest

from tools import book, exercises, pairs

ROOT = pathlib.Path(__file__).parents[2]
SMALL = pathlib.Path("notebooks/01_small.ipynb")


def test_the_stubs_of_the_small_book_fail_as_they_should(small_book):
    assert exercises.unfailed(small_book.root, SMALL) == []


def test_checks_that_cannot_fail_or_do_not_say_why_are_found(small_book):
    small_book.edit('assert double(3) == 6, f"twice', 'assert double(0) == 0, f"twice')
    small_book.edit('assert half == 0.5, "half is one over two"', "half + 1")
    small_book.edit_chapter("half = None", "half = None\nraise ValueError")
    assert exercises.unfailed(small_book.root, SMALL) == [
        f"{SMALL}: the check of exercise 1 passes without the solution",
        f"{SMALL}: a stub does not run: ValueError",
        f"{SMALL}: the check of exercise 2 must raise an AssertionError that says why, "
        "not 'TypeError: unsupported operand type(s) for +: 'NoneType' and 'int''",
    ]


def test_without_solutions_a_chapter_ends_at_its_last_check(small_book):
    whole = pairs.read_notebook(small_book.notebook)
    left = exercises.unsolved(pairs.read_notebook(small_book.notebook))
    assert len(left.cells) == len(whole.cells) - 2 - 1  # two solutions and the summary
    assert not any(book.SOLUTION in book.tags(cell) for cell in left.cells)
    assert book.CHECK in book.tags(left.cells[-1])


@pytest.mark.slow
@pytest.mark.parametrize("chapter", book.chapters(ROOT), ids=lambda chapter: chapter.stem)
def test_the_stubs_of_every_chapter_fail_as_they_should(chapter):
    assert exercises.unfailed(ROOT, chapter) == []
