"""The measuring script, on the CPU: every way to save is run, nothing is measured twice."""

import json

import pytest
import torch
from marks import needs_peak

from tools import measure

WORDS = "--device cpu --backbone pocket --recipes samed --sizes 32 --batches 2 --out"

pytestmark = needs_peak


@pytest.mark.slow
def test_grid_is_measured_once(tmp_path, capsys):
    out = tmp_path / "measured.json"
    measure.main([*WORDS.split(), str(out)])
    rows = json.loads(out.read_text())["rows"]
    assert len(rows) == len(measure.WAYS)
    assert all(row["seconds"] > 0 and row["fits"] and row["peak"] is None for row in rows)
    for row in rows:
        plan = measure.Plan(**row["plan"])
        assert row["predicted"] == measure.predict_peak(measure.get_recipe("samed"), plan)
    assert rows[-1]["plan"]["per_layer"]

    capsys.readouterr()
    measure.main([*WORDS.split(), str(out)])
    assert json.loads(out.read_text())["rows"] == rows
    assert capsys.readouterr().out.count("\n") == 1  # no row, only the last line


def test_plan_that_does_not_fit_is_a_row_too(monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(measure, "steps", full)
    plan = measure.Plan("pocket", 1, 32, 2)
    row = measure.measured(measure.get_recipe("samed"), plan, "cpu")
    assert (row["fits"], row["peak"], row["seconds"]) == (False, None, None)
