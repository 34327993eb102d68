"""Full fine-tuning: every tensor trains under AdamW, which nothing else here can afford."""

from dataclasses import replace

from medsaga_lib.recipes.medsaga import MEDSAGA
from medsaga_lib.recipes.recipe import Full

FULL = replace(
    MEDSAGA,
    name="full",
    title="Full fine-tuning",
    source="the baseline of every paper here; the rest as in MedSAGa",
    image_encoder=Full(lr=1e-3),  # MedSAGa's, so that the two differ in the optimizer alone
)
