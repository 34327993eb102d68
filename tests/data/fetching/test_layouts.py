"""Each official layout in small, served on loopback or given as a folder."""

import csv
import gzip
import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medsaga_lib.data.cases import read_pair
from medsaga_lib.data.check import check_dataset
from medsaga_lib.data.fetching.catalogue import official_sets
from medsaga_lib.data.fetching.fetch import CONVERTERS
from medsaga_lib.data.images import CT_WINDOW, read_stored
from medsaga_lib.errors import UserError
from tests.data.fetching.builders import AFFINE, ct, nifti, organs, picture, tarred, zipped

TASK = {
    "name": "Spleen",
    "modality": {"0": "CT"},
    "labels": {"0": "background", "1": "spleen"},
    "training": [
        {"image": f"./imagesTr/spleen_{n}.nii.gz", "label": f"./labelsTr/spleen_{n}.nii.gz"}
        for n in (2, 3, 6)
    ],
    "test": ["./imagesTs/spleen_1.nii.gz"],
}


def labels_of(case):
    return read_stored(case.mask, is_mask=True).values


def grey(*values):
    """An RGB picture whose columns have these grey values."""
    return np.repeat(np.array([values] * 6, np.uint8)[..., None], 3, axis=2)


def splits(dataset):
    return {case.name: case.split for case in dataset.cases}


def test_decathlon(served, fetch):
    files = {"Task09_Spleen/dataset.json": json.dumps(TASK).encode()}
    for n in (2, 3, 6):
        files[f"Task09_Spleen/imagesTr/spleen_{n}.nii.gz"] = nifti(ct(n))
        files[f"Task09_Spleen/labelsTr/spleen_{n}.nii.gz"] = nifti(organs([], [1], [1], []))
        files[f"Task09_Spleen/imagesTr/._spleen_{n}.nii.gz"] = b"of macOS"
    files["Task09_Spleen/imagesTs/spleen_1.nii.gz"] = nifti(ct(1))
    served("msd_spleen", {"Task09_Spleen.tar": tarred(files)})
    found, notes = fetch("msd_spleen")
    assert (found.name, found.modality, found.dimensions) == ("msd_spleen", "CT", 3)
    assert found.labels == {1: "spleen"}
    assert found.licence == "CC BY-SA 4.0"
    assert {case.name for case in found.cases} == {"spleen_2", "spleen_3", "spleen_6"}
    assert "1 image without a mask left out: spleen_1" in notes
    assert found.cases[0].image.read_bytes() == files["Task09_Spleen/imagesTr/spleen_2.nii.gz"]


def test_decathlon_channel(served, fetch):
    task = {
        "name": "BRATS",
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing"},
        "training": [{"image": "./imagesTr/B_1.nii.gz", "label": "./labelsTr/B_1.nii.gz"}],
        "test": [],
    }
    volume = np.stack([ct(n) + 1000 for n in range(4)], axis=-1)
    files = {
        "Task01_BrainTumour/dataset.json": json.dumps(task).encode(),
        "Task01_BrainTumour/imagesTr/B_1.nii.gz": nifti(volume),
        "Task01_BrainTumour/labelsTr/B_1.nii.gz": nifti(organs([1], [2], [3], [])),
    }
    served("msd_brain_tumour", {"Task01_BrainTumour.tar": tarred(files)})
    found, _ = fetch("msd_brain_tumour")
    stored = np.asanyarray(nib.load(found.cases[0].image).dataobj)
    assert np.array_equal(stored, volume[..., 0])  # FLAIR


AMOS = {
    "amos22/dataset.json": b"{}",
    **{
        f"amos22/images{part}/amos_{n:04d}.nii.gz": nifti(ct(n))
        for part, n in (("Tr", 1), ("Tr", 2), ("Va", 8), ("Tr", 507), ("Ts", 60))
    },
    **{
        f"amos22/labels{part}/amos_{n:04d}.nii.gz": nifti(
            organs([1, 2, 3, 6, 10], [1, 2, 3, 6], [6, 7, 8, 9, 11, 15], [])
        )
        for part, n in (("Tr", 1), ("Tr", 2), ("Va", 8), ("Tr", 507))
    },
}


