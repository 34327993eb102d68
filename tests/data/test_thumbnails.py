"""Thumbnails: proportions, the chosen slice, contours in the right colour and place."""

import io

import numpy as np
import pytest
from PIL import Image

from medsaga_lib.data.thumbnails import SIDE, thumbnail

COLOURS = {0: "#999999", 1: "#0000ff", 2: "#ff0000"}


def pixels_of(drawn):
    picture = np.asarray(Image.open(io.BytesIO(drawn.webp)).convert("RGB")).astype(int)
    assert picture.shape == (drawn.height, drawn.width, 3)
    return picture


def bluish(picture):
    return (picture[..., 2] > picture[..., 0] + 60) & (picture[..., 2] > picture[..., 1] + 60)


@pytest.mark.parametrize(
    ("shape", "spacing", "size"),
    [
        ((100, 200), (1.0, 1.0), (SIDE // 2, SIDE)),
        ((100, 200, 3), (2.0, 1.0), (SIDE, SIDE)),
        ((8, 40, 20), (5.0, 0.5, 2.0), (SIDE // 2, SIDE)),
        ((1, 5000), (1.0, 1.0), (1, SIDE)),
    ],
)
def test_pixels_are_square(shape, spacing, size):
    drawn = thumbnail(np.full(shape, 0.5), spacing, None, COLOURS)
    assert (drawn.height, drawn.width) == size
    assert abs(pixels_of(drawn) - 128).max() <= 3
    assert drawn.values == ()


@pytest.mark.parametrize("side", [64, 1000])
def test_contours_lie_on_the_border_of_the_object(side):
    labels = np.zeros((side, side), int)
    labels[side // 4 : side // 2, side // 4 : 3 * side // 4] = 1
    drawn = thumbnail(np.zeros((side, side)), (1.0, 1.0), labels, COLOURS)
    assert drawn.values == (1,)
    rows, columns = np.nonzero(bluish(pixels_of(drawn)))
    ends = rows.min(), rows.max(), columns.min(), columns.max()
    quarter = SIDE / 4
    tolerance = 3 + SIDE / side  # the line is 2 pixels wide and runs along the object's pixels
    np.testing.assert_allclose(ends, (quarter, 2 * quarter, quarter, 3 * quarter), atol=tolerance)
    inside = bluish(pixels_of(drawn))[SIDE // 3 : int(SIDE / 2.3), SIDE // 3 : SIDE // 2]
    assert not inside.any()


def test_the_smallest_object_is_visible():
    labels = np.zeros((2000, 2000), int)
    labels[900, 1500] = 1
    drawn = thumbnail(np.zeros((2000, 2000)), (1.0, 1.0), labels, COLOURS)
    rows, columns = np.nonzero(bluish(pixels_of(drawn)))
    np.testing.assert_allclose(rows.mean(), 900 * SIDE / 2000, atol=1)
    np.testing.assert_allclose(columns.mean(), 1500 * SIDE / 2000, atol=1)


def test_the_slice_has_the_largest_labelled_area():
    labels = np.zeros((9, 20, 20), int)
    labels[2, 3:5, 3:5] = 1
    labels[6, 3:9, 3:9] = 2
    drawn = thumbnail(np.zeros(labels.shape), (1.0, 1.0, 1.0), labels, COLOURS)
    assert drawn.position == (7, 9)
    assert drawn.values == (2,)
    for empty in (None, 0 * labels):
        assert thumbnail(np.zeros((9, 20, 20)), (1.0,) * 3, empty, COLOURS).position == (5, 9)


def test_large_ids_of_instances():
    labels = np.zeros((30, 30), int)
    labels[2:8, 2:8], labels[15:25, 15:25] = 5, 3 * 10**9
    drawn = thumbnail(np.zeros((30, 30)), (1.0, 1.0), labels, {0: "#0000ff"})
    assert drawn.values == (5, 3 * 10**9)
    assert bluish(pixels_of(drawn)).any()
