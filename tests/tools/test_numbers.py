"""Numbers of the prose that no cell, linked chapter or named paper shows are reported."""

import nbformat
import pytest

from tools import numbers

PROSE = """\
A mean of 0.817, an interval from 0.76 and a share of 81.7 %, with a rate of 0.005.
The paper has 0.899 and nothing has 0.555. [Chapter 2](02_other.ipynb#here) has 0.333.
It trains 4.9 million parameters.
Version 1.2.3 is no number, and neither are `0.111`, $0.222$ and [this](https://example.org/0.444).
$$
x = 0.666
$$
"""


def notebook(source, *outputs, prose=""):
    cell = nbformat.v4.new_code_cell(source)
    cell.outputs = [nbformat.v4.new_output("execute_result", output) for output in outputs]
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(prose), cell])


@pytest.fixture
def page(tmp_path):
    """A page that shows some numbers of its prose, and the book around it."""
    for file, content in {
        "notebooks/recorded/runs.json": '{"dice": 0.43208}',
        "medsaga_lib/claims/tables/medsaga_table1.csv": "images,dice\n50,0.899\n",
        f"{numbers.STAGE}/notebooks/02_other.ipynb": nbformat.writes(notebook("other = 0.333")),
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(content)
    outputs = [
        {"text/plain": "mean Dice 0.8168, 4,913,621 parameters"},
        {"text/plain": "0.7604", "image/png": "0.555"},
    ]
    return notebook('lr = 0.005\nopen("recorded/runs.json")', *outputs, prose=PROSE), tmp_path


def found(page):
    return [number for number, _ in numbers.unprinted(*page)]


def test_only_the_number_that_nothing_shows_is_reported(page):
    ((number, line),) = numbers.unprinted(*page)
    assert (number, line) == ("0.555", "The paper has 0.899 and nothing has 0.555.")


@pytest.mark.parametrize(
    ("old", "new", "number"),
    [
        ("The paper", "The run", "0.899"),  # the published tables are for sentences about a paper
        ("The paper", "S-SAM", "0.899"),  # which are other tables
        ("[Chapter 2](02_other.ipynb#here)", "Chapter 2", "0.333"),
        ("a share of 81.7 %", "81.7 pixels", "81.7"),
        ("4.9 million parameters", "4.9 parameters", "4.9"),
        ("nothing has", "the recorded file has 0.4321, nothing", "0.4321"),  # and no cell prints it
    ],
)
def test_a_number_is_looked_up_only_where_its_sentence_points(old, new, number, page):
    assert old in PROSE
    page[0].cells[0].source = PROSE.replace(old, new)
    assert sorted(found(page)) == sorted(["0.555", number])


def test_numbers_behind_a_figure_are_not_shown(page):
    (output, *_) = page[0].cells[1].outputs
    output["data"]["text/html"] = "<script>const x = [0.555];</script><td width=0.555>0.4</td>"
    assert found(page) == ["0.555"]
    output["data"]["text/html"] = "<td>0.555</td>"
    assert found(page) == []


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
    assert numbers.agrees(number, [0.1, other, 7000.0], (1, 100)) == same
