"""Every fault that nnU-Net's `verify_dataset_integrity` (nnunetv2 2.8.1) finds is found here, too.

Three of its checks have no counterpart: the number of training cases, which the index is; the
ending of the files, which may differ here; and labels that are not consecutive, which are allowed.
"""

import nibabel as nib
import numpy as np
import pytest

from medsaga_lib.data.check import report
from tests.data.test_check import edit, set_rows

AFFINE = np.diag([-1.0, -2, 3, 1])
TURNED = AFFINE @ [[0, 1, 0, 0], [-1, 0, 0, 5], [0, 0, 1, 0], [0, 0, 0, 1]]
FLIPPED = AFFINE @ np.diag([-1.0, 1, 1, 1])
TILTED = AFFINE @ [[1, -0.02, 0, 0], [0.02, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def write(path, values, affine=AFFINE):
    nib.Nifti1Image(values, affine).to_filename(path)


def with_value(values, value):
    values = values.astype(np.float32)
    values[1, 2, 3] = value
    return values


IMAGE = np.random.default_rng(0).normal(100, 20, (6, 6, 5)).astype(np.float32)
MASK = np.pad(np.ones((2, 2, 1), np.uint8), 2)
SHIFTED = np.array([[-1.0, 0, 0, 1], [0, -2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]])

# what nnU-Net says; what is done to the folder; our file and words
FAULTS = {
    "There needs to be a dataset.json file": (
        lambda r: (r / "dataset.toml").unlink(), "dataset.toml", "is missing"),
    "There needs to be a imagesTr subfolder": (
        lambda r: (r / "images").rename(r / "pictures"), "images/a.nii", "is missing"),
    "There needs to be a labelsTr subfolder": (
        lambda r: (r / "masks").rename(r / "truth"), "masks/a.nii", "is missing"),
    "not all required keys are present": (
        lambda r: edit(r / "dataset.toml", 'masks = "labels"\n', ""), "dataset.toml",
        "lacks the key 'masks'"),
    "Did not find the expected number of training cases": (
        lambda r: set_rows(r), "index.csv", "has no rows"),
    "not all training cases have a label file": (
        lambda r: (r / "masks/a.nii").unlink(), "masks/a.nii", "is missing"),
    "Unexpected labels found": (
        lambda r: write(r / "masks/a.nii", 3 * MASK), "masks/a.nii", "holds the value 3"),
    "Images contain NaN": (
        lambda r: write(r / "images/a.nii", with_value(IMAGE, np.nan)), "images/a.nii",
        "holds NaN or infinite values"),
    "Segmentation contains NaN": (
        lambda r: write(r / "masks/a.nii", with_value(MASK, np.nan)), "masks/a.nii",
        "holds fractional values"),
    "Shape mismatch": (
        lambda r: write(r / "masks/a.nii", MASK[:-1]), "masks/a.nii",
        "is 5 x 6 x 5, but its image is 5 x 6 x 6"),
    "Spacing mismatch": (
        lambda r: write(r / "masks/a.nii", MASK, np.diag([-1.0, -2, 3.3, 1])), "masks/a.nii",
        "spacing 3.3 x 2 x 1 mm, image 3 x 2 x 1 mm"),
    "Unexpected number of modalities": (
        lambda r: write(r / "images/a.nii", np.stack([IMAGE] * 2, -1)), "images/a.nii",
        "has the shape 6 x 6 x 5 x 2"),
    "Affine mismatch": (
        lambda r: write(r / "masks/a.nii", MASK, TILTED), "masks/a.nii", "voxels from its image"),
    "Origin mismatch": (
        lambda r: write(r / "masks/a.nii", MASK, SHIFTED), "masks/a.nii", "1 voxels from its"),
    "Direction mismatch": (
        lambda r: write(r / "masks/a.nii", MASK, FLIPPED), "masks/a.nii", "voxels from its image"),
    "a file that its reader cannot open": (
        lambda r: (r / "images/a.nii").write_bytes(b"\x5c\x01\x00\x00 cut"), "images/a.nii",
        "cannot be read as .nii"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    (tmp_path / "dataset.toml").write_text(
        'name = "v"\nmodality = "MR"\ndimensions = 3\nmasks = "labels"\n[labels]\n1 = "organ"\n'
    )
    write(tmp_path / "images/a.nii", IMAGE)
    write(tmp_path / "masks/a.nii", MASK)
    set_rows(tmp_path, "a,images/a.nii,masks/a.nii,a,train")
    return tmp_path


@pytest.mark.parametrize("name", FAULTS)
def test_what_the_peer_finds(folder, name):
    assert report(folder).problems == []
    spoil, file, what = FAULTS[name]
    spoil(folder)
    found = [problem for problem in report(folder).problems if not problem.note]
    assert [p for p in found if p.file == str(folder / file) and what in p.what], found


def test_a_mask_with_only_background_is_counted(folder):
    """Its warning for this never comes: it asks for a list that is empty and begins with 0."""
    write(folder / "masks/a.nii", 0 * MASK)
    assert report(folder).summary["cases_without_any_label"]["train"] == 1


def test_a_mask_in_another_voxel_order_is_no_fault(folder):
    """It warns of the affine and the direction, although all voxels lie where they belong."""
    write(folder / "masks/a.nii", MASK[::-1].swapaxes(0, 1), TURNED)
    write(folder / "images/a.nii", IMAGE)
    found = report(folder)
    assert found.problems == []
    assert found.summary["pixels_of_label"] == {"organ": {"train": 4, "val": 0, "test": 0}}


def test_a_spacing_that_differs_in_the_fifth_digit_is_reported_as_a_number(folder):
    """It refuses such a mask; here nothing moves by 0.1 voxels, and --fix makes them equal."""
    write(folder / "masks/a.nii", MASK, np.diag([-1.0, -2, 3.0003, 1]))
    found = report(folder)
    assert found.problems == []
    assert found.summary["mask_displacement_voxels"] == pytest.approx(4e-4, rel=1e-2)
