"""The form "Will it fit my GPU?" in a notebook: any plan, predicted while it is changed."""

from typing import Any

from ipywidgets import BoundedIntText, Dropdown, IntSlider
from matplotlib.figure import Figure

from medsaga_lib.display.charts import bar_ledger
from medsaga_lib.display.controls import GIB, Controls, checkbox, fixed
from medsaga_lib.memory.plan import Plan, predict_ledger, predict_peak
from medsaga_lib.models.sam import SHAPES, input_size
from medsaga_lib.recipes import RECIPES, get_recipe
from medsaga_lib.recipes.build import model_size
from medsaga_lib.recipes.recipe import changed

CARDS = 4, 8, 12, 15, 16, 24, 40, 80  # GiB of common GPUs; 15 is a T4, as on Colab
PARTS = "weights", "gradients", "states", "activations"
CLASSES = 8  # as on the page "Will it fit my GPU?"; they change little
LARGEST_SIDE, LARGEST_BATCH, LAST_STAGE = 2048, 64, 12  # our choice; ViT-B has 12 blocks


def plan_controls(caption: str = "") -> Controls:
    """Return controls for the plan of a training step, with its predicted memory below them.

    caption: a sentence below the figure.
    """
    backbone = Dropdown(options=list(SHAPES), value="vit_b", description="backbone")
    size = BoundedIntText(_half("vit_b"), 16, LARGEST_SIDE, description="side, px")
    choices = {
        "backbone": backbone,
        "recipe": Dropdown(options=list(RECIPES), description="recipe"),
        "from_stage": BoundedIntText(0, 0, LAST_STAGE, description="from stage"),
        "size": size,
        "batch": IntSlider(12, 1, LARGEST_BATCH, description="batch", continuous_update=False),
        "card": Dropdown(options=CARDS, value=15, description="GPU, GiB"),
        "fused": checkbox("attention without stored maps", True),
        "checkpointing": checkbox("checkpointing"),
        "bf16": checkbox("bf16"),
        "per_layer": checkbox("per-layer updates"),
    }
    controls = Controls(choices, answer, caption)
    backbone.observe(lambda change: size.set_trait("value", _half(change["new"])), "value")
    return controls


def answer(
    backbone: str, recipe: str, from_stage: int, size: int, batch: int, card: int, **on: bool
) -> tuple[str, Figure]:
    """Return whether a plan fits a GPU, as a sentence and as a bar of its four parts.

    Args:
        backbone, recipe: their names.
        from_stage: the first stage of the image encoder that is adapted; 0: as in the recipe.
        size: side of the input in pixels. batch: images in one pass. card: memory in GiB.
        on: whether to save by fused, checkpointing, bf16 and per_layer.

    Raises:
        UserError: the plan is not possible, for example a size that the backbone does not take.
    """
    changes = [f"image_encoder.from_stage={from_stage}"] if from_stage else []
    chosen = changed(get_recipe(recipe), changes)
    how: dict[str, Any] = {
        "precision": "bf16" if on["bf16"] else "fp32",
        "attention": "fused" if on["fused"] else "original",
    }
    plan = Plan(
        backbone,
        batch,
        model_size(chosen, backbone, size),
        CLASSES,
        on["checkpointing"],
        on["per_layer"],
        **how,
    )
    entry, peak = predict_ledger(chosen, plan), predict_peak(chosen, plan)
    verdict = "it fits" if peak <= card * GIB else "it does not fit"
    sentence = (
        f"{chosen.method} needs {fixed(peak / GIB, 2)} GiB at its peak: {verdict} into {card} GiB."
    )
    sizes = {part: getattr(entry, part) for part in PARTS}
    title = f"{backbone}, {plan.size} px, batch {batch}"
    return sentence, bar_ledger({chosen.method: sizes}, f"{title}. {sentence}", title)


def _half(backbone: str) -> int:
    """Return half of the side of a checkpoint, as in SAMed and MedSAGa: 512 px for ViT-B."""
    return input_size(backbone, None) // 2
