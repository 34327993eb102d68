"""Faulty folders: the check and the training give the same sentence, with a remedy."""

import json

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image

from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.data.check import check_dataset
from medsaga_lib.data.samples import Samples
from medsaga_lib.data.shots import choose_shots
from medsaga_lib.errors import UserError


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def save(path, values):
    Image.fromarray(values).save(path)


def grey(value=0, shape=(24, 32), dtype=np.uint8):
    return np.full(shape, value, dtype)


def set_rows(root, *rows):
    (root / "index.csv").write_text("case,image,mask,patient,split\n" + "\n".join(rows) + "\n")


def fractional(root):
    import tifffile

    tifffile.imwrite(root / "masks/case1.tif", grey(0.5, dtype=np.float32))
    edit(root / "index.csv", "masks/case1.png", "masks/case1.tif")


def clash(root):
    save(root / "images/CASE0.png", grey())
    edit(root / "index.csv", "images/case1.png", "images/CASE0.png")


def both_endings(root):
    Image.fromarray(grey()).save(root / "images/case0.jpg")
    edit(root / "index.csv", "images/case1.png", "images/case0.jpg")


# what is done to the folder; then what the sentence must hold: file, fault, remedy
BAD = {
    "no description": (
        lambda r: (r / "dataset.toml").unlink(),
        ("dataset.toml", "is missing", "write it with at least name, modality"),
    ),
    "image as mask": (
        lambda r: edit(r / "index.csv", "masks/case1.png", "images/case1.png"),
        ("index.csv", "line 3: 'images/case1.png' is the image and the mask", "name the file with"),
    ),
    "no index": (
        lambda r: (r / "index.csv").unlink(),
        ("index.csv", "is missing", "columns case, image, mask, patient, split"),
    ),
    "bad TOML": (
        lambda r: edit(r / "dataset.toml", 'name = "tiny"', "name = tiny"),
        ("dataset.toml", "cannot be read", "write valid TOML in UTF-8"),
    ),
    "description is a picture": (
        lambda r: (r / "dataset.toml").write_bytes((r / "images/case0.png").read_bytes()),
        ("dataset.toml", "cannot be read", "write valid TOML in UTF-8"),
    ),
    "missing key": (
        lambda r: edit(r / "dataset.toml", 'modality = "X-ray"\n', ""),
        ("dataset.toml", "lacks the key 'modality'", "add `modality = ...`"),
    ),
    "unknown key": (
        lambda r: edit(r / "dataset.toml", "licence", "license"),
        ("dataset.toml", "unknown key 'license'", "use only name, modality"),
    ),
    "key of another type": (
        lambda r: edit(r / "dataset.toml", "dimensions = 2", 'dimensions = "2"'),
        ("dataset.toml", "'dimensions' is '2'", "make it a whole number"),
    ),
    "four dimensions": (
        lambda r: edit(r / "dataset.toml", "dimensions = 2", "dimensions = 4"),
        ("dataset.toml", "dimensions = 4", "write 2 or 3"),
    ),
    "unknown kind of masks": (
        lambda r: edit(r / "dataset.toml", '"labels"', '"polygons"'),
        ("dataset.toml", "masks = 'polygons'", 'write "labels"'),
    ),
    "no labels": (
        lambda r: (r / "dataset.toml").write_text(
            (r / "dataset.toml").read_text().split("[labels]")[0]
        ),
        ("dataset.toml", "has no [labels]", "add [labels]"),
    ),
    "label zero": (
        lambda r: edit(r / "dataset.toml", '1 = "right', '0 = "right'),
        ("dataset.toml", "label '0'", "number the foreground labels from 1"),
    ),
    "label that no PNG can hold": (
        lambda r: edit(r / "dataset.toml", '1 = "right', '65536 = "right'),
        ("dataset.toml", "label '65536' in [labels] is not a whole number from 1 to 65535", "1"),
    ),
    "label without a name": (
        lambda r: edit(r / "dataset.toml", '"left lung"', '""'),
        ("dataset.toml", "label 2 in [labels] has no name", 'write 2 = "..."'),
    ),
    "window upside down": (
        lambda r: edit(r / "dataset.toml", 'licence = "CC0"', "window = [240, -160]"),
        ("dataset.toml", "window = [240, -160]", "write [low, high]"),
    ),
    "missing column": (
        lambda r: edit(r / "index.csv", "case,image,mask", "case,picture,mask"),
        ("index.csv", "has no column image", "add it, and separate the values by commas"),
    ),
    "semicolons": (
        lambda r: edit(r / "index.csv", ",", ";"),
        ("index.csv", "has no column case, image", "separate the values by commas"),
    ),
    "no rows": (
        lambda r: set_rows(r),
        ("index.csv", "has no rows", "write one row for each image"),
    ),
    "row without an image": (
        lambda r: edit(r / "index.csv", "images/case1.png", ""),
        ("index.csv", "line 3 has no image", "fill it in"),
    ),
    "duplicate case": (
        lambda r: edit(r / "index.csv", "case1,", "case0,"),
        ("index.csv", "the case 'case0' is listed 2 times", "keep one row for each case"),
    ),
    "duplicate image": (
        lambda r: edit(r / "index.csv", "images/case1.png", "images/case0.png"),
        ("index.csv", "the image 'images/case0.png' is listed 2 times", "keep one row"),
    ),
    "duplicate stem": (
        both_endings,
        ("index.csv", "'images/case0.png' and 'images/case0.jpg' have the same", "rename one"),
    ),
    "clash of upper and lower case": (
        clash,
        ("index.csv", "'images/case0.png' and 'images/CASE0.png' differ only", "rename one"),
    ),
    "patient on both sides": (
        lambda r: edit(r / "index.csv", "eve,test", "ann,test"),
        ("index.csv", "patient 'ann' is in more than one split (test, train)", "one split"),
    ),
    "unknown split": (
        lambda r: edit(r / "index.csv", "dan,val", "dan,validation"),
        ("index.csv", "split of case 'case4' is 'validation'", "write train, val, test"),
    ),
    "path above the folder": (
        lambda r: edit(r / "index.csv", "images/case1.png", "images/../../case1.png"),
        ("index.csv", "line 3: the image 'images/../../case1.png' is outside", "copy it into"),
    ),
    "absolute path": (
        lambda r: edit(r / "index.csv", "masks/case1.png", "/etc/masks/case1.png"),
        ("index.csv", "line 3: the mask '/etc/masks/case1.png' is outside", "copy it into"),
    ),
    "Windows path": (
        lambda r: edit(r / "index.csv", "masks/case1.png", r"C:\\masks\\case1.png"),
        ("index.csv", "is outside the data set's folder", "copy it into"),
    ),
    "missing image": (
        lambda r: (r / "images/case1.png").unlink(),
        ("images/case1.png", "is missing", "put the file there"),
    ),
    "missing mask": (
        lambda r: (r / "masks/case1.png").unlink(),
        ("masks/case1.png", "is missing", "put the file there"),
    ),
    "mask of another size": (
        lambda r: save(r / "masks/case1.png", grey(shape=(24, 31))),
        ("masks/case1.png", "is 24 x 31, but its image is 24 x 32", "give the image and the mask"),
    ),
    "unknown label": (
        lambda r: save(r / "masks/case1.png", grey(255)),
        ("masks/case1.png", "value 255, not in [labels] (1, 2)", "renumber the mask"),
    ),
    "fractional mask": (
        fractional,
        ("masks/case1.tif", "holds fractional values", "save whole numbers"),
    ),
    "colour mask": (
        lambda r: save(r / "masks/case1.png", grey(shape=(24, 32, 3))),
        ("masks/case1.png", "is a colour image", "one channel of label values"),
    ),
    "empty file": (
        lambda r: (r / "images/case1.png").write_bytes(b""),
        ("images/case1.png", "is empty (0 bytes)", "copy or download it again"),
    ),
    "text named png": (
        lambda r: (r / "images/case1.png").write_text("version https://git-lfs\n"),
        ("images/case1.png", "cannot be read as .png", "copy or export it again"),
    ),
    "truncated png": (
        lambda r: (r / "images/case1.png").write_bytes((r / "images/case1.png").read_bytes()[:400]),
        ("images/case1.png", "cannot be read as .png", "copy or export it again"),
    ),
    "modality in other words": (
        lambda r: edit(r / "dataset.toml", '"X-ray"', '"Chest x-ray (CXR)"'),
        ("dataset.toml", "modality = 'Chest x-ray (CXR)'", 'write modality = "X-ray"'),
    ),
    "modality with a blank": (
        lambda r: edit(r / "dataset.toml", '"X-ray"', '"CT "'),
        ("dataset.toml", "modality = 'CT '", 'write modality = "CT"'),
    ),
    "CT angiography": (
        lambda r: edit(r / "dataset.toml", '"X-ray"', '"CTA"'),
        ("dataset.toml", "modality = 'CTA'", 'write modality = "CT"'),
    ),
    "unknown modality": (
        lambda r: edit(r / "dataset.toml", '"X-ray"', '"thermography"'),
        ("dataset.toml", "modality = 'thermography'", "write one of CT, MR, CT and MR, X-ray"),
    ),
    "pixel size": (
        lambda r: edit(r / "dataset.toml", 'name = "tiny"', 'name = "tiny"\npixel_size = [0.5]'),
        ("dataset.toml", "pixel_size = [0.5]", "write [height, width] of a pixel in mm"),
    ),
    "colour of a label": (
        lambda r: (r / "dataset.toml").open("a").write("[colours]\n1 = [255, 0, 256]\n"),
        (
            "dataset.toml",
            "the colour of label 1 in [colours] is [255, 0, 256]",
            "[red, green, blue]",
        ),
    ),
    "one colour twice": (
        lambda r: (r / "dataset.toml").open("a").write("[colours]\n1 = [1, 0, 0]\n2 = [1, 0, 0]\n"),
        ("dataset.toml", "[colours] has [1, 0, 0] twice", "give each label its own colour"),
    ),
    "unknown ending": (
        lambda r: edit(r / "index.csv", "images/case1.png", "images/case1.gif"),
        ("images/case1.gif", "the unknown extension '.gif'", "save it as PNG"),
    ),
    "16 bits without a window": (
        lambda r: save(r / "images/case1.png", grey(4095, dtype=np.uint16)),
        ("images/case1.png", "uint16 values from 4095 to 4095", "add `window = [low, high]`"),
    ),
    "RGBA": (
        lambda r: save(r / "images/case1.png", grey(shape=(24, 32, 4))),
        ("images/case1.png", "transparency channel (RGBA)", "save it as RGB or grey"),
    ),
    "name too long": (
        lambda r: edit(r / "index.csv", "images/case1.png", f"images/{'x' * 300}.png"),
        (f"images/{'x' * 300}.png", "cannot be read", "copy or export it again"),
    ),
}


