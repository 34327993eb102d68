"""Metrics against brute force over all pairs of points, MedPy, MONAI and the published code."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from medpy.metric import binary as medpy
from monai.metrics import compute_hausdorff_distance, compute_surface_dice

from medsaga_lib.evaluation.metrics import (
    ClassScore,
    dice,
    hd95,
    nsd,
    score_case,
    surface_distances,
)

ORACLES = Path(__file__).parents[1] / "oracles"
SYNAPSE = json.loads((ORACLES / "dice_hd95.json").read_text())["cases"]
SYNAPSE_MASKS = np.load(ORACLES / "dice_hd95_masks.npz")
VOLUME = json.loads((ORACLES / "test_single_volume.json").read_text())["cases"]
VOLUME_PREDICTIONS = np.load(ORACLES / "test_single_volume_predictions.npz")

few = settings(max_examples=40, deadline=None)


@st.composite
def mask_pairs(draw, empties=True):
    """Two random masks of the same 2-D or 3-D shape and a spacing, as (mask, mask, spacing)."""
    shape = draw(array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=6))
    density = st.sampled_from([0.0, 0.1, 0.5, 1.0] if empties else [0.1, 0.5, 1.0])
    pair = []
    for _ in range(2):
        noise = draw(arrays(np.float64, shape, elements=st.floats(0, 1, width=16)))
        pair.append(noise < draw(density))
    spacing = draw(st.tuples(*[st.floats(0.25, 4, width=16)] * len(shape)))
    if not empties:
        assume(all(mask.any() for mask in pair))
    return *pair, spacing


# An independent reference: surfaces by checking each neighbour, distances between all pairs


def brute_surface(mask):
    inside = {tuple(index) for index in np.argwhere(mask)}
    steps = [tuple(s * row) for row in np.eye(mask.ndim, dtype=int) for s in (-1, 1)]
    moved = lambda place, step: tuple(np.add(place, step))  # noqa: E731
    return [p for p in sorted(inside) if any(moved(p, step) not in inside for step in steps)]


def brute_distances(first, second, spacing):
    a, b = (np.array(brute_surface(mask)) * spacing for mask in (first, second))
    pairs = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    return pairs.min(1), pairs.min(0)


def percentile(values, percent):
    """Percentile by linear interpolation between order statistics."""
    values = sorted(values)
    place = percent / 100 * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (place - low) * (values[high] - values[low])


@few
@given(mask_pairs(empties=False), st.floats(0, 6, width=16))
def test_brute_force(pair, tolerance):
    prediction, truth, spacing = pair
    to_truth, to_prediction = brute_distances(prediction, truth, spacing)
    pooled = [*to_truth, *to_prediction]
    assert hd95(prediction, truth, spacing) == pytest.approx(percentile(pooled, 95))
    largest = max(percentile(to_truth, 95), percentile(to_prediction, 95))
    assert hd95(prediction, truth, spacing, rule="maximum") == pytest.approx(largest)

    within = sum(distance <= tolerance + 1e-9 for distance in pooled) / len(pooled)
    assert nsd(prediction, truth, spacing, tolerance) == pytest.approx(within)

    a, b = ({tuple(i) for i in np.argwhere(mask)} for mask in (prediction, truth))
    assert dice(prediction, truth) == pytest.approx(2 * len(a & b) / (len(a) + len(b)))


@few
@given(mask_pairs(empties=False))
def test_medpy(pair):
    prediction, truth, spacing = pair
    assert dice(prediction, truth) == pytest.approx(medpy.dc(prediction, truth))
    expected = medpy.hd95(prediction, truth, voxelspacing=spacing)
    assert hd95(prediction, truth, spacing) == pytest.approx(expected)


@few
@given(mask_pairs(empties=False), st.floats(0, 6, width=16))
def test_monai(pair, tolerance):
    prediction, truth, spacing = pair
    distances = surface_distances(prediction, truth, spacing)
    # MONAI computes in float32: within 1e-4 of the tolerance, rounding decides
    assume(min(np.abs(some - tolerance).min() for some in distances) > 1e-4)
    one_hot = [torch.from_numpy(mask)[None, None].float() for mask in (prediction, truth)]
    peer = compute_hausdorff_distance(
        *one_hot, include_background=True, percentile=95, spacing=spacing
    )
    assert hd95(prediction, truth, spacing, rule="maximum") == pytest.approx(
        peer.item(), rel=1e-5, abs=1e-4
    )
    peer = compute_surface_dice(
        *one_hot, class_thresholds=[tolerance], include_background=True, spacing=spacing
    )
    assert nsd(prediction, truth, spacing, tolerance) == pytest.approx(
        peer.item(), rel=1e-5, abs=1e-4
    )


@few
@given(mask_pairs(), st.floats(0, 6, width=16))
def test_symmetric_and_the_same_when_axes_or_directions_change(pair, tolerance):
    prediction, truth, spacing = pair

    def all_of(a, b, size):
        return (
            dice(a, b),
            nsd(a, b, size, tolerance),
            hd95(a, b, size),
            hd95(a, b, size, rule="maximum"),
        )

    expected = pytest.approx(all_of(prediction, truth, spacing), nan_ok=True)
    assert all_of(truth, prediction, spacing) == expected
    assert all_of(prediction.T, truth.T, spacing[::-1]) == expected
    assert all_of(np.flip(prediction), np.flip(truth), spacing) == expected


@few
@given(mask_pairs(), st.floats(0.1, 10), st.floats(0, 6, width=16))
def test_lengths_scale_with_the_spacing(pair, factor, tolerance):
    prediction, truth, spacing = pair
    scaled = tuple(factor * size for size in spacing)
    expected = factor * hd95(prediction, truth, spacing)
    assert hd95(prediction, truth, scaled) == pytest.approx(expected, nan_ok=True)
    expected = nsd(prediction, truth, spacing, tolerance)
    assert nsd(prediction, truth, scaled, factor * tolerance) == pytest.approx(
        expected, nan_ok=True
    )


@few
@given(mask_pairs())
def test_background_around_the_image_changes_nothing_where_both_masks_are_there(pair):
    prediction, truth, spacing = pair
    assume(prediction.any() and truth.any())
    padded = np.pad(prediction, 2), np.pad(truth, 2)
    assert hd95(*padded, spacing) == hd95(prediction, truth, spacing)
    assert nsd(*padded, spacing) == nsd(prediction, truth, spacing)


@few
@given(mask_pairs(empties=False))
def test_a_mask_against_itself_is_perfect(pair):
    mask, _, spacing = pair
    assert dice(mask, mask) == 1
    assert hd95(mask, mask, spacing) == 0
    assert nsd(mask, mask, spacing, tolerance=0) == 1


def test_a_known_shift():
    truth = np.zeros((40, 40), bool)
    truth[10:20, 10:20] = True
    prediction = np.roll(truth, 3, axis=1)
    assert dice(prediction, truth) == pytest.approx(0.7)
    # the far side of each square is 3 columns of 2 mm away from the other square
    assert hd95(prediction, truth, (1.0, 2.0)) == pytest.approx(6)
    assert nsd(prediction, truth, (1.0, 2.0), tolerance=6) == 1
    # 36 elements per surface; 14 of each lie on the other: 7 columns at the top and the bottom
    assert nsd(prediction, truth, (1.0, 2.0), tolerance=0) == pytest.approx(28 / 72)


@pytest.mark.parametrize("spacing", [None, (0.5, 2.0)])
def test_empty_masks(spacing):
    empty, some = np.zeros((3, 4), bool), np.eye(3, 4, dtype=bool)
    for metric in (dice, hd95, nsd, surface_distances):
        values = metric(empty, empty) if metric is dice else metric(empty, empty, spacing)
        assert np.all(np.isnan(values))
    rows, columns = spacing or (1, 1)
    diagonal = math.hypot(3 * rows, 4 * columns)
    for pair in ((some, empty), (empty, some)):
        assert dice(*pair) == 0
        assert nsd(*pair, spacing, tolerance=100) == 0
        for rule in ("pooled", "maximum"):
            assert hd95(*pair, spacing, rule=rule) == pytest.approx(diagonal)


@pytest.mark.parametrize("name", SYNAPSE)
def test_synapse_rule_equals_the_published_code(name):
    prediction, truth = (SYNAPSE_MASKS[f"{name}__{which}"] for which in ("pred", "truth"))
    case = SYNAPSE[name]
    (score,) = score_case(prediction, truth, {1: "object"})
    published = case["dice"], case["hd95"]
    assert (score.dice_synapse, score.hd95_synapse) == pytest.approx(published, abs=1e-9)
    if "hd95_with_spacing_3_1_1_not_used_by_that_code" in case:
        expected = case["hd95_with_spacing_3_1_1_not_used_by_that_code"]
        assert hd95(prediction, truth, (3, 1, 1)) == pytest.approx(expected, abs=1e-9)


def formula_truth():
    """Truth of the oracle's volume, (3, 60, 70), labels 0..3; the oracle file has the formula."""
    z, y, x = np.meshgrid(*map(np.arange, (3, 60, 70)), indexing="ij")
    t = 0.5 + 0.25 * np.sin(0.11 * (x - 2) + 0.7 * z) + 0.25 * np.cos(0.13 * (y + 1) - 0.4 * z)
    return np.clip(np.round(3 * t), 0, 3).astype(int)


