"""The parts of `medsaga reproduce`: list the tables, plan, run, show rows, merge files."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medsaga_lib.data.catalog import data_root
from medsaga_lib.errors import UserError
from medsaga_lib.evaluation.scores import without_nan
from medsaga_lib.files import write_bytes, write_json
from medsaga_lib.reproduce.folder import PAGE, accumulated, all_rows, trained
from medsaga_lib.reproduce.grid import Grid, Profile, Request, grid, hours, peak_of
from medsaga_lib.reproduce.page import page
from medsaga_lib.reproduce.published import Cell, Table, chosen, find_table, tables
from medsaga_lib.reproduce.runs import Row, rows_of_runs
from medsaga_lib.reproduce.submission import merge, read_rows, submission
from medsaga_lib.reproduce.verdicts import judge

GIB = 2**30


@dataclass(frozen=True)
class Work:
    """A part of a published table, how it is trained and where."""

    table: str
    out: Path
    profile: Profile = "full"
    datasets: Sequence[str] = ()
    images: Sequence[str] = ()
    methods: Sequence[str] = ()
    seeds: Sequence[int] = (0,)
    backbone: str | None = None
    size: int | None = None
    steps: int | None = None
    workers: int = 1
    scheduler: str | None = None
    command: str = ""

    def cells(self) -> list[Cell]:
        """Return the published numbers; raise UserError if there are none."""
        return chosen(
            find_table(self.table), *map(list, (self.datasets, self.images, self.methods))
        )


@dataclass(frozen=True)
class Planned:
    """The runs of a work, and what is known about their cost."""

    table: Table
    cells: list[Cell]
    grid: Grid
    missing: list[Row]
    hours: float
    unknown: int  # runs whose hours are not known

    header = ("data", "images", "method", "recipe", "runs", "px", "steps", "peak, GiB")

    def lines(self) -> list[tuple]:
        """Return a line for each place of the table; its runs differ by the seed."""
        places: dict[tuple, int] = {}
        for run in self.grid.runs:
            line = (
                *(run[key] for key in ("data", "asked", "method", "recipe")),
                *(run[key] for key in ("size", "planned_steps")),
                f"{_peak(run) / GIB:.1f}",
            )
            places[line] = places.get(line, 0) + 1
        return [(*line[:4], count, *line[4:]) for line, count in places.items()]

    def summary(self) -> str:
        """Return the number of runs, their hours, and what cannot be run here."""
        runs, missing = len(self.grid.runs), len(self.missing)
        known = missing - self.unknown
        lines = [f"{runs} runs, {missing} of them missing"]
        if known:
            lines[0] += f": {self.hours:.1f} hours for {known} of them by similar runs"
        if self.unknown:
            lines[0] += f"; the time of {self.unknown} is not known"
        lines += [f"not run: {name} {why}" for name, why in self.grid.needs.items()]
        return "\n".join(lines)

    def record(self) -> dict[str, Any]:
        """Return the plan for JSON."""
        return {
            "table": self.table.name,
            "runs": [run | {"peak_bytes": _peak(run)} for run in self.grid.runs],
            "missing": [run["command"] for run in self.missing],
            "hours": self.hours,
            "hours_unknown": self.unknown,
            "needs": self.grid.needs,
        }


def _peak(run: Row) -> int:
    return peak_of(run["recipe"], run["backbone"], run["size"], run["classes"])


def parse_seeds(text: str) -> list[int]:
    """Return the seeds of "0,1,2", each once; raise UserError for another text."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and int(part[:11]) < 2**32 for part in parts):
        raise UserError(f"--seeds {text} are no seeds; write whole numbers, as in 0,1,2.")
    return list(dict.fromkeys(map(int, parts)))


def listed_tables() -> list[dict[str, Any]]:
    """Return what the list of tables shows of each: its numbers, its sets, and which are here."""
    root = data_root()
    records = []
    for table in tables().values():
        here = [name for name in table.sets.values() if root and (root / name).is_dir()]
        records.append(
            {
                "name": table.name,
                "title": table.title,
                "numbers": len(table.published()),
                "needed": ", ".join(name for name in table.sets.values() if name not in here),
                "here": ", ".join(here) or "none",
            }
        )
    return records


def plan(work: Work) -> Planned:
    """Return the runs of a work, those whose rows are missing, and their hours.

    Raises:
        UserError: the table, a part of it or a value is unknown, or no data set is here.
    """
    table, cells = find_table(work.table), work.cells()
    request = Request(table, cells, work.profile, work.seeds, work.backbone, work.size, work.steps)
    found = grid(request)
    kept = all_rows(work.out)
    rows = rows_of_runs(kept, found.runs)
    missing = [run for run in found.runs if run["command"] not in rows]
    total, unknown = hours(missing, [*accumulated(), *kept])
    return Planned(table, cells, found, missing, total / work.workers, unknown)


def run(work: Work, planned: Planned, submit: Path | None, progress: bool) -> dict[str, Any]:
    """Train what is missing, write the page and return what was found.

    Raises:
        RunError: a run failed; the rows of the others are kept.
        UserError: a file cannot be written, or there is no cluster.
    """
    from tqdm import tqdm

    rows: list[Row] = []
    runs = planned.grid.runs
    with tqdm(total=len(runs), desc="runs", disable=None if progress else True) as bar:
        for rows in trained(runs, work.out, work.workers, work.scheduler):
            bar.update(len(rows) - bar.n)
    if submit is not None:
        write_json(submit, submission(rows))
    return _written(work, planned.table, planned.cells, rows, planned.grid.needs)


def show_rows(work: Work, path: Path) -> Path:
    """Write the page of a table from the rows of a file, and return its path.

    Raises:
        UserError: the file is damaged, or it has no rows of the table.
    """
    rows = [row for row in read_rows(path) if row["table"] == work.table]
    if not rows:
        raise UserError(f"{path} has no rows of {work.table}; choose another table.")
    return Path(_written(work, find_table(work.table), work.cells(), rows, {})["page"])


def _written(
    work: Work, table: Table, cells: Sequence[Cell], rows: list[Row], needs: dict[str, str]
) -> dict[str, Any]:
    path = work.out / PAGE
    write_bytes(path, page(table, cells, rows, needs, work.command).encode())
    found = [judge(table, cell, rows, needs) for cell in cells]
    numbers = [
        {
            **vars(one.cell),
            **{key: value for key, value in vars(one).items() if key != "cell"},
        }
        for one in found
    ]
    decided = sum(one.seeds > 0 for one in found)
    return without_nan(
        {
            "page": str(path),
            "said": f"{decided} of {len(found)} published numbers beside ours",
            "numbers": numbers,
        }
    )


def merge_files(files: Sequence[Path], out: Path) -> dict[str, Any]:
    """Merge files of rows into `out`, whose own rows stay; return what was done.

    Raises:
        UserError: there are no files, one is damaged, or rows of one run have other results.
    """
    if not files:
        raise UserError("There is nothing to merge; give files that were made with --submit.")
    before = read_rows(out) if out.exists() else []
    rows = merge([(out, before), *((path, read_rows(path)) for path in files)])
    content = submission(rows)
    if not before or content != submission(before):
        write_json(out, content)
    new = len(rows) - len(before)
    return {
        "rows": len(rows),
        "new": new,
        "out": str(out),
        "said": f"{out}: {len(rows)} rows, {new} of them new; see them with: medsaga reproduce "
        f"{rows[0]['table'] if rows else 'TABLE'} --rows {shlex.quote(str(out))}",
    }
