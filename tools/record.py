"""Trains a grid of runs and keeps the results with their provenance: a recorded run of the book.

    python -m tools.record adapting_sam --data cxr_hannover_lungs --shots 8 32

Dask spreads the runs over the workers of a cluster: by default one on this machine with all of its
cores, otherwise --workers that share them, or those of any --scheduler, which must have this
repository, the data and one thread each. The file holds the grid of the last command. It is written
after every run; a run that stands in it is not run again, and one that was interrupted goes on from
its last checkpoint.
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
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from medsaga_lib.backbones.weights import fetch
from medsaga_lib.data.folder import open_dataset
from medsaga_lib.errors import UserError
from medsaga_lib.files import write_json
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.recipe import Scratch
from medsaga_lib.training import file_hash
from tools.execute import commit, device

ROOT = Path(__file__).parents[1]
RECORDED = ROOT / "notebooks" / "recorded"
METRICS = ("dice", "hd95", "nsd")


class RunError(Exception):
    """A command of a run failed; the arguments are its exit code and what it said."""


def main(words: list[str] | None = None, folder: Path = RECORDED) -> None:
    """Reads the command line, trains what is missing, writes notebooks/recorded/NAME.json."""
    options = parser().parse_args(words)
    target = folder / f"{options.name}.json"
    try:
        runs = grid(options)
        rows = recorded(target, runs)
        missing = [run for run in runs if run["command"] not in rows]
        origin = provenance(options)
        for row in trained(options, missing) if missing else ():
            rows[row["command"]] = row
            done = [rows[run["command"]] for run in runs if run["command"] in rows]
            write_json(target, {"provenance": origin, "runs": done})
    except RunError as error:
        code, said = error.args
        print(said, file=sys.stderr)
        sys.exit(code)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(f"{target}: {len(missing)} runs new, {len(runs) - len(missing)} kept")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--data", required=True)
    parser.add_argument(
        "--recipes",
        nargs="+",
        default=["samed", "medsaga"],
        help="names, with other values behind a colon each: samed:lr=0.001:warmup=0",
    )
    parser.add_argument("--weights", nargs="+", default=["pretrained", "random"])
    parser.add_argument("--shots", nargs="+", type=int, required=True)
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
    axes = options.seeds, options.shots, options.recipes, options.weights
    runs = {}
    for seed, shots, recipe, weights in itertools.product(*axes):
        if isinstance(get_recipe(recipe.split(":")[0]).image_encoder, Scratch):
            weights = "random"
        run = a_run(options, recipe, weights, shots, seed)
        runs[run["command"]] = run
    return list(runs.values())


def a_run(
    options: argparse.Namespace, recipe: str, weights: str, shots: int, seed: int
) -> dict[str, Any]:
    """What is to be run: the facts of its row, among them the command a reader would type."""
    name, *changes = recipe.split(":")
    train = f"medsaga train {name} --data {shlex.quote(options.data)} --shots {shots} --seed {seed}"
    train += f" --backbone {options.backbone} --weights {weights}"
    if options.steps:
        train += f" --steps {options.steps}"
    if options.size:
        train += f" --size {options.size}"
    train += "".join(f" --set {shlex.quote(change)}" for change in changes)
    facts = {"recipe": recipe, "weights": weights, "shots": shots, "seed": seed, "command": train}
    if weights == "pretrained":
        facts["backbone_sha256"] = file_hash(fetch(options.backbone))
    return facts


def recorded(target: Path, runs: list[dict[str, Any]]) -> dict[str, dict]:
    """Rows of the file, by command, that these very runs gave."""
    if not target.exists():
        return {}
    rows = {row["command"]: row for row in json.loads(target.read_text())["runs"]}
    return {
        run["command"]: rows[run["command"]]
        for run in runs
        if run.items() <= rows.get(run["command"], {}).items()
    }


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
        calls = [
            client.submit(row_of, run, options.data, options.runs, threads, pure=False)
            for run in runs
        ]
        try:
            for call in as_completed(calls):
                yield call.result()
        finally:
            client.cancel(calls)


def row_of(run: dict[str, Any], data: str, folder: Path, threads: int | None) -> dict[str, Any]:
    """Trains and evaluates one run by the commands a reader would type; its row."""
    _, *words = shlex.split(run["command"])
    values = [words[1], *words[3::2]]  # train RECIPE --option value ...
    out = folder / "_".join(Path(value).name for value in values)
    done = medsaga([*words, "--out", str(out)], threads)
    scores = medsaga(["evaluate", str(out), "--data", data], threads)
    return {
        **run,
        "steps": done["steps"],
        "seconds": round(done["seconds"]),
        "val_dice": done["val_dice"],  # to choose between values by
        **{metric: scores[metric] for metric in METRICS},
        "dice_interval": scores["dice_interval"],
    }


def medsaga(words: list[str], threads: int | None) -> Any:
    """What the command prints as JSON; RunError if it fails."""
    print("medsaga", shlex.join(words), flush=True)
    limit = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-m", "medsaga_lib.cli", *words, "--json"],
        cwd=ROOT,
        env=os.environ | limit,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RunError(done.returncode, done.stderr.strip())
    return json.loads(done.stdout)


def provenance(options: argparse.Namespace) -> dict[str, Any]:
    """Where and on what the newest of the runs were made."""
    dataset = open_dataset(options.data)
    test = dataset.split("test")
    return {
        "command": shlex.join(["python", "-m", "tools.record", *sys.argv[1:]]),
        **machine(),
        **({"device": options.scheduler} if options.scheduler else {}),
        "data": dataset.describe(),
        "test_cases": len(test),
        "test_patients": len({case.patient for case in test}),
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
