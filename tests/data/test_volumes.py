"""NRRD, MetaImage and DICOM are read with the values and the grid that other readers give."""

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from dicoms import TURN, dicom, write_series

from medsaga_lib.data.images import read_image, read_mask
from medsaga_lib.data.label_files import targets, write_labels
from medsaga_lib.data.volumes import read_dicom, read_itk
from medsaga_lib.errors import UserError

RANDOM = np.random.default_rng(2)
SLICES = RANDOM.integers(0, 4096, (5, 12, 10)).astype(np.uint16)


@pytest.fixture
def series(tmp_path):
    """A series whose file names and instance numbers run against the positions."""
    changes = {"RescaleSlope": 2, "RescaleIntercept": -1024}
    return write_series(tmp_path / "series", SLICES, **changes)


def test_a_series_is_sorted_by_position_and_scaled(series):
    picture = read_image(series, "CT", (-1024, 7166))
    files = sorted(series.glob("*.dcm"), reverse=True)
    wanted = np.stack([
        (d := pydicom.dcmread(file)).pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept)
        for file in files
    ])  # fmt: skip
    np.testing.assert_allclose(picture.pixels, (wanted + 1024) / 8190, atol=1e-6)
    assert picture.spacing == pytest.approx((2.5, 0.5, 0.7))
    inside = picture.geometry.affine_inside(picture.shape)
    first = pydicom.dcmread(files[0])
    corner = inside[:3, 3] * [-1, -1, 1]  # to LPS, as in DICOM
    np.testing.assert_allclose(corner, np.array(first.ImagePositionPatient, float), atol=1e-5)
    step = inside[:3, 0] * [-1, -1, 1]  # a step along the row
    np.testing.assert_allclose(step, 0.7 * np.array(TURN[:3], float), atol=1e-5)


def test_labels_of_a_series_lie_on_it(series, tmp_path):
    picture = read_image(series, "CT")
    assert targets([series], tmp_path) == {tmp_path / "series_labels.nii.gz": series}
    labels = (picture.pixels > 0.5).astype(np.int64)
    write_labels(tmp_path / "series_labels.nii.gz", picture, labels)
    assert np.array_equal(read_mask(tmp_path / "series_labels.nii.gz")[0], labels)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
    given, written = reader.Execute(), sitk.ReadImage(str(tmp_path / "series_labels.nii.gz"))
    ends = [(0, 0, 0), tuple(n - 1 for n in given.GetSize())]
    for end in ends:
        place = given.TransformIndexToPhysicalPoint(end)
        found = written.TransformPhysicalPointToContinuousIndex(place)
        size = np.array(written.GetSize()) - 1
        assert min(np.abs(np.array(found) - c).max() for c in (0 * size, size)) < 1e-3
    assert nib.load(tmp_path / "series_labels.nii.gz").header.get_xyzt_units()[0] == "mm"


def test_a_series_with_a_gap_or_a_doubled_slice_is_refused(series):
    (series / "97.dcm").unlink()
    with pytest.raises(UserError, match=r"5 mm between instances 99 and 97, but 2\.5 mm elsewhere"):
        read_image(series, "CT")
    dicom(series / "x.dcm", SLICES[0], [-20.0, 30, -5], 99)
    with pytest.raises(UserError, match=r"slices at uneven distances: .*remove the doubled ones"):
        read_image(series, "CT")


def test_two_series_or_none_are_refused(series, tmp_path):
    dicom(series / "other.dcm", SLICES[0], [0.0, 0, 0], 1, series="1.2.3.5")
    with pytest.raises(
        UserError, match="holds 2 DICOM series; give a folder with the files of one"
    ):
        read_image(series, "CT")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no DICOM series"):
        read_image(tmp_path / "empty", "CT")


def test_a_folder_with_a_single_image_is_refused(tmp_path):
    (tmp_path / "one").mkdir()
    dicom(tmp_path / "one/a.dcm", SLICES[0], [0.0, 0, 0])
    with pytest.raises(UserError, match="holds a single image, not a volume; give the file in it"):
        read_image(tmp_path / "one", "X-ray", (0, 4095))


def test_slices_of_another_size_are_refused(series):
    dicom(series / "99.dcm", SLICES[0][:, :8], [-20.0, 30, -5], 100)
    with pytest.raises(UserError, match="slices of different sizes; separate the series"):
        read_dicom(series)


@pytest.mark.parametrize("scaled", [False, True])
def test_monochrome1_is_black_as_zero_with_its_window(scaled, tmp_path):
    values = SLICES[0]
    changes = {"RescaleSlope": 2, "RescaleIntercept": -100} if scaled else {}
    centre, width = (3000, 1500) if scaled else (1500, 800)
    window = {"WindowCenter": centre, "WindowWidth": width}
    path = tmp_path / "a.dcm"
    dicom(path, values, PhotometricInterpretation="MONOCHROME1", **changes, **window)
    picture = read_image(path, "X-ray")
    stored = values * 2.0 - 100 if scaled else values.astype(float)
    bright = 1 - np.clip((stored - (centre - width / 2)) / width, 0, 1)  # white is low
    np.testing.assert_allclose(picture.pixels, bright, atol=1e-4)
    assert picture.spacing == (0.5, 0.7)


