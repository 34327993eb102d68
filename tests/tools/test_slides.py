"""Slides show headings, questions, figures and tables; the other text is in the notes."""

import nbformat
import pytest

from tools import slides
from tools.book import BookError

TEXT = nbformat.v4.new_markdown_cell
OPENING = """\
# 1. Sums

**You will be able to**
- add,
- subtract.

**Before this** nothing.
"""
SUM = """\
## Adding

A *sum* is $a < b$. Second sentence of the paragraph.

More prose with a [link](02_other.ipynb).

> **Predict.** What is 1 + 1?

| a | b |
| --- | --- |
| 1 | 2 |

$$c = a + b$$
"""
EXERCISE = """\
## Exercises

### Exercise 1: calculate (easy, 5 minutes)
Add them.

<details><summary>Why</summary>

Because.
</details>

## Sources

A paper.
"""


def code(source, shown="", tags=()):
    """Return a code cell that shows HTML."""
    outputs = [nbformat.v4.new_output("display_data", {"text/html": shown})] if shown else []
    return nbformat.v4.new_code_cell(source, outputs=outputs, metadata={"tags": [*tags]})


@pytest.fixture
def deck():
    """The slides of a small chapter."""
    cells = [
        TEXT(
            "# 1. Sums\n\n**You will be able to**\n- add,\n- subtract.\n\n**Before this** nothing."
        ),
        code("import os", tags=["colab"]),
        TEXT(SUM),
        code("show()", "<img alt='two' src='data:,'>"),
        code("shown = 1", tags=["slide"]),
        code("x", "<img alt='no' src='data:,'>", tags=["no-slide"]),
        TEXT(EXERCISE),
        code("x", "<img alt='the answer' src='data:,'>", tags=["solution"]),
    ]
    return slides.Deck(nbformat.v4.new_notebook(cells=cells))


def test_each_kind_of_content_has_its_slide(deck):
    assert [(slide.kind, slide.title) for slide in deck.slides] == [
        ("title", "1. Sums"),
        ("text", "Adding"),
        ("predict", "Adding"),
        ("table", "Adding"),
        ("figure", "Adding"),
        ("code", "Adding"),
        ("exercise", "Exercise 1: calculate (easy, 5 minutes)"),
    ]
    goals, opening, _, table, figure, source, task = deck.slides
    assert "<li>add,</li>" in goals.body[1]
    assert opening.body[0].startswith("<p>A <em>sum</em> is ")
    assert "\\(a &lt; b\\)" in opening.body[0]  # MathJax reads it, and HTML does not
    assert "\\[c = a + b\\]" in table.body[1]
    assert figure.body == ["<img alt='two' src='data:,'>"]
    assert "shown = 1" in source.body[0]
    assert task.body == ["<p>Add them.</p>\n"]


def test_other_text_and_answers_are_in_the_notes_alone(deck):
    opening, task = deck.slides[1], deck.slides[-1]
    assert "Second sentence" in "".join(opening.notes)
    assert "More prose with a link." in "".join(opening.notes)  # which would leave the deck
    assert "Because." in "".join(task.notes)
    for hidden in ("More prose", "Because", "the answer", "A paper", "import os"):
        assert not any(hidden in "".join(slide.body) for slide in deck.slides)


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("One. Two.", "One. Two."),
        (f"{'long ' * 50}end. Two.", f"{'long ' * 50}end."),
        (f"One, e.g. this. Long {'long ' * 50}end.", "One, e.g. this."),
    ],
)
def test_the_first_sentences_fit_a_slide(text, taken):
    assert slides.lead(text) == taken


def test_the_book_comes_first(small_book):
    with pytest.raises(BookError, match="run: make book"):
        slides.make(small_book.root)
