"""nnU-Net's raw layout and the Decathlon's, on folders that the tests write."""

import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medsaga_lib.data.cases import read_pair
from medsaga_lib.data.check import check_dataset
from medsaga_lib.errors import UserError

RANDOM = np.random.default_rng(5)
AFFINE = np.array([[-0.5, 0, 0, 9], [0, 0.75, 0, -3], [0, 0, 4, 1], [0, 0, 0, 1.0]])
VERSION_2 = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "liver": 1, "tumour": 2},
    "numTraining": 4,
    "file_ending": ".nii.gz",
    "licence": "CC BY-SA 4.0",
    "reference": "Doe et al. 2020",
}
DECATHLON = {
    "name": "Liver",
    "modality": {"0": "MRI"},
    "labels": {"0": "background", "1": "liver", "2": "tumour"},
    "licence": "CC-BY-SA 4.0",
    "reference": "A hospital",
}


def volume(shape=(6, 5, 4)):
    return RANDOM.integers(-200, 300, shape).astype(np.int16)


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(values, AFFINE).to_filename(path)


@pytest.fixture
def nnunet(tmp_path):
    """Four training cases and one test case of one channel."""
    root = tmp_path / "nnUNet_raw" / "Dataset007_Liver"
    for case in "abcd":
        save(root / f"imagesTr/{case}_0000.nii.gz", volume())
        save(root / f"labelsTr/{case}.nii.gz", RANDOM.integers(0, 3, (6, 5, 4)).astype(np.uint8))
    save(root / "imagesTs/e_0000.nii.gz", volume())
    (root / "dataset.json").write_text(json.dumps(VERSION_2))
    return root


@pytest.fixture
def decathlon(tmp_path):
    """Four training cases and one test case, with the hidden files that macOS adds."""
    root = tmp_path / "Task03_Liver"
    for number in range(4):
        save(root / f"imagesTr/liver_{number}.nii.gz", volume())
        mask = RANDOM.integers(0, 3, (6, 5, 4)).astype(np.uint8)
        save(root / f"labelsTr/liver_{number}.nii.gz", mask)
        (root / f"imagesTr/._liver_{number}.nii.gz").write_bytes(b"macOS")
    save(root / "imagesTs/liver_9.nii.gz", volume())
    pairs = [
        {"image": f"./imagesTr/liver_{n}.nii.gz", "label": f"./labelsTr/liver_{n}.nii.gz"}
        for n in range(4)
    ]
    test = ["./imagesTs/liver_9.nii.gz"]
    (root / "dataset.json").write_text(json.dumps({**DECATHLON, "training": pairs, "test": test}))
    return root


def edit(root, **changes):
    path = root / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_nnunet_keeps_every_byte(nnunet, bring):
    dataset, done = bring(nnunet)
    assert done.layout == "nnunet"
    assert (dataset.name, dataset.modality, dataset.dimensions) == ("Dataset007_Liver", "CT", 3)
    assert dataset.labels == {1: "liver", 2: "tumour"}
    assert (dataset.licence, dataset.citation) == ("CC BY-SA 4.0", "Doe et al. 2020")
    for case in dataset.cases:
        folder = "imagesTs" if case.name == "e" else "imagesTr"
        assert (
            case.image.read_bytes() == (nnunet / folder / f"{case.name}_0000.nii.gz").read_bytes()
        )
        if case.mask is None:
            assert (case.name, case.split) == ("e", "test")
        else:
            assert case.mask.read_bytes() == (nnunet / f"labelsTr/{case.name}.nii.gz").read_bytes()
    assert all(problem.note for problem in check_dataset(dataset.root))
    case = dataset.split("train")[0]
    stored = nib.load(nnunet / f"labelsTr/{case.name}.nii.gz").get_fdata()
    np.testing.assert_array_equal(read_pair(dataset, case)[1], stored[:, ::-1].T)  # y grows to A


def test_version_1_names_labels_by_their_values(nnunet, bring):
    old = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver", "2": "tumour"}}
    training = [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}]
    (nnunet / "dataset.json").write_text(json.dumps({**old, "training": training}))
    dataset, done = bring(nnunet)
    assert done.layout == "nnunet"
    assert dataset.labels == {1: "liver", 2: "tumour"}
    assert len(dataset.cases) == 5


@pytest.mark.parametrize("place", ["raw", "preprocessed"])
def test_fold_0_is_kept(nnunet, bring, place):
    folder = nnunet if place == "raw" else nnunet.parents[1] / "nnUNet_preprocessed" / nnunet.name
    folder.mkdir(parents=True, exist_ok=True)
    folds = [{"train": ["a", "c"], "val": ["b", "d"]}, {"train": ["b", "d"], "val": ["a", "c"]}]
    (folder / "splits_final.json").write_text(json.dumps(folds))
    dataset, _ = bring(nnunet)
    splits = {case.name: case.split for case in dataset.cases}
    assert splits == {"a": "train", "c": "train", "b": "val", "d": "val", "e": "test"}


def test_masks_of_the_test_cases_are_found(nnunet, bring):
    save(nnunet / "labelsTs/e.nii.gz", np.ones((6, 5, 4), np.uint8))
    dataset, _ = bring(nnunet)
    (test,) = dataset.split("test")  # no other case joins a test split that the source has
    assert test.mask is not None


def test_one_of_several_channels_is_chosen(nnunet, bring):
    for case in "abcd":
        save(nnunet / f"imagesTr/{case}_0001.nii.gz", volume())
    save(nnunet / "imagesTs/e_0001.nii.gz", volume())
    edit(nnunet, channel_names={"0": "CT", "1": "PET"})
    with pytest.raises(UserError, match=r"2 channels \(0 CT, 1 PET\); choose one with --channel"):
        bring(nnunet)
    with pytest.raises(UserError, match="no channel 2"):
        bring(nnunet, channel=2)
    dataset, _ = bring(nnunet, channel=1)
    assert dataset.modality == "PET"
    image = next(case.image for case in dataset.cases if case.name == "a")
    assert image.read_bytes() == (nnunet / "imagesTr/a_0001.nii.gz").read_bytes()