def assert_said(root, words):
    """The check and the training give one sentence with the file, the fault and the remedy."""
    file, what, remedy = words
    found = [problem for problem in check_dataset(root) if not problem.note]
    said = [p for p in found if p.file == str(root / file) and what in p.what]
    assert len(said) == 1, found
    assert remedy in said[0].remedy
    with pytest.raises(UserError) as raised:
        train(root)
    assert str(raised.value) in [str(problem) for problem in found]


def train(root):
    dataset = open_dataset(root)
    Samples(dataset, dataset.cases, 16)


@pytest.mark.parametrize("name", BAD)
def test_bad_folder(tiny, name):
    spoil, words = BAD[name]
    spoil(tiny)
    assert_said(tiny, words)


def test_good_folder_has_no_problem(tiny):
    assert check_dataset(tiny) == []
    train(tiny)


def test_all_bad_files_are_listed_at_once(tiny):
    for name in ("empty file", "missing mask"):
        BAD[name][0](tiny)
    save(tiny / "images/case3.png", grey(shape=(24, 32, 4)))
    edit(tiny / "index.csv", "dan,val", "dan,valid")
    files = [problem.file.removeprefix(f"{tiny}/") for problem in check_dataset(tiny)]
    assert files == ["index.csv", "images/case1.png", "masks/case1.png", "images/case3.png"]


