"""Repaired copies: each mechanical problem is gone there, and every other one stays as it was."""

import json
from pathlib import Path

import imagecodecs
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
from PIL import Image

from medsaga_lib.data.check import check_dataset, report
from medsaga_lib.data.images import read_image, read_mask
from medsaga_lib.data.repair import repair
from medsaga_lib.errors import UserError
from tests.data.test_check import BAD, edit, grey, save, set_rows

LABELS = np.pad(np.ones((10, 12), np.uint8), ((4, 10), (6, 14)))  # (24, 32)


def one_label(root):
    edit(root / "dataset.toml", '2 = "left lung"\n', "")
    for path in (root / "masks").iterdir():
        save(path, LABELS)


def white(root, value=255, dtype=np.uint8):
    one_label(root)
    save(root / "masks/case1.png", LABELS.astype(dtype) * dtype(value))


def grey_in_three_channels(root):
    save(root / "masks/case1.png", np.stack([LABELS] * 3, axis=-1))


def semicolons(root):
    path = root / "index.csv"
    path.write_text(path.read_text().replace(",", ";"), encoding="utf-8-sig")


# what is done to the folder; the file of the change and words of its report. The check of the
# folder has a problem, and that of the copy has none
REPAIRED = {
    "modality in other words": (BAD["modality in other words"][0], "dataset.toml", '"X-ray"'),
    "modality with a blank": (BAD["modality with a blank"][0], "dataset.toml", '"CT"'),
    "CT angiography": (BAD["CT angiography"][0], "dataset.toml", '"CT"'),
    "American licence": (BAD["unknown key"][0], "dataset.toml", "key 'license' is now 'licence'"),
    "American colours": (
        lambda r: (r / "dataset.toml").open("a").write("[colors]\n1 = [255, 0, 0]\n"),
        "dataset.toml", "key 'colors' is now 'colours'"),
    "number as text": (BAD["key of another type"][0], "dataset.toml", "dimensions is now 2"),
    "number with a point": (
        lambda r: edit(r / "dataset.toml", "dimensions = 2", "dimensions = 2.0  # flat"),
        "dataset.toml", "dimensions is now 2"),
    "masks with a capital": (
        lambda r: edit(r / "dataset.toml", '"labels"', "'Labels'"),
        "dataset.toml", 'masks is now "labels"'),
    "semicolons": (semicolons, "index.csv", "separated by commas, and were by semicolons"),
    "tabs": (
        lambda r: edit(r / "index.csv", ",", "\t"),
        "index.csv", "separated by commas, and were by tabs"),
    "columns with capitals": (
        lambda r: edit(r / "index.csv", "case,image", "Case, Image"),
        "index.csv", "names of the columns are lower case"),
    "words for splits": (
        lambda r: edit(r / "index.csv", ",train", ",Training"),
        "index.csv", "the split 'Training' is now 'train' (4 rows)"),
    "word for a split": (BAD["unknown split"][0], "index.csv", "'validation' is now 'val' (1 row)"),
    "repeated row": (
        lambda r: (r / "index.csv").open("a").write((r / "index.csv").read_text().splitlines()[1]),
        "index.csv", "repeated rows are removed (1)"),
    "row of commas": (
        lambda r: (r / "index.csv").open("a").write(" ,,,,\n"),
        "index.csv", "rows without any value are removed (1)"),
    "capitals in a file's name": (
        lambda r: (r / "masks/case1.png").rename(r / "masks/Case1.PNG"),
        "index.csv", "the mask 'masks/case1.png' is now 'masks/Case1.PNG'"),
    "black and white": (white, "masks/case1.png", "the value 255 is now 1, the only label"),
    "16-bit black and white": (
        lambda r: white(r, 65535, np.uint16), "masks/case1.png", "the value 65535 is now 1"),
    "colour mask": (BAD["colour mask"][0], "masks/case1.png", "one channel is kept"),
    "three equal channels": (grey_in_three_channels, "masks/case1.png", "one channel is kept"),
    "opaque transparency": (
        lambda r: save(r / "images/case1.png", grey(255, (24, 32, 4))),
        "images/case1.png", "transparency channel is removed"),
    "opaque transparency of a mask": (
        lambda r: save(r / "masks/case1.png", np.stack([LABELS, grey(255)], axis=-1)),
        "masks/case1.png", "transparency channel is removed"),
}  # fmt: skip

