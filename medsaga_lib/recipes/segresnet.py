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
)
