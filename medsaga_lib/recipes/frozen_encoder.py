"""Frozen encoder: the embeddings of a few copies of each picture are computed once, then kept.

What users with little memory are told to do (segment_anything, issue 664). The same numbers as
`decoder_only` where augmentation is "none"; otherwise that one changes its pictures anew in every
step, and here there are seven changed copies of each and no more. `--set image_encoder.copies=0`
makes it `decoder_only`.
"""

from dataclasses import replace

from medsaga_lib.recipes.decoder_only import DECODER_ONLY
from medsaga_lib.recipes.recipe import Frozen

FROZEN_ENCODER = replace(
    DECODER_ONLY,
    name="frozen_encoder",
    title="Frozen encoder, its embeddings kept",
    source="our choice, a baseline: segment_anything, issue 664",
    image_encoder=Frozen(copies=8),  # our choice
)
