"""RTSTRUCT and SEG give the label map that brute force and other readers give, or are refused."""

import sys
from itertools import product

import cv2
import highdicom
import numpy as np
import pydicom
import pytest
from dicoms import dicom, in_mm, write_rtstruct, write_seg, write_series
from hypothesis import given
from hypothesis import strategies as st

from medsaga_lib.data.cases import read_case_mask, read_pair
from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.data.check import check_dataset
from medsaga_lib.data.dicom_masks import _raster
from medsaga_lib.data.images import read_image, read_labels
from medsaga_lib.errors import UserError

RANDOM = np.random.default_rng(6)
SHAPE = (6, 22, 30)  # D, H, W: not square
SLICES = RANDOM.integers(0, 4096, SHAPE).astype(np.uint16)
ROWS, COLUMNS = np.mgrid[: SHAPE[1], : SHAPE[2]]


@pytest.fixture
def make(tmp_path):
    """A data set of one series; its mask is written afterwards at `mask.dcm`."""
    write_series(tmp_path / "ct", SLICES)

    def opened(labels=("liver", "spleen"), masks="labels"):
        names = "\n".join(f'{value} = "{name}"' for value, name in enumerate(labels, start=1))
        (tmp_path / "dataset.toml").write_text(
            f'name = "v"\nmodality = "CT"\nwindow = [0, 4095]\ndimensions = 3\n'
            f'masks = "{masks}"\n[labels]\n{names}\n'
        )
        (tmp_path / "index.csv").write_text("case,image,mask,split\na,ct,mask.dcm,train\n")
        return open_dataset(tmp_path)

    return opened


def labels_of(dataset):
    return read_pair(dataset, dataset.cases[0])[1]


def notes(root):
    problems = check_dataset(root)
    assert all(problem.note for problem in problems), problems
    return [str(problem) for problem in problems]


def box(x0, y0, x1, y1):
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


# Contours


def exact(points, shape):
    """Pixels inside a polygon and on it, by whole numbers: the quarters of a pixel are units."""
    corners = [(round(4 * r), round(4 * c)) for r, c in points]
    inside, line = np.zeros(shape, bool), np.zeros(shape, bool)
    for row, column in product(range(shape[0]), range(shape[1])):
        y, x, odd = 4 * row, 4 * column, False
        for (y0, x0), (y1, x1) in zip(corners, corners[1:] + corners[:1], strict=True):
            cross = (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)
            between = min(x0, x1) <= x <= max(x0, x1) and min(y0, y1) <= y <= max(y0, y1)
            line[row, column] |= cross == 0 and between
            if (y0 > y) != (y1 > y):
                odd ^= (cross > 0) == (y1 > y0)
        inside[row, column] = odd
    return inside & ~line, line


quarters = st.integers(-5, 47).map(lambda number: number / 4)


@given(st.lists(st.tuples(quarters, quarters), min_size=3, max_size=7))
def test_a_polygon_is_filled_as_by_brute_force(points):
    shape = (9, 11)
    found = [np.zeros(shape, bool), np.zeros(shape, bool)]
    *kinds, window = _raster(np.array(points), shape)
    for whole, part in zip(found, kinds, strict=True):
        whole[window] = part
    assert np.array_equal(found, exact(points, shape))


def test_contours_of_opencv_give_back_their_mask(make, tmp_path):
    """OpenCV draws contours through the outermost pixels, and those of holes around the holes."""
    centre = (ROWS - 10) ** 2 + (COLUMNS - 14) ** 2
    liver = (centre < 81) & ~(centre < 16)
    liver[2:5, 26:29] = True  # a second part on the same slices
    drawn = []
    for number in (1, 2, 3):
        contours, _ = cv2.findContours(
            liver.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
        )
        assert len(contours) == 3
        drawn += [(number, contour[:, 0]) for contour in contours]
    write_rtstruct(tmp_path / "mask.dcm", [("Liver ", drawn)])
    labels = labels_of(make())
    assert labels.shape == SHAPE
    wanted = np.zeros(SHAPE, int)
    wanted[1:4] = liver
    assert np.array_equal(labels, wanted)


