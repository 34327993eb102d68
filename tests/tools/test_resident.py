"""The resident memory of real steps is what the ledger predicts, and the recorded file says so."""

import json
import sys

import pytest
from marks import needs_peak

from tools import resident

linux = pytest.mark.skipif(sys.platform != "linux", reason="resident sets are read from /proc")


@linux
@needs_peak
@pytest.mark.parametrize("text", ["frozen_encoder:batch=4", "samed:image_encoder.from_stage=3"])
def test_a_real_step_takes_the_predicted_memory(text):
    row = resident.in_a_process(text)
    assert row["recipe"] == text
    assert row["measured"] == pytest.approx(row["predicted"], rel=0.02)
    assert row["measured"] > 100 * 2**20
    assert 0 < row["process"] < 400 * 2**20


@linux
def test_a_recipe_that_fails_says_why():
    with pytest.raises(SystemExit, match=r"samed:lr=x: .*'x' is not a number"):
        resident.in_a_process("samed:lr=x")


def test_every_recipe_is_measured_as_a_whole_and_from_its_last_stage():
    texts = resident.texts()
    assert {"samed", "samed:image_encoder.from_stage=3", "frozen_encoder", "full"} <= {*texts}
    assert len(texts) == len({*texts})
    assert "unet" not in texts  # it has no SAM
    assert "decoder_only:image_encoder.from_stage=3" not in texts  # it trains no stage


def test_the_recorded_predictions_are_within_one_percent():
    rows = json.loads(resident.TARGET.read_text(encoding="utf-8"))["rows"]
    assert [row["recipe"] for row in rows] == resident.texts()
    for row in rows:
        assert row["predicted"] == pytest.approx(row["measured"], rel=0.01), row["recipe"]
