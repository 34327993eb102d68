"""A run that collapsed is noticed, a healthy or a short one is not, and the advice can be typed."""

import itertools
import re
from dataclasses import replace

import pytest
import torch
from runs import short, train

from medsaga_lib.recipes import RECIPES, get_recipe
from medsaga_lib.recipes.build import build_model
from medsaga_lib.recipes.recipe import changed
from medsaga_lib.training import collapse
from medsaga_lib.training.collapse import Outcome, advice, best_constant_loss, distance, reason
from medsaga_lib.training.losses import OBJECTIVES

NAMES = ("background", "left lung", "right lung")
QUICK = {"batch": 2, "augmentation": "none"}
OWN_RATE = ("medsaga", "medsaga_v1", "medsaga_v2", "full", "late_stages")  # of the image encoder
RATES = {"healthy": 0.005, "too high": 1.0, "too low": 1e-6}


def masks(left=20, right=20, images=4):
    """Label maps of 10 x 10 pixels with this number of pixels of each lung."""
    rows = torch.tensor([1] * left + [2] * right + [0] * (100 - left - right))
    return rows.reshape(1, 10, 10).repeat(images, 1, 1)


def outcome(loss=0.1, predicted=None, steps=60, start=0.6):
    """A run whose loss is `loss` in the last tenth of its steps, and whose constant is 0.6."""
    losses = [start] * (steps - steps // 10) + [loss] * (steps // 10)
    return Outcome(losses, 0.6, masks() if predicted is None else predicted, masks())


@pytest.mark.parametrize(
    "healthy",
    [
        outcome(),
        outcome(loss=0.56),  # just below 0.95 of the constant's
        outcome(predicted=masks(left=20, right=0)),  # one of two classes is missing
        outcome(predicted=masks(left=1, right=0)),  # hardly anything is found
        replace(outcome(predicted=masks(0, 0)), truth=masks(0, 0)),  # there is nothing to find
    ],
)
def test_a_healthy_run(healthy):
    assert reason(healthy, NAMES) is None


def test_background_only():
    said = reason(outcome(predicted=masks(0, 0)), NAMES)
    assert said == (
        "the network predicts background for 100.0% of the pixels of 4 training images, although "
        "40% of them show something else"
    )


def test_one_class_only_and_strays():
    assert "predicts right lung for 100.0%" in reason(outcome(predicted=masks(0, 100)), NAMES)
    strays = torch.zeros(4, 10, 10, dtype=torch.long)
    strays[0, 0, 0] = 1  # 1 of the 160 pixels to find
    assert "predicts background for 99.8%" in reason(outcome(predicted=strays), NAMES)


def test_the_same_labels_for_all_images():
    """The mean shape is not one class, and its loss may be lower than that of a constant."""
    moved = masks().roll(1, 1)
    truth = torch.cat([masks(images=2), moved[:2]])
    same, found = masks(images=4), truth.roll(1, 1)
    said = reason(replace(outcome(predicted=same), truth=truth), NAMES)
    assert said == "the network predicts the same labels for 4 different training images"
    assert reason(replace(outcome(predicted=found), truth=truth), NAMES) is None
    assert reason(outcome(predicted=same), NAMES) is None  # the images' masks are equal, too


def test_a_loss_that_did_not_fall():
    assert reason(outcome(loss=0.58), NAMES) == (
        "the mean loss of the last 6 steps is 0.580, although the same prediction in every pixel "
        "already reaches 0.600"
    )
    assert reason(outcome(loss=5.0), NAMES) is not None
    assert reason(outcome(loss=0.1, start=0.1), NAMES) is None  # it began with trained weights


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_no_constant_prediction_is_better_than_the_best(objective):
    recipe = replace(get_recipe("samed"), objective=objective)
    labels = masks(left=9, right=30)
    best = best_constant_loss(recipe, labels, 3, one_pass=4)
    weights = recipe.ce_weight, recipe.dice_weight
    grid = torch.linspace(-4, 4, 33)
    others = [
        OBJECTIVES[objective](
            torch.tensor([0.0, left, right])[None, :, None, None].expand(4, -1, 10, 10),
            labels,
            *weights,
        ).total.item()
        for left, right in itertools.product(grid, grid)
    ]
    assert best < min(others)
    assert best == pytest.approx(min(others), rel=0.005)


def test_the_constant_knows_how_many_images_one_loss_has():
    """A class that is absent from a pass costs nearly 1 of the Dice loss of a constant."""
    recipe = get_recipe("samed")
    labels = torch.cat([masks(40, 0, images=2), masks(0, 40, images=2)])
    losses = [best_constant_loss(recipe, labels, 3, one_pass) for one_pass in (4, 2, 1)]
    assert losses[0] < losses[1] - 0.05
    assert losses[1] == pytest.approx(losses[2])


def options(text):
    """The values that an advice names, as `changed` reads them."""
    return re.findall(r"--set (\S+=[\w.-]+)", text)


@pytest.mark.parametrize("name", [name for name in RECIPES if RECIPES[name].steps])
def test_the_advice_names_every_rate_that_counts(name):
    recipe = get_recipe(name)
    model = build_model(recipe, "pocket", 32, 2, "random")
    lower = changed(recipe, options(advice(recipe, model, moved=1.0, learned=False)))
    higher = changed(recipe, options(advice(recipe, model, moved=0.0, learned=False)))
    before, after = (collapse.rates(one, model) for one in (recipe, lower))
    assert after == pytest.approx({key: rate / 3 for key, rate in before.items()}, rel=0.04)
    after = collapse.rates(higher, model)
    assert after == pytest.approx({key: rate * 3 for key, rate in before.items()}, rel=0.04)
    assert lower.warmup > 0
    assert higher.warmup == recipe.warmup
    expected = {"image_encoder.lr"} if name in OWN_RATE else set()
    expected |= {"lr"} if name != "medsaga_v2" else set()  # its decoder is frozen
    assert set(before) == expected


def test_a_loss_that_fell_asks_for_more_steps():
    recipe = get_recipe("samed")
    model = build_model(recipe, "pocket", 32, 2, "random")
    assert advice(recipe, model, moved=1.0, learned=True) == (
        "train again with a lower learning rate, --set lr=0.0017, or for more steps, --steps 800"
    )


def test_distance_by_hand():
    recipe = get_recipe("decoder_only")
    start, end = (build_model(recipe, "pocket", 32, 2, "random") for _ in range(2))
    assert distance(start, end) == 0
    for parameter in end.parameters():
        parameter.data *= 1.25  # the frozen image encoder, too, which does not count
    assert distance(start, end) == pytest.approx(0.25)


@pytest.fixture(scope="module", params=RATES)
def run(request, dataset, tmp_path_factory):
    """What became of a run of 50 steps: the name of its rate, its arguments and its result."""
    recipe = replace(get_recipe("frozen_encoder"), steps=50, lr=RATES[request.param], **QUICK)
    folder = tmp_path_factory.mktemp("run") / "run"
    words = (recipe, dataset, 4, folder), {"size": 32, "validations": 0}
    return request.param, words, train(*words[0], **words[1])


def test_runs_of_three_rates(run):
    rate, _, result = run
    if rate == "healthy":
        assert result.collapsed is None
        return
    assert "the network predicts" in result.collapsed.why
    advised = {"too high": "a lower learning rate: --set lr=0.33", "too low": "lr=3e-06"}
    assert result.collapsed.advice.endswith(advised[rate])
    assert ("the weights moved by only" in result.collapsed.advice) == (rate == "too low")


def test_a_finished_run_that_is_called_again_is_judged_alike(run):
    _, (words, settings), result = run
    again = train(*words, **settings)
    assert [row["loss"] for row in again.log] == [row["loss"] for row in result.log]
    assert again.collapsed == result.collapsed


def test_a_run_that_is_stopped_or_too_short_is_not_judged(dataset):
    recipe = replace(get_recipe("frozen_encoder"), steps=50, lr=1.0, **QUICK)
    settings = {"size": 32, "validations": 0}
    assert train(recipe, dataset, 4, stop_after=10, **settings).collapsed is None
    few = replace(recipe, steps=collapse.LEAST_STEPS - 1)
    assert train(few, dataset, 4, **settings).collapsed is None
    assert train(get_recipe("sam_zero_shot"), dataset, 4, **settings).collapsed is None


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("s_sam", {}),
        ("unet", {}),
        ("medsaga", {}),
        ("samed", {"head": "boxes"}),
        ("frozen_encoder", {"head": "points"}),
    ],
)
def test_other_heads_networks_and_objectives_are_judged(name, changes, dataset, monkeypatch):
    """Few steps are enough to see that the judge can look at them."""
    monkeypatch.setattr(collapse, "LEAST_STEPS", 1)
    recipe = short(name, steps=2, batch=2, **changes)
    precision = "bf16" if name == "frozen_encoder" else "fp32"
    result = train(recipe, dataset, 4, size=32, validations=0, precision=precision)
    assert result.collapsed is None or result.collapsed.advice
