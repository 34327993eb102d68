"""The benchmark of late stages measures every method, and its ratios follow from its numbers."""

import json

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


def test_the_command_measures_what_it_is_told_and_prints_it(medsaga, monkeypatch, tmp_path):
    asked = []
    row = {"name": "samed", "whole": 6.0, "late": 1.5, "faster": 4.0}
    row |= {"whole_peak": 3 * 2**20, "late_peak": 2**20, "smaller": 3.0}

    def compare(*settings):
        asked.append(settings)
        return [row]

    monkeypatch.setattr(stages, "compare_stages", compare)
    words = ("bench-stages", "--backbone", "pocket", "--size", "64", "--batch", "2")
    words += ("--from-stage", "5", "--steps", "1")
    code, text, _ = medsaga(*words, "--out", tmp_path / "rows.json")
    assert code == 0
    assert asked == [("pocket", 64, 2, 5, 1)]
    assert text.splitlines()[-1].split() == ["samed", "6.00", "1.50", "4.0", "3", "1", "3.0"]
    assert json.loads((tmp_path / "rows.json").read_text()) == [row]
    assert json.loads(medsaga(*words, "--json")[1]) == [row]
