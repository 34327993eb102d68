"""The papers' tables and the numbers of their text, as printed (`tables/NAME.csv`).

The first line of a file names its source. A row is called by its first columns, as in
"Chest-Xray 50".
"""

from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pandas as pd

from medsaga_lib.claims.arithmetic import number

FOLDER = Path(__file__).with_name("tables")
LABELS = {"medsaga_table1": 2, "medsaga_table2": 2, "medsaga_table3": 2, "medsaga_text": 2,
          "medsaga_summary": 2, "litemedsam_text": 2, "s_sam_text": 2,
          "cheap_lunch_text": 2, "torchao_text": 2}  # fmt: skip


@cache
def printed(name: str) -> pd.DataFrame:
    """Return a table with its cells as printed, "" for an empty one; rows have their names."""
    rows = pd.read_csv(FOLDER / f"{name}.csv", comment="#", dtype=str, keep_default_na=False)
    labels = rows.columns[: LABELS.get(name, 1)]
    rows.index = pd.Index(rows[labels].agg(" ".join, axis=1))
    return rows


def source(name: str) -> str:
    """Return the source of a table."""
    with (FOLDER / f"{name}.csv").open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


def names() -> list[str]:
    """Return the names of all tables."""
    return sorted(path.stem for path in FOLDER.glob("*.csv"))


@cache
def table(name: str) -> pd.DataFrame:
    """Return the columns of numbers of a table; an empty cell is NaN."""
    cells = printed(name).iloc[:, LABELS.get(name, 1) :]
    return cells.map(lambda text: number(text) if text else float("nan"))


def text_of(name: str, row: str) -> str:
    """Return a number of a document's text as printed; `row` is such as "4.2 batch size"."""
    return str(printed(name).at[row, "value"])


def figure(name: str, row: str) -> float:
    """Return a number of a document's text."""
    return number(text_of(name, row))


def cells(pattern: str) -> dict[str, str]:
    """Return the printed cells that a pattern names, by "row, column".

    pattern: as in "medsaga_table1[AMOS *, *_dice]"; `*` stands for any text.
    """
    name, _, place = pattern.removesuffix("]").partition("[")
    row_pattern, _, column_pattern = place.rpartition(", ")
    rows = printed(name)
    return {
        f"{row}, {column}": str(rows.at[row, column])
        for row in rows.index
        if fnmatchcase(str(row), row_pattern)
        for column in rows.columns
        if fnmatchcase(str(column), column_pattern)
    }
