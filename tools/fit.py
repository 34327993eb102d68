"""Write the tables behind the page "Will it fit my GPU?": memory, predicted without a GPU.

    python -m tools.fit                          # all tables
    python -m tools.fit --backbone lite_medsam   # one of them

On one core, each table takes half an hour. The page interpolates linearly between these numbers.
"""

import argparse
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from medsaga_lib.files import replacing
from medsaga_lib.memory.ledger import state_bytes
from medsaga_lib.memory.plan import Plan, faked, kept_bytes, predict_ledger, predict_peak
from medsaga_lib.optim.galore import as_matrix
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.build import build_model
from medsaga_lib.recipes.encoder import Frozen, GaLore
from medsaga_lib.recipes.recipe import Recipe
from tools.provenance import ROOT, commit

STATIC = ROOT / "book" / "_static"
# The file of each backbone, and the name of the constant in it
TABLES = {
    "vit_b": (STATIC / "fit_table.js", "FIT"),
    "lite_medsam": (STATIC / "fit_lite.js", "FIT_LITE"),
}
RECIPES = ("medsaga", "samed", "s_sam", "full")
SIZES = {"vit_b": (256, 512, 1024), "lite_medsam": (128, 256, 512)}  # pixels along one side
BATCHES = (1, 12)  # batches with a predicted peak; the peak is almost linear between them
CLASSES = 8  # foreground classes, as in SAMed's and MedSAGa's tables
PRECISIONS: tuple[Literal["fp32", "bf16"], ...] = ("fp32", "bf16")
BITS: tuple[Literal[8, 4], ...] = (8, 4)  # of AdamW's states, besides 32
# Of MedSAGa's image encoder, besides GaLore
OPTIMIZERS: tuple[Literal["fira", "apollo", "published"], ...] = ("fira", "apollo", "published")
# The trained stages of LiteMedSAM's image encoder: all; the last one and the neck; or none, so that
# the decoder trains on kept embeddings
Stages = Literal["whole", "late", "frozen"]
STAGES: tuple[Stages, ...] = ("whole", "late", "frozen")
LAST_STAGE = 3  # of TinyViT's stages 0 to 3, as in the recipe late_stages
COPIES = 12  # of each image, as in the recipe late_stages; the memory of a step is the same for all


class Entry(NamedTuple):
    """The recipe, the plan and the trained stages of a row."""

    recipe: str
    plan: Plan
    stages: Stages = "whole"


def main() -> None:
    """Predict every row of the chosen tables and write their files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--backbone", choices=[*TABLES], help="Write the table of one backbone. Default: all."
    )
    chosen = parser.parse_args().backbone
    for backbone in [chosen] if chosen else TABLES:
        rows = []
        for entry in entries(backbone):
            rows.append(row(entry))
            print(f"{backbone} {len(rows)}: {rows[-1]}", flush=True)
        print(write(backbone, rows))


def write(backbone: str, rows: Sequence[dict[str, Any]]) -> Path:
    """Write the rows as the table of a backbone, and return its path."""
    path, constant = TABLES[backbone]
    content = {
        "made": f"commit {commit(ROOT)}, torch {torch.__version__}",
        "backbone": backbone,
        "classes": CLASSES,
        "batches": BATCHES,
        **({"shapes": shapes()} if backbone == "vit_b" else {}),
        "rows": rows,
    }
    with replacing(path) as temporary:
        temporary.write_text(f"const {constant} = {json.dumps(content)};\n", encoding="utf-8")
    return path


def entries(backbone: str) -> list[Entry]:
    """Return every recipe with every size and way to save memory."""
    return [*(_of_vit_b() if backbone == "vit_b" else _of_lite_medsam())]


def _of_vit_b() -> Iterator[Entry]:
    """Combine the published attention of segment_anything with no other way to save memory."""
    for name, size in itertools.product(RECIPES, SIZES["vit_b"]):
        plain = Plan("vit_b", 1, size, CLASSES)
        yield Entry(name, replace(plain, attention="original"))
        for precision, checkpointing in itertools.product(PRECISIONS, (False, True)):
            yield Entry(name, replace(plain, precision=precision, checkpointing=checkpointing))


def _of_lite_medsam() -> Iterator[Entry]:
    """Combine the trained stages with the other ways; a frozen encoder recomputes no block."""
    for stages, name, size in itertools.product(STAGES, RECIPES, SIZES["lite_medsam"]):
        plain = Plan("lite_medsam", 1, size, CLASSES)
        recomputed = (False,) if stages == "frozen" else (False, True)
        for precision, checkpointing in itertools.product(PRECISIONS, recomputed):
            plan = replace(plain, precision=precision, checkpointing=checkpointing)
            yield Entry(name, plan, stages)


def recipe_of(entry: Entry) -> Recipe:
    """Return the recipe of a row, with the trained stages of the row."""
    recipe = get_recipe(entry.recipe)
    how = recipe.image_encoder
    if entry.stages == "late":
        how = replace(how, from_stage=LAST_STAGE, copies=COPIES)
    elif entry.stages == "frozen":
        how = Frozen(copies=COPIES)
    return replace(recipe, image_encoder=how)


def row(entry: Entry) -> dict[str, Any]:
    """Return the bytes of a plan: fixed costs, activations of one and of two images, peaks."""
    recipe, plan = recipe_of(entry), entry.plan
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
        "recipe": entry.recipe,
        "size": plan.size,
        "attention": plan.attention,
        "precision": plan.precision,
        "checkpointing": plan.checkpointing,
        "weights": one.weights,
        "gradients": one.gradients,
        "gradients_per_layer": lean.gradients,
        "states": one.states,
        **{f"states_{bits}": quantized(recipe, plan, bits) for bits in BITS},
        **of_optimizers(recipe, plan),
        "activations": [one.activations, two.activations],
        **peaks,
        **_of_stages(entry),
    }


def quantized(recipe: Recipe, plan: Plan, bits: Literal[8, 4]) -> int:
    """Return the bytes of the states if AdamW keeps its own with few bits."""
    with faked(recipe, replace(plan, state_bits=bits)) as (_, groups, _):
        return sum(state_bytes(groups))


def of_optimizers(recipe: Recipe, plan: Plan) -> dict[str, int]:
    """Return the bytes of the states by optimizer; an empty dictionary for other methods."""
    if not isinstance(recipe.image_encoder, GaLore):
        return {}
    found = {}
    for name in OPTIMIZERS:
        other = replace(recipe, image_encoder=replace(recipe.image_encoder, optimizer=name))
        with faked(other, plan) as (_, groups, _):
            found[f"states_{name}"] = sum(state_bytes(groups))
    return found


def _of_stages(entry: Entry) -> dict[str, Any]:
    """Return the trained stages and the bytes of one kept copy of an image, for LiteMedSAM only."""
    if entry.plan.backbone != "lite_medsam":
        return {}
    return {"stages": entry.stages, "kept_per_copy": kept_bytes(recipe_of(entry), entry.plan)}


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
