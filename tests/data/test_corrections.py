"""Known faults of masks: X-rays whose lungs were drawn too wide."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter
from skimage.draw import polygon2mask

from medsaga_lib.data.cases import read_case, read_case_mask
from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.data.corrections import correction_of, into_central_square

SIDES = st.integers(2, 60)


@given(SIDES, SIDES)
def test_the_square_holds_the_whole_mask_and_nothing_else(height, width):
    side = min(height, width)
    shrunk = into_central_square(np.ones((height, width), int))
    assert shrunk.sum() == side * side
    rows, columns = (np.flatnonzero(shrunk.any(axis)) for axis in (1, 0))
    for found, length in ((rows, height), (columns, width)):
        assert abs((found[0] + found[-1]) - (length - 1)) <= 1  # in the middle


@given(st.integers(2, 40))
def test_a_square_mask_stays_as_it_is(side):
    labels = np.random.default_rng(side).integers(0, 3, (side, side))
    np.testing.assert_array_equal(into_central_square(labels), labels)


@pytest.mark.parametrize("size", [(524, 640), (640, 560)])
def test_a_polygon_in_the_square_is_drawn_where_it_belongs(size):
    """Against the polygon itself, drawn in the square and drawn too wide."""
    corners = 2000 * np.array([[0.2, 0.1], [0.8, 0.15], [0.85, 0.45], [0.5, 0.4], [0.25, 0.35]])
    wide = polygon2mask(size, corners / 2000 * size)
    side = min(size)
    right = polygon2mask(size, (np.array(size) - side) / 2 + corners / 2000 * side)
    found = into_central_square(wide.astype(int)) > 0
    edge = binary_dilation(right, iterations=2) & ~binary_erosion(right, iterations=2)
    assert (found == right)[~edge].all()


def borders(image, mask):
    """How much brighter an image is outside of the border of a mask than inside."""
    outside = binary_dilation(mask, iterations=12) & ~binary_dilation(mask, iterations=2)
    inside = mask & ~binary_erosion(mask, iterations=12)
    return image[outside].mean() - image[inside].mean()


def test_lungs_end_where_the_xrays_become_brighter(real_data):
    """The ratio of the sides of an X-ray, and nothing else, says how wide its masks must be."""
    dataset = open_dataset(real_data / "cxr_hannover_lungs")
    assert dataset.correction == "central square"
    assert ", masks corrected, " in dataset.describe()
    as_given = replace(dataset, correction="")
    gains = []
    for case in dataset.cases:
        image = gaussian_filter(read_case(dataset, case).pixels.astype(float), 2)
        height, width = image.shape
        if width / height < 1.15:
            continue
        right, wide = (read_case_mask(one, case).values > 0 for one in (dataset, as_given))
        assert right.sum() / wide.sum() == pytest.approx(height / width, abs=0.01)
        gains.append(borders(image, right) - borders(image, wide))
    assert len(gains) == 51
    assert np.mean(np.array(gains) > 0) > 0.8  # 45 of 51


def test_other_masks_are_not_corrected(real_data, tmp_path):
    dataset = open_dataset(real_data / "cxr_hannover_lungs")
    assert correction_of([case.mask for case in dataset.cases[1:]]) == ""
    edited = tmp_path / "53c9be49.png"
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(edited)
    assert correction_of([edited, None, tmp_path / "missing.png"]) == ""
    assert open_dataset(real_data / "polyp_kvasir").correction == ""
