"""The registry of recipes: each method is one small file."""

from medsaga_lib.errors import UserError
from medsaga_lib.recipes.adaptive_sam import ADAPTIVE_SAM
from medsaga_lib.recipes.cheap_lunch import CHEAP_LUNCH
from medsaga_lib.recipes.dae_former import DAE_FORMER
from medsaga_lib.recipes.decoder_only import DECODER_ONLY
from medsaga_lib.recipes.frozen_encoder import FROZEN_ENCODER
from medsaga_lib.recipes.full import FULL
from medsaga_lib.recipes.late_stages import LATE_STAGES
from medsaga_lib.recipes.lite_medsam_lora import LITE_MEDSAM_LORA
from medsaga_lib.recipes.medsaga import MEDSAGA, MEDSAGA_V1, MEDSAGA_V2
from medsaga_lib.recipes.recipe import Recipe
from medsaga_lib.recipes.s_sam import S_SAM, SVF
from medsaga_lib.recipes.sam_adapter import SAM_ADAPTER
from medsaga_lib.recipes.sam_zero_shot import SAM_ZERO_SHOT
from medsaga_lib.recipes.samed import SAMED, SAMED_S
from medsaga_lib.recipes.segresnet import SEGRESNET
from medsaga_lib.recipes.unet import UNET

RECIPES = {
    recipe.name: recipe
    for recipe in (
        *(MEDSAGA, SAMED, SAMED_S, MEDSAGA_V1, MEDSAGA_V2),
        *(S_SAM, SVF, ADAPTIVE_SAM, SAM_ADAPTER, CHEAP_LUNCH, LITE_MEDSAM_LORA),
        *(LATE_STAGES, FULL, DECODER_ONLY, FROZEN_ENCODER, SAM_ZERO_SHOT),
        *(UNET, SEGRESNET, DAE_FORMER),
    )
}


def get_recipe(name: str) -> Recipe:
    """Return the recipe with this name; raise UserError if there is none."""
    if name not in RECIPES:
        raise UserError(f"There is no recipe {name!r}; choose one of {', '.join(RECIPES)}.")
    return RECIPES[name]
