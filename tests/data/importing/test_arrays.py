"""npz files of the CVPR 2024 challenge, and MedSAM's npy files."""

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from medsaga_lib.data.cases import read_pair
from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.data.check import check_dataset
from medsaga_lib.data.importing.found import LabelMap
from medsaga_lib.errors import UserError

RANDOM = np.random.default_rng(6)
# A volume whose slices are 1 voxel wide could be an image with one channel: it is refused.
SHAPES = hnp.array_shapes(min_dims=2, max_dims=3, max_side=6).filter(
    lambda shape: len(shape) < 3 or shape[-1] > 1
)


@settings(max_examples=40)
@given(hnp.arrays(np.int64, SHAPES, elements=st.integers(0, 2**16 - 1)), st.booleans())
def test_masks_come_back_exactly(tmp_path_factory, values, spaced):
    from medsaga_lib.data.images import read_labels

    folder = tmp_path_factory.mktemp("mask")
    spacing = (2.5, 0.75, 0.5) if spaced and values.ndim == 3 else None
    path = LabelMap(lambda: (values, spacing)).write(folder / "a.b", None)
    stored = read_labels(path)
    np.testing.assert_array_equal(stored.values, values)
    if spacing is not None:
        assert stored.spacing == pytest.approx(spacing)
        np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), values.T)
    elif values.ndim == 2:
        np.testing.assert_array_equal(np.asarray(Image.open(path)), values)
    else:
        assert path.name == "a.b.npz"  # a NIfTI file would claim a spacing


def test_challenge_in_three_dimensions(tmp_path, bring):
    root = tmp_path / "npz"
    root.mkdir()
    volumes = {}
    for number in range(4):
        imgs = RANDOM.integers(0, 256, (3, 6, 5), np.uint8)
        gts = volumes[f"CT_Abd_{number}"] = RANDOM.integers(0, 3, (3, 6, 5), np.uint8)
        spacing = np.array([0.5, 0.75, 4.0])  # x, y, z
        np.savez(root / f"CT_Abd_{number}.npz", imgs=imgs, gts=gts, spacing=spacing)
    np.savez(root / "CT_Abd_9.npz", imgs=imgs, spacing=spacing, boxes=np.array([[0] * 6]))
    dataset, done = bring(root)
    assert done.layout == "cvpr24"
    assert (dataset.modality, dataset.dimensions) == ("CT", 3)
    assert dataset.labels == {1: "label 1", 2: "label 2"}
    assert any(note.startswith("the source does not name the labels 1, 2") for note in done.notes)
    for case in dataset.cases:
        assert case.image.read_bytes() == (root / f"{case.name}.npz").read_bytes()
        if case.name == "CT_Abd_9":
            assert case.mask is None
            continue
        picture, labels = read_pair(dataset, case)
        np.testing.assert_array_equal(labels, volumes[case.name])
        assert picture.spacing == (4.0, 0.75, 0.5)
        assert nib.load(case.mask).header.get_zooms() == (0.5, 0.75, 4.0)
    assert all(problem.note for problem in check_dataset(dataset.root))


def test_challenge_in_two_dimensions_with_masks_apart(tmp_path, bring):
    for folder in ("imgs", "gts"):
        (tmp_path / "box" / folder).mkdir(parents=True)
    for number in range(3):
        name = f"2DBox_X-Ray_{number}.npz"
        np.savez(tmp_path / "box/imgs" / name, imgs=RANDOM.integers(0, 256, (6, 5, 3), np.uint8))
        np.savez(tmp_path / "box/gts" / name, gts=np.eye(6, 5, dtype=np.uint8))
    dataset, _ = bring(tmp_path / "box", labels={1: "lung"})
    assert (dataset.modality, dataset.dimensions) == ("X-ray", 2)
    assert dataset.labels == {1: "lung"}
    np.testing.assert_array_equal(np.asarray(Image.open(dataset.cases[0].mask)), np.eye(6, 5))


