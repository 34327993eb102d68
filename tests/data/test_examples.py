"""A few images of a data set: each of another patient, one value for each object."""

from dataclasses import replace

import nibabel as nib
import numpy as np
from PIL import Image

from medsaga_lib.data.cases import read_pair
from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.data.examples import MOST_OBJECTS, examples_of


def test_examples_are_the_first_test_image_of_each_patient(dataset):
    test = dataset.split("test")
    patients = list(dict.fromkeys(case.patient for case in test))
    found = examples_of(dataset, 100)
    assert [one.patient for one in found] == patients
    assert examples_of(dataset, 1)[0].patient == patients[0]
    for one in found:
        first = next(case for case in test if case.patient == one.patient)
        picture, truth = read_pair(dataset, first)
        np.testing.assert_array_equal(one.pixels, picture.pixels)
        np.testing.assert_array_equal(one.truth, truth)
        assert one.values == [*np.unique(truth[truth > 0])]


def test_of_a_volume_it_is_the_slice_with_most_labelled_voxels(volumes):
    mask = volumes.cases[0].mask
    image = nib.load(mask)
    values = np.asarray(image.dataobj).copy()
    values[3:10, 2:9, 3] = 1
    nib.Nifti1Image(values, image.affine).to_filename(mask)
    picture, truth = read_pair(volumes, volumes.cases[0])
    (one,) = examples_of(volumes, 1)
    np.testing.assert_array_equal(one.pixels, picture.pixels[3])
    np.testing.assert_array_equal(one.truth, truth[3])
    assert (one.truth > 0).sum() == 49
    assert one.spacing == tuple(picture.spacing[1:])


def test_of_a_single_volume_there_are_different_slices_that_show_a_label(volumes):
    for count in (2, 3, 20):
        found = examples_of(volumes, count)
        assert 0 < len(found) <= count
        assert all(one.values == [1] for one in found)
        grey = [float(one.pixels.mean()) for one in found]  # each slice is brighter than the last
        assert grey == sorted(set(grey))


def test_instances_are_few_and_numbered_anew(tiny):
    ids = np.zeros((24, 32), np.uint16)
    for number in range(9):  # 9 objects with large numbers
        ids[2 * number : 2 * number + 1, 3:9] = 60_000 - 7 * number
    Image.fromarray(ids).save(tiny / "masks/case0.png")
    dataset = replace(open_dataset(tiny), masks="instances", labels={1: "object"})
    dataset = replace(dataset, cases=dataset.cases[:1])
    (one,) = examples_of(dataset, 1)
    assert one.values == list(range(1, len(one.values) + 1))
    assert 0 < len(one.values) <= MOST_OBJECTS
    for value in one.values:
        assert len(np.unique(ids[one.truth == value])) == 1
        assert (ids[one.truth == value] > 0).all()