def test_an_x_ray_without_a_window_needs_one(tmp_path):
    dicom(tmp_path / "a.dcm", SLICES[0])
    with pytest.raises(UserError, match=r"not 8 bits; add `window = \[low, high\]`"):
        read_image(tmp_path / "a.dcm", "X-ray")
    pixels = read_image(tmp_path / "a.dcm", "X-ray", (0, 4095)).pixels
    np.testing.assert_allclose(pixels, SLICES[0] / 4095, atol=1e-6)


@pytest.mark.parametrize("ending", ["nrrd", "mha", "mhd", "dcm"])
def test_a_damaged_file_is_one_sentence(ending, tmp_path):
    (tmp_path / f"a.{ending}").write_bytes(b"not an image" * 20)
    with pytest.raises(UserError, match=rf"cannot be read as \.{ending} .*; copy or export it"):
        read_image(tmp_path / f"a.{ending}", "CT")


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_pictures_and_what_is_neither_picture_nor_volume(ending, tmp_path):
    flat = sitk.GetImageFromArray(SLICES[0])
    flat.SetSpacing((0.7, 0.5))
    sitk.WriteImage(flat, str(tmp_path / f"a.{ending}"))
    found = read_itk(tmp_path / f"a.{ending}")
    assert np.array_equal(found.values, SLICES[0])
    assert found.spacing == (0.5, 0.7)
    vectors = sitk.GetImageFromArray(np.zeros((3, 4, 5, 3), np.float32), isVector=True)
    sitk.WriteImage(vectors, str(tmp_path / f"v.{ending}"))
    with pytest.raises(UserError, match="has the shape 3 x 4 x 5 x 3; save one image, or one vol"):
        read_itk(tmp_path / f"v.{ending}")


def test_scaled_labels_are_whole_numbers(tmp_path):
    """nibabel stores 0 to 3 with a slope of 1.00000002 (its 16-bit rounding)."""
    labels = RANDOM.integers(0, 4, (4, 5, 6))
    image = nib.Nifti1Image(labels.astype(np.float32), np.eye(4))
    image.header.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "m.nii")
    stored = nib.load(tmp_path / "m.nii")
    assert np.array_equal(
        sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "m.nii"))).round(), labels.T
    )
    found = read_mask(tmp_path / "m.nii")[0]
    assert np.array_equal(found, labels.T[:, ::-1, ::-1])
    assert stored.dataobj.slope is not None
    nib.save(nib.Nifti1Image(labels * 0.5, np.eye(4)), tmp_path / "half.nii")
    with pytest.raises(UserError, match="holds fractional values"):
        read_mask(tmp_path / "half.nii")


def test_a_mask_in_an_npz_is_gts(tmp_path):
    imgs, gts = SLICES.astype(np.uint8), (SLICES > 2000).astype(np.uint8)
    np.savez(tmp_path / "a.npz", imgs=imgs, gts=gts)
    assert np.array_equal(read_mask(tmp_path / "a.npz")[0], gts)
    np.savez(tmp_path / "b.npz", imgs=imgs)
    with pytest.raises(
        UserError, match=r"has no array 'gts' \(its arrays: imgs\); save the labels"
    ):
        read_mask(tmp_path / "b.npz")


def test_slices_that_are_shifted_in_their_plane_are_refused(tmp_path):
    """SimpleITK 2.5 reads a series with gantry tilt as if its slices were above each other."""
    folder = write_series(tmp_path / "series", SLICES)
    for number, file in enumerate(sorted(folder.glob("*.dcm"))):
        head = pydicom.dcmread(file)
        head.ImagePositionPatient[0] += 0.04 * number
        head.save_as(file)
    with pytest.raises(UserError, match=r"shifted by up to 0\.16 mm in their plane \(gantry tilt"):
        read_dicom(folder)


def test_an_npz_three_voxels_wide_is_what_its_other_arrays_say(tmp_path):
    narrow = SLICES[:, :, :3].astype(np.uint8)
    for name, more in (
        ("gts", {"gts": narrow}),
        ("spacing", {"spacing": [0.7, 0.5, 2.0]}),
        ("boxes", {"boxes": np.zeros((2, 6))}),
    ):
        np.savez(tmp_path / f"{name}.npz", imgs=narrow, **more)
        assert read_image(tmp_path / f"{name}.npz", "CT").shape == narrow.shape
    assert read_image(tmp_path / "spacing.npz", "CT").spacing == (2.0, 0.5, 0.7)
    np.savez(tmp_path / "a.npz", imgs=narrow, gts=narrow[:, :, 0], boxes=np.zeros((2, 4)))
    assert read_image(tmp_path / "a.npz", "CT").shape == narrow.shape[:2]
