"""The predicted ledger of a recipe against a real step on the CPU."""

from dataclasses import replace

import pytest
import torch
from marks import needs_peak

from medsaga_lib.backbones.sam import recompute_blocks
from medsaga_lib.losses import cross_entropy_dice
from medsaga_lib.memory import held_bytes, saved_bytes
from medsaga_lib.recipes import RECIPES, get_recipe
from medsaga_lib.recipes.build import (
    KEPT,
    build_model,
    build_optimizer,
    trainable,
)
from medsaga_lib.recipes.predict import Plan, largest_batch, predict_ledger, predict_peak
from medsaga_lib.recipes.recipe import Full


@pytest.mark.parametrize("attention", ["fused", "original"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", RECIPES)
def test_prediction_equals_a_real_step(name, checkpointing, precision, attention):
    recipe = get_recipe(name)
    how = {"checkpointing": checkpointing, "precision": precision, "attention": attention}
    predicted = predict_ledger(recipe, Plan("pocket", 2, 64, 3, **how))
    model = build_model(recipe, "pocket", 64, 3, "random", attention=attention)
    if checkpointing:
        recompute_blocks(model.sam.image_encoder, KEPT[precision])
    optimizer = build_optimizer(recipe, model)
    images, labels = torch.rand(2, 3, 64, 64), torch.randint(0, 4, (2, 16, 16))
    with saved_bytes(model) as saved:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = model(images)
        loss = cross_entropy_dice(logits, labels).total
        activations = saved.total()
    loss.backward()
    for parameter in trainable(model).values():  # the prompts that are not used get none
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    optimizer.step()

    assert predicted.activations == pytest.approx(activations, rel=0.005)
    assert predicted.gradients == sum(p.grad.nbytes for p in trainable(model).values())
    steps = 4 * len(trainable(model))  # the step counters, which a ledger leaves out
    assert predicted.states == held_bytes(optimizer) - steps


def test_the_order_of_the_methods_on_vit_b():
    """GALORE.md's encoder rows, here for the whole model: batch 12 at 512 px."""
    full = replace(get_recipe("samed"), image_encoder=Full())
    rows = {
        name: predict_ledger(recipe, Plan("vit_b", 12, 512, 8, attention="original"))
        for name, recipe in {**RECIPES, "full": full}.items()
    }
    assert rows["samed"].sum < rows["medsaga"].sum < rows["full"].sum
    assert rows["full"].activations == rows["medsaga"].activations  # GaLore changes no activation
    assert rows["samed"].activations < 0.8 * rows["full"].activations  # frozen layers save less
    saved = 1 - rows["medsaga"].sum / rows["full"].sum
    assert 0.03 < saved < 0.05  # "3.4 % of the real peak" of the encoder; far from 66 %


@needs_peak
def test_best_plan_of_medsaga_needs_less_than_a_tenth_of_the_papers():
    """vit_b, 512 px, batch 12 in one pass: the whole model, the peak, not the sum."""
    medsaga = get_recipe("medsaga")
    paper = Plan("vit_b", 12, 512, 8, attention="original")
    best = Plan("vit_b", 12, 512, 8, checkpointing=True, per_layer=True, precision="bf16")
    assert predict_peak(medsaga, paper) == pytest.approx(14.15 * 2**30, rel=0.01)
    assert predict_peak(medsaga, best) < 1.5 * 2**30


@needs_peak
def test_largest_batch_fits_and_one_more_does_not():
    recipe, plan = get_recipe("samed"), Plan("pocket", 1, 64, 2)
    limit = 60 * 2**20
    batch = largest_batch(recipe, plan, limit)
    assert batch > 1
    assert predict_peak(recipe, replace(plan, batch=batch)) <= limit
    assert predict_peak(recipe, replace(plan, batch=batch + 1)) > limit
    assert largest_batch(recipe, plan, 2**20) == 0