def test_contours_between_pixels_enclose_their_area(make, tmp_path):
    write_rtstruct(
        tmp_path / "mask.dcm",
        [
            ("spleen", [(0, box(2.5, 3.5, 20.5, 9.5)), (0, box(4.5, 5.5, 9.5, 7.5))]),
            ("LIVER", [(5, box(-0.5, -0.5, 29.5, 21.5))]),
        ],
    )
    labels = labels_of(make())
    assert (labels == 2).sum() == 18 * 6 - 5 * 2
    assert (labels[0, 4:10, 3:21] == 2).sum() == 18 * 6 - 5 * 2
    assert (labels[5] == 1).all()
    assert not labels[1:5].any()


def test_the_grid_of_the_mask_is_that_of_its_image(make, tmp_path):
    write_rtstruct(tmp_path / "mask.dcm", [("liver", [(1, box(2, 3, 9, 9))])])
    dataset = make()
    picture, labels = read_pair(dataset, dataset.cases[0])
    z, y, x = (int(axis.mean().round()) for axis in np.nonzero(labels))
    place = picture.geometry.affine_inside(SHAPE) @ [x, y, z, 1]
    wanted = np.array(in_mm([(x, y)], z)) * [-1, -1, 1]
    np.testing.assert_allclose(place[:3], wanted, atol=1e-5)
    again = read_case_mask(dataset, dataset.cases[0])  # reads the image itself
    assert np.array_equal(again.values, labels)
    assert again.spacing == picture.spacing == pytest.approx((2.5, 0.5, 0.7))


def test_the_larger_label_is_kept_and_the_check_says_what_is_omitted(make, tmp_path):
    write_rtstruct(
        tmp_path / "mask.dcm",
        [
            ("Spleen", [(0, box(0, 0, 9, 9)), (3, box(0, 0, 1, 1))]),
            ("Liver", [(0, box(8, 0, 20, 9))]),
            ("BODY", [(9, box(0, 0, 90, 90))]),
        ],
    )
    dataset = make(("liver", "spleen", "kidney"))
    labels = labels_of(dataset)
    assert labels[0, :10, :10].min() == labels[0, :10, :10].max() == 2
    assert (labels == 1).sum() == 11 * 10
    said = notes(tmp_path)
    for part in (
        "the ROI 'Spleen' has no contour on 2 slices between its first and its last one",
        "1 of its ROIs are not in [labels] ('BODY'); they are omitted",
        "has no ROI for 'kidney', or it is empty; its pixels are background",
        "20 voxels are in several labels; the larger label value is kept",
    ):
        assert any(part in one for one in said), said


LIVER = [("liver", [(1, box(2, 3, 9, 9))])]


@pytest.mark.parametrize(
    ("regions", "how", "said"),
    [
        ([("Leber", [])], {}, r"no ROI with the name of a label \(its ROIs: 'Leber'\); use these"),
        ([*LIVER, ("LIVER", [])], {}, "has several ROIs with the name 'liver'; rename or remove"),
        (LIVER, {"frame": "1.2.3"}, "was drawn in another frame of reference than its image"),
        (LIVER, {"kind": "POINT"}, "the ROI 'liver' has a contour of the type POINT; draw it"),
        ([("liver", [(6, box(2, 3, 9, 9))])], {}, r"outside its image \(near the voxel 6, 6, 6\)"),
        ([("liver", [(1, box(2, 3, 35, 9))])], {}, "a contour outside its image"),
        (
            [("liver", [(1, box(2, 3, 9, 9)), (1.3, box(4, 4, 6, 6))])],
            {},
            "contours in several planes near slice 1 of its image; name the series",
        ),
    ],
)
def test_contours_that_cannot_be_obeyed(regions, how, said, make, tmp_path):
    write_rtstruct(tmp_path / "mask.dcm", regions, **how)
    with pytest.raises(UserError, match=said):
        labels_of(make())
    assert any(not problem.note for problem in check_dataset(tmp_path))


def test_a_contour_across_the_slices_is_refused(make, tmp_path):
    path = write_rtstruct(tmp_path / "mask.dcm", LIVER)
    file = pydicom.dcmread(path)
    contour = file.ROIContourSequence[0].ContourSequence[0]
    contour.ContourData = [*in_mm([(2, 2), (9, 2)], 0), *in_mm([(9, 9)], 3)]
    file.save_as(path)
    with pytest.raises(UserError, match="that is not parallel to the slices of its image; name"):
        labels_of(make())


