"""Write the table behind the page "Will it fit my GPU?": predicted memory, computed without a GPU.

    python -m tools.fit

This takes half an hour on one core. The page interpolates linearly between these numbers.
"""

import itertools
import json
from collections import Counter
from dataclasses import replace
from typing import Any, Literal

import torch

from medsaga_lib.files import replacing
from medsaga_lib.memory.plan import Plan, predict_ledger, predict_peak
from medsaga_lib.optim.galore import as_matrix
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.build import build_model
from tools.provenance import ROOT, commit

TABLE = ROOT / "book" / "_static" / "fit_table.js"
RECIPES = ("medsaga", "samed", "s_sam", "full")
SIZES = (256, 512, 1024)  # pixels along one side
BATCHES = (1, 12)  # batches with a predicted peak; the peak is almost linear between them
CLASSES = 8  # foreground classes, as in SAMed's and MedSAGa's tables
PRECISIONS: tuple[Literal["fp32", "bf16"], ...] = ("fp32", "bf16")


def main() -> None:
    """Predict every row and write the file."""
    rows = []
    for name, plan in plans():
        rows.append(row(name, plan))
        print(f"{len(rows)}: {rows[-1]}", flush=True)
    content = {
        "made": f"commit {commit(ROOT)}, torch {torch.__version__}",
        "backbone": "vit_b",
        "classes": CLASSES,
        "batches": BATCHES,
        "shapes": shapes(),
        "rows": rows,
    }
    with replacing(TABLE) as temporary:
        temporary.write_text(f"const FIT = {json.dumps(content)};\n", encoding="utf-8")
    print(TABLE)


def plans() -> list[tuple[str, Plan]]:
    """Return every recipe with every size and way to save memory.

    The published attention of segment_anything is combined with no other way.
    """
    found = []
    for name, size in itertools.product(RECIPES, SIZES):
        plain = Plan("vit_b", 1, size, CLASSES)
        found.append((name, replace(plain, attention="original")))
        for precision, checkpointing in itertools.product(PRECISIONS, (False, True)):
            found.append((name, replace(plain, precision=precision, checkpointing=checkpointing)))
    return found


def row(name: str, plan: Plan) -> dict[str, Any]:
    """Return the bytes of a plan: fixed costs, activations of one and of two images, peaks."""
    recipe = get_recipe(name)
    one, two = (predict_ledger(recipe, replace(plan, batch=batch)) for batch in (1, 2))
    lean = predict_ledger(recipe, replace(plan, per_layer=True))
    peaks = {
        key: [
            predict_peak(recipe, replace(plan, batch=batch, per_layer=per_layer))
            for batch in BATCHES
        ]
        for key, per_layer in (("peaks", False), ("peaks_per_layer", True))
    }
    return {
        "recipe": name,
        "size": plan.size,
        "attention": plan.attention,
        "precision": plan.precision,
        "checkpointing": plan.checkpointing,
        "weights": one.weights,
        "gradients": one.gradients,
        "gradients_per_layer": lean.gradients,
        "states": one.states,
        "activations": [one.activations, two.activations],
        **peaks,
    }


def shapes() -> dict[str, list[list[int]]]:
    """Return [m, n, dimensions, count] of the tensors of full fine-tuning at 512 px.

    For vectors, m is 1. GaLore may project the tensors in `encoder`; AdamW trains those in `rest`.
    The published package projects matrices only; this library reshapes other tensors to matrices.
    """
    with torch.device("meta"):
        model = build_model(get_recipe("full"), "vit_b", 512, CLASSES, "random")
    found: dict[str, Counter] = {"encoder": Counter(), "rest": Counter()}
    for name, W in model.named_parameters():
        part = "encoder" if name.startswith("sam.image_encoder.") else "rest"
        matrix = as_matrix(tuple(W.shape)) if W.ndim > 1 else (1, W.numel())
        found[part][*matrix, W.ndim] += 1
    return {k: [[*kind, count] for kind, count in v.items()] for k, v in found.items()}


if __name__ == "__main__":
    main()
