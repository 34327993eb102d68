"""Late stages: train the last stage of a small encoder, its neck and the decoder, all dense.

The early stages stay frozen, and their output is computed once for a few copies of each image. On
LiteMedSAM they hold most of the activations and 45 % of the parameters. `medsaga train`
uses this recipe if no other is named.
"""

from dataclasses import replace

from medsaga_lib.recipes.encoder import Full
from medsaga_lib.recipes.samed import SAMED

LATE_STAGES = replace(
    SAMED,
    name="late_stages",
    title="late stages: dense AdamW on the last stage, neck and decoder",
    source="our choice: measured in chapter 10",
    image_encoder=Full(
        lr=1e-4,  # our choice: 3e-5 and 3e-4 are level or worse in chapter 9
        from_stage=3,  # our choice: the last of TinyViT's 4 stages
        copies=12,  # our choice: 48 to 192 outputs of 1.3 MB are kept for 4 to 16 images at 128 px
    ),
    lr=0.001,  # our choice: with SAMed's 0.005, some runs on LiteMedSAM collapsed
    batch=4,  # our choice: more steps for the same time
    steps=150,  # our choice: 5 minutes of one core at 128 px
    lift="fourier",  # our choice: TinyViT has no absolute positions
)
