"""Benchmark of training steps: the whole image encoder against its late stages on kept outputs.

Each measurement runs in a process of its own, because a process keeps its peak memory. Times are
given as ratios within one run.
"""

import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import psutil
import torch

from medsaga_lib.errors import UserError
from medsaga_lib.memory.plan import Plan, loss_of_a_step
from medsaga_lib.models.sam import input_size
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.build import build_model, build_optimizer
from medsaga_lib.recipes.recipe import Recipe

COMPARED = ("medsaga", "samed", "s_sam")
CLASSES = 2  # foreground classes
WARM = 1  # steps before the timed ones; GaLore's first step computes its bases
UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss


def compare_stages(
    backbone: str = "lite_medsam",
    size: int | None = None,
    batch: int = 12,
    from_stage: int = 3,
    steps: int = 3,
) -> list[dict[str, Any]]:
    """Measure a step of MedSAGa, SAMed and S-SAM on the whole encoder and on its late stages.

    Args:
        backbone: with random weights; images and labels are random.
        size: side of the input in pixels; default: the backbone's.
        batch: images per step.
        from_stage: the first stage that is trained; the outputs before it are kept.
        steps: timed steps; the fastest counts.

    Returns:
        for each method its `name`; the seconds of a step, `whole` and `late`; the largest resident
        set above that before the first step, in bytes, `whole_peak` and `late_peak`; the ratios
        `faster` and `smaller`; and, where the processor computes in bfloat16, the seconds of a late
        step that does, `late_bf16`, and otherwise None.

    Raises:
        UserError: a measurement failed.
    """
    side = input_size(backbone, size)
    rows = []
    for name in COMPARED:
        (whole, whole_peak), (late, late_peak) = (
            _in_a_process(name, backbone, side, batch, stage, steps) for stage in (0, from_stage)
        )
        row: dict[str, Any] = {"name": name, "whole": whole, "late": late, "late_bf16": None}
        if computes_in_bf16():
            how = name, backbone, side, batch, from_stage, steps, "bf16"
            row["late_bf16"], _ = _in_a_process(*how)
        row |= {"whole_peak": whole_peak, "late_peak": late_peak}
        rows.append(row | {"faster": whole / late, "smaller": whole_peak / late_peak})
    return rows


def computes_in_bf16() -> bool:
    """Return whether the processor has instructions for bfloat16."""
    # Older versions of torch have no such function
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(known.get(kind) for kind in ("amx_bf16", "avx512_bf16"))


def measure_step(recipe: Recipe, plan: Plan, steps: int) -> tuple[float, int]:
    """Return the seconds of the fastest step, and the peak above the start in bytes."""
    torch.manual_seed(0)
    model = build_model(recipe, plan.backbone, plan.size, plan.classes, "random").train()
    optimizer = build_optimizer(recipe, model)
    loss = loss_of_a_step(recipe, plan, model)
    before = psutil.Process().memory_info().rss
    seconds = []
    for _ in range(WARM + steps):
        began = time.perf_counter()
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT
    return min(seconds[WARM:]), peak - before


def _in_a_process(
    name: str, backbone: str, size: int, batch: int, stage: int, steps: int, precision: str = "fp32"
) -> tuple[float, int]:
    words = [sys.executable, "-m", __name__, name, backbone, precision]
    words += map(str, (size, batch, stage, steps))
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"The step of {name} from stage {stage} failed: {last}")
    seconds, peak = json.loads(done.stdout)
    return seconds, peak


def main() -> None:
    """Measure one step; the words are recipe, backbone, precision, size, batch, stage, steps."""
    name, backbone, precision, *numbers = sys.argv[1:]
    size, batch, stage, steps = map(int, numbers)
    recipe = get_recipe(name)
    copies = 1 if stage else 0
    how = replace(recipe.image_encoder, from_stage=stage, copies=copies)
    plan = Plan(backbone, batch, size, CLASSES, precision="bf16" if precision == "bf16" else "fp32")
    print(json.dumps(measure_step(replace(recipe, image_encoder=how), plan, steps)))


if __name__ == "__main__":
    main()
