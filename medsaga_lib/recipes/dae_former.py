"""DAE-Former from random weights: a network with dual attention, trained as by its authors."""

from dataclasses import replace

from medsaga_lib.recipes.encoder import Full
from medsaga_lib.recipes.samed import SAMED

DAE_FORMER = replace(
    SAMED,
    name="dae_former",
    title="DAE-Former: from scratch",
    source="Azad et al. 2022, arXiv 2212.13504; values of the authors' own runs",
    image_encoder=Full(),  # every tensor of the network is trained
    network="dae_former",  # the paper
    optimizer="sgd",  # the authors' runs
    lr=0.05,  # the authors' runs
    betas=(0.9, 0.0),  # the authors' runs; the first is the momentum
    weight_decay=1e-4,  # the authors' runs
    warmup=0,  # the authors' runs
    decay_power=0.9,  # the authors' runs
    ce_weight=0.4,  # the authors' runs
    dice_weight=0.6,  # the authors' runs
    batch=24,  # the authors' runs
    steps=400,  # our choice, as in the other recipes; the authors train for 400 epochs
    augmentation="small",  # our choice, as in the other recipes
)
