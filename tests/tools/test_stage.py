"""Staged files keep their times, and pages show how they were made."""

import os

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from nbformat import NotebookNode

from tools import book, pairs, stage
from tools.execute import STAGE

MADE = {
    "commit": "0123456789+",
    "date": "2026-01-02",
    "profile": "quick",
    "device": "one CPU core (<Chip> | 9)",
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
    "seed": 3,
    "minutes": 0.52,
    "gigabytes": 0.61,
    "data": ["phantom_small: drawn", "cxr: 18 X-rays"],
}


@pytest.fixture
def executed(small_book):
    """The small book's chapter as if it had been executed."""
    chapter = book.chapters(small_book.root)[0]
    notebook = small_book.unfolded()
    notebook.metadata["medsaga"] = MADE
    path = small_book.root / "_build" / "executed" / "01_small.0.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)
    return {chapter: path}


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_only_what_changed_gets_a_new_time(small_book, executed):
    root, folder = small_book.root, small_book.root / STAGE
    stage.stage(root, executed)
    before = times(folder)
    assert {path.relative_to(folder).as_posix() for path in before} == {
        "_config.yml",
        "_toc.yml",
        "book/_static/book.css",
        "book/index.md",
        "book/status.md",
        "notebooks/01_small.ipynb",
    }
    stage.stage(root, executed)
    assert times(folder) == before

    page = root / "book" / "index.md"
    page.write_text("# Other\n")
    os.utime(page, ns=(1, before[folder / "book" / "index.md"] + 10**9))
    (folder / "notebooks" / "left_by_a_cell.txt").write_text("x")
    stage.stage(root, executed)
    after = times(folder)
    assert [path.name for path in before if after[path] != before[path]] == ["index.md"]
    assert after.keys() == before.keys()


def test_the_status_page_has_a_row_with_what_was_measured(small_book, executed):
    stage.stage(small_book.root, executed)
    text = (small_book.root / STAGE / "book" / "status.md").read_text(encoding="utf-8")
    assert stage.STATUS_MARK not in text
    assert (
        "| [1. Small](../notebooks/01_small.ipynb) | 0.52 (1) | 0.61 (1) "
        "| phantom_small, cxr | 0123456789+, 2026-01-02 |\n"
    ) in text
    assert "\n- cxr: 18 X-rays\n- phantom_small: drawn\n" in text
    assert "Machine: one CPU core (<Chip> | 9)." in text
    assert "Versions: python 3.11.7, torch 2.13.0." in text


def test_a_page_ends_with_how_it_was_made_and_folds_its_solutions(small_book, executed):
    stage.stage(small_book.root, executed)
    notebook = pairs.read_notebook(small_book.root / STAGE / "notebooks" / "01_small.ipynb")
    card = notebook.cells[-1].source
    for said in ("0.52 minutes, 0.61 GB", "quick, seed 3", "0123456789+, 2026-01-02",
                 "torch 2.13.0", "one CPU core (&lt;Chip&gt; | 9)", "cxr: 18 X-rays"):  # fmt: skip
        assert said in card
    folded = [cell for cell in book.code_cells(notebook) if "hide-cell" in book.tags(cell)]
    assert [book.tags(cell)[0] for cell in folded] == ["colab", "solution", "solution", "solution"]
    assert folded[1].metadata["mystnb"]["code_prompt_show"] == "Show the solution"


def shown(page: str) -> NotebookNode:
    return nbformat.v4.new_output("display_data", {"text/html": page})


def test_figures_and_tables_are_numbered_in_the_order_of_the_page():
    figures = [shown("<img><figcaption>One.</figcaption>"), shown("<figcaption>Two.</figcaption>")]
    tables = [shown("<table><td>1</td></table>"), shown("<table></table>")]
    captions = "Dice < 1 of `a` and `b`.", "More."
    code = nbformat.v4.new_code_cell
    cells = [
        nbformat.v4.new_markdown_cell("Text\n\nTable: Words.\n\n| a |\n| - |\n\nTable: no caption"),
        code("", outputs=[shown("<p>1</p>"), figures[0]]),
        *(
            code("", outputs=[one], metadata={"caption": caption})
            for one, caption in zip(tables, captions, strict=True)
        ),
        code("", outputs=figures[1:]),
    ]
    stage.number(nbformat.v4.new_notebook(cells=cells), 7)
    assert cells[0].source == "Text\n\n**Table 7.1.** Words.\n\n| a |\n| - |\n\nTable: no caption"
    assert [output.data["text/html"] for cell in cells[1:] for output in cell.outputs] == [
        "<p>1</p>",
        "<img><figcaption><b>Figure 7.1.</b> One.</figcaption>",
        '<figure class="of-table"><figcaption><b>Table 7.2.</b> Dice &lt; 1 of <code>a</code> and '
        "<code>b</code>.</figcaption>\n<table><td>1</td></table>\n</figure>",
        '<figure class="of-table"><figcaption><b>Table 7.3.</b> More.</figcaption>\n<table></table>'
        "\n</figure>",
        "<figcaption><b>Figure 7.2.</b> Two.</figcaption>",
    ]


def test_tables_of_a_page_are_numbered(small_book, executed):
    page = "book/more.md"
    (small_book.root / page).write_text("Table: A.\n\n| a |\n| - |\n\nTable: B.\n\n| b |\n| - |\n")
    stage.stage(small_book.root, executed)
    text = (small_book.root / STAGE / page).read_text(encoding="utf-8")
    assert text == "**Table 1.** A.\n\n| a |\n| - |\n\n**Table 2.** B.\n\n| b |\n| - |\n"


