"""The image and the mask of a case: read together, and refused where they do not belong together.

Each fault's sentence in the check of a folder is in test_check.py.
"""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK
from PIL import Image

from medsaga_lib.data.cases import read_case, read_case_mask, read_pair, spacing_of
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
    stored = read_case_mask(volumes, volumes.cases[0])
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
    assert np.bincount(label.ravel()).tolist()[1:] == [63_532, 60_622]  # corrected


def test_pixel_size_is_the_spacing_of_images_without_one(tiny):
    edit = tiny / "dataset.toml"
    edit.write_text("pixel_size = [0.5, 0.25]\n" + edit.read_text())
    dataset = open_dataset(tiny)
    case = dataset.cases[0]
    assert read_case(dataset, case).spacing == (0.5, 0.25)
    assert spacing_of(dataset, case, read_case_mask(dataset, case)) == ((0.5, 0.25), True)
    plain = replace(dataset, pixel_size=None)
    assert spacing_of(plain, case, read_case_mask(plain, case)) == ((1.0, 1.0), False)


def test_spacing_of_the_image_holds_if_its_mask_gives_none(tiny):
    dataset = open_dataset(tiny)
    case = dataset.cases[0]
    pixels = np.asarray(Image.open(case.image).convert("L"))
    image = SimpleITK.GetImageFromArray(pixels)
    image.SetSpacing((0.25, 0.5))
    moved = replace(case, image=case.image.with_suffix(".mha"))
    SimpleITK.WriteImage(image, str(moved.image))
    assert spacing_of(dataset, moved, read_case_mask(dataset, moved)) == ((0.5, 0.25), True)


def test_colours_of_rgb_masks_are_labels_by_a_legend(tiny):
    dataset = open_dataset(tiny)
    case = next(case for case in dataset.cases if case.mask is not None)
    labels = read_case_mask(dataset, case).values
    legend = {1: (255, 0, 0), 2: (0, 255, 128)}
    colours = np.zeros((*labels.shape, 3), np.uint8)
    labels = np.arange(labels.size).reshape(labels.shape) % 3
    for value, colour in legend.items():
        colours[labels == value] = colour
    Image.fromarray(colours).save(case.mask)
    with pytest.raises(
        UserError,
        match=r"is a colour image of the colours \[0, 0, 0\], \[0, 255, 128\], \[255, 0, 0\]; save "
        r"the mask as one channel of label values, or name its colours: .*\[colours\] in dataset",
    ):
        read_case_mask(dataset, case)
    coloured = replace(dataset, colours=tuple((c, v) for v, c in legend.items()))
    assert np.array_equal(read_case_mask(coloured, case).values, labels)
    colours[0, 0] = 254, 0, 0
    Image.fromarray(colours).save(case.mask)
    with pytest.raises(UserError, match=r"holds 1 pixels of colours .* such as \[254, 0, 0\]"):
        read_case_mask(coloured, case)