def test_no_folder(tmp_path):
    (problem,) = check_dataset(tmp_path / "absent")
    assert str(problem).startswith(f"{tmp_path / 'absent'}: is not a folder; give one with")


def test_no_training_case_is_for_evaluation_only(tiny):
    edit(tiny / "index.csv", ",train", ",test")
    (problem,) = check_dataset(tiny)
    assert problem.file == str(tiny / "index.csv")
    assert "no case with a mask is in the split 'train'" in problem.what
    assert "write train" in problem.remedy
    dataset = open_dataset(tiny)
    assert len(Samples(dataset, dataset.split("test"), 16)) == 5
    with pytest.raises(UserError, match=r"index\.csv: gives no labelled image.*choose another"):
        Samples(dataset, dataset.split("train"), 16)


def test_a_case_without_a_mask_is_a_note(tiny):
    edit(tiny / "index.csv", "masks/case1.png", "")
    (problem,) = check_dataset(tiny)
    assert problem.note
    assert problem.file == str(tiny / "images/case1.png")
    assert "case 'case1' has no mask" in problem.what
    assert "name a mask in index.csv" in problem.remedy
    assert len(choose_shots(open_dataset(tiny), 3, 16, seed=0)) == 3  # of four training cases
    with pytest.raises(UserError, match="4 shots of 3 labelled training images"):
        choose_shots(open_dataset(tiny), 4, 16, seed=0)


def test_labels_by_case_are_a_note(tiny):
    BAD["no labels"][0](tiny)
    (tiny / "labels.json").write_text(json.dumps({"case0": {"1": "liver"}}))
    (problem,) = check_dataset(tiny)
    assert problem.note
    assert "labels.json" in problem.what
    with pytest.raises(UserError, match=r"dataset\.toml.*differ from case to case"):
        train(tiny)


