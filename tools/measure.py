"""Measure the peak and time of a training step on a GPU, and compare with the memory ledger.

    python -m tools.measure                      # the whole grid; on the CPU, times alone

The tool writes notebooks/recorded/measured.json after each row. It does not measure rows again, so
the work can be split into sessions of 10 minutes. A plan that does not fit is a row too.
"""

import argparse
import datetime
import itertools
import json
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from medsaga_lib.files import write_json
from medsaga_lib.memory.plan import Plan, loss_of_a_step, predict_peak
from medsaga_lib.models.sam import SHAPES
from medsaga_lib.recipes import RECIPES, get_recipe
from medsaga_lib.recipes.build import build_model, build_optimizer, checkpoint_blocks
from medsaga_lib.recipes.recipe import Recipe
from tools.provenance import ROOT, commit, device

TARGET = ROOT / "notebooks" / "recorded" / "measured.json"
CLASSES = 8  # foreground classes, as in SAMed's and MedSAGa's tables
# As published, then with one more way to save memory in each line.
WAYS = (
    ("attention", "original"),
    ("attention", "fused"),
    ("checkpointing", True),
    ("per_layer", True),
    ("precision", "bf16"),
)
STEPS = 4  # our choice; the first is not counted, because it allocates the memory for all


def main(words: list[str] | None = None) -> None:
    """Read the command line and measure the missing rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--out", type=Path, default=TARGET)
    add("--device", choices=["cuda", "cpu"], default=("cpu", "cuda")[torch.cuda.is_available()])
    add("--backbone", default="vit_b", choices=list(SHAPES))
    trained = [name for name, recipe in RECIPES.items() if trains_sam(recipe)]
    add("--recipes", nargs="+", default=trained, choices=trained)
    add("--batches", nargs="+", type=int, default=[1, 4, 12])
    add("--sizes", nargs="+", type=int, default=[256, 512, 1024])
    add("--ways", type=int, default=len(WAYS), help="Number of ways to save memory.")
    add("--steps", type=int, default=STEPS, help="Steps per plan; the fastest after the first.")
    options = parser.parse_args(words)
    if options.steps < 2:
        parser.error("--steps: at least 2 are needed, because the first is not counted")
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    known = [{**row["plan"], "recipe": row["recipe"], "device": row["device"]} for row in rows]
    name = device(torch.get_num_threads(), options.device)
    for recipe, plan in plans(options):
        if {**asdict(plan), "recipe": recipe.name, "device": name} in known:
            continue
        rows.append(
            {
                "recipe": recipe.name,
                "device": name,
                "commit": commit(ROOT, "notebooks/recorded"),
                **measured(recipe, plan, options.device, options.steps),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
        provenance = {
            "command": shlex.join(["python", "-m", "tools.measure", *(words or sys.argv[1:])]),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "torch": torch.__version__,
        }
        write_json(options.out, {"provenance": provenance, "rows": rows})
    print(f"{options.out}: {len(rows)} rows")


def trains_sam(recipe: Recipe) -> bool:
    """Return whether the recipe has steps, and blocks that can be recomputed."""
    return bool(recipe.steps) and recipe.network is None


def plans(options: argparse.Namespace) -> Iterator[tuple[Recipe, Plan]]:
    """Yield every recipe, size and batch, with each of `WAYS`."""
    for name, size, batch in itertools.product(options.recipes, options.sizes, options.batches):
        ways: dict[str, Any] = {}
        for key, value in WAYS[: options.ways]:
            ways[key] = value
            yield get_recipe(name), Plan(options.backbone, batch, size, CLASSES, **ways)


def measured(recipe: Recipe, plan: Plan, kind: str, count: int = STEPS) -> dict[str, Any]:
    """Measure bytes and seconds of a step; on a CPU the peak is None, without room both are None.

    `predicted` is the ledger's peak. Weights are random and images are blank, which changes no
    number. `seconds` is the smallest of `count` steps without the first, because other processes
    can only add time.
    """
    row: dict[str, Any] = {"plan": asdict(plan), "predicted": predict_peak(recipe, plan)}
    row |= {"peak": None, "seconds": None, "fits": True}
    if kind == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        row["seconds"] = min(steps(recipe, plan, kind, count)[1:])
    except torch.OutOfMemoryError:
        row["fits"] = False
    else:
        row["peak"] = torch.cuda.max_memory_allocated() if kind == "cuda" else None
    return row


def steps(recipe: Recipe, plan: Plan, kind: str, count: int = STEPS) -> list[float]:
    """Return the seconds of each of `count` training steps; `kind` of device: cpu or cuda."""
    model = build_model(
        recipe, plan.backbone, plan.size, plan.classes, "random", attention=plan.attention
    )
    if plan.checkpointing:
        checkpoint_blocks(model, plan.precision)
    model = model.to(kind)
    optimizer = build_optimizer(recipe, model, per_layer=plan.per_layer)
    forward = loss_of_a_step(recipe, plan, model, kind)
    seconds = []
    for _ in range(count):
        began = _now(kind)
        forward().backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(_now(kind) - began)
    return seconds


def _now(kind: str) -> float:
    """Return the time; on a single core it is processor time, so other processes do not count."""
    if kind == "cuda":
        torch.cuda.synchronize()
    alone = kind == "cpu" and torch.get_num_threads() == 1
    return time.process_time() if alone else time.perf_counter()


if __name__ == "__main__":
    main()
