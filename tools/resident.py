"""Measure the resident memory of real training steps on a CPU, beside the ledger's prediction.

    python -m tools.resident                    # every recipe that trains LiteMedSAM
    python -m tools.resident --recipes samed    # a quick look; nothing is written

A plan is measured in a process of its own, with an allocator that returns every large block to the
system (`MALLOC_MMAP_THRESHOLD_`), so that its resident set follows the tensors. The first steps of
a process also load code and make kernels; `process` is what of that stays afterwards, less than 90
MiB. The second run of the same steps may still add 2 MiB. `measured` is the highest resident set of
the third run, above the resident set before it. Linux only.
"""

import argparse
import ctypes
import gc
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from medsaga_lib.errors import UserError
from medsaga_lib.files import write_json
from medsaga_lib.memory.plan import Plan, predict_peak
from medsaga_lib.recipes import RECIPES, get_recipe
from medsaga_lib.recipes.recipe import changed
from tools.measure import CLASSES, steps, trains_sam
from tools.provenance import RECORDED, ROOT, machine

TARGET = RECORDED / "resident.json"
PLAN = Plan("lite_medsam", batch=4, size=128, classes=CLASSES)
STEPS = 2  # the second one has the optimizer's states
RUNS_BEFORE = 2  # of the measured one
THRESHOLD = 2**16  # bytes from which a block is the system's; our choice
LATE = ("image_encoder.from_stage=3",)  # the last of TinyViT's 4 stages


def main(words: list[str] | None = None) -> None:
    """Read the command line, measure each plan and print one line for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipes", nargs="+", metavar="NAME[:KEY=VALUE...]")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.one:
        try:
            print(json.dumps(measure(options.one)))
        except UserError as error:
            sys.exit(str(error))
        return
    rows = []
    for text in options.recipes or texts():
        rows.append(in_a_process(text))
        mib = {key: rows[-1][key] / 2**20 for key in ("predicted", "measured", "process")}
        sizes = ", ".join(f"{name} {size:,.0f}" for name, size in mib.items())
        print(f"{text}: {sizes} MiB, ratio {mib['predicted'] / mib['measured']:.4f}", flush=True)
    if not options.recipes:
        origin = {"command": shlex.join(["python", "-m", "tools.resident"]), **machine(1)}
        write_json(TARGET, {"provenance": origin, "rows": rows})


def texts() -> list[str]:
    """Return every recipe that trains a SAM, and those of a whole encoder on its last stage too."""
    names = [name for name, recipe in RECIPES.items() if trains_sam(recipe)]
    whole = [name for name in names if not get_recipe(name).image_encoder.from_stage]
    return [*names, *(":".join([name, *LATE]) for name in whole if trains_encoder(name))]


def trains_encoder(name: str) -> bool:
    """Return whether a recipe trains a part of the image encoder."""
    try:
        changed(get_recipe(name), LATE)
    except UserError:
        return False
    return True


def in_a_process(text: str) -> dict[str, Any]:
    """Measure a recipe, with changes as in NAME:KEY=VALUE, in a new process."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(THRESHOLD), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "tools.resident", "--one", text]
    done = subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{text}: {done.stderr.strip() or 'the process was killed'}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(text: str) -> dict[str, Any]:
    """Return the predicted and the measured bytes of a recipe's steps in this process."""
    name, *changes = text.split(":")
    recipe = changed(get_recipe(name), changes)
    row: dict[str, Any] = {"recipe": text, "predicted": predict_peak(recipe, PLAN)}
    before = resident()
    for _ in range(RUNS_BEFORE):
        steps(recipe, PLAN, "cpu", STEPS)
    start = resident()
    steps(recipe, PLAN, "cpu", STEPS)
    return row | {"measured": status("VmHWM") - start, "process": start - before}


def resident() -> int:
    """Return the resident set in bytes after a clean-up; the highest one is counted from here."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return status("VmRSS")


def status(key: str) -> int:
    """Return an entry of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{key}:"))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main()
