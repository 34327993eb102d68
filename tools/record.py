"""Trains a grid of runs and keeps the results with their provenance: a recorded run of the book.

    python -m tools.record adapting_sam --data cxr_hannover_lungs --shots 8 32

Runs that are finished are not run again, so an interrupted grid goes on where it stopped.
"""

import argparse
import datetime
import itertools
import json
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from medsaga_lib.data.folder import open_dataset
from medsaga_lib.files import write_json
from tools.execute import commit, device

ROOT = Path(__file__).parents[1]
RECORDED = ROOT / "notebooks" / "recorded"
METRICS = ("dice", "hd95", "nsd")


def main() -> None:
    """Reads the command line, trains what is missing, writes notebooks/recorded/NAME.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--data", required=True)
    parser.add_argument("--recipes", nargs="+", default=["samed", "medsaga"])
    parser.add_argument("--weights", nargs="+", default=["pretrained", "random"])
    parser.add_argument("--shots", nargs="+", type=int, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--backbone", default="pocket")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--size", type=int)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    options = parser.parse_args()
    grid = itertools.product(options.recipes, options.weights, options.shots, options.seeds)
    rows = [record(options, *cell) for cell in grid]
    target = RECORDED / f"{options.name}.json"
    write_json(target, {"provenance": provenance(options.data), "runs": rows})
    print(target)


def record(options: argparse.Namespace, recipe: str, weights: str, shots: int, seed: int) -> dict:
    """Trains and evaluates one run by the command line that a reader would type."""
    start = "" if weights == "pretrained" else "-random"
    out = options.runs / f"{recipe}-{options.backbone}{start}-{options.data}-{shots}-s{seed}"
    train = f"train {recipe} --data {options.data} --shots {shots} --seed {seed}"
    train += f" --backbone {options.backbone} --weights {weights}"
    if options.steps:
        train += f" --steps {options.steps}"
    if options.size:
        train += f" --size {options.size}"
    done = medsaga(f"{train} --out {shlex.quote(str(out))}")
    scores = medsaga(f"evaluate {shlex.quote(str(out))} --data {options.data}")
    return {
        "recipe": recipe,
        "weights": weights,
        "shots": shots,
        "seed": seed,
        "steps": done["steps"],
        "seconds": round(done["seconds"]),
        "command": f"medsaga {train}",
        **{metric: scores[metric] for metric in METRICS},
        "dice_interval": scores["dice_interval"],
    }


def medsaga(words: str) -> Any:
    """What the command prints as JSON; its own message and exit code if it fails."""
    line = [sys.executable, "-m", "medsaga_lib.cli", *shlex.split(words), "--json"]
    print("medsaga", words, flush=True)
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout)


def provenance(data: str) -> dict[str, Any]:
    """Where and on what the runs were made."""
    dataset = open_dataset(data)
    test = dataset.split("test")
    return {
        "command": shlex.join(["python", "-m", "tools.record", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit(ROOT),
        "device": device(torch.get_num_threads()),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "data": dataset.describe(),
        "test_cases": len(test),
        "test_patients": len({case.patient for case in test}),
    }


if __name__ == "__main__":
    main()
