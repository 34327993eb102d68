"""SAM as it is: nothing is trained, a point or a box of the truth asks for each label.

`medsaga train sam_zero_shot` writes a run of no steps, which is evaluated like any other. For
boxes: `--set head=boxes --set answer=single`. For a grid of points: `--set head=grid`; its masks
have no names, so that each label is scored by the mask nearest to it: what the best choice reaches.
"""

from dataclasses import replace

from medsaga_lib.recipes.recipe import Frozen
from medsaga_lib.recipes.samed import SAMED

SAM_ZERO_SHOT = replace(
    SAMED,
    name="sam_zero_shot",
    title="SAM as it is, asked with points",
    source="Kirillov et al. 2023, Segment Anything, arXiv 2304.02643; nothing is trained",
    image_encoder=Frozen(),
    decoder="frozen",
    head="points",
    answer="best",  # segment_anything's advice for a single point
    steps=0,
)