def test_links_inside_the_folder_may_lead_outside(tiny):
    real = tiny.parent / "elsewhere.png"
    (tiny / "images/case1.png").rename(real)
    (tiny / "images/case1.png").symlink_to(real)
    assert check_dataset(tiny) == []


@pytest.fixture
def volumes(tmp_path):
    """One volume of 4 x 6 x 5 (x, y, z) with a mask."""
    root = tmp_path / "volumes"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    (root / "dataset.toml").write_text(
        'name = "v"\nmodality = "MR"\ndimensions = 3\nmasks = "labels"\n[labels]\n1 = "organ"\n'
    )
    set_rows(root, "a,images/a.nii.gz,masks/a.nii.gz,a,train")
    write(root / "images/a.nii.gz", np.arange(120.0).reshape(4, 6, 5))
    write(root / "masks/a.nii.gz", np.ones((4, 6, 5), np.uint8))
    return root


def write(path, values, spacing=(1.0, 2.0, 3.0), shift=0.0):
    affine = np.diag([*spacing, 1.0])
    affine[0, 3] = shift
    nib.Nifti1Image(values, affine).to_filename(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_volume_with_a_hole(volumes, value):
    values = np.arange(120.0).reshape(4, 6, 5)
    values[1, 2, 3] = value
    write(volumes / "images/a.nii.gz", values)
    assert_said(volumes, ("images/a.nii.gz", "holds NaN or infinite values", "replace them"))


def test_picture_where_a_volume_is_declared(volumes):
    save(volumes / "images/a.png", grey())
    save(volumes / "masks/a.png", grey(1))
    set_rows(volumes, "a,images/a.png,masks/a.png,a,train")
    assert_said(
        volumes, ("images/a.png", "is 2-D, but dataset.toml says dimensions = 3", "correct")
    )


def test_volume_where_a_picture_is_declared(volumes):
    edit(volumes / "dataset.toml", "dimensions = 3", "dimensions = 2")
    words = ("images/a.nii.gz", "is 3-D, but dataset.toml says dimensions = 2", "correct")
    assert_said(volumes, words)


@pytest.mark.parametrize("grid", [{"spacing": (1.0, 2.0, 2.5)}, {"shift": 0.5}])
def test_mask_on_another_grid(volumes, grid):
    write(volumes / "masks/a.nii.gz", np.ones((4, 6, 5), np.uint8), **grid)
    words = ("masks/a.nii.gz", "voxels from its image", "resample the mask")
    assert_said(volumes, words)


def test_mask_whose_file_has_no_affine_must_have_the_spacing(volumes):
    write(volumes / "images/a.nii.gz", np.ones((8, 6, 5), np.uint8))
    mask = np.ones((5, 6, 8), np.uint8)  # z, y, x
    how = {"metadata": {"axes": "ZYX", "spacing": 3.5, "unit": "mm"}, "resolution": (1, 0.5)}
    tifffile.imwrite(volumes / "masks/a.tif", mask, imagej=True, **how)
    set_rows(volumes, "a,images/a.nii.gz,masks/a.tif,a,train")
    assert_said(
        volumes,
        ("masks/a.tif", "has the spacing 3.5 x 2 x 1 mm, its image 3 x 2 x 1 mm", "resample"),
    )


def test_rounding_of_a_header_is_no_other_grid(volumes):
    write(volumes / "masks/a.nii.gz", np.ones((4, 6, 5), np.uint8), shift=1e-4)
    assert check_dataset(volumes) == []


def test_truncated_volume(volumes):
    path = volumes / "images/a.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])
    assert_said(volumes, ("images/a.nii.gz", "cannot be read", "copy or export it again"))


def test_series_of_volumes(volumes):
    write(volumes / "images/a.nii.gz", np.zeros((4, 6, 5, 2)))
    assert_said(volumes, ("images/a.nii.gz", "has the shape 4 x 6 x 5 x 2", "save one volume"))


def test_negative_label(volumes):
    write(volumes / "masks/a.nii.gz", np.full((4, 6, 5), -1, np.int16))
    assert_said(volumes, ("masks/a.nii.gz", "holds the value -1", "number the labels from 0"))


def test_real_data_sets_pass(real_data):
    folders = [path.parent for path in real_data.glob("*/dataset.toml")]
    assert folders
    for folder in folders:
        problems = check_dataset(folder)
        assert [str(problem) for problem in problems if not problem.note] == []
        assert bool(problems) == (folder / "labels.json").exists()
