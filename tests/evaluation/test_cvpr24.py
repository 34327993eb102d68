"""CVPR 2024 scores against the challenge's own code (oracle `cvpr24_metrics.json`)."""

import numpy as np
import oracle
import pytest

from medsaga_lib.evaluation.cvpr24 import cvpr24_scores, surface_dice

CASES = oracle.read("cvpr24_metrics")["cases"]
LABELS = np.load(oracle.FOLDER / "cvpr24_metrics_labels.npz")

# surface-distance 0.1 uses names of SciPy that version 2 removes
pytestmark = pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")


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
    """The code takes the mean of an empty list, NaN, which is not above 0.2."""
    prediction = np.full((4, 5), predicted)
    dsc, nsd = cvpr24_scores(prediction, np.zeros((4, 5), int))
    assert np.isnan(dsc)
    assert nsd == 0


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5)])
def test_surface_dice_of_empty_masks(shape):
    empty, some = np.zeros(shape, bool), np.ones(shape, bool)
    assert np.isnan(surface_dice(empty, empty))
    assert surface_dice(some, empty) == surface_dice(empty, some) == 0
    assert surface_dice(some, some, np.ones(3)) == 1
