"""Slides show headings, questions, figures and tables; the other text is in the notes."""

from pathlib import Path

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import sync_playwright

from tools import site, slides
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

**Table 1.1.** Two numbers.

| a | b |
| --- | --- |
| 1 | 2 |

$$c = a + b$$
"""
ASKED = """\
**Question {}.** Is it?

- **A.** Yes.
- **B.** No.

<details class="answers"><summary>Answers</summary>

- **A.** Yes: it is the {}.
</details>
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
        TEXT("## Questions"),
        TEXT(ASKED.format(1, "first"), metadata={"tags": ["question"]}),
        TEXT(ASKED.format(2, "second"), metadata={"tags": ["question"]}),
        TEXT("### Bare\n\n### Full\n\nText."),
        TEXT(EXERCISE),
        code("x", "<img alt='the answer' src='data:,'>", tags=["solution"]),
        TEXT("<dl><dt>Data</dt><dd>two_sets: 7 images, CC BY 4.0</dd><dt>Took</dt></dl>"),
    ]
    cells[-1]["id"] = "provenance"
    return slides.Deck(nbformat.v4.new_notebook(cells=cells))


def test_each_kind_of_content_has_its_slide(deck):
    assert [(slide.kind, slide.title) for slide in deck.slides] == [
        ("title", "1. Sums"),
        ("text", "Adding"),
        ("predict", "Adding"),
        ("table", "Adding"),
        ("figure", "Adding"),
        ("code", "Adding"),
        ("question", "Questions"),
        ("question", "Questions"),
        ("text", "Full"),
        ("exercise", "Exercise 1: calculate (easy, 5 minutes)"),
        ("text", "Data and licences"),
    ]
    goals, opening, _, table, figure, source, *_, task, credit = deck.slides
    assert "two_sets: 7 images, CC BY 4.0." in credit.body[0]
    assert "CC BY 4.0, the authors of" in credit.body[1]
    assert "<li>add,</li>" in goals.body[1]
    assert opening.body[0].startswith("<p>A <em>sum</em> is ")
    assert "\\(a &lt; b\\)" in opening.body[0]  # MathJax reads it, and HTML does not
    assert table.body[0].startswith("<p><strong>Table 1.1.</strong> Two numbers.</p>\n<table>")
    assert "\\[c = a + b\\]" in table.body[1]
    assert figure.body == ["<img alt='two' src='data:,'>"]
    assert "shown = 1" in source.body[0]
    assert task.body == ["<p>Add them.</p>\n"]


def body_of(table):
    """Return the words of each row of a table's body; a cell that spans rows is in each."""
    above, rows = [], []  # cells that go on, with the number of rows left
    for row in BeautifulSoup(table, "html.parser").tbody.find_all("tr"):
        new = [[cell.text, int(cell.get("rowspan", 1))] for cell in row.find_all(["th", "td"])]
        cells = above + new
        rows.append([text for text, _ in cells])
        above = [[text, left - 1] for text, left in cells if left > 1]
    assert not above  # nothing reaches below the table
    return rows


@pytest.mark.parametrize(("count", "lengths"), [(16, [16]), (17, [8, 9]), (40, [13, 13, 14])])
def test_a_long_table_goes_on_on_the_next_slide_with_its_names(count, lengths):
    index = [("few" if row < 10 else "many", "a" if row < 5 else "b", row) for row in range(count)]
    names = pd.MultiIndex.from_tuples(index, names=["shots", "group", "run"])
    table = pd.DataFrame({"Dice": range(count)}, names).to_html()
    parts = slides.parts_of_table(f"<figcaption>Table 1.</figcaption>{table}")
    bodies = [body_of(part) for part in parts]
    assert [len(body) for body in bodies] == lengths
    assert [row for body in bodies for row in body] == body_of(table)
    assert body_of(table)[-1] == ["many", "b", str(count - 1), str(count - 1)]
    assert all("<figcaption>Table 1.</figcaption>" in part for part in parts)
    assert all("<th>Dice</th>" in part for part in parts)


def test_the_table_of_claims_stays_whole():
    shown = f'<div class="claims"><table><tbody>{"<tr><td>1</td></tr>" * 40}</tbody></table></div>'
    assert slides.parts_of_table(shown) == [shown]


def test_other_text_and_answers_are_in_the_notes_alone(deck):
    opening, task = deck.slides[1], deck.slides[-2]
    assert "Second sentence" in "".join(opening.notes)
    assert "More prose with a link." in "".join(opening.notes)  # which would leave the deck
    assert "Because." in "".join(task.notes)
    for hidden in ("More prose", "Because", "the answer", "A paper", "import os"):
        assert not any(hidden in "".join(slide.body) for slide in deck.slides)


def test_each_question_has_a_slide_and_its_answers_are_in_the_notes(deck):
    for number, word in enumerate(("first", "second"), start=1):
        slide = [one for one in deck.slides if one.kind == "question"][number - 1]
        assert f"Question {number}." in "".join(slide.body)
        assert "<li><strong>B.</strong> No.</li>" in "".join(slide.body)
        assert f"it is the {word}" in "".join(slide.notes)
        assert "it is the" not in "".join(slide.body)


@pytest.mark.skipif(site.browser_path() is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(
    ("high", "wide", "scales", "scrolls"),
    [(100, 100, 1, False), (700, 100, 0.9, False), (100, 1500, 0.85, False), (3000, 100, 1, True)],
)
def test_a_slide_is_drawn_smaller_until_it_fits(tmp_path, high, wide, scales, scrolls):
    script = Path(__file__).parents[2] / "book" / "_static" / "slides.js"
    (tmp_path / "deck.html").write_text(
        f"""<!doctype html><script src="{script.as_uri()}"></script>
        <style>* {{ margin: 0 }} .content {{ overflow: auto; transform-origin: 0 0 }}
        .slides {{ position: relative; width: 1280px; height: 720px }} p {{ height: 40px }}</style>
        <div class="slides"><section><p>Title</p><div class="content">
        <div style="height: {high}px; width: {wide}px"></div></div></section></div>"""
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=site.browser_path(), args=site.FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.goto((tmp_path / "deck.html").as_uri())
        page.wait_for_function("document.querySelector('.content').style.maxHeight !== ''")
        content = page.locator(".content")
        factor = content.evaluate("one => one.getBoundingClientRect().width / one.offsetWidth")
        lower_edge = content.evaluate("one => one.getBoundingClientRect().bottom")
        hidden = content.evaluate("one => one.scrollHeight - one.clientHeight")
        browser.close()
    assert factor == pytest.approx(scales, abs=0.001)
    assert lower_edge <= 720
    assert (hidden > 0) == scrolls


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
