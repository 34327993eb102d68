"""Trains a grid of runs and keeps the results with their provenance: a recorded run of the book.

    python -m tools.record adapting_sam --data cxr_hannover_lungs --shots 8 32
    python -m tools.record methods --data cxr_hannover_lungs:8,32 polyp_kvasir:64 --seeds 0 1 2

Dask spreads the runs over the workers of a cluster: by default one on this machine with all of its
cores, otherwise --workers that share them, or those of any --scheduler, which must have this
repository, the data and one thread each. The file holds the grid of the last command. It is written
after every run. A run that stands in it, or in another recorded file, is not run again; one that
was interrupted goes on from its last checkpoint.
"""

import argparse
import datetime
import itertools
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from medsaga_lib.backbones.weights import file_of
from medsaga_lib.data.batches import count_shots
from medsaga_lib.data.folder import open_dataset
from medsaga_lib.errors import UserError
from medsaga_lib.files import file_hash, write_json
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.recipe import Scratch
from tools.execute import commit, device

ROOT = Path(__file__).parents[1]
RECORDED = ROOT / "notebooks" / "recorded"
METRICS = ("dice", "hd95", "nsd")
KIB = 1024  # the unit of ru_maxrss on Linux


class RunError(Exception):
    """A command of a run failed; the arguments are its exit code and what it said."""


def main(words: list[str] | None = None, folder: Path = RECORDED) -> None:
    """Reads the command line, trains what is missing, writes notebooks/recorded/NAME.json."""
    options = parser().parse_args(words)
    target = folder / f"{options.name}.json"
    try:
        if options.workers < 1:
            raise UserError(f"--workers {options.workers}: give 1 or more.")
        runs = grid(options)
        rows = recorded(target, runs)
        missing = [run for run in runs if run["command"] not in rows]
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


def keep(target: Path, origin: dict, runs: list[dict], rows: dict[str, dict]) -> None:
    """Writes the rows that there are, in the order of the grid."""
    done = [rows[run["command"]] for run in runs if run["command"] in rows]
    if done:
        write_json(target, {"provenance": origin, "runs": done})


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name")
    parser.add_argument(
        "--data", nargs="+", required=True, help="data sets; NAME:8,32 gives one its own shots"
    )
    parser.add_argument(
        "--recipes",
        nargs="+",
        default=["samed", "medsaga"],
        help="names, with other values behind a colon each: samed:lr=0.001:warmup=0",
    )
    parser.add_argument(
        "--weights", nargs="+", default=["pretrained", "random"], help="these, or files"
    )
    parser.add_argument("--shots", nargs="+", default=[], help="numbers, or shares as 1%%")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--backbone", default="pocket")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--size", type=int)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="folder of the runs")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--workers", type=int, default=1, help="runs at a time on this machine")
    where.add_argument("--scheduler", help="address of a Dask scheduler")
    return parser


def grid(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every run that is asked for; a network from scratch has random weights only."""
    axes = options.seeds, data_and_shots(options), options.recipes, options.weights
    runs = {}
    for seed, (data, shots), recipe, weights in itertools.product(*axes):
        if isinstance(get_recipe(recipe.split(":")[0]).image_encoder, Scratch):
            weights = "random"
        run = a_run(options, recipe, weights, data, shots, seed)
        runs[run["command"]] = run
    return list(runs.values())


def data_and_shots(options: argparse.Namespace) -> list[tuple[str, int]]:
    """Every data set with each number of its shots; UserError where none is given."""
    pairs = []
    for entry in options.data:
        data, _, own = entry.partition(":")
        counts = own.split(",") if own else options.shots
        if not counts or not all(count.isdecimal() or count.endswith("%") for count in counts):
            raise UserError(
                f"{entry} has no numbers of shots; give --shots, or --data {data}:8,32."
            )
        for count in counts:
            number = count_shots(open_dataset(data), count) if "%" in count else int(count)
            pairs.append((data, number))
    return pairs


def a_run(
    options: argparse.Namespace, recipe: str, weights: str, data: str, shots: int, seed: int
) -> dict[str, Any]:
    """What is to be run: the facts of its row, among them the command a reader would type."""
    name, *changes = recipe.split(":")
    train = f"medsaga train {name} --data {shlex.quote(data)} --shots {shots} --seed {seed}"
    train += f" --backbone {options.backbone} --weights {weights}"
    if options.steps and get_recipe(name).steps:  # or it takes none
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
    """Rows that these very runs gave, by command: the file's own, else another recorded file's."""
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
    """Rows in the order in which the cluster finishes them.

    Raises:
        RunError: a run failed; those that have not begun are given up.
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
    """Trains and evaluates one run by the commands a reader would type; its row.

    `commit` of the code; `seconds` of the steps and `cpu_seconds` of the whole process;
    `peak_bytes` is the memory of the process, Python and torch included. None for both where an
    earlier process did a part of it.
    """
    _, *words = shlex.split(run["command"])
    values = [words[1], *words[3::2]]  # train RECIPE --option value ...
    out = folder / "_".join(Path(value).name for value in values)
    begun = out.exists()
    done, used = medsaga([*words, "--out", str(out)], threads)
    if begun:
        used = dict.fromkeys(used)
    scores, _ = medsaga(["evaluate", str(out), "--data", run["data"]], threads)
    return {
        **run,
        # these rows are not what made them; None where an earlier process did a part of it
        "commit": None if begun else commit(ROOT, "notebooks/recorded"),
        "trainable": done["trainable"],
        "steps": done["steps"],
        "seconds": round(done["seconds"]),
        **used,
        "val_dice": done["val_dice"],  # to choose between values by
        **{metric: scores[metric] for metric in METRICS},
        "dice_interval": scores["dice_interval"],
    }


def medsaga(words: list[str], threads: int | None) -> tuple[Any, dict[str, int | None]]:
    """What the command prints as JSON, and what its process used; RunError if it fails."""
    print("medsaga", shlex.join(words), flush=True)
    limit = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
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
    if process.returncode:
        raise RunError(process.returncode, error.strip())
    used = round(usage.ru_utime + usage.ru_stime)
    return json.loads(said), {"cpu_seconds": used, "peak_bytes": usage.ru_maxrss * KIB}


def provenance(options: argparse.Namespace) -> dict[str, Any]:
    """Where and on what the newest of the runs were made; of the test sets, all together."""
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


def machine() -> dict[str, Any]:
    """When, from which commit and on what something was measured."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit(ROOT),
        "device": device(torch.get_num_threads()),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


if __name__ == "__main__":
    main()
