"""Adaptations of the image encoder that recipes name: GaLore's configuration."""

from dataclasses import replace

import pytest
import torch

from medsaga_lib.optim.galore import treatment
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.build import build_model, build_optimizer


@pytest.mark.parametrize(
    ("steps", "bases", "refresh"),
    [(14_880, 10, 200), (2_000, 10, 200), (400, 10, 40), (200, 10, 20), (6, 10, 1), (60, 0, 200)],
)
def test_a_short_run_renews_its_bases_more_often(steps, bases, refresh):
    recipe = get_recipe("medsaga")
    how = replace(recipe.image_encoder, bases=bases)
    recipe = replace(recipe, image_encoder=how, steps=steps)
    with torch.device("meta"):
        model = build_model(recipe, "pocket", 64, 2, "random")
    group = build_optimizer(recipe, model).param_groups[0]
    assert group["refresh"] == refresh


def test_medsaga_projects_the_matrices_of_tinyvit():
    recipe = get_recipe("medsaga")
    with torch.device("meta"):
        encoder = build_model(recipe, "lite_medsam", 256, 2, "random").sam.image_encoder
    config = recipe.image_encoder.config(encoder)
    assert config.rank == 26  # 320 / 12
    how = {t.name: t.how for t in treatment(encoder, config)}
    assert len(how) == len(list(encoder.parameters()))
    assert how["layers.3.blocks.1.attn.qkv.weight"] == how["neck.2.weight"] == "projected"
    assert how["layers.1.blocks.0.local_conv.c.weight"] == "dense"  # 128 x 9
    assert how["layers.2.blocks.0.attn.attention_biases"] == "dense"  # 5 x 196
