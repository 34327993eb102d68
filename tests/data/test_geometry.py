"""Volumes have one orientation inside, and results lie where the file lies, for several readers."""

import warnings
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from nibabel import orientations

from medsaga_lib.data.geometry import Geometry, displacement, itk_affine
from medsaga_lib.data.images import read_image, read_mask
from medsaga_lib.data.label_files import write_labels
from medsaga_lib.errors import UserError

RANDOM = np.random.default_rng(5)
VALUES = RANDOM.integers(1, 1000, (4, 5, 6)).astype(np.int16)  # x, y, z of a file in LPS
LPS = np.diag([-0.7, -1.1, 4.0, 1.0])
LPS[:3, 3] = 30, -20, 10
ORDERS = ["".join(one) for axes in permutations(("RL", "AP", "SI")) for one in product(*axes)]
WINDOW = (0, 1000)


def oblique(degrees=20.0):
    """LPS, turned about two axes."""
    turn = np.eye(4)
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn[:3, :3] = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, cos, -sin], [0, sin, cos]]
    )
    return turn @ LPS


def stored_as(codes, path, affine=LPS):
    """Write VALUES with another order of the voxels; the body stays where it is."""
    start = orientations.io_orientation(affine)
    turn = orientations.ornt_transform(start, orientations.axcodes2ornt(codes))
    values = orientations.apply_orientation(VALUES, turn)
    moved = affine @ orientations.inv_ornt_aff(turn, VALUES.shape)
    nib.save(nib.Nifti1Image(values, moved), path)


@pytest.mark.parametrize("codes", ORDERS)
def test_the_same_body_is_the_same_array(codes, tmp_path):
    stored_as(codes, tmp_path / "a.nii")
    picture = read_image(tmp_path / "a.nii", "MR", WINDOW)
    np.testing.assert_allclose(picture.pixels, VALUES.T / 1000, atol=1e-6)
    assert picture.spacing == pytest.approx((4.0, 1.1, 0.7))
    assert picture.geometry.codes == codes
    np.testing.assert_allclose(picture.geometry.affine_inside(picture.shape), LPS, atol=1e-5)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SRA", "PIL"])
def test_a_result_has_the_grid_of_its_file(codes, tmp_path):
    stored_as(codes, tmp_path / "a.nii", oblique())
    picture = read_image(tmp_path / "a.nii", "MR", WINDOW)
    labels = (picture.pixels > 0.5).astype(np.int64)
    write_labels(tmp_path / "a_labels.nii.gz", picture, labels)
    given, written = nib.load(tmp_path / "a.nii"), nib.load(tmp_path / "a_labels.nii.gz")
    assert np.array_equal(np.asarray(written.dataobj), np.asarray(given.dataobj) > 500)
    assert np.array_equal(written.affine, given.affine)
    one, other = (sitk.ReadImage(str(tmp_path / n)) for n in ("a.nii", "a_labels.nii.gz"))
    grids = [
        itk_affine(image.GetSpacing(), image.GetOrigin(), image.GetDirection())
        for image in (one, other)
    ]
    assert displacement(*grids, picture.shape) < 1e-3


@pytest.mark.parametrize("ending", ["nrrd", "mha", "nii.gz"])
def test_itk_reads_the_result_where_the_file_is(ending, tmp_path):
    image = sitk.GetImageFromArray(VALUES.T)
    image.SetSpacing((0.7, 1.1, 4.0))
    image.SetOrigin((3.0, -4.0, 5.0))
    direction = oblique()[:3, :3] / (0.7, 1.1, 4.0)
    image.SetDirection(direction[[1, 2, 0]].ravel().tolist())  # an order that is turned inside
    path = tmp_path / f"a.{ending}"
    sitk.WriteImage(image, str(path))
    picture = read_image(path, "MR", WINDOW)
    assert sorted(picture.spacing) == pytest.approx([0.7, 1.1, 4.0])
    written = tmp_path / f"a_labels.{ending}"
    write_labels(written, picture, (picture.pixels > 0.5).astype(np.int64))
    result = sitk.ReadImage(str(written))
    assert np.array_equal(sitk.GetArrayFromImage(result), VALUES.T > 500)
    assert np.array_equal(read_mask(written)[0], picture.pixels > 0.5)
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        wanted, found = (getattr(one, name)() for one in (image, result))
        np.testing.assert_allclose(found, wanted, atol=1e-5)


FORMS = [(0, 0), (1, 0), (0, 2), (1, 1), (1, 2), (2, 4), (3, 3)]  # codes of qform and sform