# These are problems too, and the copy keeps them
LEFT = sorted(
    BAD.keys() - REPAIRED.keys() - {"unknown key", "key of another type", "unknown split"}
)


def problems(root: Path) -> list[str]:
    found = [problem for problem in check_dataset(root) if not problem.note]
    return [str(problem).replace(str(root), "") for problem in found]


def changes_of(root: Path, out: Path) -> dict[str, str]:
    return {change.file: change.what for change in repair(root, out)}


@pytest.mark.parametrize("name", REPAIRED)
def test_a_mechanical_problem_is_repaired(tiny, tmp_path, name):
    spoil, file, what = REPAIRED[name]
    spoil(tiny)
    assert problems(tiny)
    before = {path: path.read_bytes() for path in tiny.rglob("*") if path.is_file()}
    changes = repair(tiny, tmp_path / "out")
    assert {change.file for change in changes} == {file}
    assert any(what in change.what for change in changes), changes
    assert problems(tmp_path / "out") == []
    assert {path: path.read_bytes() for path in tiny.rglob("*") if path.is_file()} == before
    record = json.loads((tmp_path / "out/repairs.json").read_text())
    assert record["original"] == str(tiny)
    assert record["changes"] == [change._asdict() for change in changes]
    assert repair(tmp_path / "out", tmp_path / "again") == []


@pytest.mark.parametrize("name", LEFT)
def test_a_problem_that_needs_a_decision_is_left(tiny, tmp_path, name):
    BAD[name][0](tiny)
    assert repair(tiny, tmp_path / "out") == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny"]


def test_comments_and_other_columns_stay(tiny, tmp_path):
    edit(tiny / "dataset.toml", '"X-ray"', '"CXR" # of two hospitals')
    path = tiny / "index.csv"
    rows = path.read_text().splitlines()
    rows = [f'{row},"a, b"' if number else f"{row},remark" for number, row in enumerate(rows)]
    path.write_text("\n".join(rows).replace(",train", ",Train"))
    (tiny / "SOURCE.md").write_text("found in a drawer")
    repair(tiny, tmp_path / "out")
    assert 'modality = "X-ray" # of two hospitals' in (tmp_path / "out/dataset.toml").read_text()
    assert (tmp_path / "out/index.csv").read_text().splitlines()[1].endswith('ann,train,"a, b"')
    assert (tmp_path / "out/SOURCE.md").read_text() == "found in a drawer"


def test_paths_of_another_system_and_blanks(tiny, tmp_path):
    edit(
        tiny / "index.csv",
        "images/case1.png,masks/case1.png",
        r"images\case1.png , masks\case1.png",
    )
    edit(tiny / "index.csv", "images/case2.png", str(tiny / "images/case2.png"))
    said = "".join(change.what for change in repair(tiny, tmp_path / "out"))
    assert "blanks around values are removed (1 row)" in said
    assert "paths of images are relative, with / between parts (2 rows)" in said
    assert "paths of masks are relative, with / between parts (1 row)" in said
    text = (tmp_path / "out/index.csv").read_text()
    assert "case1,images/case1.png,masks/case1.png,ann,train\n" in text
    assert "case2,images/case2.png," in text
    assert check_dataset(tmp_path / "out") == []


