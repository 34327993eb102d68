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
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from medsaga_lib.cli import COLLAPSED
from medsaga_lib.data.catalog import DATA_VARIABLE, data_root, open_dataset
from medsaga_lib.data.shots import count_shots
from medsaga_lib.errors import UserError
from medsaga_lib.files import file_hash, write_json
from medsaga_lib.models.weights import file_of
from medsaga_lib.recipes import get_recipe
from tools.provenance import RECORDED, ROOT, commit, machine

METRICS = ("dice", "hd95", "nsd")
KIB = 1024  # the unit of ru_maxrss on Linux
SECONDS = 3600  # of an hour
DIGITS = 4  # of the Dice of a case; our choice


class RunError(Exception):
    """A command of a run failed; the arguments are its exit code and its error message."""


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
        for row in trained(options, missing) if missing else ():
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


def keep(target: Path, origin: dict, runs: list[dict], rows: dict[str, dict]) -> None:
    """Write the existing rows, in the order of the grid."""
    done = [rows[run["command"]] for run in runs if run["command"] in rows]
    if done:
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
        run = a_run(options, recipe, weights, data, shots, seed)
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


def a_run(
    options: argparse.Namespace, recipe: str, weights: str, data: str, shots: int, seed: int
) -> dict[str, Any]:
    """Return the facts of a run's row, including the command that a reader would type."""
    name, *changes = recipe.split(":")
    train = f"medsaga train {name} --data {shlex.quote(data)} --shots {shots} --seed {seed}"
    train += f" --backbone {options.backbone} --weights {weights}"
    if options.steps and get_recipe(name).steps:  # otherwise the recipe has no steps
        train += f" --steps {options.steps}"
    if options.size:
        train += f" --size {options.size}"
    train += "".join(f" --set {shlex.quote(change)}" for change in changes)
    facts = {"recipe": recipe, "weights": weights, "data": data, "shots": shots, "seed": seed}
    facts["command"] = train
    if file := file_of(options.backbone, weights):
        facts["backbone_sha256"] = file_hash(file)
    return facts


def recorded(target: Path, runs: list[dict[str, Any]]) -> dict[str, dict]:
    """Return the rows of exactly these runs, by command, from this file or another recorded one."""
    wanted = {run["command"]: run for run in runs}
    rows = {}
    for file in (*sorted(target.parent.glob("*.json")), target):
        kept = json.loads(file.read_text()).get("runs", []) if file.exists() else []
        for row in kept:
            run = wanted.get(row.get("command"))
            if run and run.items() <= row.items():
                rows[run["command"]] = row
    return rows


def trained(options: argparse.Namespace, runs: list[dict[str, Any]]) -> Iterator[dict]:
    """Yield rows in the order in which the cluster finishes them.

    Raises:
        RunError: a run failed; runs that have not started are cancelled.
    """
    from dask.distributed import Client, LocalCluster, as_completed

    # A run is a process of its own, so a local worker is a thread that waits for it.
    cluster: AbstractContextManager
    if options.scheduler:
        cluster, threads = nullcontext(options.scheduler), None
    else:
        cluster = LocalCluster(
            n_workers=options.workers, threads_per_worker=1, processes=False, dashboard_address=None
        )
        threads = max(1, (os.cpu_count() or 1) // options.workers)
    with cluster as address, Client(address) as client:
        calls = [client.submit(row_of, run, options.runs, threads, pure=False) for run in runs]
        try:
            for call in as_completed(calls):
                yield call.result()
        finally:
            client.cancel(calls)


def row_of(run: dict[str, Any], folder: Path, threads: int | None) -> dict[str, Any]:
    """Train and evaluate one run with the commands that a reader would type; return its row.

    `commit` is that of the code, `seconds` the time of the steps, `cpu_seconds` that of the whole
    process, and `peak_bytes` the memory of the process, Python and torch included. The last two are
    None if an earlier process did a part of the run.
    """
    _, *words = shlex.split(run["command"])
    values = [words[1], *words[3::2]]  # train RECIPE --option value ...
    out = folder / "_".join(Path(value).name for value in values)
    begun = out.exists()
    done, used = medsaga([*words, "--out", str(out)], threads)
    if begun:
        used = dict.fromkeys(used)
    scores, of_evaluation = medsaga(["evaluate", str(out), "--data", run["data"]], threads)
    return {
        **run,
        # recorded rows do not affect a run; None if an earlier process did a part of it
        "commit": None if begun else commit(ROOT, "notebooks/recorded"),
        "trainable": done["trainable"],
        "steps": done["steps"],
        "seconds": round(done["seconds"]),
        **used,
        "evaluation_cpu_seconds": of_evaluation["cpu_seconds"],
        "collapsed": done.get("collapsed"),
        "val_dice": done["val_dice"],  # for choosing between values
        **{metric: scores[metric] for metric in METRICS},
        "dice_interval": scores["dice_interval"],
        "confused": scores.get("confused"),
        # for paired comparisons: [case, patient, Dice] each
        "case_dice": [
            [case["case"], case["patient"], case["dice"] and round(case["dice"], DIGITS)]
            for case in scores.get("cases", [])
        ],
    }


def medsaga(words: list[str], threads: int | None) -> tuple[Any, dict[str, int | None]]:
    """Run a command; return its JSON output and what its process used.

    A training that collapsed is a result, too: its run is saved and its output says so.

    Raises:
        RunError: the command failed.
    """
    print("medsaga", shlex.join(words), flush=True)
    limit = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    if (data := data_root()) is not None:  # the process runs in another folder
        limit[DATA_VARIABLE] = str(data)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "medsaga_lib.cli", *words, "--json"],
            cwd=ROOT,
            env=os.environ | limit,
            stdout=out,
            stderr=err,
        )
        _, status, usage = os.wait4(process.pid, 0)  # of this child alone, unlike getrusage
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        said, error = out.read().decode(), err.read().decode()
    if process.returncode not in (0, COLLAPSED):
        raise RunError(process.returncode, error.strip())
    used = round(usage.ru_utime + usage.ru_stime)
    return json.loads(said), {"cpu_seconds": used, "peak_bytes": usage.ru_maxrss * KIB}


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