def test_amos_volumes(served, fetch):
    served("amos22_ct", {"amos22.zip": zipped(AMOS)})
    found, notes = fetch("amos22_ct")
    assert set(splits(found)) == {"amos_0001", "amos_0002", "amos_0008"}  # 507 is MR, 60 unlabelled
    assert [c.name for c in found.split("test")] == ["amos_0008"]
    assert found.labels[15] == "prostate or uterus"
    assert any("validation cases (Va) are the test split" in note for note in notes)


def test_amos_mr(served, fetch):
    served("amos22_mr", {"amos22.zip": zipped(AMOS)})
    found, _ = fetch("amos22_mr")
    assert (found.modality, list(splits(found))) == ("MR", ["amos_0507"])


def test_amos_slices_by_medsagas_rule(served, fetch):
    """Slices with 5 or more organs, padded; the window is LiteMedSAM's for CT."""
    served("amos22_ct", {"amos22.zip": zipped(AMOS)}, pad=16)
    found, notes = fetch("amos22_ct", slices=True)
    assert found.name == "amos22_ct_slices"
    assert [c.name for c in found.cases if c.patient == "amos_0001"] == [
        "amos_0001_000", "amos_0001_002",
    ]  # fmt: skip
    assert {c.split for c in found.cases if c.patient == "amos_0008"} == {"test"}
    case = found.cases[1]
    picture_, mask = (np.asarray(Image.open(path)) for path in (case.image, case.mask))
    assert picture_.shape == mask.shape == (16, 16)
    whole = nib.Nifti1Image(ct(1), AFFINE)
    upright = np.asanyarray(nib.as_closest_canonical(whole).dataobj)[:, ::-1, 2].T[:, ::-1]
    low, high = CT_WINDOW
    expected = np.rint(255 * np.clip((upright.astype(float) - low) / (high - low), 0, 1))
    inner = picture_[3:13, 2:14]  # 10 rows and 12 columns in 16 x 16
    assert np.abs(inner - expected).max() <= 1  # float32 rounds
    assert picture_.sum() == inner.sum()
    assert set(np.unique(mask)) == {0, 6, 7, 8, 9, 11, 15}
    assert "slices: 6 that show at least 5 labels" in notes


def test_slices_need_masks_on_their_images(served, fetch, tmp_path):
    name = "amos22/labelsTr/amos_0002.nii.gz"
    other = nib.Nifti1Image(organs([1, 2, 3, 4, 5], [], [], []), AFFINE @ np.diag([1, 1, 2, 1]))
    files = {**AMOS, name: gzip.compress(other.to_bytes())}
    served("amos22_ct", {"amos22.zip": zipped(files)})
    with pytest.raises(UserError, match=r"amos_0002\.nii\.gz: lies up to .* voxels from its image"):
        fetch("amos22_ct", slices=True)
    assert not (tmp_path / "out").exists()


def test_a_slice_that_is_too_large_is_counted(served, fetch):
    served("amos22_ct", {"amos22.zip": zipped(AMOS)}, pad=11)
    found, notes = fetch("amos22_ct", slices=True)
    assert np.asarray(Image.open(found.cases[0].mask)).shape == (11, 12)
    assert "slices larger than 11 x 11, not padded: 6" in notes


def test_isles(served, fetch):
    files = {}
    for n in (1, 2):
        case = f"sub-strokecase{n:04d}"
        top = f"ISLES-2022/{case}/ses-0001"
        files[f"{top}/dwi/{case}_ses-0001_dwi.nii.gz"] = nifti(ct(n) + 900)
        files[f"{top}/dwi/{case}_ses-0001_adc.nii.gz"] = nifti(ct(n))
        files[f"ISLES-2022/derivatives/{case}/ses-0001/{case}_ses-0001_msk.nii.gz"] = nifti(
            organs([], [1], [1], [])
        )
    served("isles22", {"ISLES-2022.zip": zipped(files)})
    found, _ = fetch("isles22")
    assert [(c.name, c.patient) for c in found.cases] == [
        ("sub-strokecase0001_ses-0001", "sub-strokecase0001"),
        ("sub-strokecase0002_ses-0001", "sub-strokecase0002"),
    ]
    assert labels_of(found.cases[0]).max() == 1


def synapse(root):
    for n in (*range(1, 11), *range(21, 41)):
        for kind, content in (("img", ct(n, (4, 4, 2))), ("label", RAW)):
            path = root / f"RawData/Training/{kind}/{kind}{n:04d}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(nifti(content))
    return root


RAW = np.arange(32).reshape(4, 4, 2).clip(0, 13).astype(np.uint8)  # the 13 organs of the challenge