def test_patients_written_in_two_ways(tiny, tmp_path):
    edit(tiny / "index.csv", "case1.png,ann", "case1.png,Ann")
    edit(tiny / "index.csv", "case0.png,ann", "case0.png,ANN")
    edit(tiny / "index.csv", "case2.png,ben", "case2.png,ann")
    edit(tiny / "index.csv", "case3.png,cleo", "case3.png,ann")
    assert report(tiny).summary["suspicious_patients"] == [["ANN", "Ann", "ann"]]
    assert changes_of(tiny, tmp_path / "out") == {
        "index.csv": "the patient 'ANN', 'Ann' is now 'ann'"  # the most frequent
    }
    assert report(tmp_path / "out").summary["suspicious_patients"] == []
    assert check_dataset(tmp_path / "out") == []


def test_a_patient_in_two_splits_is_named_and_left_there(tiny, tmp_path):
    edit(tiny / "index.csv", "case5.png,eve", "case5.png,Ann")
    (change,) = repair(tiny, tmp_path / "out")
    assert change.what == (
        "the patient 'Ann' is now 'ann'; its images are in the splits test, train: choose one of "
        "them"
    )
    (problem,) = check_dataset(tmp_path / "out")
    assert "patient 'ann' is in more than one split" in problem.what


@pytest.mark.parametrize("turn", [2, 3, 5, 6, 8])
@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
def test_orientation_tags(tiny, tmp_path, turn, ending):
    values = np.asarray(Image.open(tiny / "images/case1.png"))
    if turn > 4:
        values = np.ascontiguousarray(values.T)
    path = tiny / f"images/case1.{ending}"
    (tiny / "images/case1.png").unlink()
    if ending == "tif":
        tifffile.imwrite(path, values, extratags=[(274, "H", 1, turn, True)])
    else:
        exif = Image.Exif()
        exif[274] = turn
        Image.fromarray(values).save(path, exif=exif)
    edit(tiny / "index.csv", "images/case1.png", f"images/case1.{ending}")
    out = tmp_path / "out"
    target = "images/case1.tif" if ending == "tif" else "images/case1.png"
    assert "upright without an orientation tag" in changes_of(tiny, out)[target]
    by_pillow = np.asarray(Image.open(out / target))  # it does not obey the tag
    np.testing.assert_array_equal(by_pillow, 255 * read_image(path, "X-ray").pixels)
    assert target in (out / "index.csv").read_text()
    assert sorted(p.name for p in (out / "images").iterdir()) == sorted(
        p.name.replace("jpg", "png") for p in (tiny / "images").iterdir()
    )
    assert check_dataset(out) == []


def test_an_upright_picture_replaces_no_other_file(tiny, tmp_path):
    exif = Image.Exif()
    exif[274] = 3
    Image.open(tiny / "images/case1.png").save(tiny / "images/case1.jpg", exif=exif)
    edit(tiny / "index.csv", "images/case1.png", "images/case1.jpg")
    assert repair(tiny, tmp_path / "out") == []


def test_white_as_zero(tiny, tmp_path):
    tifffile.imwrite(tiny / "masks/case1.tif", 255 - LABELS, photometric="miniswhite")
    edit(tiny / "index.csv", "masks/case1.png", "masks/case1.tif")
    assert "black is stored as zero" in changes_of(tiny, tmp_path / "out")["masks/case1.tif"]
    by_opencv = tifffile.imread(tmp_path / "out/masks/case1.tif")  # it does not obey photometric
    np.testing.assert_array_equal(by_opencv, LABELS)