def test_a_source_without_masks(tmp_path, bring):
    (tmp_path / "npz").mkdir()
    np.savez(tmp_path / "npz/CT_a.npz", imgs=np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(UserError, match="no masks; give --labels to import it for prediction"):
        bring(tmp_path / "npz")
    dataset, _ = bring(tmp_path / "npz", labels={1: "liver"})
    assert [case.mask for case in dataset.cases] == [None]


def test_names_of_two_modalities_need_a_choice(tmp_path, bring):
    for name in ("CT_a", "MR_b"):
        np.savez(tmp_path / f"{name}.npz", imgs=np.zeros((2, 4, 4)), gts=np.ones((2, 4, 4), int))
    (tmp_path / "s").mkdir()
    for file in tmp_path.glob("*.npz"):
        file.rename(tmp_path / "s" / file.name)
    with pytest.raises(UserError, match="does not give one modality"):
        bring(tmp_path / "s")
    dataset, _ = bring(tmp_path / "s", modality="CT and MR")
    assert dataset.modality == "CT and MR"


@pytest.fixture
def medsam(tmp_path):
    """Slices of three volumes, as MedSAM's preparation writes them, but smaller."""
    root = tmp_path / "npy"
    for folder in ("imgs", "gts"):
        (root / folder).mkdir(parents=True)
    for case in ("0001", "0002", "0003"):
        for place in range(3):
            name = f"MR_Brain_{case}-{place:03d}.npy"
            np.save(root / "imgs" / name, RANDOM.random((16, 16, 3)))
            np.save(root / "gts" / name, RANDOM.integers(0, 3, (16, 16), np.uint8))
    return root


def test_npy_files_of_medsam(medsam, bring):
    dataset, done = bring(medsam)
    assert done.layout == "medsam-npy"
    assert (dataset.modality, dataset.dimensions) == ("MR", 2)
    assert {case.patient for case in dataset.cases} == {f"MR_Brain_000{n}" for n in (1, 2, 3)}
    for case in dataset.cases:
        picture, labels = read_pair(dataset, case)
        np.testing.assert_allclose(
            picture.pixels, np.load(medsam / "imgs" / f"{case.name}.npy"), atol=1e-6
        )
        np.testing.assert_array_equal(labels, np.load(medsam / "gts" / f"{case.name}.npy"))
    assert all(problem.note for problem in check_dataset(dataset.root))


def test_instances_have_no_labels(medsam, bring):
    with pytest.raises(UserError, match=r"--instances.*omit --labels"):
        bring(medsam, instances=True, labels={1: "cell"})
    dataset, _ = bring(medsam, instances=True)
    assert (dataset.masks, dataset.labels) == ("instances", {1: "object"})


def test_npy_files_need_their_partners(medsam, bring):
    (medsam / "gts/MR_Brain_0002-001.npy").unlink()
    with pytest.raises(UserError, match=r"gts: lacks 1 file that imgs has, such as MR_Brain_0002"):
        bring(medsam)
    (medsam / "imgs/MR_Brain_0002-001.npy").unlink()
    with pytest.raises(UserError, match="omit --channel"):
        bring(medsam, channel=0)


@pytest.mark.parametrize(
    ("gts", "said"),
    [
        (np.full((16, 16), 0.5), "fractional"),
        (np.full((16, 16), -1), "holds the value -1"),
        (np.full((16, 16), 2**16), "label value 65536"),
        (np.arange(300).repeat(2).reshape(20, 30), "more than 255 values.*--instances"),
    ],
)
def test_masks_that_are_no_label_maps(medsam, bring, tmp_path, gts, said):
    for file in (medsam / "gts").iterdir():
        np.save(file, gts)
    with pytest.raises(UserError, match=said):
        bring(medsam)
    assert not (tmp_path / "out").exists()


def test_a_mask_of_another_size_is_found_by_the_check(medsam, bring):
    np.save(medsam / "gts/MR_Brain_0001-000.npy", np.ones((16, 15), np.uint8))
    dataset, _ = bring(medsam)
    (problem,) = [p for p in check_dataset(dataset.root) if not p.note]
    assert problem.file.endswith("masks/MR_Brain_0001-000.png")
    assert problem.what == "is 16 x 15, but its image is 16 x 16"


def test_a_folder_of_npy_files_is_a_data_set(medsam, tmp_path):
    rows = [f"{p.stem},imgs/{p.name},gts/{p.name},train" for p in (medsam / "imgs").iterdir()]
    (medsam / "index.csv").write_text("case,image,mask,split\n" + "\n".join(rows) + "\n")
    (medsam / "dataset.toml").write_text(
        'name = "m"\nmodality = "MR"\ndimensions = 2\nmasks = "labels"\n'
        '[labels]\n1 = "a"\n2 = "b"\n'
    )
    assert all(problem.note for problem in check_dataset(medsam))
    assert len(open_dataset(medsam).cases) == 9
