"""Against the challenge's own code, run on labels of one's own (`cvpr24_metrics.json`)."""

import numpy as np
import oracle
import pytest

from medsaga_lib.metrics_cvpr24 import cvpr24_scores, surface_dice

CASES = oracle.read("cvpr24_metrics")["cases"]
LABELS = np.load(oracle.FOLDER / "cvpr24_metrics_labels.npz")


def maps(case):
    return LABELS[f"{case}__pred"], LABELS[f"{case}__truth"]


@pytest.mark.parametrize("case", CASES)
def test_a_case_scores_as_published(case):
    stored = CASES[case]
    dsc, nsd = cvpr24_scores(*maps(case), stored["spacing"])
    np.testing.assert_allclose([dsc, nsd], [float(stored["dsc"]), stored["nsd"]], rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_each_label_at_each_tolerance(case):
    prediction, truth = maps(case)
    for row in CASES[case]["per_label"]:
        masks = prediction == row["label"], truth == row["label"]
        for tolerance, wanted in row["nsd"].items():
            found = surface_dice(*masks, CASES[case]["spacing"], float(tolerance))
            np.testing.assert_allclose(found, float(wanted), rtol=0, atol=1e-9)


@pytest.mark.parametrize("predicted", [0, 1])
def test_a_truth_without_labels_has_no_mean(predicted):
    """The code takes the mean of nothing, and nothing is not above 0.2."""
    prediction = np.full((4, 5), predicted)
    dsc, nsd = cvpr24_scores(prediction, np.zeros((4, 5), int))
    assert np.isnan(dsc)
    assert nsd == 0
