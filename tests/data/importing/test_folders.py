"""Pairs of folders: which mask belongs to which image, and files that come in several parts."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from PIL import Image

from medsaga_lib.data.cases import read_pair
from medsaga_lib.data.check import check_dataset
from medsaga_lib.data.images import read_labels
from medsaga_lib.data.importing.labels import parse_colours
from medsaga_lib.errors import UserError

RANDOM = np.random.default_rng(10)


@pytest.fixture
def write(tmp_path):
    """Write a picture or a mask at each path; returns the folder."""
    root = tmp_path / "pair"

    def run(*names, value=1):
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            is_mask = "mask" in name or "label" in name or "gt" in name
            values = np.eye(8, 9) * value if is_mask else RANDOM.integers(0, 256, (8, 9, 3))
            Image.fromarray(values.astype(np.uint8)).save(path)
        return root

    return run


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/a1.png", "masks/a1.png"),
        ("images/a1.jpg", "labels/a1_mask.png"),
        ("Images/a1.png", "gt/a1_seg.png"),
        ("imgs/a1.png", "masks/a1-label.png"),
        ("img/a1.png", "masks/a1_gt.bmp"),
        ("images/a1_image.png", "masks/a1_mask.png"),
        ("images/img0007.png", "labels/label0007.png"),
        ("images/a.b.png", "masks/a.b_mask.tif"),
        ("images/a_0000.png", "labels/a.png"),
        ("images/a.png", "masks/labels_a.png"),
    ],
)
def test_a_mask_is_found_by_its_name(write, bring, image, mask):
    root = write(image, mask)
    dataset, done = bring(root, modality="endoscopy")
    assert done.layout == "folders"
    (case,) = dataset.cases
    assert case.image.read_bytes() == (root / image).read_bytes()
    assert case.mask.read_bytes() == (root / mask).read_bytes()


def test_masks_of_0_and_255_get_that_value(write, bring):
    dataset, done = bring(write("images/a.png", "masks/a.png", value=255), modality="endoscopy")
    assert dataset.labels == {255: "label 255"}
    assert any("does not name the labels 255" in note for note in done.notes)
    np.testing.assert_array_equal(read_pair(dataset, dataset.cases[0])[1], 255 * np.eye(8, 9))


def test_labels_are_named(write, bring):
    root = write("images/a.png", "masks/a.png", value=255)
    dataset, _ = bring(root, modality="endoscopy", labels={255: "polyp"})
    assert dataset.labels == {255: "polyp"}
    assert all(problem.note for problem in check_dataset(dataset.root))


def test_values_that_labels_does_not_name(write, bring):
    names = [f"images/{name}.png" for name in "abcdefg"]
    root = write(*names, *[name.replace("images", "masks") for name in names], value=255)
    Image.fromarray(np.eye(8, 9, dtype=np.uint8)).save(root / "masks/a.png")
    said = r"name the values 255 of the masks of images/b.png, .*/f.png and 1 more; name them, or"
    with pytest.raises(UserError, match=said):
        bring(root, modality="endoscopy", labels={1: "polyp"})


def test_masks_in_colours_are_left_to_the_check(write, bring):
    root = write("images/a.png", "masks/a.png")
    Image.fromarray(np.full((8, 9, 3), 255, np.uint8)).save(root / "masks/a.png")
    with pytest.raises(UserError, match="is a colour image"):
        bring(root, modality="endoscopy")
    dataset, _ = bring(root, modality="endoscopy", labels={1: "polyp"})
    (problem, *_) = [p for p in check_dataset(dataset.root) if not p.note]
    assert "[colours]" in problem.remedy


def test_colours_of_masks_are_named(write, bring):
    root = write("images/a.png", "masks/a.png", "images/b.png", "masks/b.png")
    values = np.zeros((8, 9, 3), np.uint8)
    values[2:4, 2:5], values[6, 1] = (255, 0, 0), (0, 255, 0)
    Image.fromarray(values).save(root / "masks/a.png")
    Image.fromarray(values[::-1] * (values[::-1] == [255, 0, 0])).save(root / "masks/b.png")
    labels, colours = parse_colours(["0,255,0 = vein", "255,0,0=artery, left"])
    dataset, _ = bring(root, modality="fundus", labels=labels, colours=colours)
    assert dataset.labels == {1: "vein", 2: "artery, left"}
    expected = 2 * (values[..., 0] == 255) + (values[..., 1] == 255)
    np.testing.assert_array_equal(read_pair(dataset, dataset.cases[0])[1], expected)
    assert dataset.cases[0].mask.read_bytes() == (root / "masks/a.png").read_bytes()
    assert all(problem.note for problem in check_dataset(dataset.root))
    labels, colours = parse_colours(["255,0,0=artery"])
    with pytest.raises(UserError, match=r"colours that are not in .*, such as \[0, 255, 0\]"):
        bring(root, modality="fundus", labels=labels, colours=colours)


def test_another_colour_is_the_background(write, bring):
    root = write("images/a.png", "masks/a.png")
    values = np.full((8, 9, 3), 255, np.uint8)
    values[2:4] = 0
    Image.fromarray(values).save(root / "masks/a.png")
    labels, colours = parse_colours(["255,255,255=background", "0,0,0=lesion"])
    dataset, _ = bring(root, modality="fundus", labels=labels, colours=colours)
    assert dataset.labels == {1: "lesion"}
    assert read_pair(dataset, dataset.cases[0])[1].sum() == 2 * 9


def test_colours_are_for_rgb_masks_only(write, bring):
    root = write("images/a.png", "masks/a.png")
    labels, colours = parse_colours(["255,0,0=polyp"])
    with pytest.raises(UserError, match="is no RGB mask, to which --colours applies; omit"):
        bring(root, modality="endoscopy", labels=labels, colours=colours)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["255,0=a"], "is not RED,GREEN,BLUE=NAME"),
        (["256,0,0=a"], "with levels from 0 to 255"),
        (["red=a"], "is not RED,GREEN,BLUE=NAME"),
        (["1,2,3="], "is not RED,GREEN,BLUE=NAME"),
        (["1,2,3=a", "1,2,3=b"], "twice"),
        (["1,2,3=a", "3,2,1=a"], "twice"),
        (["1,2,3=background", "3,2,1=background", "5,5,5=a"], "twice"),
        (["1,2,3=background"], "names the background only"),
    ],
)
def test_colours_that_cannot_be_obeyed(texts, said):
    with pytest.raises(UserError, match=said):
        parse_colours(texts)


def test_files_without_a_partner_are_listed(write, bring):
    root = write("images/a.png", "images/b.png", "masks/a.png", "masks/c.png", "images/c_x.png")
    dataset, done = bring(root, modality="endoscopy")
    assert {case.name: case.mask is None for case in dataset.cases} == {
        "a": False, "b": True, "c_x": True,
    }  # fmt: skip
    assert "images without a mask: 2 (images/b.png, images/c_x.png)" in done.notes
    assert "masks without an image, left out: 1 (masks/c.png)" in done.notes


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("images/a.png", "masks/a.png", "masks/a_mask.png"), r"has 2 masks \(a.png, a_mask.png\)"),
        (("images/a.png", "masks/a_mask.png", "masks/a_seg.png"), "has 2 masks"),
        (("images/a.png", "images/a_img.png", "masks/a_mask.png"), "is the mask of a"),
        (("images/a.png", "masks/b.png"), "no image has a mask of the same name"),
        (
            ("images/a.png", "masks/a.png", "labels/a.png"),
            "folders images, masks, labels; keep one",
        ),
        (("scans/a.png", "masks/a.png"), "has no known layout; looked for nnunet: dataset.json"),
    ],
)
def test_pairs_that_are_not_clear(write, bring, tmp_path, names, said):
    with pytest.raises(UserError, match=said):
        bring(write(*names), modality="endoscopy")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("order", ["{split}/{kind}/{name}.png", "{kind}/{split}/{name}.png"])
def test_folders_of_splits(write, bring, order):
    names = [("train", "a"), ("train", "b"), ("valid", "c"), ("test", "a")]
    root = write(
        *[order.format(split=s, kind=k, name=n) for s, n in names for k in ("images", "masks")]
    )
    dataset, _ = bring(root, modality="endoscopy")
    found = sorted((case.split, case.name[-1]) for case in dataset.cases)
    assert found == [("test", "a"), ("train", "a"), ("train", "b"), ("val", "c")]


def test_headers_take_their_data_along(tmp_path, bring):
    for patient in ("p1", "p2"):
        for folder, name in (("images", "scan.mhd"), ("masks", "scan.nhdr")):
            (tmp_path / "pair" / folder / patient).mkdir(parents=True)
            values = RANDOM.integers(0, 2, (3, 4, 5)).astype(np.uint8)
            values[0, 0, 0] = 1
            image = sitk.GetImageFromArray(values)
            sitk.WriteImage(image, str(tmp_path / "pair" / folder / patient / name))
    dataset, _ = bring(tmp_path / "pair", modality="MR", patient=r"(p\d)/")
    assert {case.patient for case in dataset.cases} == {"p1", "p2"}
    for case in dataset.cases:
        mask = tmp_path / f"pair/masks/{case.patient}/scan.nhdr"
        np.testing.assert_array_equal(read_labels(case.mask).values, read_labels(mask).values)
    assert all(problem.note for problem in check_dataset(dataset.root))
    data = next((tmp_path / "pair/images/p2").glob("*raw"))
    data.unlink()
    with pytest.raises(UserError, match=f"names the data file '{data.name}', not one file beside"):
        bring(tmp_path / "pair", modality="MR")


def test_a_folder_of_dicom_files_is_one_volume(tmp_path, bring):
    folder = tmp_path / "pair/images/scan7"
    folder.mkdir(parents=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for place in range(3):
        slice_ = sitk.GetImageFromArray(RANDOM.integers(0, 99, (1, 6, 5)).astype(np.int16))
        slice_.SetOrigin((0, 0, 4.0 * place))
        for tag, value in (
            ("0008|0060", "CT"), ("0020|000e", "1.2.3"), ("0020|000d", "1.2"),
            ("0020|0013", str(place)), ("0020|0032", f"0\\0\\{4 * place}"),
            ("0020|0037", "1\\0\\0\\0\\1\\0"), ("0008|0018", f"1.2.3.{place + 1}"),
        ):  # fmt: skip
            slice_.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{place}.dcm"))
        writer.Execute(slice_)
    mask = sitk.GetImageFromArray(np.ones((3, 6, 5), np.uint8))
    mask.SetSpacing((1, 1, 4))
    (tmp_path / "pair/masks").mkdir()
    sitk.WriteImage(mask, str(tmp_path / "pair/masks/scan7.nrrd"))
    dataset, _ = bring(tmp_path / "pair", modality="CT")
    (case,) = dataset.cases
    assert (case.name, case.image.is_dir(), dataset.dimensions) == ("scan7", True, 3)
    assert sorted(p.name for p in case.image.iterdir()) == ["0.dcm", "1.dcm", "2.dcm"]
    assert all(problem.note for problem in check_dataset(dataset.root))
