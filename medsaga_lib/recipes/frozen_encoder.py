"""Frozen encoder: compute the embeddings of a few copies of each image once, and keep them.

This is the usual advice to users with little memory (segment_anything, issue 664). Where
augmentation is "none", the results are those of `decoder_only`. Otherwise `decoder_only` augments
each image anew in every step, and this recipe has only 7 augmented copies of it.
`--set image_encoder.copies=0` turns this recipe into `decoder_only`.
"""

from dataclasses import replace

from medsaga_lib.recipes.decoder_only import DECODER_ONLY
from medsaga_lib.recipes.encoder import Frozen

FROZEN_ENCODER = replace(
    DECODER_ONLY,
    name="frozen_encoder",
    title="frozen encoder: embeddings computed once",
    source="our choice: a baseline, as in segment_anything's issue 664",
    image_encoder=Frozen(copies=8),  # our choice
)