def test_16_bits_of_a_colour_image_stay(tiny, tmp_path):
    edit(tiny / "dataset.toml", 'licence = "CC0"', "window = [0, 65535]")
    values = np.random.default_rng(0).integers(0, 2**16, (24, 32, 4)).astype(np.uint16)
    values[..., 3] = 65535
    (tiny / "images/case1.png").write_bytes(imagecodecs.png_encode(values))
    repair(tiny, tmp_path / "out")
    found = imagecodecs.png_decode((tmp_path / "out/images/case1.png").read_bytes())
    np.testing.assert_array_equal(found, values[..., :3])


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_masks_of_volumes(tmp_path, ending):
    """A mask with a scale and a header within the tolerance, written anew in its format."""
    root, out = tmp_path / "v", tmp_path / "out"
    root.mkdir()
    (root / "dataset.toml").write_text(
        'name = "v"\nmodality = "MR"\ndimensions = 3\nmasks = "labels"\n[labels]\n2 = "organ"\n'
    )
    set_rows(root, f"a,i.nii.gz,m{ending},a,train")
    affine = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -7], [0, 0, 3.0, 9], [0, 0, 0, 1]])
    random = np.random.default_rng(1)
    nib.Nifti1Image(random.normal(size=(4, 6, 5)), affine).to_filename(root / "i.nii.gz")
    labels = 2 * random.integers(0, 2, (4, 6, 5))
    shifted = affine.copy()
    shifted[2, 3] += 0.06  # 0.02 voxels
    scaled = nib.Nifti1Image((labels * 1.0002).astype(np.float32), shifted)
    nib.save(scaled, root / "m.nii")
    if ending != ".nii":
        sitk.WriteImage(sitk.ReadImage(str(root / "m.nii")), str(root / f"m{ending}"))
        (root / "m.nii").unlink()
    assert report(root).summary["mask_displacement_voxels"] == pytest.approx(0.02, abs=1e-4)
    what = changes_of(root, out)[f"m{ending}"]
    assert "values within 0.001 of whole numbers are whole numbers" in what
    assert "the header has the grid of its image, which was 0.02 voxels away" in what
    assert report(out).summary["mask_displacement_voxels"] < 1e-6
    np.testing.assert_array_equal(
        read_mask(out / f"m{ending}")[0], read_mask(root / f"m{ending}")[0]
    )
    image, mask = (sitk.ReadImage(str(out / name)) for name in ("i.nii.gz", f"m{ending}"))
    assert mask.GetPixelID() == sitk.sitkUInt8
    np.testing.assert_allclose(mask.GetOrigin(), image.GetOrigin(), atol=1e-5)
    np.testing.assert_allclose(mask.GetDirection(), image.GetDirection(), atol=1e-6)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask).T, labels)


def test_a_good_mask_is_not_written_anew(tiny, tmp_path):
    tifffile.imwrite(tiny / "masks/case1.tif", LABELS.astype(np.float32))
    edit(tiny / "index.csv", "masks/case1.png", "masks/case1.tif")
    assert repair(tiny, tmp_path / "out") == []


def test_instances_keep_the_number_255(tiny, tmp_path):
    white(tiny)
    edit(tiny / "dataset.toml", '"labels"', '"instances"')
    assert repair(tiny, tmp_path / "out") == []


def test_an_existing_folder_and_one_inside_are_refused(tiny, tmp_path):
    semicolons(tiny)
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="there exists; name a new folder"):
        repair(tiny, tmp_path / "there")
    with pytest.raises(UserError, match=r"is inside the data set .*; name a folder outside"):
        repair(tiny, tiny / "copy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there", "tiny"]
    assert not list(tiny.glob("*copy*"))


def test_a_copy_that_cannot_be_made_leaves_nothing(tiny, tmp_path):
    semicolons(tiny)
    (tiny / "images/lost.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(UserError, match=r"out cannot be written \(.*lost\.png: .*free some space"):
        repair(tiny, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny"]


def test_the_command(tiny, tmp_path, medsaga):
    white(tiny)
    out = tmp_path / "out"
    code, text, _ = medsaga("data", "check", tiny, "--fix", out)
    assert code == 0
    assert text.startswith(f"repaired: {out}/masks/case1.png: the value 255 is now 1, the only")
    assert text.endswith(f"{out}: no problems\n")
    code, text, _ = medsaga("data", "check", tiny, "--fix", tmp_path / "two", "--json")
    assert code == 0
    (change,) = json.loads(text)["repairs"]["changes"]
    assert change["file"] == "masks/case1.png"
    code, text, _ = medsaga("data", "check", out, "--fix", tmp_path / "three")
    assert code == 0
    assert text.startswith("nothing is mechanical to repair, so no copy was written\n")
    assert medsaga("data", "check", tiny, "--fix", out)[0] == 2
