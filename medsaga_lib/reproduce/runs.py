"""Runs of a grid: the command of each, its row of results, and the rows that are there already."""

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medsaga_lib.files import file_hash
from medsaga_lib.models.weights import WEIGHT_FILES, file_of
from medsaga_lib.recipes import get_recipe
from medsaga_lib.reproduce.process import persistent
from medsaga_lib.reproduce.provenance import ROOT, commit

METRICS = ("dice", "hd95", "nsd")
DIGITS = 4  # of the Dice of a case; our choice
Row = dict[str, Any]


def a_run(
    recipe: str,
    data: str,
    shots: int,
    seed: int,
    *,
    backbone: str,
    weights: str = "pretrained",
    steps: int | None = None,
    size: int | None = None,
    feed: str | None = None,
    bf16: bool = False,
) -> Row:
    """Return the facts of a run's row, including the command that a reader would type.

    recipe: a name, with a colon before each changed value, as in samed:lr=0.001:warmup=0.
    """
    name, *changes = recipe.split(":")
    train = f"medsaga train {name} --data {shlex.quote(data)} --shots {shots} --seed {seed}"
    train += f" --backbone {backbone} --weights {weights}"
    if steps and get_recipe(name).steps:  # otherwise the recipe has no steps
        train += f" --steps {steps}"
    if size:
        train += f" --size {size}"
    if feed:
        train += f" --feed {feed}"
    train += "".join(f" --set {shlex.quote(change)}" for change in changes)
    facts = {"recipe": recipe, "weights": weights, "data": data, "shots": shots, "seed": seed}
    if feed:
        facts["feed"] = feed
    if bf16:
        train += " --bf16"
        facts["bf16"] = True
    facts["command"] = train
    if found := weights_hash(backbone, weights):
        facts["backbone_sha256"] = found
    return facts


def weights_hash(backbone: str, weights: str) -> str | None:
    """Return the sha256 of the initial weights, without a download if it is published."""
    if weights == "pretrained" and backbone in WEIGHT_FILES:
        kind, _, known = (WEIGHT_FILES[backbone].known_hash or "").partition(":")
        if kind == "sha256":
            return known
    file = file_of(backbone, weights)
    return file_hash(file) if file else None


def row_of(folder: Path, run: Row, threads: int | None) -> Row:
    """Train and evaluate one run with the commands that a reader would type; return its row.

    Its folder is made in `folder`. `commit` is that of the code, `seconds` the time of the steps,
    `cpu_seconds` that of the whole process, and `peak_bytes` the memory of the process, Python and
    torch included. The last two are None if an earlier process did a part of the run.
    """
    _, *words = shlex.split(run["command"])
    values = [word for word in words[1:] if word == "--bf16" or not word.startswith("--")]
    out = folder / "_".join(Path(value).name for value in values)
    begun = out.exists()
    done, used = persistent([*words, "--out", str(out)], threads)
    if begun:
        used = dict.fromkeys(used)
    scores, of_evaluation = persistent(["evaluate", str(out), "--data", run["data"]], threads)
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


def rows_of_runs(rows: Iterable[Row], runs: Iterable[Row]) -> dict[str, Row]:
    """Return the rows of exactly these runs by their commands; a later row is preferred."""
    wanted = {run["command"]: run for run in runs}
    found = {}
    for row in rows:
        run = wanted.get(row.get("command", ""))
        if run and run.items() <= row.items():
            found[run["command"]] = row
    return found


def in_order(runs: Iterable[Row], rows: dict[str, Row]) -> list[Row]:
    """Return the rows that are there, in the order of the grid."""
    return [rows[run["command"]] for run in runs if run["command"] in rows]
