"""Pairs are compared by content, repaired by one command, and left alone when in order."""

import json

import nbformat
import pytest

from tools import pairs


def texts(book):
    return book.script.read_text(), book.notebook.read_text()


def change_notebook(book, change):
    notebook = pairs.read_notebook(book.notebook)
    change(notebook)
    book.notebook.write_text(nbformat.writes(notebook, indent=1) + "\n")


def test_an_orderly_pair_passes_and_is_left_alone(small_book):
    before = texts(small_book)
    assert pairs.check(small_book.root) == []
    assert pairs.fix(small_book.root) == []
    assert texts(small_book) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda nb: nb.cells[4].update(source="print(2)"), "cell 5: the text"),
        (lambda nb: nb.cells[3].metadata.update(tags=["other"]), "cell 4: {'tags': ['data']} and"),
        (lambda nb: nb.cells.pop(4), "cell 5: code and markdown"),
        (lambda nb: nb.cells.pop(), "only 01_small.py has it"),
        (lambda nb: nb.cells.insert(4, nb.cells.pop(3)), "cell 4: the text"),
        (lambda nb: nb.cells[4].update(execution_count=7), "has outputs, ids or metadata"),
        (lambda nb: nb.metadata.update(colab={"name": "x"}), "has outputs, ids or metadata"),
    ],
)
def test_every_kind_of_difference_is_named_and_mended(small_book, change, said):
    before = texts(small_book)
    change_notebook(small_book, change)
    (problem,) = pairs.check(small_book.root)
    assert said in problem
    assert problem.endswith("run: make sync")
    small_book.commit()
    pairs.fix(small_book.root)
    assert texts(small_book) == before


def test_the_notebook_wins_where_it_alone_was_changed(small_book):
    small_book.commit()
    change_notebook(small_book, lambda nb: nb.cells[4].update(source="print(profile, 2 + 2)"))
    done = ["notebooks/01_small.ipynb won; the other file is rewritten"]
    assert pairs.fix(small_book.root) == done
    assert "print(profile, 2 + 2)" in small_book.script.read_text()
    assert pairs.check(small_book.root) == []


def test_the_script_wins_where_both_were_changed_and_the_notebook_is_kept(small_book):
    small_book.commit()
    change_notebook(small_book, lambda nb: nb.cells[4].update(source="print('notebook')"))
    small_book.edit("print(profile, 1 + 1)", "print('script')")
    pairs.fix(small_book.root)
    assert "print('script')" in small_book.notebook.read_text()
    kept = small_book.root / "_build" / "replaced" / "01_small.ipynb"
    assert "print('notebook')" in kept.read_text()


def test_a_missing_half_is_made_from_the_other(small_book):
    before = texts(small_book)
    for half in (small_book.script, small_book.notebook):
        half.unlink()
        assert "is missing" in pairs.check(small_book.root)[0]
        pairs.fix(small_book.root)
        assert texts(small_book) == before


def test_ids_follow_from_the_content_alone(small_book):
    cells = json.loads(small_book.notebook.read_text())["cells"]
    ids = [cell["id"] for cell in cells]
    assert len(set(ids)) == len(ids)
    small_book.edit_chapter("print(profile, 1 + 1)", "print(profile, 1 + 1)\n\n# %%\n3 + 3")
    after = [cell["id"] for cell in json.loads(small_book.notebook.read_text())["cells"]]
    assert [one for one in after if one in ids] == ids
    assert len(after) == len(ids) + 1


def test_cells_that_say_the_same_have_ids_of_their_own(small_book):
    small_book.edit_chapter("print(profile, 1 + 1)", "x = 1\n\n# %%\nx = 1")
    ids = [cell.id for cell in pairs.read_notebook(small_book.notebook).cells]
    assert len(set(ids)) == len(ids)


def test_the_colab_cell_takes_the_address_from_the_configuration(small_book):
    small_book.edit("someone/book", "other/place", file="_config.yml")
    assert pairs.check(small_book.root) != []
    pairs.fix(small_book.root)
    assert '"https://github.com/other/place' in small_book.script.read_text()
    assert pairs.check(small_book.root) == []


def test_solutions_are_folded_and_run_all_goes_on_after_a_check(small_book):
    cells = pairs.read_notebook(small_book.notebook).cells
    solutions = [cell for cell in cells if cell.metadata.get("tags") == ["solution"]]
    assert [cell.cell_type for cell in solutions] == ["markdown"] * 3
    assert solutions[2].source == (
        "<details><summary>Solution</summary>\n\n```python\nhalf = 0.5\n```\n\n</details>"
    )
    checks = [cell for cell in cells if "exercise-check" in cell.metadata.get("tags", [])]
    assert [cell.metadata["tags"][1:] for cell in checks] == [["raises-exception"]] * 3
