"""Shapes cover the pixels that brute force and COCO's own program say; others draw them larger."""

from collections import Counter

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco
from skimage.draw import polygon2mask

from medsaga_lib.data.importing.shapes import (
    circle,
    coco_mask,
    paint,
    points,
    polygon,
    rectangle,
)
from medsaga_lib.errors import UserError

SIDES = (9, 12)  # H, W
SQUARE = [(2.0, 3.0), (5.0, 3.0), (5.0, 6.0), (2.0, 6.0)]
BITS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))


def box(top, bottom, left, right):
    mask = np.zeros(SIDES, bool)
    mask[top:bottom, left:right] = True
    return mask


def inside(corners, y, x):
    """Whether a ray to the right from (x, y) crosses the outline an odd number of times."""
    crossings = 0
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) / (y1 - y0) * (x1 - x0):
            crossings += 1
    return crossings % 2 == 1


def test_a_square_of_3_pixels_stays_one():
    flat = [value for point in SQUARE for value in point]
    expected = box(3, 6, 2, 5)
    np.testing.assert_array_equal(polygon(SQUARE, SIDES), expected)
    np.testing.assert_array_equal(coco_mask([flat], SIDES), expected)
    np.testing.assert_array_equal(rectangle([SQUARE[2], SQUARE[0]], SIDES), expected)
    larger = box(3, 7, 2, 6)  # what other programs make of it
    drawn = cv2.fillPoly(np.zeros(SIDES, np.uint8), [np.array(SQUARE, np.int32)], 1)
    np.testing.assert_array_equal(drawn, larger)
    np.testing.assert_array_equal(polygon2mask(SIDES, np.array(SQUARE)[:, ::-1]), larger)


@settings(max_examples=60)
@given(st.lists(st.tuples(*[st.integers(-6, 90)] * 2), min_size=3, max_size=8, unique=True))
def test_polygons_hold_the_centres_of_their_pixels(corners):
    corners = [(x / 7 + 0.01, y / 7 + 0.013) for x, y in corners]  # no centre on an outline
    found = polygon(corners, SIDES)
    for y in range(SIDES[0]):
        for x in range(SIDES[1]):
            assert found[y, x] == inside(corners, y + 0.5, x + 0.5)


def test_circles_hold_the_centres_of_their_pixels():
    found = circle([(5.2, 4.1), (8.0, 5.5)], SIDES)
    radius = ((8.0 - 5.2) ** 2 + (5.5 - 4.1) ** 2) ** 0.5
    for y in range(SIDES[0]):
        for x in range(SIDES[1]):
            assert found[y, x] == (((x + 0.5 - 5.2) ** 2 + (y + 0.5 - 4.1) ** 2) ** 0.5 < radius)


def test_polygons_of_coco_are_those_of_its_own_program():
    random = np.random.default_rng(1)
    for _ in range(30):
        parts = random.uniform(-3, 14, (2, 10)).tolist()
        expected = coco.decode(coco.merge(coco.frPyObjects(parts, *SIDES)))
        np.testing.assert_array_equal(coco_mask(parts, SIDES), expected)


@settings(max_examples=80)
@given(BITS)
def test_runs_come_back(mask):
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    segmentation = {"size": list(mask.shape), "counts": encoded["counts"].decode()}
    np.testing.assert_array_equal(coco_mask(segmentation, mask.shape), mask)
    flat = mask.ravel(order="F").astype(int)
    changes = np.flatnonzero(np.diff(flat, prepend=0))
    runs = np.diff([0, *changes, flat.size]).tolist()  # background first
    segmentation["counts"] = runs
    np.testing.assert_array_equal(coco_mask(segmentation, mask.shape), mask)


@pytest.mark.parametrize(
    ("segmentation", "said"),
    [
        ([], "no polygon"),
        ([[1, 1, 3, 3]], "3 or more points"),  # pycocotools would take it for a box
        ([[1, 1, 3, 3, 2]], "3 or more points"),
        ([[1, 1, 3, 3, 2, float("nan")]], "far outside"),
        ([[1, 1, 3, 3, 2, 1e9]], "far outside"),  # pycocotools would draw it for minutes
        ([["a"] * 6], "3 or more points"),
        (None, "neither a list of polygons nor an RLE"),
        ({"size": [12, 9], "counts": [108]}, "neither a list of polygons nor an RLE"),
        ({"size": [9, 12], "counts": [100]}, "does not cover"),
        ({"size": [9, 12], "counts": [120, -12]}, "does not cover"),
        ({"size": [9, 12], "counts": "0"}, "does not cover"),  # pycocotools: unset memory
        ({"size": [9, 12], "counts": "PP"}, "does not cover"),
        ({"size": [9, 12]}, "does not cover"),
    ],
)
def test_segmentations_that_cannot_be_drawn(segmentation, said):
    with pytest.raises(UserError, match=said):
        coco_mask(segmentation, SIDES)


@pytest.mark.parametrize("given", [None, [], [[1, 2], [3]], [[1, 2], [3, "x"]], [[1, 2]], "ab"])
def test_points_that_are_none(given):
    with pytest.raises(UserError, match="2 or more points"):
        points(given, SIDES, least=2)


def test_paint_counts_what_changes_hands():
    counted = Counter()
    cells = [(1, np.array([0, 1, 2])), (2, np.array([2, 3])), (2, np.array([3, 4]))]
    labels = paint(cells, (2, 4), "pixels", counted)
    assert labels.tolist() == [[1, 1, 2, 2], [2, 0, 0, 0]]
    assert counted["pixels"] == 1
    with pytest.raises(UserError, match="more than 65535 objects"):
        paint([(2**16, np.array([0]))], (2, 4), "pixels", counted)
