"""The chest phantom looks like a chest by numbers: sides, sizes and brightness as in real pictures.

The ranges are those of the 77 masks of cxr_hannover_lungs, widened by `MARGIN`. Their left lung
includes what lies behind the heart, so the phantom's is compared together with it.
"""

import hashlib
import os

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.data.check import check_dataset
from medsaga_lib.data.chest import LABELS
from medsaga_lib.data.chest.anatomy import VIEWS, Anatomy, View
from medsaga_lib.data.chest.body import Body
from medsaga_lib.data.phantoms import (
    draw_phantom,
    draw_volume,
    write_once,
    write_phantoms,
)
from medsaga_lib.data.samples import Samples
from medsaga_lib.errors import UserError

MARGIN = 0.02


@pytest.fixture(scope="module")
def chests():
    """Picture, labels and projection of 24 patients."""
    return [draw_phantom(seed=5, patient=number, visit=0) for number in range(24)]


def measure(region):
    """Area, centre (x, y), width and height as fractions of the picture."""
    rows, columns = np.nonzero(region)
    height, width = region.shape
    wide = (np.ptp(columns) + 1) / width
    return region.mean(), columns.mean() / width, rows.mean() / height, wide, np.ptp(rows) / height


def test_pictures_are_8_bit_with_the_three_labels(chests):
    for _, picture, labels in chests:
        assert picture.dtype == labels.dtype == np.uint8
        assert picture.shape == labels.shape
        assert picture.shape[1] == 320
        assert 260 <= picture.shape[0] <= 352
        assert set(np.unique(labels)) == {0, *LABELS}


def test_every_organ_is_in_one_piece(chests):
    for _, _, labels in chests:
        for label in LABELS:
            pieces, count = ndimage.label(labels == label)
            sizes = np.bincount(pieces.ravel())[1:]
            assert sizes.max() > 0.99 * sizes.sum(), (label, count)


def test_sides(chests):
    """The patient's right is on the picture's left; the heart lies to the patient's left."""
    for _, _, labels in chests:
        right, left, heart = (measure(labels == label)[1] for label in (1, 2, 3))
        assert right < 0.45 < 0.6 < left
        middle = (np.nonzero(labels == 1)[1].min() + np.nonzero(labels == 2)[1].max()) / 2
        assert right < middle / labels.shape[1] < heart < left


def test_right_dome_is_higher():
    """The domes are compared below the middle of each lung, before the patient is turned."""
    for number in range(40):
        random = np.random.default_rng(number)
        projection = ("PA", "AP")[number % 2]
        body = Body(Anatomy.draw(random), View.draw(random, projection), projection)
        bottoms = []
        for label, others in ((1, 0), (2, 3)):  # the heart hides a part of the left lung
            columns = np.nonzero(body.labels == label)[1]
            middle = (columns.min() + columns.max()) // 2
            bottoms.append(
                np.nonzero(np.isin(body.labels[:, middle], (label, others or label)))[0].max()
            )
        assert bottoms[0] < bottoms[1]


def test_sizes_are_those_of_real_lungs(chests):
    right = np.array([measure(labels == 1) for _, _, labels in chests])
    left = np.array([
        measure((labels == 2) | ((labels == 3) & (np.arange(320) > 160))) for *_, labels in chests
    ])  # fmt: skip
    real = {  # area, x, y, width, height: least and largest of the 77
        "right": ([0.10, 0.14, 0.26, 0.28, 0.46], [0.29, 0.38, 0.61, 0.52, 0.98]),
        "left": ([0.12, 0.56, 0.29, 0.28, 0.48], [0.33, 0.83, 0.62, 0.48, 0.96]),
    }
    medians = {"right": [0.17, 0.27, 0.44, 0.37, 0.67], "left": [0.20, 0.72, 0.47, 0.39, 0.70]}
    for name, found in {"right": right, "left": left}.items():
        low, high = real[name]
        assert (found > np.array(low) - MARGIN).all()
        assert (found < np.array(high) + MARGIN).all()
        np.testing.assert_allclose(np.median(found, 0), medians[name], atol=0.06)
    ratio = right[:, 0] / left[:, 0]
    assert (ratio > 0.62).all()  # 0.62 to 1.19 in the real masks
    assert (ratio < 1.19).all()


def test_heart_takes_about_half_of_the_chest(chests):
    for _, _, labels in chests:
        heart, lungs = (np.ptp(np.nonzero(part)[1]) for part in (labels == 3, labels > 0))
        assert (
            0.38 < heart / lungs < 0.65
        )  # cardiothoracic ratio: 0.42 to 0.5 standing, more in bed


def test_lungs_are_darker_than_what_surrounds_them(chests):
    for _, picture, labels in chests:
        lungs = np.isin(labels, (1, 2))
        around = ndimage.binary_dilation(lungs, iterations=12) & ~ndimage.binary_dilation(
            labels > 0, iterations=3
        )
        assert picture[lungs].mean() + 8 < picture[around].mean()
        assert picture[lungs].mean() + 20 < picture[labels == 3].mean()
        assert 0.25 < picture[labels > 0].mean() / 255 < 0.65  # 0.29 to 0.62 in the real ones


