"""A frozen image encoder: only decoder and prompt embedding train."""

from dataclasses import replace

from medsaga_lib.recipes.recipe import Frozen
from medsaga_lib.recipes.samed import SAMED

FROZEN = replace(
    SAMED,
    name="frozen",
    title="Frozen image encoder",
    source="the baseline of SAMed, table 3; the rest as in SAMed",
    image_encoder=Frozen(),
)
