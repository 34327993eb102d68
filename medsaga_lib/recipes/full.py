"""Full fine-tuning: train every tensor with AdamW, which keeps states for all of them."""

from dataclasses import replace

from medsaga_lib.recipes.encoder import Full
from medsaga_lib.recipes.medsaga import MEDSAGA

FULL = replace(
    MEDSAGA,
    name="full",
    title="full fine-tuning: every tensor, with AdamW",
    source="our choice: a baseline, MedSAGa without GaLore",
    image_encoder=Full(lr=1e-3),  # MedSAGa's value, so that only the optimizer differs
)
