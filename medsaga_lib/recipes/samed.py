"""SAMed: LoRA on q and v of the image encoder; the whole decoder is trained (arXiv 2304.13785).

SAMed_s also has LoRA in the decoder's attention, and freezes the rest of its transformer.
"""

from dataclasses import replace

from medsaga_lib.adapt.lora import LoRA
from medsaga_lib.recipes.recipe import Recipe

SAMED = Recipe(
    name="samed",
    title="SAMed: LoRA on q and v",
    source="Zhang & Liu 2023, arXiv 2304.13785, sections 3 and 4.1",
    image_encoder=LoRA(rank=4, targets=("q", "v")),  # section 3.2
    start="copied",  # our choice; SAMed's code starts from random class tokens
    lr=0.005,  # section 4.1
    betas=(0.9, 0.999),  # section 4.1
    weight_decay=0.1,  # section 4.1
    warmup=250,  # section 3.4
    decay_power=0.9,  # SAMed's code
    ce_weight=0.2,  # section 3.4
    dice_weight=0.8,  # section 3.4
    batch=12,  # SAMed's code: 12 on each of two GPUs
    steps=400,  # our choice: 10 minutes on 2 cores; SAMed takes 14,880
    augmentation="small",  # our choice: SAMed's flips would swap left and right organs
    head="classes",  # section 3.3
    decoder="whole",  # section 3.3
    objective="cross_entropy_dice",  # section 3.4
    optimizer="adamw",  # section 3.4
)

SAMED_S = replace(
    SAMED,
    name="samed_s",
    title="SAMed_s: LoRA in the decoder too",
    source="Zhang & Liu 2023, arXiv 2304.13785: SAMed_s, and its code",
    decoder="lora",  # section 3.3
)
