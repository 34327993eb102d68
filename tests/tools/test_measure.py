"""The measuring tool on the CPU: it runs every way to save memory and measures none twice."""

import functools
import json

import pytest
import torch
from marks import needs_peak

from medsaga_lib.memory.plan import Plan, predict_peak
from medsaga_lib.recipes import RECIPES, get_recipe
from tools import measure
from tools.provenance import ROOT, commit

WORDS = (
    "--device cpu --backbone pocket --recipes decoder_only --sizes 32 --batches 2 --steps 2 --out"
)

pytestmark = needs_peak


@pytest.mark.no_cover
def test_grid_is_measured_once(tmp_path, capsys, monkeypatch):
    peak = functools.cache(predict_peak)  # once for each plan, for the tool and for the test
    monkeypatch.setattr(measure, "predict_peak", peak)
    out = tmp_path / "measured.json"
    measure.main([*WORDS.split(), str(out)])
    rows = json.loads(out.read_text())["rows"]
    assert len(rows) == len(measure.WAYS)
    assert all(row["seconds"] > 0 and row["fits"] and row["peak"] is None for row in rows)
    assert {row["commit"] for row in rows} == {commit(ROOT, "notebooks/recorded")}
    for row in rows:
        plan = Plan(**row["plan"])
        assert row["predicted"] == peak(get_recipe("decoder_only"), plan)
    assert rows[-1]["plan"]["per_layer"]

    capsys.readouterr()
    measure.main([*WORDS.split(), str(out)])
    assert json.loads(out.read_text())["rows"] == rows
    assert capsys.readouterr().out.count("\n") == 1  # no row, only the last line


@pytest.mark.parametrize("name", [n for n, r in RECIPES.items() if measure.trains_sam(r)])
def test_every_recipe_takes_its_steps(name):
    """With the prompts or embeddings that the recipe needs."""
    seconds = measure.steps(get_recipe(name), Plan("pocket", 1, 32, 2), "cpu", count=2)
    assert len(seconds) == 2


def test_plan_that_does_not_fit_is_a_row_too(monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(measure, "steps", full)
    row = measure.measured(get_recipe("samed"), Plan("pocket", 1, 32, 2), "cpu")
    assert (row["fits"], row["peak"], row["seconds"]) == (False, None, None)


@pytest.mark.parametrize(
    "words", [["--recipes", "unet"], ["--backbone", "vit_g"], ["--steps", "1"]]
)
def test_what_cannot_be_measured_is_a_sentence(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        measure.main(words)
    assert stopped.value.code == 2
    assert f"{words[0]}: " in capsys.readouterr().err