def test_synapse_by_the_published_protocol(fetch, tmp_path):
    found, _ = fetch("synapse", given=synapse(tmp_path / "given"))
    assert len(found.split("train")) == 18
    assert [int(c.name[4:]) for c in found.split("test")] == [
        1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38,
    ]  # fmt: skip
    assert list(found.labels.values()) == [
        "spleen", "right kidney", "left kidney", "gallbladder", "liver", "stomach", "aorta",
        "pancreas",
    ]  # fmt: skip
    stored = nib.load(found.cases[0].mask)
    meant = {1: 1, 2: 2, 3: 3, 4: 4, 6: 5, 7: 6, 8: 7, 11: 8}
    expected = np.vectorize(lambda value: meant.get(value, 0))(RAW)
    assert np.array_equal(np.asanyarray(stored.dataobj), expected)
    assert np.array_equal(stored.affine, AFFINE)
    pixels = read_pair(found, found.cases[0])[0].pixels
    hounsfield = read_stored(found.cases[0].image).values
    assert np.allclose(pixels, np.clip((hounsfield + 125.0) / 400, 0, 1), atol=1e-6)


def test_synapse_without_a_test_case(fetch, tmp_path):
    root = synapse(tmp_path / "given")
    (root / "RawData/Training/label/label0008.nii.gz").unlink()
    with pytest.raises(UserError, match="lacks the test cases 8 of Synapse"):
        fetch("synapse", given=root)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_brats(ending, fetch, tmp_path):
    folder = tmp_path / "given/BraTS20_Training_001"
    folder.mkdir(parents=True)
    for kind, values in (("flair", ct(1) + 900), ("t1", ct(2)), ("seg", organs([1, 2, 4], [], []))):
        nib.save(nib.Nifti1Image(values[..., :3], AFFINE), folder / f"{folder.name}_{kind}{ending}")
    found, _ = fetch("brats", given=tmp_path / "given")
    assert [case.name for case in found.cases] == ["BraTS20_Training_001"]
    assert set(np.unique(labels_of(found.cases[0]))) == {0, 1, 2, 4}


def test_lits_in_two_archives(fetch, tmp_path):
    given = tmp_path / "given"
    given.mkdir()
    for batch, n in ((1, 0), (2, 28)):
        files = {
            f"Training Batch {batch}/volume-{n}.nii": nib.Nifti1Image(ct(n), AFFINE).to_bytes(),
            f"Training Batch {batch}/segmentation-{n}.nii": nib.Nifti1Image(
                organs([1, 2], [1], [], []), AFFINE
            ).to_bytes(),
        }
        (given / f"Training_Batch{batch}.zip").write_bytes(zipped(files))
    found, _ = fetch("lits", given=given)
    assert [case.name for case in found.cases] == ["volume-0", "volume-28"]
    assert found.labels == {1: "liver", 2: "tumour"}


def test_cholecseg8k(fetch, tmp_path):
    """The ids of the watershed masks; some masks have a fourth channel, some a white frame."""
    files = {}
    for video in ("01", "12", "17", "52"):
        top = f"video{video}/video{video}_00080/frame_80_endo"
        mask = grey(50, 11, 21, 13, 12, 31, 23, 24, 25, 32, 22, 33, 5, 255)
        if video == "12":
            mask = np.dstack([mask, np.full(mask.shape[:2], 255, np.uint8)])
        files[f"{top}.png"] = picture(grey(*range(14)))
        files[f"{top}_watershed_mask.png"] = picture(mask)
        files[f"{top}_color_mask.png"] = picture(grey(*range(14)))
    (tmp_path / "archive.zip").write_bytes(zipped(files))
    found, _ = fetch("cholecseg8k", given=tmp_path / "archive.zip")
    assert {case.patient: case.split for case in found.cases} == {
        "video01": "train", "video12": "val", "video17": "test", "video52": "test",
    }  # fmt: skip
    for case in found.cases:
        assert labels_of(case)[0].tolist() == [0, *range(1, 13), 0]
    assert found.labels[9] == "L-hook electrocautery"


def test_masks_of_another_kind_are_refused(fetch, tmp_path):
    top = "video01/video01_00080/frame_80_endo"
    files = {
        f"{top}.png": picture(grey(1, 2)),
        f"{top}_watershed_mask.png": picture(grey(50, 99)),
    }
    (tmp_path / "archive.zip").write_bytes(zipped(files))
    with pytest.raises(UserError, match="has 50% of pixels with values that the data set does not"):
        fetch("cholecseg8k", given=tmp_path / "archive.zip")
    assert not (tmp_path / "out").exists()


