"""Time `medsaga evaluate` on LiteMedSAM: the network's share of it, and beside an older version.

    git worktree add ../before 52951a1
    python -m tools.evaluation_times --before ../before

The result is notebooks/recorded/evaluation_times.json, which chapter 8 shows. The runs have 2
training steps: how well they segment hardly changes the time. Both versions run in this environment
and take turns; each evaluation is a process of its own.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.evaluation import of_a_run
from medsaga_lib.files import write_json
from medsaga_lib.inference.predictor import Predictor, load_run
from medsaga_lib.models.weights import WEIGHT_FILES
from tools.provenance import RECORDED, ROOT, machine

ROUNDS = 7
DATA = "cxr_hannover_lungs"
SPLIT = "train"  # 51 X-rays; in an evaluation of the 19 test images, imports are half of the time
SIZE = 128  # pixels, as in the recorded runs


def main() -> None:
    """Measure the times and write the file."""
    parser = argparse.ArgumentParser(description="Time medsaga evaluate.")
    parser.add_argument("--before", type=Path, required=True, help="A checkout of 52951a1.")
    before = parser.parse_args().before.resolve()
    command = "python -m tools.evaluation_times --before A_CHECKOUT_OF_52951a1"
    with tempfile.TemporaryDirectory() as folder:
        roots = {"ours": ROOT, "before": before}
        runs = {name: trained(root, Path(folder) / name) for name, root in roots.items()}
        network = share(runs["ours"])
        row = compared({name: (root, runs[name]) for name, root in roots.items()})
    origin = {"command": command, **machine()}
    content = {"provenance": origin, "share": network, "compared": row}
    write_json(RECORDED / "evaluation_times.json", content)
    print(f"{network['share']:.0%} of {network['seconds']:.1f} s are the network's")
    print(f"{row['ratio']:.2f} times as fast as 52951a1", row["ratios"])


def medsaga(root: Path, *words: str) -> tuple[float, float]:
    """Run the command line of a checkout; return the seconds of the clock and of the processor."""
    began, spent = time.perf_counter(), children()
    subprocess.run(
        [sys.executable, "-m", "medsaga_lib.cli", *words],
        cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, check=True, capture_output=True,
    )  # fmt: skip
    return time.perf_counter() - began, children() - spent


def children() -> float:
    """Return the processor seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def trained(root: Path, out: Path) -> Path:
    """Train a run of a frozen encoder for 2 steps with the code of a checkout."""
    packaged = WEIGHT_FILES["lite_medsam"].packaged
    assert packaged is not None
    weights = "--backbone", "lite_medsam", "--weights", str(packaged.require())
    words = "train", "frozen_encoder", "--data", DATA, "--shots", "4", "--steps", "2", *weights
    medsaga(root, *words, "--size", str(SIZE), "--out", str(out))
    return out


def share(run: Path) -> dict[str, Any]:
    """Measure one evaluation, and the time in the network's forward passes."""
    spent: list[float] = []

    def load(folder: Path, *words: Any) -> Predictor:
        predictor = load_run(folder, *words)
        predictor.model.register_forward_pre_hook(lambda *_: spent.append(-time.perf_counter()))
        predictor.model.register_forward_hook(lambda *_: spent.append(time.perf_counter()))
        return predictor

    dataset = open_dataset(DATA)
    began = time.perf_counter()
    with mock.patch.object(of_a_run, "load_run", load):
        evaluation = of_a_run.evaluate_run(run, dataset, SPLIT, run / "share")
    seconds = time.perf_counter() - began
    row = {"data": DATA, "cases": int(evaluation.table["case"].nunique()), "seconds": seconds}
    return row | {"network": sum(spent), "share": sum(spent) / seconds}


def compared(versions: dict[str, tuple[Path, Path]]) -> dict[str, Any]:
    """Evaluate a run by each version in turns; `ratio` is the median of before / ours."""
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in versions}
    for _ in range(ROUNDS):
        for name, (root, run) in versions.items():
            took[name].append(medsaga(root, "evaluate", str(run), "--data", DATA, "--split", SPLIT))
    clock, processor = (
        [b[i] / o[i] for b, o in zip(took["before"], took["ours"], strict=True)] for i in (0, 1)
    )
    return {
        **{name: median(clock for clock, _ in times) for name, times in took.items()},
        "ratio": median(clock),
        "ratios": [min(clock), max(clock)],
        "processor_ratio": median(processor),
    }


if __name__ == "__main__":
    main()
