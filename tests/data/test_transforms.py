"""Augmentation depends on the seed alone, and moves image and label together."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medsaga_lib.data.transforms import SMALL_SHIFT, Augment, move
from medsaga_lib.errors import UserError

SEEDS = st.integers(0, 2**32 - 1)


def blobs(size: int = 64) -> dict[str, torch.Tensor]:
    """A picture whose grey values give the label: label k has the value k / 4."""
    y, x = np.mgrid[:size, :size] / size
    label = np.zeros((size, size), np.int64)
    label[(x - 0.3) ** 2 + (y - 0.45) ** 2 < 0.04] = 1
    label[(x - 0.7) ** 2 + (y - 0.55) ** 2 < 0.03] = 2
    label[(x - 0.55) ** 2 + (y - 0.25) ** 2 < 0.01] = 3
    image = torch.from_numpy(label / 4).float().expand(3, -1, -1)
    return {"image": image, "label": torch.from_numpy(label)}


@pytest.mark.parametrize("kind", ["samed", "small", "flips", "none"])
@settings(max_examples=40)
@given(seed=SEEDS)
def test_the_seed_decides_everything(kind, seed):
    sample = blobs()
    before = {key: value.clone() for key, value in sample.items()}
    torch.manual_seed(seed % 7)
    once = Augment(kind)(sample, seed)
    torch.manual_seed(seed % 5 + 10)
    again = Augment(kind)(sample, seed)
    for key in sample:
        assert torch.equal(once[key], again[key])
        assert torch.equal(sample[key], before[key])  # the sample itself stays as it was
        assert once[key].shape == sample[key].shape
        assert once[key].dtype == sample[key].dtype
    assert once["image"].min() >= 0
    assert once["image"].max() <= 1


@pytest.mark.parametrize("kind", ["samed", "small"])
def test_seeds_differ(kind):
    results = {Augment(kind)(blobs(), seed)["label"].numpy().tobytes() for seed in range(40)}
    assert len(results) >= (12 if kind == "samed" else 40)


def test_flips_are_of_each_axis_with_a_half():
    sample, found = blobs(), []
    for seed in range(400):
        flipped = Augment("flips")(sample, seed)
        (axes,) = [
            axes
            for axes in ([], [0], [1], [0, 1])
            if flipped["label"].equal(sample["label"].flip(axes))
        ]
        assert flipped["image"].equal(sample["image"].flip([axis + 1 for axis in axes]))
        found.append(axes)
    spread = 5 * (400 * 0.25 * 0.75) ** 0.5  # five standard deviations
    for axes in ([], [0], [1], [0, 1]):
        assert abs(found.count(axes) - 100) < spread


@settings(max_examples=60)
@given(seed=SEEDS)
def test_samed_keeps_image_and_label_together(seed):
    moved = Augment("samed")(blobs(), seed)
    inside = torch.from_numpy(np.stack([
        ndimage.binary_erosion(moved["label"].numpy() == k, iterations=2) for k in range(4)
    ]))  # fmt: skip
    for k in range(4):  # away from edges, where neighbours are mixed
        assert torch.allclose(moved["image"][0][inside[k]], torch.tensor(k / 4), atol=1e-5)


@settings(max_examples=60)
@given(seed=SEEDS)
def test_small_keeps_image_and_label_together_and_the_sides(seed):
    moved = Augment("small")(blobs(), seed)
    label, grey = moved["label"].numpy(), moved["image"][0].numpy()
    means = []
    for k in (1, 2, 3):
        inside = ndimage.binary_erosion(label == k, iterations=2)
        assert inside.sum() > 20
        assert np.ptp(grey[inside]) < 1e-4  # one grey value for one label
        means.append(grey[inside].mean())
    assert means == sorted(means)  # gain, bias and gamma keep the order
    centres = [ndimage.center_of_mass(label == k)[1] for k in (1, 2)]
    assert centres[0] < centres[1]  # the picture's left stays left


def test_samed_draws_turns_and_flips_half_of_the_time():
    sample = blobs(64)  # where a rotation by one degree moves the corners by one pixel
    sample["label"] = torch.arange(64**2).reshape(64, 64)
    turns = [sample["label"].rot90(k, (0, 1)).flip(axis) for k in range(4) for axis in (0, 1)]
    kinds = []
    for seed in range(800):
        label = Augment("samed")(sample, seed)["label"]
        same = torch.equal(label, sample["label"])
        turned = any(torch.equal(label, turn) for turn in turns)
        kinds.append("turn" if turned else "none" if same else "rotation")
    for kind, share in {"turn": 0.5, "rotation": 0.25, "none": 0.25}.items():
        spread = 4 * math.sqrt(800 * share * (1 - share))  # of a binomial; four sigma
        assert abs(kinds.count(kind) - 800 * share) < spread


@pytest.mark.parametrize("degrees", [-20, 7, 13])
def test_rotation_is_scipys(degrees):
    random = np.random.default_rng(0)
    image = ndimage.gaussian_filter(random.random((48, 48)), 2).astype(np.float32)
    sample = {"image": torch.from_numpy(image)[None], "label": torch.zeros(48, 48).long()}
    ours = move(sample, math.radians(degrees))["image"][0].numpy()
    theirs = ndimage.rotate(image, degrees, reshape=False, order=1)
    np.testing.assert_allclose(ours[8:-8, 8:-8], theirs[8:-8, 8:-8], atol=1e-5)


def test_scale_and_shift():
    sample = blobs(200)
    y, x = ndimage.center_of_mass(sample["label"].numpy() == 1)
    moved = move(sample, 0, 1.2, (0.05, -0.02))["label"].numpy()
    there = ndimage.center_of_mass(moved == 1)
    centre = 99.5
    np.testing.assert_allclose(there[0], centre + 1.2 * (y - centre) + 10, atol=0.6)
    np.testing.assert_allclose(there[1], centre + 1.2 * (x - centre) - 4, atol=0.6)
    grown = (moved == 1).sum() / (sample["label"] == 1).sum().item()
    assert grown == pytest.approx(1.44, rel=0.02)


def test_rotation_of_a_picture_that_is_not_square_keeps_shapes():
    label = torch.zeros(60, 120).long()
    label[20:40, 50:70] = 1  # a square in the middle
    turned = move({"image": label[None].float(), "label": label}, math.pi / 2)["label"]
    assert turned.sum() == pytest.approx(400, abs=25)
    rows, columns = np.nonzero(turned.numpy())
    assert abs(np.ptp(rows) - np.ptp(columns)) <= 1


def test_small_shifts_stay_in_their_range():
    size = 100
    label = torch.zeros(size, size).long()
    label[48:52, 48:52] = 1
    sample = {"image": torch.zeros(3, size, size), "label": label}
    centres = np.array([
        ndimage.center_of_mass(Augment("small")(sample, seed)["label"].numpy())
        for seed in range(200)
    ])  # fmt: skip
    spread = np.abs(centres - 49.5).max(0)
    assert (spread < 100 * SMALL_SHIFT + 1).all()
    assert (spread > 100 * SMALL_SHIFT * 0.8).all()


def test_other_entries_pass_through():
    sample = blobs() | {"weight": torch.tensor(2.0)}
    assert Augment("small")(sample, 1)["weight"] == 2


def test_unknown_kind():
    with pytest.raises(UserError, match="No augmentation 'strong'; use samed, small, flips, none"):
        Augment("strong")
