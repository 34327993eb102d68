"""The recorded comparison of metric libraries: what they return today, and how means are made.

seg-metrics is not installed for the tests; `findings/seg_metrics_hd95_missed.sh` shows its rule.
"""

import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from monai.metrics import DiceMetric, HausdorffDistanceMetric

from tools import forensics
from tools.forensics import MEASURES, TARGET, Pair, by_state, state, tensor

ROOT = Path(__file__).parents[2]
ABSENT = "seg-metrics"
RECORDED = json.loads(TARGET.read_text(encoding="utf-8"))
SQUARE, NOTHING = np.zeros((16, 16), bool), np.zeros((16, 16), bool)
SQUARE[4:8, 4:8] = True
PAIRS = {
    "both": (SQUARE, SQUARE),
    "missed": (NOTHING, SQUARE),
    "spurious": (SQUARE, NOTHING),
    "empty": (NOTHING, NOTHING),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_libraries_return_today_what_is_recorded(name):
    (probe,) = [row for row in RECORDED["probes"] if row["state"] == name]
    for measure in MEASURES:
        if measure.name != ABSENT:
            value = measure.score(Pair(*PAIRS[name], (1.0, 1.0)))
            assert forensics.number(value) == probe[measure.key], measure.key
    assert state(*PAIRS[name]) == name


def test_monais_mean_leaves_a_missed_object_out_and_is_0_if_all_are_missed():
    low = np.roll(SQUARE, 3, axis=0)
    for predictions, mean, dice in (([low, NOTHING], 3, 0.125), ([NOTHING, NOTHING], 0, 0)):
        distance = HausdorffDistanceMetric(include_background=True, percentile=95)
        overlap = DiceMetric(include_background=True)
        for prediction in predictions:
            distance(tensor(prediction), tensor(SQUARE))
            overlap(tensor(prediction), tensor(SQUARE))
        assert distance.aggregate().item() == mean
        assert overlap.aggregate().item() == dice


def test_found_objects_have_the_same_dice_everywhere_and_hd95_differs_by_definition():
    rng = np.random.default_rng(0)
    truth = np.zeros((20, 24), bool)
    truth[5:14, 6:18] = True
    pair = Pair(np.roll(truth, (2, 1), (0, 1)) & (rng.random(truth.shape) < 0.9), truth, (1.0, 1.0))
    scores = {m.key: m.score(pair) for m in MEASURES if m.name != ABSENT}
    dice = [value for key, value in scores.items() if key.startswith("dice")]
    assert np.allclose(dice, dice[0])
    assert scores["hd95 MedPy"] == scores["hd95 this library"] == scores["hd95 Synapse rule"]
    assert scores["hd95 MONAI"] == pytest.approx(scores["hd95 MedPy"], abs=2)


def test_the_means_of_slices_are_those_of_all_their_rows():
    rows = pd.DataFrame(
        {
            "method": "m",
            "unit": "slices",
            "case": list("abcd"),
            "class": "c",
            "state": ["both", "both", "missed", "missed"],
            "dice MedPy": [1.0, 0.5, 0.0, 0.0],
            "hd95 MONAI": [2.0, 4.0, math.nan, math.nan],
        }
    )
    found, missed = by_state(rows)
    assert found["number"] == missed["number"] == 2
    assert found["dice MedPy"] == [2, 0.75]
    assert found["hd95 MONAI"] == [2, 3.0]
    assert "hd95 MONAI" not in missed


def test_the_recorded_versions_are_the_pinned_ones():
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "requirements.txt").read_text(), re.M))
    peers = RECORDED["provenance"]["peers"]
    for name, version in peers.items():
        assert name == ABSENT or pinned[name] == version


def test_every_method_was_scored_on_the_same_slices_and_volumes():
    slices = pd.DataFrame(RECORDED["slices"])
    of_classes = slices[slices["class"] != forensics.CASE]
    assert of_classes.groupby("method")["number"].sum().nunique() == 1
    cases = pd.DataFrame(RECORDED["cases"])
    assert cases.groupby(["method", "unit"])["case"].nunique().nunique() == 1
    truths = of_classes.assign(there=of_classes["state"].isin(["both", "missed"]))
    counts = truths[truths["there"]].groupby("method")["number"].sum()
    assert counts.nunique() == 1  # of slices whose truth has the class
