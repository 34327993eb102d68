"""Decoder only: train the mask decoder and the prompt encoder, and freeze the image encoder."""

from dataclasses import replace

from medsaga_lib.recipes.encoder import Frozen
from medsaga_lib.recipes.samed import SAMED

DECODER_ONLY = replace(
    SAMED,
    name="decoder_only",
    title="decoder only: the image encoder frozen",
    source="our choice: a baseline, SAMed without LoRA",
    image_encoder=Frozen(),  # our choice: a baseline
)