@pytest.mark.parametrize("unit", ["mm", "meter", "micron"])
@pytest.mark.parametrize(("q", "s"), FORMS)
def test_forms_and_units_are_read_as_other_readers_do_and_kept(q, s, unit, tmp_path):
    factor = {"mm": 1.0, "meter": 1e-3, "micron": 1e3}[unit]
    in_mm, other = oblique(), oblique(-15.0)
    forms = []
    for affine in (in_mm, other):
        scaled = affine.copy()
        scaled[:3] *= factor
        forms.append(scaled)
    image = nib.Nifti1Image(VALUES, None)
    image.header.set_zooms(tuple(np.array((0.7, 1.1, 4.0)) * factor))
    image.header.set_xyzt_units(unit)
    if q:
        image.header.set_qform(forms[0], q)
    if s:
        image.header.set_sform(forms[1], s)
    nib.save(nib.Nifti1Image(VALUES, None, header=image.header), tmp_path / "a.nii.gz")

    picture = read_image(tmp_path / "a.nii.gz", "MR", WINDOW)
    read = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    of_itk = itk_affine(read.GetSpacing(), read.GetOrigin(), read.GetDirection())
    used = of_itk if not (q and s > 1) else other  # ITK then takes the qform, nibabel the sform
    assert displacement(used, picture.geometry.affine, picture.shape) < 1e-3
    assert picture.geometry.known == bool(q or s)
    assert sorted(picture.spacing) == pytest.approx([0.7, 1.1, 4.0], rel=1e-5)

    write_labels(tmp_path / "m.nii.gz", picture, np.ones(picture.shape, np.int64))
    given, written = (nib.load(tmp_path / n).header for n in ("a.nii.gz", "m.nii.gz"))
    for key in ("qform_code", "sform_code", "xyzt_units", "pixdim", "quatern_b", "qoffset_x",
                "srow_x", "srow_y", "srow_z", "dim"):  # fmt: skip
        assert np.array_equal(given[key], written[key]), key
    assert written.get_data_dtype() == np.uint8
    result = sitk.ReadImage(str(tmp_path / "m.nii.gz"))
    assert result.GetDirection() == read.GetDirection()
    assert result.GetOrigin() == read.GetOrigin()


def test_pixdim_gives_the_lengths_and_the_sform_the_directions(tmp_path):
    """The form of some files has steps of 1 (ACDC)."""
    image = nib.Nifti1Image(VALUES, np.diag([-1.0, -1, 1, 1]))
    image.header["pixdim"][1:4] = 1.5, 1.5, 10
    nib.save(nib.Nifti1Image(VALUES, None, header=image.header), tmp_path / "a.nii")
    picture = read_image(tmp_path / "a.nii", "MR", WINDOW)
    assert picture.spacing == (10.0, 1.5, 1.5)
    read = sitk.ReadImage(str(tmp_path / "a.nii"))
    assert picture.spacing == read.GetSpacing()[::-1]


def test_displacement_is_the_largest_of_a_corner_in_voxels():
    shape = (11, 21, 31)
    wider = LPS @ np.diag([1.01, 1, 1, 1])
    assert displacement(LPS, wider, shape) == pytest.approx(0.3)  # 30 voxels of 1 %
    moved = LPS.copy()
    moved[2, 3] += 2
    assert displacement(LPS, moved, shape) == pytest.approx(0.5)
    assert displacement(LPS, LPS, shape) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert displacement(LPS, LPS * 1e200, shape) == np.inf


@pytest.mark.parametrize("codes", ORDERS)
def test_boxes_move_with_their_voxels(codes, tmp_path):
    stored_as(codes, tmp_path / "a.nii")
    picture = read_image(tmp_path / "a.nii", "MR", WINDOW)
    mask = np.zeros(picture.shape, bool)
    mask[1:4, 2:4, 1:3] = True
    in_file = np.argwhere(picture.geometry.outside(mask))
    box = np.concatenate([in_file.min(0), in_file.max(0)]).astype(float)[None]
    found = picture.geometry.boxes_inside(box, picture.shape)
    assert found.tolist() == [[1, 2, 1, 2, 3, 3]]  # x, y, z


def test_a_form_that_is_no_grid_is_refused(tmp_path):
    flat = np.diag([1.0, 1, 1, 1])
    flat[:3, 2] = 1, 1, 0
    image = nib.Nifti1Image(VALUES, flat)
    nib.save(image, tmp_path / "a.nii")
    with pytest.raises(UserError, match="sform that is not a grid of voxels; correct its header"):
        read_image(tmp_path / "a.nii", "MR", WINDOW)


def test_geometry_of_an_array_that_is_not_turned():
    same = Geometry(LPS)
    assert np.array_equal(same.inside(VALUES), VALUES.T)
    assert np.array_equal(same.outside(VALUES.T), VALUES)
