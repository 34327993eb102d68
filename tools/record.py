"""Train a grid of runs and store the results with their provenance, for a chapter of the book.

    python -m tools.record adapting_sam --data cxr_hannover_lungs --shots 8 32
    python -m tools.record methods --data cxr_hannover_lungs:8,32 polyp_kvasir:64 --seeds 0 1 2

Dask distributes the runs over the workers of a cluster. The default is one worker on this machine
with all of its cores. With --workers, several workers share the cores. With --scheduler, the runs
go to the workers of another cluster, which must have this repository, the data and one thread each.
The file contains the grid of the last command and is written after every run. A run that is in this
or another recorded file is not run again; an interrupted run continues from its last checkpoint.
"""

import argparse
import itertools
import json
import shlex
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.data.shots import count_shots
from medsaga_lib.errors import UserError
from medsaga_lib.files import write_json
from medsaga_lib.recipes import get_recipe
from medsaga_lib.reproduce.cluster import finished
from medsaga_lib.reproduce.process import RunError
from medsaga_lib.reproduce.runs import Row, a_run, in_order, row_of, rows_of_runs
from tools.provenance import RECORDED, ROOT, machine

SECONDS = 3600  # of an hour


def main(words: list[str] | None = None, folder: Path = RECORDED) -> None:
    """Read the command line, train missing runs and write notebooks/recorded/NAME.json."""
    options = parser().parse_args(words)
    target = folder / f"{options.name}.json"
    try:
        if options.workers < 1:
            raise UserError(f"--workers is {options.workers}; it must be at least 1.")
        runs = grid(options)
        rows = recorded(target, runs)
        missing = [run for run in runs if run["command"] not in rows]
        print(plan(missing, rows.values()))
        if options.plan:
            return
        origin = provenance(options)
        keep(target, origin, runs, rows)
        for row in trained(options, missing):
            rows[row["command"]] = row
            keep(target, origin, runs, rows)
    except RunError as error:
        code, said = error.args
        print(said, file=sys.stderr)
        sys.exit(code)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(f"{target}: {len(missing)} runs new, {len(runs) - len(missing)} kept")


def plan(missing: list[dict[str, Any]], rows: Iterable[dict[str, Any]]) -> str:
    """Return the number of missing runs, and their processor time by the rows that are alike.

    A row is alike if it has the same data and the same recipe, or at least the same data.
    """
    rows = [row for row in rows if row.get("cpu_seconds")]
    times = "cpu_seconds", "evaluation_cpu_seconds"
    hours, unknown = 0.0, 0
    for run in missing:
        same = [row for row in rows if row["data"] == run["data"]]
        alike = [row for row in same if row["recipe"] == run["recipe"]] or same
        unknown += not alike
        seconds = sum(row.get(key) or 0 for row in alike for key in times)
        hours += seconds / max(1, len(alike)) / SECONDS
    known = len(missing) - unknown
    return (
        f"{len(missing)} runs are missing: {hours:.1f} hours of one core for {known} of them, "
        f"not known for {unknown}"
    )


def keep(target: Path, origin: Row, runs: list[Row], rows: dict[str, Row]) -> None:
    """Write the existing rows, in the order of the grid."""
    if done := in_order(runs, rows):
        write_json(target, {"provenance": origin, "runs": done})


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name")
    parser.add_argument(
        "--data", nargs="+", required=True, help="Data sets; NAME:8,32 sets the shots of one."
    )
    parser.add_argument(
        "--recipes",
        nargs="+",
        default=["samed", "medsaga"],
        help="Names; a colon precedes each changed value: samed:lr=0.001:warmup=0.",
    )
    parser.add_argument(
        "--weights", nargs="+", default=["pretrained", "random"], help="Weights; also files."
    )
    parser.add_argument("--shots", nargs="+", default=[], help="Numbers, or shares such as 1%%.")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--backbone", default="pocket")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--size", type=int)
    parser.add_argument("--feed", help="Preprocessing; default: the backbone's.")
    parser.add_argument("--bf16", action="store_true", help="Train in bfloat16.")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="Folder of the runs.")
    parser.add_argument("--plan", action="store_true", help="Print the plan, and run nothing.")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--workers", type=int, default=1, help="Runs at a time on this machine.")
    where.add_argument("--scheduler", help="Address of a Dask scheduler.")
    return parser


def grid(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return every run of the command; a network from scratch has random weights only."""
    axes = options.seeds, data_and_shots(options), options.recipes, options.weights
    runs = {}
    for seed, (data, shots), recipe, weights in itertools.product(*axes):
        if get_recipe(recipe.split(":")[0]).network is not None:
            weights = "random"
        run = a_run(
            recipe, data, shots, seed, backbone=options.backbone, weights=weights,
            steps=options.steps, size=options.size, feed=options.feed,
            bf16=options.bf16,
        )  # fmt: skip
        runs[run["command"]] = run
    return list(runs.values())


def data_and_shots(options: argparse.Namespace) -> list[tuple[str, int]]:
    """Return every data set with each number of its shots; raise UserError if there is none."""
    pairs = []
    for entry in options.data:
        data, _, own = entry.partition(":")
        counts = own.split(",") if own else options.shots
        if not counts or not all(count.isdecimal() or count.endswith("%") for count in counts):
            raise UserError(
                f"{entry} has no numbers of shots; give --shots 8 32, or --data {data}:8,32."
            )
        for count in counts:
            number = count_shots(open_dataset(data), count) if "%" in count else int(count)
            pairs.append((data, number))
    return pairs


def recorded(target: Path, runs: list[Row]) -> dict[str, Row]:
    """Return the rows of exactly these runs, by command, from this file or another recorded one.

    A row counts only if its file describes the run's data set as it is today: the same command was
    also run on masks that are corrected now.
    """
    today = {data: open_dataset(data).describe() for data in {run["data"] for run in runs}}
    kept = []
    for file in (*sorted(target.parent.glob("*.json")), target):
        content = json.loads(file.read_text()) if file.exists() else {}
        described = content.get("provenance", {}).get("data", "")
        same = {data for data, description in today.items() if description in described}
        kept += [row for row in content.get("runs", []) if row.get("data") in same]
    return rows_of_runs(kept, runs)


def trained(options: argparse.Namespace, runs: list[Row]) -> Iterator[Row]:
    """Yield the rows of these runs in the order in which they are finished."""
    folder = options.runs.absolute()
    if runs:
        yield from finished(partial(row_of, folder), runs, options.workers, options.scheduler)


def provenance(options: argparse.Namespace) -> dict[str, Any]:
    """Return the origin of the newest runs, and the size of all test sets together."""
    datasets = [open_dataset(name) for name in dict(data_and_shots(options))]
    tests = [
        [case for case in dataset.split("test") if case.mask is not None] for dataset in datasets
    ]
    return {
        "command": shlex.join(["python", "-m", "tools.record", *sys.argv[1:]]),
        **machine(),
        **({"device": options.scheduler} if options.scheduler else {}),
        "data": "; ".join(dataset.describe() for dataset in datasets),
        "test_cases": sum(len(test) for test in tests),
        "test_patients": sum(len({case.patient for case in test}) for test in tests),
    }


if __name__ == "__main__":
    main()
