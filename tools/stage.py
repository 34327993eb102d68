"""Stage in `_build/stage` what is rendered: pages, executed chapters and their provenance.

A file with the same content keeps its time, so that Sphinx renders only changed files again.
"""

import html
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from tools import architecture, book, cards, glossary, pairs, reproducing, syllabus
from tools.execute import STAGE, inputs

STATUS_PAGE = Path("book/status.md")
STATUS_MARK = "<!-- The table stands here once the book is built. -->"
FOLDED = {book.SOLUTION: "the solution", book.COLAB: "how Colab gets the library"}
VERBS = ("show", "hide")
ROW = r"<tr[^>]*>((?:(?!</tr>).)*)</tr>\s*"
HEADS = re.compile(ROW + ROW + "</thead>", re.DOTALL)  # the last 2 rows of a head
HEAD = re.compile(r"<th[^>]*>(.*?)</th>", re.DOTALL)
NAMED = re.compile(r"[^\W\d]{2}")  # a label with a word in it
CAPTION = "<figcaption>"  # where a caption begins
OF_TABLE = '<figure class="of-table">'
CONTACT_SHEET = book.BUILD / "figures.html"  # all figures on one page, to look at; not in the site
SHEET = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>All figures</title>
<style>
body {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1rem }}
figure {{ margin: 0 }}
img {{ width: 100% }}
</style>
<script defer src="html/_static/shared.js"></script>
<script defer src="html/_static/figures.js"></script>
{}
</html>
"""
CODE = re.compile("`([^`]+)`")


def stage(root: Path, executed: dict[Path, Path]) -> None:
    """Fill the staging folder from `root` and the executed notebooks."""
    folder = root / STAGE
    written = {folder / name for name in ("_config.yml", "_toc.yml")}
    for name in ("_config.yml", "_toc.yml"):
        book.copy(root / name, folder / name)
    for source in sorted(path for path in (root / "book").rglob("*") if path.is_file()):
        target = folder / source.relative_to(root)
        written.add(target)
        if source.suffix != ".md":
            book.copy(source, target)
            continue
        text = source.read_text(encoding="utf-8")
        if source == root / STATUS_PAGE:
            table = status_table({one: pairs.read_notebook(to) for one, to in executed.items()})
            text = text.replace(STATUS_MARK, table)
        elif source == root / reproducing.PAGE:
            text = reproducing.filled(text)
        elif source == root / architecture.PAGE:
            text = architecture.page(root, text)
        elif source == root / syllabus.PAGE:
            text = syllabus.fill(text, root)
        book.write(target, with_numbers(text, itertools.count(1)))
    if glossary.terms(root):
        written.add(folder / glossary.SCRIPT)
        book.write(folder / glossary.SCRIPT, glossary.script(root))
    written |= {folder / file for file in inputs(root)}  # copied before the chapters ran
    figures: list[str] = []
    for chapter, notebook in executed.items():
        written.add(folder / chapter)
        made = page(pairs.read_notebook(notebook), int(chapter.name.partition("_")[0]))
        figures += figures_of(made)
        cards.describe(made)
        if (card := cards.add_card(made, chapter.stem, root, folder)) is not None:
            written.add(card)
        book.write(folder / chapter, nbformat.writes(made, indent=1))
    book.write(root / CONTACT_SHEET, SHEET.format("\n".join(figures)))
    for path in [path for path in folder.rglob("*") if path.is_file() and path not in written]:
        path.unlink()


def page(notebook: NotebookNode, chapter: int) -> NotebookNode:
    """Return the executed notebook to render: captions numbered, solutions folded, provenance."""
    number(notebook, chapter)
    join_figures(notebook)
    for cell in book.code_cells(notebook):
        if book.is_figure(cell):
            _fold(cell, "hide-input", "the code of the figure")
        for tag in FOLDED.keys() & set(book.tags(cell)):
            _fold(cell, "hide-cell", FOLDED[tag])
    card = nbformat.v4.new_markdown_cell(provenance_card(notebook.metadata["medsaga"]))
    card["id"] = "provenance"
    notebook.cells.append(card)
    return notebook


def figures_of(notebook: NotebookNode) -> list[str]:
    """Return the figures of a page with their captions, as HTML."""
    pages = [
        output.get("data", {}).get("text/html", "")
        for cell in book.code_cells(notebook)
        for output in cell.outputs
    ]
    return [page for page in pages if CAPTION in page and OF_TABLE not in page]


def join_figures(notebook: NotebookNode) -> None:
    """Join cells that prepare a figure and show nothing with the cell after them that draws it."""
    joined: list[NotebookNode] = []
    for cell in notebook.cells:
        before = joined[-1] if joined else None
        if before is not None and _prepares(before) and _draws(cell):
            cell.source = f"{before.source}\n\n{cell.source}"
            joined.pop()
        joined.append(cell)
    notebook.cells = joined


def _draws(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and book.is_figure(cell)


def _prepares(cell: NotebookNode) -> bool:
    return _draws(cell) and not cell.outputs


def _fold(cell: NotebookNode, what: str, name: str) -> None:
    """Let the page show a cell's code, or all of it, after a click on its name."""
    cell.metadata["tags"] = [*book.tags(cell), what]
    cell.metadata["mystnb"] = {f"code_prompt_{verb}": f"{verb.title()} {name}" for verb in VERBS}


