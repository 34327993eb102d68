"""Decoder only: the image encoder is frozen, mask decoder and prompt embedding train."""

from dataclasses import replace

from medsaga_lib.recipes.recipe import Frozen
from medsaga_lib.recipes.samed import SAMED

DECODER_ONLY = replace(
    SAMED,
    name="decoder_only",
    title="Decoder only, the image encoder frozen",
    source="our choice, a baseline: SAMed without its LoRA",
    image_encoder=Frozen(),
)
