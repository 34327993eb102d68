"""Boxes from a user: read from words and from npz files, and required to lie in the image.

What the command says of a bad box is in test_box_predictor.py.
"""

import numpy as np
import pytest

from medsaga_lib.errors import UserError
from medsaga_lib.inference.user_boxes import read_boxes, require_boxes, stored_boxes


def test_boxes_are_read_from_words():
    flat = read_boxes(["1,2,30,40", "0.5,0,7,8"])
    assert flat.tolist() == [[1, 2, 30, 40], [0.5, 0, 7, 8]]
    assert read_boxes(["1,2,3,4,5,6"]).shape == (1, 6)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["1,2,3"], "--box 1,2,3 has 3 numbers; write x0,y0,x1,y1"),
        (["1,2,3,b"], "--box 1,2,3,b is not made of numbers"),
        ([""], "is not made of numbers"),
        (["1,2,3,4", "1,2,3,4,5,6"], "--box 1,2,3,4,5,6"),
    ],
)
def test_words_that_are_no_boxes_are_refused(words, said):
    with pytest.raises(UserError, match=said):
        read_boxes(words)


@pytest.mark.parametrize("columns", [4, 6])
def test_boxes_are_read_from_an_npz_file(columns, tmp_path):
    boxes = np.arange(2 * columns).reshape(2, columns)
    np.savez(tmp_path / "a.npz", imgs=np.zeros((8, 8)), boxes=boxes)
    assert np.array_equal(stored_boxes(tmp_path / "a.npz"), boxes)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({}, "has no array `boxes`"),
        ({"boxes": np.zeros((0, 4))}, "has no array `boxes`"),
        ({"boxes": np.zeros((2, 5))}, "has no array `boxes`"),
        ({"boxes": np.zeros(4)}, "has no array `boxes`"),
        ({"boxes": np.array([["a", "b", "c", "d"]])}, "`boxes`.* not made of numbers"),
        ({"boxes": np.array([{}], dtype=object)}, "`boxes`.* not made of numbers"),
    ],
)
def test_npz_files_without_boxes_are_refused(arrays, said, tmp_path):
    np.savez(tmp_path / "a.npz", imgs=np.zeros((8, 8)), **arrays)
    with pytest.raises(UserError, match=said):
        stored_boxes(tmp_path / "a.npz")


def test_other_files_contain_no_boxes(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    for name in ("a.png", "absent.npz"):
        with pytest.raises(UserError, match=f"{name} contains no boxes"):
            stored_boxes(tmp_path / name)


IMAGE, VOLUME = (120, 160), (9, 64, 64)  # y, x; z, y, x


@pytest.mark.parametrize(
    ("box", "shape"),
    [
        ((0, 0, 159, 119), IMAGE),
        ((0, 0, 160, 120), IMAGE),  # a box that ends before its last corner
        ((5, 5, 5, 5), IMAGE),  # one pixel
        ((0, 0, 0, 64, 64, 9), VOLUME),
    ],
)
def test_boxes_within_the_image_are_accepted(box, shape):
    require_boxes(np.array([box], float), shape)


@pytest.mark.parametrize(
    ("box", "shape", "said"),
    [
        ((20, 25, 19, 75), IMAGE, "20,25,19,75 is empty"),
        ((20, 25, 30, 24), IMAGE, "is empty"),
        ((np.nan, 25, 20, 75), IMAGE, "is empty"),
        ((-1, 25, 20, 75), IMAGE, "160x120"),
        ((160, 25, 160, 75), IMAGE, "160x120"),
        ((20, 25, 160, 121), IMAGE, "160x120"),
        ((1, 2, 0, 30, 40, 1), IMAGE, "A 3-D box does not fit an image of 160x120"),
        ((1, 2, 30, 40), VOLUME, "A 2-D box does not fit a volume of 64x64x9"),
        ((1, 2, 9, 30, 40, 9), VOLUME, "64x64x9"),
        ((1, 2, 5, 30, 40, 4), VOLUME, "is empty"),
    ],
)
def test_boxes_that_do_not_lie_in_the_image_are_refused(box, shape, said):
    with pytest.raises(UserError, match=said):
        require_boxes(np.array([box], float), shape)