def test_glas(served, fetch):
    top, files = "Warwick QU Dataset (Released 2016_07_08)", {}
    for n, name in enumerate(("train_1", "train_2", "testA_1", "testB_1")):
        files[f"{top}/{name}.bmp"] = picture(grey(9, 200, n), "BMP")
        files[f"{top}/{name}_anno.bmp"] = picture(grey(0, 1, 3)[..., 0], "BMP")
    served("glas", {"warwick.zip": zipped(files)})
    found, _ = fetch("glas")
    assert found.masks == "instances"
    assert {n: s for n, s in splits(found).items() if s == "test"}.keys() == {"testA_1", "testB_1"}
    assert labels_of(found.cases[0])[0].tolist() == [0, 1, 3]


def test_a_few_pixels_without_a_meaning_are_counted(fetch, tmp_path):
    top, mask = "video01/video01_00080/frame_80_endo", np.full((20, 20, 3), 21, np.uint8)
    mask[3, 4:7] = 99
    files = {f"{top}.png": picture(mask), f"{top}_watershed_mask.png": picture(mask)}
    (tmp_path / "archive.zip").write_bytes(zipped(files))
    found, notes = fetch("cholecseg8k", given=tmp_path / "archive.zip")
    assert "pixels of masks with values without a meaning, now background: 3" in notes
    assert (labels_of(found.cases[0]) == 0).sum() == 3


def test_ultrasound(fetch, tmp_path):
    """The colours of the organs; real images without an annotation are left out."""
    colours = np.array(
        [(0, 0, 0), (100, 0, 100), (255, 255, 0), (0, 0, 255), (255, 0, 0), (0, 255, 255),
         (0, 255, 0), (255, 255, 255), (255, 0, 255)], np.uint8,
    )  # fmt: skip
    mask = picture(np.repeat(colours[None], 5, axis=0))
    image, files = picture(np.repeat(colours[None], 5, axis=0)[..., 0]), {}
    for domain, part, name, has_mask in (
        ("AUS", "train", "ct1-12", True), ("AUS", "test", "ct2-3", True),
        ("RUS", "test", "12", True), ("RUS", "train", "13", False),
    ):  # fmt: skip
        files[f"abdominal_US/abdominal_US/{domain}/images/{part}/{name}.png"] = image
        if has_mask:
            files[f"abdominal_US/abdominal_US/{domain}/annotations/{part}/{name}.png"] = mask
    (tmp_path / "archive.zip").write_bytes(zipped(files))
    found, _ = fetch("ultrasound_vitale", given=tmp_path / "archive.zip")
    assert {name: split == "test" for name, split in splits(found).items()} == {
        "AUS_ct1-12": False, "AUS_ct2-3": True, "RUS_12": True,
    }  # fmt: skip
    assert labels_of(found.cases[0])[0].tolist() == list(range(9))
    with (found.root / "index.csv").open(newline="") as file:
        assert [row["domain"] for row in csv.DictReader(file)] == ["AUS", "AUS", "RUS"]


def square(left, top, side):
    return [[left, top], [left + side, top], [left + side, top + side], [left, top + side]]


