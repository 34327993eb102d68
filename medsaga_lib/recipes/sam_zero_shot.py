"""SAM as it is: no training, and a point or box from the ground truth as prompt for each label.

`medsaga train sam_zero_shot` writes a run without steps, which is evaluated like any other. For
boxes: `--set head=boxes --set answer=single`. For a grid of points: `--set head=grid`. Masks of a
grid have no names, so each label is scored with the mask nearest to it, the best possible choice.
"""

from dataclasses import replace

from medsaga_lib.recipes.encoder import Frozen
from medsaga_lib.recipes.samed import SAMED

SAM_ZERO_SHOT = replace(
    SAMED,
    name="sam_zero_shot",
    title="no training: SAM as it is, prompted with points",
    source="Kirillov et al. 2023, Segment Anything, arXiv 2304.02643; nothing is trained",
    image_encoder=Frozen(),  # nothing is trained
    decoder="frozen",  # nothing is trained
    head="points",  # the paper
    answer="best",  # segment_anything's advice for a single point
    steps=0,  # nothing is trained
)
