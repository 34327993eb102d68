"""DAE-Former from random weights: dual attention, trained as its authors train it."""

from dataclasses import replace

from medsaga_lib.recipes.recipe import Scratch
from medsaga_lib.recipes.samed import SAMED

DAE_FORMER = replace(
    SAMED,
    name="dae_former",
    title="DAE-Former from scratch",
    source="Azad et al. 2022, arXiv 2212.13504; values of the authors' own runs",
    image_encoder=Scratch("dae_former"),
    optimizer="sgd",
    lr=0.05,
    betas=(0.9, 0.0),  # the first is the momentum
    weight_decay=1e-4,
    warmup=0,
    decay_power=0.9,
    ce_weight=0.4,
    dice_weight=0.6,
    batch=24,
    # Our choice, as in the other recipes: 400 steps (the authors: 400 epochs), mild augmentation
)
