"""Files of each kind go through `medsaga predict`, and the result lies on its input.

The network is replaced by a threshold, so that other readers can compare input and result.
"""

from itertools import product

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
from dicoms import write_series
from pydicom.uid import generate_uid
from runs import short, train

from medsaga_lib.data.geometry import itk_affine
from medsaga_lib.data.images import read_image, read_mask
from medsaga_lib.inference.predictor import Predictor

VALUES = np.random.default_rng(3).integers(1, 4000, (5, 12, 10)).astype(np.uint16)  # z, y, x
SPACING = (0.7, 1.1, 4.0)
NEAR = 1e-3  # voxels


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "unet"
    train(short("unet", steps=1), dataset, 4, folder, size=32, weights="random", validations=0)
    return folder


@pytest.fixture
def predict(run, tmp_path, medsaga, monkeypatch):
    """Predict a file by a threshold: returns the result's path, and the threshold."""
    monkeypatch.setattr(Predictor, "__call__", lambda self, picture, *_: 1 * (picture.pixels > 0.5))

    def predicted(path):
        code, out, err = medsaga("predict", run, path, "--out", tmp_path / "out")
        assert (code, err) == (0, "")
        return out.strip(), np.mean(read_image(path, "X-ray").source.window)

    return predicted


def oblique(degrees=20.0):
    """Turn about two axes."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    about_z = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    return about_z @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])


def nifti(path, turn, q=1, s=1, unit="mm"):
    factor = {"mm": 1.0, "meter": 1e-3}[unit]
    affine = np.eye(4)
    affine[:3, :3] = turn * SPACING * factor
    affine[:3, 3] = np.array([30, -20, 10]) * factor
    image = nib.Nifti1Image(VALUES.T, None)
    image.header.set_zooms(np.array(SPACING) * factor)
    image.header.set_xyzt_units(unit)
    if q:
        image.header.set_qform(affine, q)
    if s:
        image.header.set_sform(affine, s)
    nib.save(nib.Nifti1Image(VALUES.T, None, header=image.header), path)


def by_itk(path, turn):
    image = sitk.GetImageFromArray(VALUES)
    image.SetSpacing(SPACING)
    image.SetOrigin((3.0, -4.0, 5.0))
    image.SetDirection(turn.ravel().tolist())
    sitk.WriteImage(image, str(path))


def frames(path):
    """A DICOM file with the slices of a series as its frames."""
    more = {
        "KVP": 100, "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "AcquisitionNumber": 1,
        "ContentDate": "20200101", "ContentTime": "000000", "AcquisitionDate": "20200101",
        "AcquisitionTime": "000000",
    }  # fmt: skip
    folder = write_series(path.with_suffix(""), VALUES, **more)
    files = [pydicom.dcmread(file) for file in sorted(folder.glob("*.dcm"))]
    made = highdicom.legacy.LegacyConvertedEnhancedCTImage(
        files, generate_uid(), 2, generate_uid(), 1
    )
    made.save_as(path)


LAS, RAS, SPL = np.diag([-1, 1, 1]), np.eye(3), np.eye(3)[:, [2, 1, 0]] * [1, -1, -1]
INPUTS = {
    "ras.nii.gz": lambda path: nifti(path, RAS),
    "las.nii": lambda path: nifti(path, LAS),
    "metres.nii.gz": lambda path: nifti(path, LAS, unit="meter"),
    "oblique.nii.gz": lambda path: nifti(path, oblique()),
    "oblique_spl.nii.gz": lambda path: nifti(path, oblique() @ SPL),
    "qform.nii.gz": lambda path: nifti(path, oblique(), s=0),
    "sform.nii.gz": lambda path: nifti(path, oblique(), q=0),
    "no_form.nii.gz": lambda path: nifti(path, oblique(), q=0, s=0),
    "a.nrrd": lambda path: by_itk(path, oblique()),
    "spl.nrrd": lambda path: by_itk(path, oblique() @ SPL),
    "a.mha": lambda path: by_itk(path, oblique()),
    "spl.mhd": lambda path: by_itk(path, oblique() @ SPL),
    "series": lambda path: write_series(path, VALUES),
    "frames.dcm": frames,
}


def read(path):
    if not path.is_dir():
        return sitk.ReadImage(str(path))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path)))
    return reader.Execute()


@pytest.mark.parametrize("name", INPUTS)
def test_the_result_lies_on_its_input(name, predict, tmp_path):
    INPUTS[name](tmp_path / name)
    written, threshold = predict(tmp_path / name)
    given, result = read(tmp_path / name), sitk.ReadImage(written)
    ends = [(0, length - 1) for length in result.GetSize()]
    for corner in product(*ends):
        place = result.TransformIndexToPhysicalPoint(corner)
        found = np.array(given.TransformPhysicalPointToContinuousIndex(place))
        of_input = np.where(found > 0.5, np.array(given.GetSize()) - 1, 0)
        assert abs(found - of_input).max() < NEAR
    wanted = sitk.Resample(given > threshold, result, sitk.Transform(), sitk.sitkNearestNeighbor)
    labels = sitk.GetArrayFromImage(result)
    assert np.array_equal(labels, sitk.GetArrayFromImage(wanted))
    assert 0.3 < labels.mean() < 0.7
    if written.endswith(".nii.gz"):
        by_nibabel = nib.load(written)
        assert np.array_equal(np.asarray(by_nibabel.dataobj), labels.T)
        if ".nii" in name:
            of_input = nib.load(tmp_path / name)
            assert np.array_equal(by_nibabel.affine, of_input.affine)
            assert np.array_equal(np.asarray(of_input.dataobj) > threshold, labels.T)
        else:
            grid = itk_affine(result.GetSpacing(), result.GetOrigin(), result.GetDirection())
            np.testing.assert_allclose(by_nibabel.affine, grid, atol=NEAR * min(SPACING))


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_the_result_of_a_picture_lies_on_its_input(ending, predict, tmp_path):
    image = sitk.GetImageFromArray(VALUES[0].astype(np.uint8))
    image.SetSpacing((0.5, 0.7))
    image.SetOrigin((12.0, -3.0))
    image.SetDirection((0.0, -1.0, 1.0, 0.0))
    sitk.WriteImage(image, str(tmp_path / f"a.{ending}"))
    written, threshold = predict(tmp_path / f"a.{ending}")
    result = sitk.ReadImage(written)
    for key in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(result, key)() == pytest.approx(getattr(image, key)())
    assert np.array_equal(sitk.GetArrayFromImage(result), VALUES[0].astype(np.uint8) > threshold)


OME = {"PhysicalSizeZ": 4.0, "PhysicalSizeY": 1.1, "PhysicalSizeX": 0.7}
OME |= {f"PhysicalSize{axis}Unit": "mm" for axis in "ZYX"}
IMAGEJ = {"axes": "ZYX", "spacing": 4.0, "unit": "mm"}
TIFFS = {
    "ome": {"ome": True, "metadata": {"axes": "ZYX"} | OME},
    "imagej": {"imagej": True, "resolution": (1 / 0.7, 1 / 1.1), "metadata": IMAGEJ},
    "plain": {"photometric": "minisblack"},
}


@pytest.mark.parametrize("kind", TIFFS)
def test_labels_of_a_tiff_stack_have_its_pages_and_spacing(kind, predict, tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, VALUES, **TIFFS[kind])
    written, threshold = predict(path)
    labels = threshold < VALUES
    with tifffile.TiffFile(path) as given, tifffile.TiffFile(written) as result:
        assert (result.is_ome, result.is_imagej) == (given.is_ome, given.is_imagej)
        assert len(result.pages) == len(given.pages) == len(VALUES)
        assert result.series[0].axes == given.series[0].axes
        assert np.array_equal(result.asarray(), labels)
        if kind == "imagej":
            for key in ("spacing", "unit", "slices"):
                assert result.imagej_metadata[key] == given.imagej_metadata[key]
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(written)), labels)
    mask, spacing = read_mask(written)
    assert np.array_equal(mask, labels)
    assert spacing == pytest.approx((1, 1, 1) if kind == "plain" else (4.0, 1.1, 0.7), rel=1e-6)
