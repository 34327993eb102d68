"""The benchmark of late stages measures every method, and its ratios follow from its numbers."""

import pytest

from medsaga_lib.bench import stages
from medsaga_lib.bench.stages import compare_stages
from medsaga_lib.errors import UserError


def test_a_method_is_measured(monkeypatch):
    monkeypatch.setattr(stages, "COMPARED", ("samed",))
    rows = compare_stages("pocket", size=64, batch=4, from_stage=5, steps=1)
    assert [row["name"] for row in rows] == ["samed"]
    for row in rows:
        assert min(row["whole"], row["late"], row["whole_peak"], row["late_peak"]) > 0
        assert row["faster"] == row["whole"] / row["late"]
        assert row["smaller"] == row["whole_peak"] / row["late_peak"]


def test_a_measurement_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(stages, "COMPARED", ("medsaga",))
    with pytest.raises(UserError, match=r"medsaga from stage 9 failed: .*has 6 stages"):
        compare_stages("pocket", size=32, batch=1, from_stage=9, steps=1)
