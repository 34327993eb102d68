"""Every recipe on TinyViT: builds, counts, trains what it says, is predicted and resumed."""

import math
from dataclasses import replace

import pytest
import torch

from medsaga_lib import training
from medsaga_lib.data.folder import open_dataset
from medsaga_lib.losses import OBJECTIVES
from medsaga_lib.memory import saved_bytes
from medsaga_lib.optim.galore import treatment
from medsaga_lib.recipes import RECIPES, get_recipe
from medsaga_lib.recipes.build import (
    build_model,
    build_optimizer,
    checkpoint_blocks,
    count,
    galore_config,
    trainable,
)
from medsaga_lib.recipes.predict import Plan, predict_ledger
from medsaga_lib.recipes.recipe import Scratch
from medsaga_lib.runs import read_checkpoint

ON_SAM = [n for n, r in RECIPES.items() if not isinstance(r.image_encoder, Scratch)]
LITE = get_recipe("lite_medsam_lora")


@pytest.mark.parametrize("name", ON_SAM)
def test_every_recipe_counts_and_optimises_once_what_trains(name):
    recipe = get_recipe(name)
    with torch.device("meta"):
        model = build_model(recipe, "lite_medsam", 64, 2, "random")
        optimizer = build_optimizer(recipe, model)
    optimised = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(optimised) == len(set(optimised))
    assert set(optimised) == {id(p) for p in trainable(model).values()}
    counted = count(recipe, "lite_medsam", 64, 2)
    assert counted.trainable == sum(p.numel() for p in trainable(model).values())


def test_litemedsams_lora_trains_what_its_code_trains():
    """METHODS, section 6. A box needs no token of its own, so the counts are the plain SAM's."""
    counted = count(LITE, "lite_medsam", 256, 1)
    assert (counted.trainable, counted.total) == (4_168_496, 9_895_236)


def test_medsaga_projects_the_matrices_of_tinyvit():
    recipe = get_recipe("medsaga")
    with torch.device("meta"):
        encoder = build_model(recipe, "lite_medsam", 256, 2, "random").sam.image_encoder
    config = galore_config(recipe.image_encoder, encoder)
    assert config.rank == 26  # 320 / 12
    how = {t.name: t.how for t in treatment(encoder, config)}
    assert len(how) == len(list(encoder.parameters()))
    assert how["layers.3.blocks.1.attn.qkv.weight"] == how["neck.2.weight"] == "projected"
    assert how["layers.1.blocks.0.local_conv.c.weight"] == "dense"  # 128 x 9
    assert how["layers.2.blocks.0.attn.attention_biases"] == "dense"  # 5 x 196


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["medsaga", "lite_medsam_lora"])
def test_predicted_activations_are_a_real_steps(name, checkpointing):
    recipe = get_recipe(name)
    plan = Plan("mobile_sam", 2, 64, 3, checkpointing=checkpointing)
    model = build_model(recipe, "mobile_sam", 64, 3, "random")
    if checkpointing:
        checkpoint_blocks(model, "fp32")
    inputs = [torch.rand(2, 3, 64, 64)]
    if recipe.head == "boxes":
        box = torch.tensor([[8.0, 8.0], [40.0, 50.0]]).expand(2, 3, 2, 2)
        inputs += [box, torch.tensor([2, 3]).expand(2, 3, 2)]
    with saved_bytes(model) as saved:
        logits = model(*inputs)
        labels = torch.randint(0, 4, (2, *logits.shape[2:]))
        loss = OBJECTIVES[recipe.objective](logits, labels).total
        activations = saved.total()
        del loss
    assert predict_ledger(recipe, plan).activations == pytest.approx(activations, rel=0.005)


@pytest.mark.parametrize("name", ["medsaga", "lite_medsam_lora"])
def test_a_stopped_run_ends_with_the_very_same_weights_and_statistics(
    name, phantoms, tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "SAVE_EVERY", 1)
    recipe, dataset = replace(get_recipe(name), steps=3, batch=2), open_dataset(phantoms)
    options = {"backbone": "mobile_sam", "weights": "random", "size": 32}
    options |= {"progress": False, "validations": 0}
    training.train(recipe, dataset, 2, tmp_path / "whole", **options)
    training.train(recipe, dataset, 2, tmp_path / "parts", stop_after=2, **options)
    training.train(recipe, dataset, 2, tmp_path / "parts", **options)
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
    result = training.train(recipe, dataset, 2, progress=False, **options)
    assert [row["step"] for row in result.log] == [0, 1]
    assert all(math.isfinite(row["loss"]) for row in result.log)
