"""A chapter is built only where each exercise's check refuses wrong answers and says why."""

import json

import pytest
from nbformat.v4 import new_output

from tools import book, execute, exercises, pairs
from tools.book import BookError

SMALL = "notebooks/01_small.ipynb"
ANSWERS = "notebooks/answers/01_small.toml"


@pytest.fixture
def proven(small_book):
    """The problems of the exercises, found without a kernel after edits of the small book."""

    def found():
        notebook = small_book.unfolded()
        listed = exercises.read_answers(small_book.root, book.chapters(small_book.root)[0])
        names, printed, number, problems = {"seed": 3}, [], 0, []
        for cell in exercises.with_proofs(notebook, listed).cells:
            tags = {exercises.PROOF, book.EXERCISE, book.SOLUTION, book.CHECK} & {*book.tags(cell)}
            if tags:
                exec(cell.source, names | {"print": printed.append}, names)
            if exercises.PROOF in tags:
                number += 1
                problems += exercises.problems(number, printed.pop().strip())
        return problems

    return found


def test_what_readers_get_folded_is_what_the_build_runs(small_book):
    given = pairs.read_notebook(small_book.notebook)
    built = small_book.unfolded()
    for cell in built.cells:
        for tag in {book.EXERCISE, book.SOLUTION, book.CHECK} & {*book.tags(cell)}:
            assert (cell.cell_type, book.tags(cell)) == ("code", [tag])
    assert [cell.id for cell in built.cells] == [cell.id for cell in given.cells]
    assert [cell.source for cell in built.cells if book.SOLUTION in book.tags(cell)] == [
        "def double(x):\n    return 2 * x", "seeds = [seed, 4]", "half = 0.5"
    ]  # fmt: skip
    again = exercises.folded(built).cells
    assert [(cell.cell_type, cell.source, cell.metadata) for cell in again] == [
        (cell.cell_type, cell.source, cell.metadata) for cell in given.cells
    ]
    assert exercises.unfolded(built) == built
    assert exercises.folded(given) == given


def test_a_chapter_is_the_same_before_and_after_its_proofs(small_book):
    notebook = small_book.unfolded()
    cells = list(notebook.cells)
    proofs = exercises.with_proofs(notebook, {})
    assert len(proofs.cells) == len(cells) + 3
    said = json.dumps([{"name": "the stub", "says": "", "raised": ["check", "A", "b"]}])
    for cell in proofs.cells:
        if exercises.PROOF in cell.metadata.get("tags", []):
            cell.outputs = [new_output("stream", name="stdout", text=f"said\n{said}\n")]
    left, problems = exercises.without_proofs(proofs)
    assert left.cells == cells
    assert len(problems) == 3


def test_checks_that_cannot_fail_or_do_not_say_why_are_found(small_book):
    small_book.edit_chapter('assert double(3) == 6, f"twice', 'assert double(0) == 0, f"twice')
    small_book.edit_chapter('assert half == 0.5, "half is one over two"', "half + 1")
    with pytest.raises(BookError) as raised:
        execute.execute(small_book.root, "quick")
    said = str(raised.value).splitlines()
    assert f"{SMALL}: the check of exercise 1 accepts the stub" in said
    assert f"{SMALL}: the check of exercise 1 accepts wrong answer 1" in said
    assert (
        f"{SMALL}: the check of exercise 3 must raise an AssertionError that says what is wrong "
        "with the stub, not 'TypeError: unsupported operand type(s) for +: 'NoneType' and 'int''"
    ) in said


def test_the_small_book_refuses_wrong_answers(proven):
    assert proven() == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("half = 2", "half = 0.5", "the check of exercise 3 accepts wrong answer 1"),
        ("half = 2", "half = 1 / 0", "wrong answer 1 of exercise 3 does not run: 'ZeroDivision"),
        ("one over two", "a half", "the check of exercise 3 says 'half is one over two' about"),
    ],
)
def test_wrong_answers_that_prove_nothing_are_found(small_book, proven, old, new, said):
    small_book.edit(old, new, file=ANSWERS)
    (problem,) = proven()
    assert problem.startswith(said)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        # a text is compared with a number, and a function has no return
        ("assert half == 0.5", "assert half is not None, '-'\nassert half > 0.4", "'a guess' as"),
        ("assert double(3) == 6", "assert double(3) + 0 == 6", "double() without return"),
        ('assert half == 0.5, "half is one over two"', "assert half == 0.5", "the stub, not"),
    ],
)
def test_checks_that_end_in_a_raw_error_are_found(small_book, proven, old, new, said):
    small_book.edit_chapter(old, new)
    assert any(said in problem for problem in proven())


def test_what_a_stub_suggests_is_guessed():
    stub = "a, b = None, [0, x]\nc = {'one': 1}\nd = f(2)\ndef g(x):\n    return x\ndef h(): pass\n"
    stub += "d['two'] = 2\nnot_asked = 3"
    solution = "a = b = c = d = 4\ndef g(x): pass"
    made = {answer.name: answer.source for answer in exercises.made_answers(stub, solution)}
    assert made == {
        "None as the answer": "a, b = (None, [None, x])\nc = {'one': None}",
        "'a guess' as the answer": "a, b = ('a guess', ['a guess', x])\nc = {'one': 'a guess'}",
        "g() without return": "def g(*given, **named):\n    pass",
    }


def test_a_proof_leaves_names_and_random_states_alone():
    numpy, random = pytest.importorskip("numpy"), __import__("random")
    source = exercises.SOURCE.format(
        answers=[{"name": "one", "source": "x = 2; import random; random.random()", "says": ""}],
        check="import numpy\nnumpy.random.rand()\nassert x == 3, 'x is 3'",
    )
    names = {"x": 1}
    before = random.getstate(), numpy.random.get_state()[1].tolist()
    exec(source, names)
    assert names["x"] == 1
    assert (random.getstate(), numpy.random.get_state()[1].tolist()) == before


def test_a_solution_does_not_see_what_its_check_imports(small_book):
    small_book.edit_chapter("assert half == 0.5", "import math\nassert half == 0.5")
    small_book.edit_chapter("\n# half = 0.5", "\n# half = math.cos(0) / 2")
    with pytest.raises(BookError, match="name 'math' is not defined"):
        execute.execute(small_book.root, "quick")
