"""MedSAGa: GaLore on the whole image encoder; mask decoder and prompt encoder are dense.

Equation 1 of the paper projects both sides of the gradient, P^T G Q. Here only the shorter side is
projected, as in GaLore's reference. Section 5 has two variants: v1 applies GaLore to the attention
alone, and v2 does not train the decoder.
"""

from dataclasses import replace

from medsaga_lib.recipes.encoder import GaLore
from medsaga_lib.recipes.recipe import Recipe

MEDSAGA = Recipe(
    name="medsaga",
    title="MedSAGa: GaLore on the image encoder",
    source="Mahla et al. 2024, MedSAGa, sections 3.2, 3.3 and 4.2",
    image_encoder=GaLore(
        lr=1e-3,  # section 4.2
        rank=None,  # our choice: width / 12; the paper gives no rank
        refresh=200,  # section 4.2, "plane change rate"; the paper gives no number of steps
        scale=0.25,  # our choice: GaLore's reference; the paper gives no scale
    ),
    start="copied",  # our choice; the paper does not say
    lr=0.005,  # section 4.2, "for the warmup"; we read it as the decoder's
    betas=(0.9, 0.999),  # section 4.2
    weight_decay=0.1,  # section 4.2
    warmup=250,  # section 4.2
    decay_power=0.9,  # our choice: SAMed's; the paper does not say
    ce_weight=0.2,  # section 4.2
    dice_weight=0.8,  # section 4.2
    batch=12,  # section 4.2
    steps=400,  # our choice: 10 minutes on 2 cores; the paper gives no number
    augmentation="small",  # our choice; the paper does not say
    head="classes",  # section 3.2
    decoder="whole",  # section 3.2
    objective="cross_entropy_dice",  # section 4.2
    optimizer="adamw",  # section 4.2
)

MEDSAGA_V1 = replace(
    MEDSAGA,
    name="medsaga_v1",
    title="MedSAGa_v1: GaLore on the attention alone",
    source="Mahla et al. 2024, MedSAGa, section 5",
    image_encoder=GaLore(
        lr=1e-3,  # section 4.2
        others="frozen",  # our reading: the paper does not mention them; the alternative is "dense"
    ),
)

# Nothing outside the encoder is trained, so the class tokens keep their start values. If all of
# them are copies of one token, all logits are equal and the gradient is 0. Random tokens teach the
# encoder little; SAM's own four tokens (`--set start=in_turn`) teach it much more. The published
# rows are the same for both numbers of images, as if nothing had been learned.
MEDSAGA_V2 = replace(
    MEDSAGA,
    name="medsaga_v2",
    title="MedSAGa_v2: GaLore on the image encoder, the decoder frozen",
    source="Mahla et al. 2024, MedSAGa, section 5",
    start="random",  # our reading: SAMed's code
    decoder="frozen",  # section 5
)
