"""SegResNet from random weights: a residual network, the second that knows nothing."""

from dataclasses import replace

from medsaga_lib.recipes.recipe import Scratch
from medsaga_lib.recipes.unet import UNET

SEGRESNET = replace(
    UNET,
    name="segresnet",
    title="SegResNet from scratch",
    source="Myronenko 2018, arXiv 1810.11654 (MONAI's SegResNet, without the autoencoder)",
    image_encoder=Scratch("segresnet"),
    # Our choice, of a bracket on 8 shots of cxr_hannover_lungs, seed 0. Validation Dice at 128 px,
    # batch 12, after 150 steps: 0.813 at 3e-4, 0.795 at 1e-3. At 64 px, batch 6, after 100 steps:
    # 0.817 at 1e-4, 0.813 at 3e-4, 0.789 at 1e-3.
    lr=3e-4,
)
