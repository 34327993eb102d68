"""SegResNet from random weights: a residual network, the second baseline without SAM."""

from dataclasses import replace

from medsaga_lib.recipes.unet import UNET

SEGRESNET = replace(
    UNET,
    name="segresnet",
    title="SegResNet: from scratch",
    source="Myronenko 2018, arXiv 1810.11654 (MONAI's SegResNet, without the autoencoder)",
    network="segresnet",  # the paper
    # our choice, from tests on 8 shots of cxr_hannover_lungs, seed 0; validation Dice at 128 px and
    # batch 12, after 150 steps: 0.813 at 3e-4, 0.795 at 1e-3; at 64 px and batch 6, after 100
    # steps: 0.817 at 1e-4, 0.813 at 3e-4, 0.789 at 1e-3
    lr=3e-4,
)
