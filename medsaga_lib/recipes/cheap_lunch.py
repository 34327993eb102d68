"""Cheap Lunch: LoRA in encoder and decoder, a point for each label, exemplars pasted about.

Read from a summary alone, which says no more than what is marked so; the rest is SAMed_s's. The
exemplars, 0.5, 1 or 3 % of the labelled pictures in the paper, are the `shots` of a run.
"""

from dataclasses import replace

from medsaga_lib.adapt.lora import LoRA
from medsaga_lib.data.synthesis import Synthesis
from medsaga_lib.recipes.samed import SAMED_S

CHEAP_LUNCH = replace(
    SAMED_S,
    name="cheap_lunch",
    title="Cheap Lunch: LoRA, points, pasted exemplars",
    source="Feng et al. 2023, Cheap Lunch, arXiv 2308.14133: a summary",
    image_encoder=LoRA(rank=4, targets=("q", "v")),  # the summary; q and v are our choice
    decoder="lora",  # the summary: r = 4 there too; that its heads train is SAMed_s's way
    head="points",  # the summary; one random pixel of each label is our choice
    synthesis=Synthesis(),  # the summary names the changes; every range is our choice
)
