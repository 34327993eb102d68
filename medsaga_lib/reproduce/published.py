"""The published tables that a grid of runs can reproduce: their cells, and what made them."""

import difflib
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from medsaga_lib.claims.arithmetic import interval
from medsaga_lib.claims.tables import printed
from medsaga_lib.errors import UserError
from medsaga_lib.recipes import get_recipe

FACTS = Path(__file__).with_name("tables.toml")
NOT_HERE = "not_here"  # the entry with the tables that no grid can reproduce
ALL = "all"  # the images of a cell that names no number
METRICS = ("dice", "hd95")
PERCENT = 100


@dataclass(frozen=True)
class Cell:
    """A published number and its place: data set, number of images, method and score."""

    dataset: str
    images: str  # a number, a share such as 1%, or "all"
    method: str
    metric: str
    text: str  # as printed

    @property
    def shots(self) -> str:
        """The images as `medsaga train --shots` takes them."""
        return "100%" if self.images == ALL else self.images

    @property
    def place(self) -> tuple[str, str, str]:
        """The data set, the images and the method, which runs have too."""
        return self.dataset, self.images, self.method


@dataclass(frozen=True)
class Table:
    """A published table; the meanings of its fields are at the top of `tables.toml`."""

    name: str
    title: str
    methods: dict[str, str]
    sets: dict[str, str]
    backbone: str
    size: int
    epochs: int
    open: list[str]
    unit: list[str]
    quick: dict[str, dict[str, Any]]
    file: str = ""
    full: list[str] = field(default_factory=list)
    partial: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    percent: bool = False
    cells: list[dict[str, str]] = field(default_factory=list)

    def published(self) -> list[Cell]:
        """Return the cells with a number, row by row."""
        return [cell for cell in self._all() if cell.text]

    def bounds(self, cell: Cell) -> tuple[float, float]:
        """Return the values, as shares of 1 for Dice, that are printed as a cell when rounded."""
        low, high = interval(cell.text)
        scale = self.scale(cell)
        return low / scale, high / scale

    def scale(self, cell: Cell) -> float:
        """Return what our score is multiplied by to be printed."""
        return PERCENT if self.percent and cell.metric == "dice" else 1

    def size_of(self, method: str) -> int:
        """Return the pixels along one side of a method's input."""
        return self.sizes.get(method, self.size)

    def recipe_of(self, method: str) -> str:
        """Return the recipe of a method in the full profile, with its changed values."""
        return ":".join([self.methods[method], *self.full])

    def title_of(self, method: str) -> str:
        """Return the name of a method for readers: the paper's, or the table's if two share it."""
        titles = {
            name: get_recipe(recipe.partition(":")[0]).method
            for name, recipe in self.methods.items()
        }
        shared = list(titles.values()).count(titles[method]) > 1
        return method.replace("_", " ") if shared else titles[method]

    def _all(self) -> Iterator[Cell]:
        rows = printed(self.file or self.name)
        if self.cells:
            for place in self.cells:
                facts = {key: place[key] for key in ("dataset", "images", "method", "metric")}
                yield Cell(**facts, text=str(rows.at[place["row"], "value"]))
            return
        for _, row in rows.iterrows():
            for method in self.methods:
                for metric in METRICS:
                    text = str(row[f"{method}_{metric}"])
                    yield Cell(row["data_set"], row["images"], method, metric, text)


@cache
def tables() -> dict[str, Table]:
    """Return the tables by their names."""
    return {name: Table(name, **facts) for name, facts in _entries().items() if name != NOT_HERE}


def not_here() -> dict[str, str]:
    """Return why other tables cannot be reproduced by a grid, by their names."""
    return _entries()[NOT_HERE]


def find_table(name: str) -> Table:
    """Return a table; raise UserError if no grid reproduces one of this name."""
    if name in tables():
        return tables()[name]
    if name in not_here():
        raise UserError(f"{name} cannot be reproduced by a grid of runs: {not_here()[name]}.")
    near = difflib.get_close_matches(name, tables(), n=1)
    hint = f"did you mean {near[0]}?" if near else "see `medsaga reproduce --list`."
    raise UserError(f"There is no table {name!r}; {hint}")


def chosen(table: Table, datasets: list[str], images: list[str], methods: list[str]) -> list[Cell]:
    """Return the cells of some data sets, numbers of images and methods; an empty list means all.

    Raises:
        UserError: the table has no such data set, number or method, or no cell has all of them.
    """
    cells = table.published()
    for option, values, key in (
        ("--dataset", datasets, "dataset"),
        ("--shots", images, "images"),
        ("--method", methods, "method"),
    ):
        known = list(dict.fromkeys(getattr(cell, key) for cell in table.published()))
        if wrong := [value for value in values if value not in known]:
            raise UserError(
                f"{option} {wrong[0]} is not in {table.name}; choose from {', '.join(known)}."
            )
        cells = [cell for cell in cells if not values or getattr(cell, key) in values]
    if not cells:
        raise UserError(f"No cell of {table.name} has all of these properties; omit an option.")
    return cells


@cache
def _entries() -> dict[str, Any]:
    return tomllib.loads(FACTS.read_text(encoding="utf-8"))
