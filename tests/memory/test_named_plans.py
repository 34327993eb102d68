"""The plans for small GPUs fit, and their commands are commands."""

import itertools

import pytest
import typer
from marks import needs_peak

from medsaga_lib.cli import app
from medsaga_lib.memory.named_plans import NAMED_PLANS, NamedPlan, fitting
from medsaga_lib.recipes import RECIPES

GIB = 2**30


@needs_peak
@pytest.mark.no_cover  # fake tensors are computed in Python, and coverage doubles their time
def test_plans_are_those_that_leave_half_of_the_memory(monkeypatch):
    peaks = {named: named.peak() for named in NAMED_PLANS}
    monkeypatch.setattr(NamedPlan, "peak", lambda named: peaks[named])
    found = {named.name: peak for named, peak in fitting(8 * GIB)}
    assert list(found) == ["SAM on 8 GB", "SAM on 4 GB"]
    assert found["SAM on 4 GB"] == pytest.approx(1.21 * GIB, rel=0.02)  # chapter 3's table
    assert [named.name for named, _ in fitting(4 * GIB)] == ["SAM on 4 GB"]
    assert not list(fitting(2 * GIB))


@pytest.mark.parametrize("named", NAMED_PLANS, ids=lambda named: named.name)
def test_commands_have_only_options_that_exist(named):
    train = typer.main.get_command(app).commands["train"]
    options = {word for parameter in train.params for word in parameter.opts}
    medsaga, verb, recipe, *words = named.command.split()
    assert (medsaga, verb) == ("medsaga", "train")
    assert recipe in RECIPES
    assert {word for word in words if word.startswith("--")} <= options
    values = dict(itertools.pairwise(words))
    assert values["--size"] == str(named.plan.size)
    assert values["--batch"] == str(named.plan.batch)
    assert values["--backbone"] == named.plan.backbone
    assert {"--checkpointing", "--per-layer", "--bf16"} <= set(words)
