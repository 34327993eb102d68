"""MedSAGa: GaLore on the whole image encoder; decoder and prompt embedding dense."""

from medsaga_lib.recipes.recipe import GaLore, Recipe

MEDSAGA = Recipe(
    name="medsaga",
    title="MedSAGa: GaLore on the image encoder",
    source="Mahla et al. 2024, MedSAGa, sections 3.2, 3.3 and 4.2",
    image_encoder=GaLore(
        lr=1e-3,  # section 4.2
        rank=None,  # our choice, width / 12: the paper names no rank
        refresh=200,  # section 4.2, "plane change rate"
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
