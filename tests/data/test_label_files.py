"""Files of labels: their names, their kinds, and inputs that they must not replace."""

import gzip

import nibabel
import numpy as np
import pytest
from PIL import Image

from medsaga_lib.data.geometry import Geometry
from medsaga_lib.data.images import Picture
from medsaga_lib.data.label_files import require_room, targets, write_labels
from medsaga_lib.errors import UserError

AFFINE = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -7], [0, 0, 3.0, 9], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("a.png", "a_labels.png"),
        ("a.b.jpg", "a.b_labels.png"),
        ("a.tif", "a_labels.png"),
        ("a.nii", "a_labels.nii.gz"),
        ("a.NII.GZ", "a_labels.nii.gz"),
        ("a.npz", "a.npz"),
        ("a.npy", "a_labels.png"),
        ("a.nrrd", "a_labels.nrrd"),
        ("a.mhd", "a_labels.mha"),
    ],
)
def test_the_result_has_the_kind_of_its_input(given, written, tmp_path):
    path, out = tmp_path / given, tmp_path / "out"
    assert targets([path], out) == {out / written: path}


def test_two_inputs_for_one_result_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"a\.jpg and .*a\.png would both be written to"):
        targets([tmp_path / "a.png", tmp_path / "a.jpg"], tmp_path / "out")


@pytest.mark.parametrize("name", ["scan.npz", "a_labels.png", "a_overlay.png"])
def test_an_input_is_never_overwritten(name, tmp_path):
    with pytest.raises(UserError, match=f"{name} is an input and would be overwritten"):
        targets([tmp_path / "a.png", tmp_path / name], tmp_path)
    assert len(targets([tmp_path / "a.png", tmp_path / name], tmp_path / "out")) == 2


@pytest.mark.parametrize("largest", [3, 1000])  # 8 bits, 16 bits
@pytest.mark.parametrize("name", ["a_labels.png", "a_labels.nii.gz", "a.npz"])
def test_labels_are_read_as_they_were_written(name, largest, tmp_path):
    shape = (6, 5) if name.endswith("png") else (4, 6, 5)
    labels = np.random.default_rng(0).integers(0, largest + 1, shape)
    labels.flat[0] = largest
    picture = Picture(labels.astype(np.float32), (1.0,) * len(shape), Geometry(AFFINE))
    write_labels(tmp_path / name, picture, labels)
    if name.endswith("png"):
        found = np.asarray(Image.open(tmp_path / name))
    elif name.endswith("npz"):
        found = np.load(tmp_path / name)["segs"]
    else:
        image = nibabel.load(tmp_path / name)
        assert np.array_equal(image.affine, AFFINE)
        found = Geometry(AFFINE).inside(np.asarray(image.dataobj))
    assert found.dtype == (np.uint8 if largest < 256 else np.uint16)
    assert np.array_equal(found, labels)


def test_the_same_labels_give_the_same_bytes(tmp_path):
    """The time is left out of the compressed file."""
    picture = Picture(np.zeros((2, 3, 4), np.float32), (1.0, 1.0, 1.0), Geometry(AFFINE))
    write_labels(tmp_path / "a_labels.nii.gz", picture, np.ones((2, 3, 4), int))
    content = (tmp_path / "a_labels.nii.gz").read_bytes()
    assert content == gzip.compress(gzip.decompress(content), mtime=0)


def test_a_png_has_no_room_for_a_stack(tmp_path):
    stack = Picture(np.zeros((3, 8, 8), np.float32), (1.0, 1.0, 1.0))
    with pytest.raises(UserError, match=r"a\.tif: .*3 slices.*; save the stack as NIfTI"):
        require_room(tmp_path / "a_labels.png", tmp_path / "a.tif", stack)
    require_room(tmp_path / "a_labels.nii.gz", tmp_path / "a.nii", stack)