@pytest.mark.parametrize("name", VOLUME)
def test_score_case_gives_the_published_scores_of_a_volume(name):
    truth, prediction = formula_truth(), VOLUME_PREDICTIONS[f"{name}__pred"]
    assert np.bincount(truth.ravel()).tolist() == VOLUME[name]["truth_voxels"]
    scores = score_case(prediction, truth, {1: "a", 2: "b", 3: "c"}, spacing=(5, 1, 1))
    published = [[score.dice_synapse, score.hd95_synapse] for score in scores]
    assert np.allclose(published, VOLUME[name]["per_class"], atol=1e-9)


def test_score_case_puts_both_rules_side_by_side():
    truth, prediction = np.zeros((2, 6, 8), int)
    truth[1:5, 1:5], prediction[1:5, 2:6] = 1, 1
    truth[0, 0] = 2  # missed
    prediction[5, 7] = 3  # a false positive
    labels = {1: "liver", 2: "spleen", 3: "kidney", 4: "heart"}
    liver, *rest = score_case(prediction, truth, labels, spacing=(3, 4), tolerance=4)
    assert liver == ClassScore(1, "liver", 0.75, 4, 1, 0.75, 1, 0)
    far = math.hypot(18, 32)
    assert rest[0][:-1] == ClassScore(2, "spleen", 0, far, 0, 0, 0, 0)[:-1]
    assert rest[1] == ClassScore(3, "kidney", 0, far, 0, 1, 0, 0)
    assert rest[2][:2] == (4, "heart")
    assert np.isnan(rest[2][2:5]).all()
    assert rest[2][5:7] == (0, 0)
    assert np.isnan([rest[0].confused, rest[2].confused]).all()  # nothing predicted


