"""A DICOM file with several frames is the series that it was made of, whatever their order."""

import sys

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from dicoms import write_rtstruct, write_series
from pydicom.uid import generate_uid

from medsaga_lib.data.images import read_image, read_regions
from medsaga_lib.data.volumes import read_dicom, read_itk
from medsaga_lib.errors import UserError

SLICES = np.random.default_rng(1).integers(0, 4096, (5, 12, 10)).astype(np.uint16)
SCALED = {"RescaleSlope": 2, "RescaleIntercept": -1024}
MORE = {
    "KVP": 100, "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "AcquisitionNumber": 1,
    "ContentDate": "20200101", "ContentTime": "000000",
    "AcquisitionDate": "20200101", "AcquisitionTime": "000000",
}  # fmt: skip


@pytest.fixture
def series(tmp_path):
    return write_series(tmp_path / "series", SLICES, **SCALED, **MORE)


@pytest.fixture
def frames(series, tmp_path):
    """The series as one file of highdicom; its frames may be given another order."""

    def write(order=range(5), change=lambda file: None):
        files = [pydicom.dcmread(file) for file in sorted(series.glob("*.dcm"))]
        made = highdicom.legacy.LegacyConvertedEnhancedCTImage(
            files, generate_uid(), 2, generate_uid(), 1
        )
        groups, pixels = made.PerFrameFunctionalGroupsSequence, made.pixel_array
        made.PerFrameFunctionalGroupsSequence = [groups[i] for i in order]
        made.PixelData = pixels[list(order)].tobytes()
        change(made)
        made.save_as(tmp_path / "frames.dcm")
        return tmp_path / "frames.dcm"

    return write


@pytest.mark.parametrize("order", [range(5), (4, 3, 2, 1, 0), (2, 0, 4, 1, 3)])
def test_frames_are_the_series(order, series, frames):
    wanted, found = read_dicom(series), read_itk(frames(order))
    assert np.array_equal(found.values, wanted.values)
    assert found.values.dtype.kind == "i"
    assert found.spacing == pytest.approx(wanted.spacing)
    shape = wanted.values.shape
    grids = [read.geometry.affine_inside(shape) for read in (wanted, found)]
    np.testing.assert_allclose(*grids, atol=1e-5)
    assert found.geometry.frame == wanted.geometry.frame != ""


def test_simpleitk_agrees_where_the_frames_are_in_order(frames):
    path = frames()
    image = sitk.ReadImage(str(path))
    found = read_itk(path).values
    assert np.array_equal(found, sitk.GetArrayFromImage(image)[::-1])


def test_each_frame_has_its_own_slope(series, frames):
    def change(file):
        shared = file.SharedFunctionalGroupsSequence[0]
        (scale,) = shared.PixelValueTransformationSequence
        del shared.PixelValueTransformationSequence
        for number, groups in enumerate(file.PerFrameFunctionalGroupsSequence):
            own = pydicom.Dataset()
            own.RescaleSlope, own.RescaleType = 1 + number, scale.RescaleType
            own.RescaleIntercept = -100 * number
            groups.PixelValueTransformationSequence = [own]

    values = read_itk(frames((2, 0, 4, 1, 3), change)).values
    for frame, place in enumerate((2, 0, 4, 1, 3)):  # the last slice is the first file
        number = 4 - place
        assert np.array_equal(
            values[number], SLICES[number].astype(int) * (1 + frame) - 100 * frame
        )


def test_contours_of_a_file_with_frames(frames, tmp_path):
    image = read_image(frames((2, 0, 4, 1, 3)), "CT")
    contour = [(2, 3), (6, 3), (6, 8), (2, 8)]
    path = write_rtstruct(tmp_path / "rt.dcm", [("organ", [(3, contour)])])
    mask = read_regions(path, image, {1: "organ"}).values
    assert [int(axis.min()) for axis in np.nonzero(mask)] == [3, 3, 2]
    assert mask.sum() == 6 * 5


def test_a_folder_with_one_file_of_frames(frames, tmp_path):
    (tmp_path / "one").mkdir()
    frames().rename(tmp_path / "one/a.dcm")
    assert read_image(tmp_path / "one", "CT").shape == SLICES.shape


def test_frames_that_are_no_volume_are_refused(frames):
    def two_at_one_place(file):
        groups = file.PerFrameFunctionalGroupsSequence
        place = groups[0].PlanePositionSequence[0].ImagePositionPatient
        groups[1].PlanePositionSequence[0].ImagePositionPatient = place

    said = "frames that are not evenly spaced slices of one volume; save each volume"
    with pytest.raises(UserError, match=said):
        read_image(frames(change=two_at_one_place), "CT")

    def gap(file):
        place = file.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
        place.ImagePositionPatient = [-20.0, 30 - 6 * 6, -5 + 8 * 6]

    with pytest.raises(UserError, match=said):
        read_image(frames(change=gap), "CT")


def test_without_highdicom_the_command_is_named(frames, monkeypatch):
    path = frames()
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(UserError, match=r'needs highdicom; .*pip install "medsaga-lib\[dicom\]"'):
        read_image(path, "CT")
