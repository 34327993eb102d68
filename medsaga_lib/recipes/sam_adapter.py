"""Medical SAM Adapter: bottlenecks in every block of the image encoder (arXiv 2304.12620).

This recipe has only the paper's adaptation of the image encoder to 2-D images. The paper prompts
with points; this recipe has one token per class.
"""

from dataclasses import replace

from medsaga_lib.adapt.bottleneck import Bottleneck
from medsaga_lib.recipes.samed import SAMED

SAM_ADAPTER = replace(
    SAMED,
    name="sam_adapter",
    title="SAM adapter: bottlenecks in every block",
    source="Wu et al. 2023, Medical SAM Adapter, arXiv 2304.12620; the rest as in SAMed",
    image_encoder=Bottleneck(),  # our choice, as in code that follows the paper
)