def test_all_figures_are_on_the_contact_sheet(small_book, executed):
    (path,) = executed.values()
    notebook = pairs.read_notebook(path)
    live = '<figure class="figure-live"><figcaption>Two.</figcaption></figure>'
    pages = ["<img><figcaption>One.</figcaption>", "<p>text</p>", live, "<table></table>"]
    cell = nbformat.v4.new_code_cell("x", metadata={"caption": "Words."})
    cell.outputs = [shown(page) for page in pages]
    notebook.cells.append(cell)
    nbformat.write(notebook, path)
    stage.stage(small_book.root, executed)
    sheet = (small_book.root / stage.CONTACT_SHEET).read_text(encoding="utf-8")
    assert sheet.count("<figcaption>") == 2
    assert "<img><figcaption><b>Figure 1.1.</b> One.</figcaption>" in sheet
    assert "<figcaption><b>Figure 1.2.</b> Two.</figcaption>" in sheet


def test_a_table_needs_a_caption():
    cell = nbformat.v4.new_code_cell("x = 1\nframe.round(2)", outputs=[shown("<table></table>")])
    with pytest.raises(book.BookError, match=r"Table 7.1. \('frame.round\(2\)'\) has no caption"):
        stage.number(nbformat.v4.new_notebook(cells=[cell]), 7)


@pytest.mark.parametrize(
    ("source", "tags", "folded"),
    [
        ("display.show(figure, alt='x')", [], True),
        ("display.interactive('bytes', {}, 'x')", [], True),
        ("panels = []", ["figure"], True),
        ("panels = []", [], False),
        ("display.show(figure, alt='x')", ["exercise"], False),
    ],
)
def test_code_that_draws_a_figure_is_folded(source, tags, folded):
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": tags})
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"medsaga": MADE})
    stage.page(notebook, 1)
    assert ("hide-input" in cell.metadata["tags"]) == folded
    words = cell.metadata.get("mystnb", {})
    assert words.get("code_prompt_show", "") == "Show the code of the figure" * folded


def test_cells_that_prepare_a_figure_are_joined_with_the_one_that_draws_it():
    drawn = shown("<figcaption>One.</figcaption>")
    figure = {"tags": ["figure"]}
    cells = [
        nbformat.v4.new_code_cell("x = 1"),
        nbformat.v4.new_code_cell("a = 1", metadata=figure),
        nbformat.v4.new_code_cell("b = 2", metadata=figure),
        nbformat.v4.new_code_cell("display.show(a, b)", outputs=[drawn]),
        nbformat.v4.new_code_cell("display.show(c)", outputs=[drawn]),
        nbformat.v4.new_markdown_cell("display.show( is a function."),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    stage.join_figures(notebook)
    assert [cell.source for cell in notebook.cells] == [
        "x = 1",
        "a = 1\n\nb = 2\n\ndisplay.show(a, b)",
        "display.show(c)",
        "display.show( is a function.",
    ]


@pytest.mark.parametrize("levels", [1, 2])
def test_the_names_of_an_index_stand_beside_those_of_the_columns(levels):
    index = pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["method", "shots"])
    table = pd.DataFrame({"Dice": [0.5, 0.6], "HD95": [1, 2]}, index).reset_index()
    shown = table.set_index(["method", "shots"][:levels]).to_html()
    body = shown[shown.index("<tbody>") :]
    page = stage.with_one_head(shown)
    assert page.endswith(body)
    (row,) = BeautifulSoup(page, "html.parser").thead.find_all("tr")
    names = ["method", "shots", "Dice", "HD95"]
    assert [cell.text for cell in row.find_all("th")] == names
    assert stage.with_one_head(page) == page


def test_columns_that_are_numbers_keep_their_name_above_that_of_the_index():
    frame = pd.DataFrame({"method": ["a", "b"], "shots": [4, 8], "dice": [0.5, 0.6]})
    for shown in (
        frame.pivot(index="method", columns="shots", values="dice").to_html(),
        frame.to_html(),
    ):
        assert stage.with_one_head(shown) == shown


@pytest.mark.parametrize("values", ["dice", ["dice"]])
def test_columns_that_are_words_need_no_name(values):
    frame = pd.DataFrame({"method": ["a", "b"], "task": ["lungs", "polyps"], "dice": [0.5, 0.6]})
    shown = frame.pivot(index="method", columns="task", values=values).to_html()
    rows = BeautifulSoup(stage.with_one_head(shown), "html.parser").thead.find_all("tr")
    assert len(rows) == (1 if values == "dice" else 2)
    assert [cell.text for cell in rows[-1].find_all("th")] == ["method", "lungs", "polyps"]


def test_the_names_of_an_index_stand_in_the_last_row_of_a_head_with_groups():
    frame = pd.DataFrame({"method": ["a", "b"], "shots": [4, 8], "dice": [0.5, 0.6]})
    shown = frame.groupby("method")[["shots", "dice"]].agg(["mean", "min"]).to_html()
    rows = BeautifulSoup(stage.with_one_head(shown), "html.parser").thead.find_all("tr")
    assert [[cell.text for cell in row.find_all("th")] for row in rows] == [
        ["", "shots", "dice"],
        ["method", "mean", "min", "mean", "min"],
    ]
