"""U-Net from random weights: what few labels give without any SAM."""

from dataclasses import replace

from medsaga_lib.recipes.recipe import Scratch
from medsaga_lib.recipes.samed import SAMED

UNET = replace(
    SAMED,
    name="unet",
    title="U-Net from scratch",
    source="Ronneberger et al. 2015, arXiv 1505.04597; Kerfoot et al. 2018 (MONAI's UNet)",
    image_encoder=Scratch("unet"),
    lr=1e-3,  # our choice, of a bracket
    weight_decay=1e-2,  # AdamW's default
)