def number(notebook: NotebookNode, chapter: int) -> None:
    """Put "Figure 5.2." before the caption of each figure, and "Table 5.2." before that of a table.

    The caption of a table in Markdown is the line above it, which begins with "Table: ".

    Raises:
        BookError: a table of a code cell has no caption.
    """
    figures, tables = itertools.count(1), itertools.count(1)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = with_numbers(cell.source, tables, f"{chapter}.")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            page = data.get("text/html", "")
            if CAPTION in page:
                numbered = f"{CAPTION}<b>Figure {chapter}.{next(figures)}.</b> "
                data["text/html"] = page.replace(CAPTION, numbered, 1)
            elif "<table" in page:
                page = with_one_head(page)
                caption = _caption(cell, f"Table {chapter}.{next(tables)}.")
                data["text/html"] = f"{OF_TABLE}{caption}\n{page}\n</figure>"


def with_numbers(text: str, tables: Iterator[int], chapter: str = "") -> str:
    """Return a Markdown text with "Table 5.2." in bold instead of "Table:" above each table."""
    return book.TABLE_CAPTION.sub(lambda _: f"**Table {chapter}{next(tables)}.** ", text)


def with_one_head(table: str) -> str:
    """Return a table of pandas with the names of its index in the row of the columns' labels.

    pandas puts the names of the index into a row of their own, the last of the head, whose other
    cells are empty, and the name of the columns above that of the index. Labels that are words need
    no name ("task" above "lungs"), so it goes. Numbers need it, and then both rows stay.
    """
    heads = HEADS.search(table)
    rows = [HEAD.findall(heads[number]) for number in (1, 2)] if heads else []
    if not heads or "colspan" in heads[0] or len(rows[0]) != len(rows[1]):
        return table
    columns = list(zip(*rows, strict=True))
    named = any(above and below for above, below in columns)
    if named and not any(NAMED.search(above) for above, below in columns if not below):
        return table
    cells = "".join(f"<th>{below or above}</th>" for above, below in columns)
    return table.replace(heads[0], f"<tr>{cells}</tr></thead>")


def _caption(cell: NotebookNode, label: str) -> str:
    if "caption" not in cell.metadata:
        head = cell.source.strip().splitlines()[-1]
        raise book.BookError(
            f"{label} ('{head}') has no caption; write caption=\"...\" after '# %%'."
        )
    words = CODE.sub(r"<code>\1</code>", html.escape(cell.metadata["caption"], quote=False))
    return f"{CAPTION}<b>{label}</b> {words}</figcaption>"


def provenance_card(made: dict[str, Any]) -> str:
    """Return a small table that says how a page was made."""
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    rows = {
        "Data": "; ".join(made["data"]) or "none",
        "Profile": f"{made['profile']}, seed {made['seed']}",
        "Took": f"{made['minutes']} minutes, {made['gigabytes']} GB at its peak",
        "Device": made["device"],
        "Versions": versions,
        "Commit": f"{made['commit']}, {made['date']}",
    }
    terms = "".join(f"<dt>{term}</dt><dd>{html.escape(value)}</dd>" for term, value in rows.items())
    return f'<aside class="provenance" aria-label="How this page was made"><dl>{terms}</dl></aside>'


def status_table(notebooks: dict[Path, NotebookNode]) -> str:
    """Return a Markdown table with one row for each chapter, and what is behind its names."""
    lines = [
        "| Chapter | Minutes (declared) | Peak GB (declared) | Data | Commit, date |",
        "|---|---|---|---|---|",
    ]
    made = {chapter: notebook.metadata["medsaga"] for chapter, notebook in notebooks.items()}
    for chapter, notebook in notebooks.items():
        one, declared = made[chapter], book.budget(notebook)
        title = notebook.cells[0].source.splitlines()[0].removeprefix("# ")
        cells = [
            f"[{title}](../{chapter.as_posix()})",
            f"{one['minutes']} ({declared.minutes:g})" if declared else f"{one['minutes']}",
            f"{one['gigabytes']} ({declared.gigabytes:g})" if declared else f"{one['gigabytes']}",
            ", ".join(described.split(":")[0] for described in one["data"]) or "none",
            f"{one['commit']}, {one['date']}",
        ]
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    data = sorted({described for one in made.values() for described in one["data"]})
    machines = sorted({one["device"] for one in made.values()})
    versions = sorted({" ".join(pair) for one in made.values() for pair in one["versions"].items()})
    below = [*(f"- {described}" for described in data), "", f"Machine: {'; '.join(machines)}."]
    return "\n".join([*lines, "", *below, "", f"Versions: {', '.join(versions)}."])
