"""From a recipe to a network and its optimizer: what is optimised, and what the seed decides."""

from dataclasses import replace

import pytest
import torch

from medsaga_lib.errors import UserError
from medsaga_lib.optim.galore import GaLoreAdamW
from medsaga_lib.recipes import RECIPES, get_recipe
from medsaga_lib.recipes.build import build_model, build_optimizer, trainable
from medsaga_lib.recipes.encoder import Full
from medsaga_lib.recipes.recipe import changed

ON_SAM = [name for name, recipe in RECIPES.items() if recipe.network is None]


@pytest.mark.parametrize(
    ("backbone", "name"),
    [("pocket", name) for name in RECIPES] + [("lite_medsam", name) for name in ON_SAM],
)
def test_every_trainable_tensor_is_optimised_once(backbone, name):
    recipe = get_recipe(name)
    with torch.device("meta"):
        model = build_model(recipe, backbone, 64, 2, "random")
        optimizer = build_optimizer(recipe, model)
    optimised = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(optimised) == len(set(optimised))
    assert set(optimised) == {id(p) for p in trainable(model).values()}
    assert bool(optimised) == bool(recipe.steps)


def test_building_depends_on_the_seed_and_touches_no_global_state():
    recipe = get_recipe("samed")
    before = torch.random.get_rng_state()
    first, second, other = (
        build_model(recipe, "pocket", 64, 2, "random", seed).state_dict() for seed in (3, 3, 4)
    )
    assert torch.random.get_rng_state().equal(before)
    assert all(first[k].equal(second[k]) for k in first)
    assert any(not first[k].equal(other[k]) for k in first)


def test_full_fine_tuning_is_a_replaced_recipe():
    recipe = replace(get_recipe("samed"), image_encoder=Full())
    model = build_model(recipe, "pocket", 64, 2, "random")
    assert len(trainable(model)) == len(list(model.parameters()))
    optimizer = build_optimizer(recipe, model)  # AdamW: no group is projected
    assert all(group.get("rank") is None for group in optimizer.param_groups)


def test_medsaga_uses_the_papers_two_learning_rates():
    recipe = get_recipe("medsaga")
    model = build_model(recipe, "pocket", 64, 2, "random")
    optimizer = build_optimizer(recipe, model)
    assert isinstance(optimizer, GaLoreAdamW)
    encoder = {id(p) for p in model.sam.image_encoder.parameters()}
    for group in optimizer.param_groups:
        inside = {id(p) in encoder for p in group["params"]}
        assert len(inside) == 1
        assert group["lr"] == (recipe.image_encoder.lr if inside.pop() else recipe.lr)
        assert group["weight_decay"] == 0.1


def test_a_lift_may_have_its_own_weight_decay():
    recipe = changed(get_recipe("frozen_encoder"), ["lift=cosines", "lift_decay=10"])
    model = build_model(recipe, "pocket", 32, 2, "random")
    groups = build_optimizer(recipe, model).param_groups
    decays = {name: group["weight_decay"] for group in groups for name in group["names"]}
    assert decays.pop("lift.weight") == 10
    assert set(decays.values()) == {recipe.weight_decay}


def test_sgd_is_for_dense_updates_after_the_backward_pass():
    unet = replace(get_recipe("unet"), optimizer="sgd")
    with pytest.raises(UserError, match="adamw only"):
        build_optimizer(unet, build_model(unet, "none", 32, 1, "random"), per_layer=True)


@pytest.mark.parametrize("name", ["samed", "sam_adapter", "medsaga_v1"])
def test_an_adaptation_of_blocks_needs_a_block(name):
    recipe = changed(get_recipe(name), ["image_encoder.from_stage=6"])  # the neck alone
    with pytest.raises(UserError, match="adapts nothing from stage 6 on; choose a lower"):
        build_model(recipe, "pocket", 32, 2, "random")
