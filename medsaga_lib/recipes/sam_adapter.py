"""Medical SAM Adapter: bottlenecks in every block of the image encoder (arXiv 2304.12620).

Only its adaptation of the image encoder to 2-D pictures; it prompts with points, here are classes.
"""

from dataclasses import replace

from medsaga_lib.adapt.adapter import Bottleneck
from medsaga_lib.recipes.samed import SAMED

SAM_ADAPTER = replace(
    SAMED,
    name="sam_adapter",
    title="SAM adapter: bottlenecks in every block",
    source="Wu et al. 2023, Medical SAM Adapter, arXiv 2304.12620; the rest as in SAMed",
    image_encoder=Bottleneck(),
)