# Frames


def organs():
    labels = np.zeros(SHAPE, int)
    labels[1:3, 4:9, 5:20], labels[4, 10:20, 1:4], labels[2:4, 12:14, 20:28] = 1, 2, 2
    return labels


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_frames_are_placed_by_their_position(kind, make, tmp_path):
    """Slices without a segment have no frame."""
    path = write_seg(tmp_path / "mask.dcm", tmp_path / "ct", organs(), ("Liver", "spleen"), kind)
    labels = labels_of(make())
    assert np.array_equal(labels, organs())
    by_highdicom = highdicom.seg.segread(path).get_volume(combine_segments=True)
    used = np.flatnonzero(organs().any((1, 2)))
    found = by_highdicom.array if by_highdicom.affine[2, 0] > 0 else by_highdicom.array[::-1]
    assert np.array_equal(found, labels[used[0] : used[-1] + 1])
    assert notes(tmp_path) == []


def test_segments_that_overlap(make, tmp_path):
    both = np.stack([organs() == 1, organs() > 0], -1)
    write_seg(tmp_path / "mask.dcm", tmp_path / "ct", both, ("liver", "spleen"))
    assert np.array_equal(labels_of(make()), 2 * (organs() > 0))
    assert any(f"{(organs() == 1).sum()} voxels are in several" in one for one in notes(tmp_path))


def test_frames_of_another_grid_are_refused(make, tmp_path):
    write_series(tmp_path / "other", SLICES, PixelSpacing=[0.5, 0.72])
    write_seg(tmp_path / "mask.dcm", tmp_path / "other", organs(), ("liver", "spleen"))
    with pytest.raises(UserError, match="frames that are not on the slices of its image; name"):
        labels_of(make())
    (tmp_path / "mask.dcm").unlink()
    write_series(tmp_path / "third", SLICES, FrameOfReferenceUID="1.2.3")
    write_seg(tmp_path / "mask.dcm", tmp_path / "third", organs(), ("liver", "spleen"))
    with pytest.raises(UserError, match="another frame of reference than its image"):
        labels_of(make())


def test_a_fractional_seg_is_refused(make, tmp_path):
    write_seg(tmp_path / "mask.dcm", tmp_path / "ct", organs() == 1, ("liver",), "FRACTIONAL")
    with pytest.raises(UserError, match="is a fractional segmentation, which has no labels; save"):
        labels_of(make())


# Files


def test_masks_may_be_in_the_folder_of_their_series(make, tmp_path):
    write_seg(tmp_path / "mask.dcm", tmp_path / "ct", organs(), ("liver", "spleen"))
    (tmp_path / "mask.dcm").rename(tmp_path / "ct/seg.dcm")
    write_rtstruct(tmp_path / "ct/rt.dcm", LIVER)
    assert read_image(tmp_path / "ct", "CT").shape == SHAPE


def test_a_mask_is_no_image_and_needs_one(make, tmp_path):
    write_rtstruct(tmp_path / "mask.dcm", LIVER)
    for read in (lambda path: read_image(path, "CT"), read_labels):
        with pytest.raises(UserError, match="is a DICOM RTSTRUCT, which has no pixels of its own"):
            read(tmp_path / "mask.dcm")
    dataset = make()
    dicom(tmp_path / "flat.dcm", SLICES[0])
    (tmp_path / "index.csv").write_text("case,image,mask,split\na,flat.dcm,mask.dcm,train\n")
    dataset = open_dataset(tmp_path)
    with pytest.raises(UserError, match="has no image with positions in space; give the folder"):
        read_case_mask(dataset, dataset.cases[0])


def test_a_damaged_file_is_one_sentence(make, tmp_path):
    path = write_rtstruct(tmp_path / "mask.dcm", LIVER)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(
        UserError, match=r"mask\.dcm: cannot be read as RTSTRUCT .*; copy or export"
    ):
        labels_of(make())


def test_without_pydicom_the_command_is_named(make, tmp_path, monkeypatch):
    write_rtstruct(tmp_path / "mask.dcm", LIVER)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UserError, match=r"mask\.dcm needs pydicom; .*pip install \"medsaga-lib\[d"):
        labels_of(make())
