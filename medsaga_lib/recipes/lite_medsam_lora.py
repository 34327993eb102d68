"""LiteMedSAM + LoRA: LoRA on attention and MLPs of TinyViT, a box for each label.

Its backbone is lite_medsam, but it runs on any. The one loop squeezes pictures to a square, as it
does for all; LiteMedSAM's own way, padding and contrast, is `data.litemedsam`. Drawing pictures by
modality is a matter of the data, `data.sampling`: one data set here has one modality.
"""

from medsaga_lib.adapt.lora import LoRA
from medsaga_lib.recipes.recipe import Recipe

LITE_MEDSAM_LORA = Recipe(
    name="lite_medsam_lora",
    title="LiteMedSAM + LoRA: attention and MLPs, asked by boxes",
    source="Liu et al. 2024, LiteMedSAM with Low-Rank Adaptation, section 2, table 2; its code",
    # The code; the paper names neither rank nor alpha. Never attn.proj, on ViT neither.
    image_encoder=LoRA(rank=4, alpha=1, targets=("q", "v", "lin1", "lin2")),
    start="copied",  # not used: boxes have no class tokens
    # Our choice, of a bracket on 32 shots of cxr_hannover_lungs, pocket, 128 px, 200 steps, seed 0:
    # validation Dice 0.882 at 5e-4, 0.890 at 2e-3, 0.854 at 5e-3. Table 2's 5e-5 is for 30 hours.
    lr=2e-3,
    betas=(0.9, 0.999),  # our choice, AdamW's own
    weight_decay=1e-2,  # our choice, AdamW's own
    warmup=0,  # the paper names none
    decay_power=0.9,  # our choice: table 2's ReduceLROnPlateau needs more validation than few shots
    ce_weight=1.0,  # section 2.2: the sum of focal and Dice loss
    dice_weight=1.0,
    batch=16,  # table 2
    steps=400,  # our choice: what two cores do in ten minutes
    augmentation="flips",  # section 2.1; that sides change does no harm where boxes ask
    head="boxes",
    objective="focal_dice",
)