def test_ribs_cross_the_lungs():
    """Down the middle of each lung there are about 8 ribs behind and as many in front."""
    for number in range(6):
        random = np.random.default_rng(number)
        anatomy, view = vars(Anatomy.draw(random)), View.draw(random, "PA")
        with_bones, without = (
            Body(Anatomy(**{**anatomy, "bone": bone}), view, "PA") for bone in (1.0, 0.0)
        )
        bones = with_bones.density(np.random.default_rng(1)) - without.density(
            np.random.default_rng(1)
        )
        for label in (1, 2):
            columns = np.nonzero(with_bones.labels == label)[1]
            middle = (columns.min() + columns.max()) // 2
            inside = bones[with_bones.labels[:, middle] == label, middle]
            bands = ndimage.label(inside > 0.02)[1]
            assert 6 <= bands <= 18
            assert 0.25 < (inside > 0.02).mean() < 0.9  # gaps between the ribs remain


def test_patients_share_anatomy_and_differ_in_pose():
    first, second = draw_phantom(1, 3, 0), draw_phantom(1, 3, 1)
    assert not np.array_equal(first[2], second[2])
    ratios = []
    for patient in range(12):
        widths = []
        for visit in (0, 1):
            labels = draw_phantom(1, patient, visit)[2]
            wide = [np.ptp(np.nonzero(part)[1]) for part in (labels == 3, labels > 0)]
            widths.append(wide[0] / wide[1])
        ratios.append(widths)
    within = np.abs(np.diff(ratios, axis=1)).mean()
    others = np.abs(np.subtract.outer(*np.array(ratios).T))
    assert within < others[~np.eye(12, dtype=bool)].mean()


def test_anatomy_and_views_stay_in_their_ranges():
    for seed in range(50):
        random = np.random.default_rng(seed)
        for projection, ranges in VIEWS.items():
            for name, value in vars(View.draw(random, projection)).items():
                assert ranges[name][0] <= value <= ranges[name][1]


def digest(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root): hashlib.sha256(path.read_bytes()).digest() for path in files}


def test_the_same_bytes_every_time(tmp_path):
    for name in ("a", "b"):
        write_phantoms(tmp_path / name, patients=3, pictures=4, seed=2)
    write_phantoms(tmp_path / "c", patients=3, pictures=4, seed=3)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert digest(tmp_path / "a") != digest(tmp_path / "c")


def test_folder_passes_the_check_and_is_split_by_patient(tmp_path):
    write_phantoms(tmp_path, patients=10, pictures=12, seed=0)
    assert check_dataset(tmp_path) == []
    dataset = open_dataset(tmp_path)
    assert (dataset.name, dataset.labels) == ("phantom_cxr", LABELS)
    assert len(dataset.cases) == 12
    assert len({case.patient for case in dataset.cases}) == 10
    assert all(dataset.split(name) for name in ("train", "val", "test"))
    sample = Samples(dataset, dataset.split("train"), 64)[0]
    assert set(sample["label"].unique().tolist()) == {0, 1, 2, 3}


def test_opened_by_name_and_written_once(few_phantoms):
    dataset = open_dataset("phantom_cxr")
    assert len(dataset.cases) == 5
    assert dataset.root.parent == few_phantoms
    before = digest(dataset.root)
    times = [case.image.stat().st_mtime_ns for case in dataset.cases]
    again = open_dataset("phantom_cxr")
    assert [case.image.stat().st_mtime_ns for case in again.cases] == times
    assert digest(again.root) == before
    assert len(list(few_phantoms.iterdir())) == 1


def test_a_crash_leaves_nothing_half_written(few_phantoms, monkeypatch):
    def fail(path, *_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", fail)
        with pytest.raises(KeyboardInterrupt):
            write_once()
    assert list(few_phantoms.iterdir()) == []
    assert len(open_dataset("phantom_cxr").cases) == 5


def test_another_process_may_be_quicker(few_phantoms, monkeypatch):
    root = write_once()
    kept = digest(root)
    real = os.path.isdir
    seen = []

    def absent_at_first(path):
        seen.append(path)
        return len(seen) > 1 and real(path)

    monkeypatch.setattr(type(root), "is_dir", absent_at_first)
    assert write_once() == root
    assert digest(root) == kept
    assert len(list(few_phantoms.iterdir())) == 1


def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEDSAGA_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot be written to .*name another folder in \$MEDSAGA"):
        write_once()


def test_the_drawn_organ_leans_and_is_brighter_than_what_is_around_it():
    volume, labels = draw_volume(0)
    assert volume.pixels.shape == labels.shape
    assert volume.pixels[labels == 1].mean() > volume.pixels[labels == 0].mean() + 0.2
    shown = np.flatnonzero(labels.any((1, 2)))
    first, last = (ndimage.center_of_mass(labels[z]) for z in (shown[0], shown[-1]))
    assert last[0] - first[0] > 15
    assert first[1] - last[1] > 15
