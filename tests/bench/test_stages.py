"""The benchmark of late stages measures every method, and its ratios follow from its numbers."""

import json

import pytest

from medsaga_lib.bench import stages
from medsaga_lib.bench.stages import compare_stages, computes_in_bf16
from medsaga_lib.errors import UserError
from medsaga_lib.memory.plan import Plan, loss_of_a_step
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.build import build_model, build_optimizer
from medsaga_lib.recipes.recipe import changed


def test_a_method_is_measured(monkeypatch):
    monkeypatch.setattr(stages, "COMPARED", ("samed",))
    rows = compare_stages("pocket", size=64, batch=4, from_stage=5, steps=1)
    assert [row["name"] for row in rows] == ["samed"]
    for row in rows:
        assert min(row["whole"], row["late"], row["whole_peak"], row["late_peak"]) > 0
        assert row["faster"] == row["whole"] / row["late"]
        assert row["smaller"] == row["whole_peak"] / row["late_peak"]
        assert (row["late_bf16"] is not None) == computes_in_bf16()


def test_a_step_does_not_become_slow_when_its_labels_are_learned():
    """With blank labels, the gradients become denormal numbers after 3 steps, at 50 times the time.

    So there must be a gradient left.
    """
    recipe = changed(get_recipe("full"), ["lr=0.01", "warmup=0"])
    plan = Plan("pocket", 2, 32, 2)
    model = build_model(recipe, "pocket", 32, 2, "random").train()
    optimizer, loss = build_optimizer(recipe, model), loss_of_a_step(recipe, plan, model)
    for _ in range(15):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    largest = max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None)
    assert largest > 1e-3


def test_a_measurement_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(stages, "COMPARED", ("medsaga",))
    with pytest.raises(UserError, match=r"medsaga from stage 9 failed: .*has 6 stages"):
        compare_stages("pocket", size=32, batch=1, from_stage=9, steps=1)


def test_the_command_measures_what_it_is_told_and_prints_it(medsaga, monkeypatch, tmp_path):
    asked = []
    row = {"name": "samed", "whole": 6.0, "late": 1.5, "faster": 4.0}
    row |= {"late_bf16": 0.75, "whole_peak": 3 * 2**20, "late_peak": 2**20, "smaller": 3.0}

    def compare(*settings):
        asked.append(settings)
        return [row]

    monkeypatch.setattr(stages, "compare_stages", compare)
    words = ("bench-stages", "--backbone", "pocket", "--size", "64", "--batch", "2")
    words += ("--from-stage", "5", "--steps", "1")
    code, text, _ = medsaga(*words, "--out", tmp_path / "rows.json")
    assert code == 0
    assert asked == [("pocket", 64, 2, 5, 1)]
    shown = ["samed", "6.00", "1.50", "4.0", "0.75", "3", "1", "3.0"]
    assert text.splitlines()[-1].split() == shown
    assert json.loads((tmp_path / "rows.json").read_text()) == [row]
    assert json.loads(medsaga(*words, "--json")[1]) == [row]
