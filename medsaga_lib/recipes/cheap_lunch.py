"""Cheap Lunch: LoRA in encoder and decoder, a point for each label, and pasted exemplars.

We know this paper from a summary only: comments mark the values that the summary gives, and the
other values are those of SAMed_s. The exemplars are the `shots` of a run; the paper takes 0.5, 1 or
3 % of the labelled images.
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
    image_encoder=LoRA(rank=4, targets=("q", "v")),  # the summary: r = 4; q and v are our choice
    decoder="lora",  # the summary: r = 4 here too; training the heads is as in SAMed_s
    head="points",  # the summary; one random pixel per label is our choice
    answer="single",  # our choice: the mask that is trained
    synthesis=Synthesis(),  # the summary names the changes; every range is our choice
)
