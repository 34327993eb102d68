"""The folder of a reproduced table: its runs, their rows, and its page."""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from medsaga_lib.errors import UserError
from medsaga_lib.files import write_json
from medsaga_lib.reproduce.cluster import finished
from medsaga_lib.reproduce.provenance import machine
from medsaga_lib.reproduce.runs import Row, in_order, row_of, rows_of_runs
from medsaga_lib.reproduce.submission import read_rows, submission

ROWS, PAGE, RUNS = "rows.json", "page.md", "runs"
ACCUMULATED = Path(__file__).with_name(ROWS)  # rows of this project and of readers


def all_rows(out: Path) -> list[Row]:
    """Return the rows of a folder; raise UserError if its file is damaged."""
    path = out / ROWS
    if not path.exists():
        return []
    try:
        return read_rows(path)
    except UserError as error:
        raise UserError(
            f"{path} is damaged; delete it, and the finished runs are evaluated again."
        ) from error


def accumulated() -> list[Row]:
    """Return the rows that come with the library."""
    return read_rows(ACCUMULATED)


def trained(
    runs: Sequence[Row], out: Path, workers: int = 1, scheduler: str | None = None
) -> Iterator[list[Row]]:
    """Train the runs whose rows are not there; yield the rows so far after each.

    The file of rows is written after each run. It keeps the rows of other runs.

    Raises:
        RunError: a run failed.
        UserError: the file is damaged or cannot be written, or there is no cluster.
    """
    kept = all_rows(out)
    rows = rows_of_runs(kept, runs)
    missing = [run for run in runs if run["command"] not in rows]
    others = [row for row in kept if row["command"] not in {run["command"] for run in runs}]
    yield in_order(runs, rows)
    if not missing:
        return
    job = partial(_timed, out.absolute() / RUNS)
    # as many threads for each run as in the first attempt, since they decide the rounding
    for row in finished(job, missing, workers, scheduler):
        rows[row["command"]] = row
        done = in_order(runs, rows)
        write_json(out / ROWS, submission([*others, *done]))
        yield done


def _timed(folder: Path, run: Row, threads: int | None) -> Row:
    """Return the row of a run with its machine and, if it was made in one go, its seconds."""
    start = time.monotonic()
    row = row_of(folder, run, threads)
    whole = row["cpu_seconds"] is not None  # no other process did a part of it
    return {
        **machine(threads),
        **row,
        "wall_seconds": round(time.monotonic() - start) if whole else None,
    }