def test_confused_is_the_share_on_another_class():
    truth, prediction = np.array([[0, 1, 1, 2, 2, 3]]), np.array([[1, 1, 1, 1, 2, 1]])
    one, two = score_case(prediction, truth, {1: "right", 2: "left"})
    assert (one.confused, two.confused) == (1 / 5, 0)  # 3 is not scored, so it is background


def test_score_case_equals_the_single_metrics():
    generator = np.random.default_rng(0)
    truth, prediction = generator.integers(3, size=(2, 5, 9, 8))
    spacing = (3.0, 1.5, 0.5)
    for score in score_case(prediction, truth, {1: "one", 2: "two"}, spacing, tolerance=0.5):
        masks = prediction == score.label, truth == score.label
        expected = dice(*masks), hd95(*masks, spacing), nsd(*masks, spacing, 0.5)
        assert score[2:5] == expected


@pytest.mark.parametrize(
    ("shapes", "spacing", "tolerance", "message"),
    [
        (((3, 3), (3, 4)), None, 2, "differ in shape"),
        (((3, 3), (3, 3)), (1, 1, 1), 2, "2 positive numbers"),
        (((3, 3), (3, 3)), (1, 0), 2, "2 positive numbers"),
        (((3, 3), (3, 3)), (1, math.nan), 2, "2 positive numbers"),
        (((3, 3), (3, 3)), (1, 1), -1, "tolerance"),
        (((3, 3), (3, 3)), (1, 1), math.nan, "tolerance"),
    ],
)
def test_nonsense_is_refused(shapes, spacing, tolerance, message):
    prediction, truth = map(np.ones, shapes)
    with pytest.raises(ValueError, match=message):
        nsd(prediction, truth, spacing, tolerance)


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="'max'"):
        hd95(np.eye(3), np.eye(3), rule="max")
