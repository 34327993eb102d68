"""MedSAGa: GaLore on the whole image encoder; decoder and prompt embedding dense.

The paper's equation 1 projects from both sides, P^T G Q; here, as in GaLore's reference, one side
is: the shorter. Its two variants of section 5: v1 has GaLore on the attention alone, v2 trains no
decoder.
"""

from dataclasses import replace

from medsaga_lib.recipes.recipe import GaLore, Recipe

MEDSAGA = Recipe(
    name="medsaga",
    title="MedSAGa: GaLore on the image encoder",
    source="Mahla et al. 2024, MedSAGa, sections 3.2, 3.3 and 4.2",
    image_encoder=GaLore(
        lr=1e-3,  # section 4.2
        rank=None,  # our choice, width / 12: the paper names no rank
        refresh=200,  # section 4.2, "plane change rate"; the paper does not say of how many steps
        scale=0.25,  # our choice, GaLore's reference: the paper names no scale
    ),
    start="copied",  # our choice; the paper says nothing
    lr=0.005,  # section 4.2, "for the warmup"; that it is the decoder's is our reading
    betas=(0.9, 0.999),  # section 4.2
    weight_decay=0.1,  # section 4.2
    warmup=250,  # section 4.2
    decay_power=0.9,  # our choice, SAMed's: the paper says nothing
    ce_weight=0.2,  # section 4.2
    dice_weight=0.8,
    batch=12,  # section 4.2
    steps=400,  # our choice: what two cores do in ten minutes; the paper names no number
    augmentation="small",  # our choice: the paper says nothing
)

MEDSAGA_V1 = replace(
    MEDSAGA,
    name="medsaga_v1",
    title="MedSAGa_v1: GaLore on the attention alone",
    source="Mahla et al. 2024, MedSAGa, section 5",
    # The paper is silent on the rest of the encoder: frozen is our reading, dense the other
    image_encoder=GaLore(lr=1e-3, others="frozen"),
)

# Nothing outside the encoder trains, so a class token stays what it was at the start. Where all
# start as copies of one, all logits are equal and the gradient is zero; drawn at random they teach
# the encoder little; as SAM's own four, `--set start=in_turn`, much more. The published rows are
# the same for both numbers of images, as they would be where nothing is learned.
MEDSAGA_V2 = replace(
    MEDSAGA,
    name="medsaga_v2",
    title="MedSAGa_v2: GaLore on the image encoder, the decoder frozen",
    source="Mahla et al. 2024, MedSAGa, section 5",
    start="random",  # our reading: SAMed's code
    decoder="frozen",
)
