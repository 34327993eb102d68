"""One small file per method, and the registry."""

from medsaga_lib.errors import UserError
from medsaga_lib.recipes.frozen import FROZEN
from medsaga_lib.recipes.full import FULL
from medsaga_lib.recipes.medsaga import MEDSAGA
from medsaga_lib.recipes.recipe import Recipe
from medsaga_lib.recipes.samed import SAMED
from medsaga_lib.recipes.ssam import SSAM, SVF
from medsaga_lib.recipes.unet import UNET

RECIPES = {recipe.name: recipe for recipe in (MEDSAGA, SAMED, SSAM, SVF, FULL, FROZEN, UNET)}


def get_recipe(name: str) -> Recipe:
    """The recipe of that name; UserError if there is none."""
    if name not in RECIPES:
        raise UserError(f"There is no recipe {name!r}; choose one of {', '.join(RECIPES)}.")
    return RECIPES[name]
