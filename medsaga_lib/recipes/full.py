"""Full fine-tuning: every tensor trains under AdamW, with states for all of them."""

from dataclasses import replace

from medsaga_lib.recipes.medsaga import MEDSAGA
from medsaga_lib.recipes.recipe import Full

FULL = replace(
    MEDSAGA,
    name="full",
    title="Full fine-tuning",
    source="our choice, a baseline: MedSAGa without GaLore",
    image_encoder=Full(lr=1e-3),  # MedSAGa's, so that the two differ in the optimizer alone
)
