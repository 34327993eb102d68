"""Real objects as prompts: which are asked for, and at what magnification."""

import numpy as np
import pytest
from PIL import Image

from medsaga_lib.data.folder import open_dataset
from medsaga_lib.pretraining.real import MAGNIFIED, SMALLEST_SIDE, real_objects


def test_every_label_of_a_picture_is_one_object(phantoms):
    dataset = open_dataset(phantoms)
    kinds = dict(real_objects(dataset, 64))
    assert [name.split(", ")[1] for name in kinds] == list(dataset.labels.values())
    for pictures in kinds.values():
        shown = list(pictures)
        assert len(shown) == len(dataset.cases)
        for image, masks in shown:
            assert image.shape == (64, 64, 3)
            assert image.dtype == np.uint8
            assert masks.shape == (1, 64, 64)
            assert masks.any()


@pytest.fixture
def cells(tmp_path):
    """One picture of 96 x 96 pixels: a grid of squares of 6 pixels, bright on black, one of 3."""
    numbers = np.zeros((96, 96), np.uint16)
    for row in range(6):
        for column in range(6):
            top, left = 16 * row + 5, 16 * column + 5
            side = 3 if row == column == 0 else 6
            numbers[top : top + side, left : left + side] = 1 + 6 * row + column
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.fromarray((200 * (numbers > 0)).astype(np.uint8)).save(tmp_path / "images" / "a.png")
    Image.fromarray(numbers).save(tmp_path / "masks" / "a.png")
    (tmp_path / "index.csv").write_text("case,image,mask,split\na,images/a.png,masks/a.png,test\n")
    (tmp_path / "dataset.toml").write_text(
        'name = "cells"\nmodality = "microscopy"\ndimensions = 2\nmasks = "instances"\n'
        'licence = "CC0"\ncitation = "drawn by a test"\n'
    )
    return open_dataset(tmp_path)


def test_instances_are_magnified_and_those_that_a_tile_cuts_are_left_out(cells):
    ((name, tiles),) = real_objects(cells, 64)
    assert name == "cells"
    tiles = list(tiles)
    # 6 pixels become 24 at magnification 4: tiles of 16 pixels, one square in each, the small one
    # (one of 36, fewer than 1 - MAGNIFIED) left out
    assert MAGNIFIED == 0.9
    assert len(tiles) == 35
    for image, masks in tiles:
        assert masks.shape == (1, 64, 64)
        assert masks.sum() == SMALLEST_SIDE**2
        assert image[masks[0]].mean() > 180  # picture and mask moved together
        assert image[~masks[0]].mean() < 10