def test_chestxdet(served, fetch):
    """Polygons as labels, the smaller on top; a patient of the test is not in training."""
    cases = {
        "train": [
            {"file_name": "00000042_006.png", "syms": ["Nodule", "Effusion"],
             "polygons": [square(4, 4, 2), square(2, 2, 8)], "boxes": []},
            {"file_name": "00000043_000.png", "syms": ["Mass"], "polygons": [[[1, 1], [2, 2]]],
             "boxes": []},
            {"file_name": "00000099_001.png", "syms": [], "polygons": [], "boxes": []},
            {"file_name": "00000001_001.png", "syms": [], "polygons": [], "boxes": []},
        ],
        "test": [
            {"file_name": "00000001_000.png", "syms": ["Mass"], "polygons": [square(0, 0, 3)],
             "boxes": []},
        ],
    }  # fmt: skip
    blank = picture(np.zeros((12, 14), np.uint8))
    files = {f"ChestX_Det_{part}.json": json.dumps(cases[part]).encode() for part in cases}
    for part in cases:
        names = [case["file_name"] for case in cases[part] if "99" not in case["file_name"]]
        pictures = {f"{part}/{name}": blank for name in names}
        if part == "train":  # some pictures of the NIH have four channels
            pictures["train/00000043_000.png"] = picture(np.full((12, 14, 4), 255, np.uint8))
        files[f"{part}_data.zip"] = zipped(pictures)
    served("chestxdet", files)
    found, notes = fetch("chestxdet")
    assert {case.name: case.patient for case in found.cases} == {
        "00000042_006": "00000042", "00000043_000": "00000043", "00000001_000": "00000001",
    }  # fmt: skip
    assert Image.open(found.cases[1].image).mode == "L"
    assert not labels_of(found.cases[1]).any()
    expected = np.zeros((12, 14), int)
    expected[2:10, 2:10] = 6
    expected[4:6, 4:6] = 11
    assert np.array_equal(labels_of(found.cases[0]), expected)
    assert labels_of(found.cases[2]).sum() == 9 * 10  # the mass is 3 x 3 pixels
    assert "training images of patients of the test split, left out: 1" in notes
    assert "annotated images that are missing, left out: 1" in notes
    assert "polygons with fewer than 3 usable points, left out: 1" in notes
    assert "pictures with several channels, written as grey ones: 1" in notes


def runs(mask):
    """Return a mask as CheXmask writes it: starts from 1 and lengths, row by row."""
    edges = np.flatnonzero(np.diff(np.pad(mask.ravel().astype(int), 1))) + 1
    return " ".join(f"{start} {end - start}" for start, end in edges.reshape(-1, 2))


@pytest.mark.parametrize("column", ["Image Index", "Image ID"])
def test_chestxray8_with_chexmask(column, fetch, tmp_path):
    given = tmp_path / "given"
    (given / "images").mkdir(parents=True)
    shape = (8, 9)
    masks = {name: np.zeros(shape, bool) for name in ("Left Lung", "Right Lung", "Heart")}
    masks["Right Lung"][1:5, 1:4] = masks["Left Lung"][1:5, 5:9] = masks["Heart"][3:6, 3:7] = True
    rows = []
    for name, quality in (("00000007_000", 0.9), ("00000007_001", 0.69), ("00000008_000", 0.7)):
        (given / f"images/{name}.png").write_bytes(picture(np.ones(shape, np.uint8)))
        rows.append(
            {column: f"{name}.png", "Dice RCA (Mean)": quality, "Height": 8, "Width": 9,
             **{key: runs(mask) for key, mask in masks.items()}}
        )  # fmt: skip
    rows.append({**rows[0], column: "00000009_000.png"})  # of an image that was not downloaded
    with (given / "ChestX-Ray8.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (given / "test_list.txt").write_text("00000008_000.png\n00000009_000.png\n")
    found, notes = fetch("chestxray8", given=given)
    assert {case.name: case.patient for case in found.cases} == {
        "00000007_000": "00000007", "00000008_000": "00000008",
    }  # fmt: skip
    assert splits(found)["00000008_000"] == "test"
    expected = 1 * masks["Right Lung"] + 2 * masks["Left Lung"]
    expected[masks["Heart"]] = 3
    assert np.array_equal(labels_of(found.cases[0]), expected)
    assert "masks with a Dice of RCA below 0.7, left out: 1" in notes


def test_cvpr24(fetch, tmp_path):
    given = tmp_path / "given"
    given.mkdir()
    image = np.random.default_rng(0).integers(0, 255, (3, 8, 9), np.uint8)
    gts = np.zeros((3, 8, 9), np.uint8)
    gts[1, 2:5, 2:5], gts[1, 6, 6] = 2, 5
    np.savez(given / "CT_Abd_0001.npz", imgs=image, gts=gts, spacing=np.array([1.0, 1, 3]))
    found, _ = fetch("cvpr24", given=given)
    assert (found.modality, found.masks, found.dimensions) == ("CT", "instances", 3)
    assert np.array_equal(labels_of(found.cases[0]), gts)


def test_no_layout_is_left_out():
    """Each converter has a set, and each result is a folder without problems."""
    assert {official.convert for official in official_sets().values()} == CONVERTERS.keys()


@pytest.fixture(autouse=True)
def no_problems(request, tmp_path):
    """After each test, check the folder that it fetched."""
    yield
    if (tmp_path / "out").exists():
        problems = [problem for problem in check_dataset(tmp_path / "out") if not problem.note]
        assert problems == []
