"""Numbers of the prose that no cell, recorded file or table shows are reported."""

import nbformat
import pytest

from tools import numbers

PROSE = """\
A mean of 0.817, an interval from 0.76 and a share of 81.7 %, with a rate of 0.005.
The recorded run has 0.4321, the paper 0.899, and nothing has 0.555.
Version 1.2.3 is no number, and neither are `0.111`, $0.222$ and [this](https://example.org/0.444).
"""


@pytest.fixture
def page(tmp_path):
    """A page that prints two numbers and names a recorded file, and the book around it."""
    for file, content in {
        "notebooks/recorded/runs.json": '{"dice": 0.43208}',
        "medsaga_lib/claims/tables/table1.csv": "images,dice\n50,0.899\n",
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(content)
    cell = nbformat.v4.new_code_cell('lr = 0.005\nopen("recorded/runs.json")')
    cell.outputs = [
        nbformat.v4.new_output("stream", text="mean Dice 0.8168\n"),
        nbformat.v4.new_output("execute_result", {"text/plain": "0.7604", "image/png": "0.555"}),
    ]
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(PROSE), cell]), tmp_path


def test_only_the_number_that_nothing_shows_is_reported(page):
    ((number, line),) = numbers.unprinted(*page)
    assert number == "0.555"
    assert line.startswith("The recorded run has")


def test_without_the_recorded_file_its_number_is_reported(page):
    notebook, root = page
    notebook.cells[1].source = "lr = 0.005"
    assert [number for number, _ in numbers.unprinted(notebook, root)] == ["0.4321", "0.555"]


@pytest.mark.parametrize(
    ("number", "other", "same"),
    [
        ("0.82", 0.8168, True),
        ("0.81", 0.8168, False),
        ("81.7", 0.8168, True),
        ("1,024.5", 1024.5, True),
        ("0.5", 0.55, True),
        ("0.5", 0.56, False),
    ],
)
def test_a_number_may_be_rounded_or_a_share(number, other, same):
    assert numbers.agrees(number, other) == same
