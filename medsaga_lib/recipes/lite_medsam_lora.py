"""LiteMedSAM + LoRA: LoRA on attention and MLPs of TinyViT, with a box prompt for each label.

The paper's backbone is lite_medsam, but the recipe runs on any. Sampling images by modality is not
part of it but of the data (`data.sampling`), because a data set has one modality here.
"""

from medsaga_lib.adapt.lora import LoRA
from medsaga_lib.recipes.recipe import Recipe

LITE_MEDSAM_LORA = Recipe(
    name="lite_medsam_lora",
    title="LiteMedSAM + LoRA: attention and MLPs, prompted with boxes",
    source="Liu et al. 2024, LiteMedSAM with Low-Rank Adaptation, section 2, table 2; its code",
    # the code; the paper gives neither rank nor alpha; attn.proj is never adapted, also not on ViT
    image_encoder=LoRA(rank=4, alpha=1, targets=("q", "v", "lin1", "lin2")),
    start="copied",  # not used: a model with box prompts has no class tokens
    # our choice: the best of 3 values on 32 shots of cxr_hannover_lungs (pocket SAM, 128 px, 200
    # steps, seed 0), with validation Dice 0.882 at 5e-4, 0.890 at 2e-3 and 0.854 at 5e-3; table 2
    # has 5e-5, for 30 hours
    lr=2e-3,
    betas=(0.9, 0.999),  # our choice: AdamW's default
    weight_decay=1e-2,  # our choice: AdamW's default
    warmup=0,  # the paper names no warm-up
    # our choice: table 2's ReduceLROnPlateau needs more validation than a few-shot run has
    decay_power=0.9,
    ce_weight=1.0,  # section 2.2: the sum of focal and Dice loss
    dice_weight=1.0,  # section 2.2
    batch=16,  # table 2
    steps=400,  # our choice: 10 minutes on 2 cores
    augmentation="flips",  # section 2.1; swapping left and right does no harm with box prompts
    head="boxes",  # the paper
    answer="single",  # the code
    decoder="whole",  # the code
    objective="focal_dice",  # section 2.2
    optimizer="adamw",  # table 2
)
