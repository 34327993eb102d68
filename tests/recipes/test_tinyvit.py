"""Recipes on TinyViT: what LiteMedSAM's LoRA trains, resuming, and steps of every recipe."""

import math
from dataclasses import replace

import pytest
from runs import train

from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.memory.plan import count
from medsaga_lib.recipes import RECIPES, get_recipe
from medsaga_lib.training import loop
from medsaga_lib.training.run_folder import read_checkpoint

ON_SAM = [n for n, r in RECIPES.items() if r.network is None]
LITE = get_recipe("lite_medsam_lora")


def test_litemedsams_lora_trains_what_its_code_trains():
    """The counts of its published code. A box needs no token of its own, so the rest is SAM's."""
    counted = count(LITE, "lite_medsam", 256, 1)
    assert (counted.trainable, counted.total) == (4_168_496, 9_895_236)


@pytest.mark.parametrize("name", ["medsaga", "lite_medsam_lora"])
def test_a_stopped_run_ends_with_the_very_same_weights_and_statistics(
    name, phantoms, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "SAVE_EVERY", 1)
    recipe, dataset = replace(get_recipe(name), steps=3, batch=2), open_dataset(phantoms)
    options = {"backbone": "mobile_sam", "weights": "random", "size": 32}
    options |= {"validations": 0}
    train(recipe, dataset, 2, tmp_path / "whole", **options)
    train(recipe, dataset, 2, tmp_path / "parts", stop_after=2, **options)
    train(recipe, dataset, 2, tmp_path / "parts", **options)
    whole, parts = (read_checkpoint(tmp_path / run).weights for run in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(whole[k].equal(parts[k]) for k in whole)
    mean = whole["sam.image_encoder.patch_embed.seq.0.bn.running_mean"]
    assert mean.any() == (name == "medsaga")  # frozen, it stays as it came: zeros here


@pytest.mark.parametrize(
    ("backbone", "name"),
    [("lite_medsam", name) for name in ON_SAM if RECIPES[name].steps]
    + [("vit_b", name) for name in ("medsaga", "samed", "lite_medsam_lora")],
)
def test_the_one_loop_takes_steps_of_every_recipe(backbone, name, phantoms):
    recipe, dataset = replace(get_recipe(name), steps=2, batch=2), open_dataset(phantoms)
    options = {"backbone": backbone, "weights": "random", "size": 32, "validations": 0}
    result = train(recipe, dataset, 2, **options)
    assert [row["step"] for row in result.log] == [0, 1]
    assert all(math.isfinite(row["loss"]) for row in result.log)