def test_pictures_of_nnunet(tmp_path, bring):
    root = tmp_path / "Dataset001_Road"
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for case in ("a", "b"):
        Image.fromarray(RANDOM.integers(0, 256, (7, 9, 3), np.uint8)).save(
            root / f"imagesTr/{case}_0000.png"
        )
        Image.fromarray(np.eye(7, 9, dtype=np.uint8)).save(root / f"labelsTr/{case}.png")
    task = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "road": 1}}
    (root / "dataset.json").write_text(json.dumps({**task, "file_ending": ".png"}))
    with pytest.raises(UserError, match="does not give one modality; add --modality"):
        bring(root)
    dataset, _ = bring(root, modality="colonoscopy")  # a near word
    assert (dataset.dimensions, dataset.modality) == (2, "endoscopy")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": {"background": 0, "whole": [1, 2], "core": 2}}, "'whole' the values.*a region"),
        ({"labels": {"background": 0, "liver": 1, "ignore": 2}}, "2 to pixels.*to be ignored"),
        ({"labels": {"background": 0, "liver": "x"}}, "the value 'x'"),
        ({"labels": {}}, "has no table `labels`"),
        ({"labels": {"background": 0, "liver": 70000}}, "label '70000' in .labels. is not a whole"),
        ({"dataset": {}}, "lists its files under `dataset`"),
    ],
)
def test_labels_that_cannot_be_obeyed(nnunet, bring, tmp_path, changes, said):
    edit(nnunet, **changes)
    with pytest.raises(UserError, match=said):
        bring(nnunet)
    assert not (tmp_path / "out").exists()


def test_a_missing_mask_or_an_unknown_case_is_named(nnunet, bring):
    (nnunet / "labelsTr/b.nii.gz").rename(nnunet / "b.nii.gz")
    with pytest.raises(UserError, match=r"labelsTr: has no mask of b \(1 case\)"):
        bring(nnunet)
    (nnunet / "b.nii.gz").rename(nnunet / "labelsTr/b.nii.gz")
    (nnunet / "splits_final.json").write_text(json.dumps([{"train": ["z"], "val": []}]))
    with pytest.raises(UserError, match="not in imagesTr, such as z"):
        bring(nnunet)


def test_decathlon(decathlon, bring):
    dataset, done = bring(decathlon)
    assert done.layout == "msd"
    assert "4 hidden files were left out, such as those with ._ of macOS" in done.notes
    assert (dataset.name, dataset.modality) == ("Liver", "MR")
    assert dataset.labels == {1: "liver", 2: "tumour"}
    assert dataset.licence == "CC-BY-SA 4.0"
    assert len(dataset.cases) == 5
    for case in dataset.cases:
        folder = "imagesTs" if case.mask is None else "imagesTr"
        assert case.image.read_bytes() == (decathlon / folder / case.image.name).read_bytes()
    assert all(problem.note for problem in check_dataset(dataset.root))


def test_pairs_for_validation_are_kept(decathlon, bring):
    pairs = json.loads((decathlon / "dataset.json").read_text())["training"]
    edit(decathlon, training=pairs[1:], validation=pairs[:1])
    dataset, _ = bring(decathlon)
    assert [case.name for case in dataset.split("val")] == ["liver_0"]


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_channel_of_four_axes_keeps_values_and_grid(decathlon, bring, dtype):
    edit(decathlon, modality={"0": "FLAIR", "1": "T1w"})
    stored = {}
    for number in range(4):
        stored[f"liver_{number}"] = values = volume((6, 5, 4, 2)).astype(dtype)
        save(decathlon / f"imagesTr/liver_{number}.nii.gz", values)
    with pytest.raises(UserError, match="0 FLAIR, 1 T1w"):
        bring(decathlon)
    save(decathlon / "imagesTs/liver_9.nii.gz", volume((6, 5, 4, 2)).astype(dtype))
    dataset, _ = bring(decathlon, channel=1)
    assert dataset.modality == "MR"
    for case in dataset.cases:
        image = nib.load(case.image)
        assert (image.shape, image.get_data_dtype()) == ((6, 5, 4), dtype)
        np.testing.assert_array_equal(image.affine, AFFINE)
        if case.mask is not None:
            np.testing.assert_array_equal(np.asarray(image.dataobj), stored[case.name][..., 1])
    assert all(problem.note for problem in check_dataset(dataset.root))


def test_a_scale_of_a_channel_is_kept(decathlon, bring):
    path = decathlon / "imagesTr/liver_0.nii.gz"
    for number in range(4):
        image = nib.Nifti1Image(volume((6, 5, 4, 2)), AFFINE)
        image.header.set_slope_inter(0.5, -7)
        image.to_filename(decathlon / f"imagesTr/liver_{number}.nii.gz")
    dataset, _ = bring(decathlon, channel=0)
    image = next(case.image for case in dataset.cases if case.name == "liver_0")
    np.testing.assert_allclose(
        nib.load(image).get_fdata(), nib.load(path).get_fdata()[..., 0], atol=1e-9
    )


def test_files_that_the_decathlon_lists_must_exist(decathlon, bring):
    (decathlon / "labelsTr/liver_2.nii.gz").unlink()
    with pytest.raises(UserError, match=r"lists 'labelsTr/liver_2.nii.gz', which is missing"):
        bring(decathlon)
