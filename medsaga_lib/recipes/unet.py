"""U-Net from random weights: the result of few labels without SAM."""

from dataclasses import replace

from medsaga_lib.recipes.encoder import Full
from medsaga_lib.recipes.samed import SAMED

UNET = replace(
    SAMED,
    name="unet",
    title="U-Net: from scratch",
    source="Ronneberger et al. 2015, arXiv 1505.04597; Kerfoot et al. 2018 (MONAI's UNet)",
    image_encoder=Full(),  # every tensor of the network is trained
    network="unet",  # the papers
    lr=1e-3,  # our choice, from tests of several values
    weight_decay=1e-2,  # AdamW's default
)
