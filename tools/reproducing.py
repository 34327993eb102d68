"""The generated parts of the page "Reproducing the tables": the tables, their sets, and the rows.

`tools.stage` puts them into `book/reproducing.md`. They come from the library alone, so that the
page changes with it: `medsaga_lib/reproduce/tables.toml`, the official data sets, and
`medsaga_lib/reproduce/rows.json`, the rows of this project and of readers.
"""

from pathlib import Path

from medsaga_lib.data.fetching.catalogue import find_set
from medsaga_lib.data.fetching.fetch import size_text
from medsaga_lib.reproduce.folder import accumulated
from medsaga_lib.reproduce.grid import SLICES, fetching
from medsaga_lib.reproduce.page import markdown, page
from medsaga_lib.reproduce.published import not_here, tables
from medsaga_lib.reproduce.verdicts import at

PAGE = Path("book/reproducing.md")
TABLES_MARK = "<!-- The tables stand here once the book is built. -->"
SETS_MARK = "<!-- The data sets stand here once the book is built. -->"
ROWS_MARK = "<!-- The rows stand here once the book is built. -->"


def filled(text: str) -> str:
    """Return the page with its generated parts."""
    for mark, part in (
        (TABLES_MARK, table_of_tables()),
        (SETS_MARK, table_of_sets()),
        (ROWS_MARK, pages_of_rows()),
    ):
        text = text.replace(mark, part)
    return text


def table_of_tables() -> str:
    """Return a row for each published table, and the reasons of those that no grid reproduces."""
    header = ("Table", "Published", "Numbers", "Runs with one seed", "Data sets")
    rows = [
        (
            f"`{table.name}`",
            table.title,
            len(table.published()),
            len({cell.place for cell in table.published()}),
            ", ".join(f"`{name}`" for name in table.sets.values()),
        )
        for table in tables().values()
    ]
    others = [f"No grid reproduces `{name}`, because {why}." for name, why in not_here().items()]
    return f"{markdown(header, rows)}\n\n{' '.join(others)}"


def table_of_sets() -> str:
    """Return a row for each data set of the tables: licence, size, how it comes, the command."""
    header = ("Data set", "Licence", "Size", "Comes", "Command")
    rows = []
    for data in dict.fromkeys(one for table in tables().values() for one in table.sets.values()):
        official = find_set(data.removesuffix(SLICES))
        comes = official.comes
        rows.append(
            (
                f"[`{data}`]({official.page})",
                official.licence,
                size_text(official.bytes, official.about),
                "after a registration or from a page, by hand" if comes == "by hand" else comes,
                f"`{fetching(data)}`",
            )
        )
    return markdown(header, rows)


def pages_of_rows() -> str:
    """Return the page of each table that has rows, under headings of the third level."""
    rows, pages = accumulated(), []
    for table in tables().values():
        own = [row for row in rows if row["table"] == table.name]
        cells = [cell for cell in table.published() if at(table, own, cell)]
        if cells:
            pages.append(page(table, cells, own).replace("\n## ", "\n#### "))
    return "\n".join(f"##{text}" for text in pages) or "There are no rows yet."
