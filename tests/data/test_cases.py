"""The image and the mask of a case: read together, and refused where they do not belong together.

Each fault's sentence in the check of a folder is in test_check.py.
"""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from medsaga_lib.data.cases import read_case, read_case_mask, read_pair
from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.errors import UserError


def test_a_pair_is_the_pixels_and_the_label_map_of_the_files(tiny):
    dataset = open_dataset(tiny)
    picture, labels = read_pair(dataset, dataset.cases[0])
    np.testing.assert_allclose(
        picture.pixels, np.asarray(Image.open(tiny / "images/case0.png")) / 255, atol=1e-6
    )
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, np.asarray(Image.open(tiny / "masks/case0.png")))


def test_instances_are_label_1_together(tiny):
    ids = np.zeros((24, 32), np.uint16)
    ids[2:9, 3:20], ids[12:20, 5:30] = 300, 7
    Image.fromarray(ids).save(tiny / "masks/case0.png")
    dataset = replace(open_dataset(tiny), masks="instances", labels={1: "object"})
    _, labels = read_pair(dataset, dataset.cases[0])
    np.testing.assert_array_equal(labels, (ids > 0).astype(int))


def test_a_case_without_a_mask_has_no_pair_and_still_an_image(tiny):
    dataset = open_dataset(tiny)
    case = replace(dataset.cases[0], mask=None)
    assert read_case(dataset, case).shape == (24, 32)
    with pytest.raises(UserError, match=r"case0\.png: case 'case0' has no mask; name a mask in"):
        read_pair(dataset, case)


def test_a_message_names_at_most_five_wrong_values(tiny):
    dataset = open_dataset(tiny)
    values = np.zeros((24, 32), np.uint8)
    values[0, :7] = np.arange(11, 18)
    Image.fromarray(values).save(tiny / "masks/case0.png")
    said = r"value 11, 12, 13, 14, 15 and 2 more, not in \[labels\] \(1, 2\)"
    with pytest.raises(UserError, match=said):
        read_pair(dataset, dataset.cases[0])


def test_a_mask_is_read_without_its_image(volumes):
    stored = read_case_mask(volumes.cases[0])
    assert stored.values.shape == (8, 10, 12)  # z, y, x
    assert set(np.unique(np.nonzero(stored.values)[0])) == {2, 3, 6}


def test_real_pairs(real_data):
    spleen = open_dataset("ct_spleen_msd_crop")
    picture, label = read_pair(spleen, spleen.cases[0])
    assert picture.shape == label.shape == (26, 166, 164)
    np.testing.assert_allclose(picture.spacing, (5, 0.795, 0.795), atol=1e-3)
    assert label.sum() == 96_672  # spleen_vox of its index
    nuclei = open_dataset("nuclei_dsb2018")
    assert set(np.unique(read_pair(nuclei, nuclei.cases[0])[1])) == {0, 1}
    xray = open_dataset("cxr_hannover_lungs")
    label = read_pair(xray, xray.cases[0])[1]
    assert np.bincount(label.ravel()).tolist()[1:] == [77_593, 74_035]  # of its index
