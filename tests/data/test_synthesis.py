"""Pasted organs: exact labels, backgrounds without organs, and everything follows the seed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import affine_transform, distance_transform_edt, gaussian_filter

from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.data.samples import Samples
from medsaga_lib.data.shots import choose_shots
from medsaga_lib.data.synthesis import SOFT, Pasting, Synthesis, backgrounds, filled
from medsaga_lib.data.transforms import Augment
from medsaga_lib.errors import UserError

SIZE = 48
ALWAYS = Synthesis(share=1.0)
SMALL_SEED = st.integers(0, 2**32 - 1)


def exemplar(seed, classes, reach=14):
    """A noisy picture with discs. Red is 1 in organs and 0 elsewhere; some labels are absent."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    label = np.zeros((SIZE, SIZE), int)
    for value in random.permutation(classes)[: 1 + random.integers(classes)] + 1:
        y, x = random.integers(SIZE // 2 - reach, SIZE // 2 + reach, 2)
        label[(rows - y) ** 2 + (columns - x) ** 2 < random.integers(1, 9) ** 2] = value
    image = random.random((3, SIZE, SIZE), dtype=np.float32)
    image[0] = label > 0
    return {"image": torch.from_numpy(image), "label": torch.from_numpy(label)}


def pasting(sample, classes, config=ALWAYS, augment="none"):
    ground = filled(sample["image"], sample["label"] > 0)
    return Pasting(config, [ground], classes, Augment(augment))


@settings(max_examples=30)
@given(SMALL_SEED, st.integers(1, 4))
def test_the_label_is_the_moved_mask_where_it_covers_more_than_half(seed, classes):
    """Against SciPy's affine transformation, about the middle of the organs."""
    sample = exemplar(seed, classes)
    _, soft = pasting(sample, classes)._organs(sample, np.random.default_rng(seed))

    random = np.random.default_rng(seed)
    label = sample["label"].numpy()
    if classes == 1 and random.random() < 0.5:
        label = label[:, ::-1]
    turn, scale, *shift = random.uniform(-1, 1, 4)
    angle, factor = np.deg2rad(ALWAYS.turn) * turn, 1 + ALWAYS.scale * scale
    middle = np.argwhere(label).mean(0)
    inverse = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / factor
    offset = middle - inverse @ (middle + SIZE * ALWAYS.shift * np.array(shift))
    for value, layer in enumerate(soft, start=1):
        if not layer.any():  # too small to show
            continue
        moved = affine_transform(
            (label == value).astype(float), inverse, offset, order=1, mode="grid-constant"
        )
        expected = gaussian_filter(moved, SOFT * SIZE, mode="nearest")
        np.testing.assert_allclose(layer, expected, atol=2e-4)

    result = pasting(sample, classes).paste(sample, np.random.default_rng([seed, 7]))
    ground, random = pasting(sample, classes), np.random.default_rng([seed, 7])
    ground._ground(random)
    _, soft = ground._organs(sample, random)
    assert (result["label"] > 0).equal(soft.sum(0) > 0.5)
    for value in range(1, classes + 1):
        shown = result["label"] == value
        assert soft[value - 1][shown].equal(soft.max(0).values[shown])


@settings(max_examples=50)
@given(SMALL_SEED, st.integers(1, 4))
def test_no_organ_is_left_where_the_label_says_background(seed, classes):
    sample = exemplar(seed, classes)
    result = pasting(sample, classes)(sample, seed)
    assert set(result["label"].unique().tolist()) <= {0, *sample["label"].unique().tolist()}
    assert result["label"].dtype == sample["label"].dtype
    assert 0 <= result["image"].min() <= result["image"].max() <= 1
    calm = Synthesis(1.0, gain=0, bias=0, blur=0)
    result = pasting(sample, classes, calm)(sample, seed)
    red = (result["image"][0] > 0.05).numpy()
    if not result["label"].any():
        assert not red.any()
        return
    away = distance_transform_edt(result["label"] == 0)
    assert away[red].max(initial=0) <= 3  # the soft edge, and half a pixel of moving


@given(SMALL_SEED)
def test_filling_leaves_nothing_of_the_organ_and_the_rest_as_it_was(seed):
    sample = exemplar(seed, 3)
    mask = sample["label"] > 0
    image = filled(sample["image"], mask)
    assert image[0].abs().max() < 1e-6
    far = distance_transform_edt(~mask.numpy()) > 3
    assert image[:, far].equal(sample["image"][:, far])
    assert image.min() >= sample["image"].min()  # the maximum principle
    assert image.max() <= sample["image"].max()


def test_filling_continues_a_slope():
    """A plane solves Laplace's equation."""
    plane = (torch.arange(64.0)[:, None] + 2 * torch.arange(64.0))[None] / 200
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[20:40, 10:50] = True
    torch.testing.assert_close(filled(plane, mask), plane, atol=1e-5, rtol=0)


def test_a_sample_depends_on_its_seed_alone():
    sample = exemplar(1, 2)
    paste = pasting(sample, 2, augment="small")
    before = torch.random.get_rng_state()
    np.random.seed(0)
    one, again, other = (paste(sample, seed)["image"] for seed in (3, 3, 4))
    assert one.equal(again)
    assert not one.equal(other)
    assert torch.random.get_rng_state().equal(before)


def test_the_share_of_synthesised_samples():
    sample = exemplar(1, 2)
    paste = pasting(sample, 2, Synthesis(share=0.3))
    made = [not paste(sample, seed)["image"].equal(sample["image"]) for seed in range(300)]
    assert 0.3 * 300 - 30 < sum(made) < 0.3 * 300 + 30  # 3.8 standard deviations
    untouched = Pasting(Synthesis(share=0.0), [], 2, Augment("none"))
    assert untouched(sample, 0) is sample


def test_backgrounds_of_volumes_are_their_slices_without_a_label(volumes):
    """Slices 2, 3 and 6 of 8 are labelled; their value grows by a tenth from slice to slice."""
    samples = choose_shots(volumes, 2, 16, seed=0)
    found = backgrounds(samples, volumes)
    assert len(found) == 4  # two exemplars filled in, and no more than two slices
    levels = [round(10 * image.mean().item()) for image in found[2:]]
    assert set(levels) <= {1, 4, 5, 7}  # the neighbours of the labelled slices
    assert all(image.std() < 1e-6 for image in found)


def test_only_exemplars_become_backgrounds(tiny):
    """Another picture of the data set may contain organs that nobody has labelled."""
    dataset = open_dataset(tiny)
    samples = Samples(dataset, dataset.cases[:2], 32)
    for case in dataset.cases[2:]:
        case.image.unlink()
    found = backgrounds(samples, dataset)
    for i, image in enumerate(found):
        away = distance_transform_edt(samples[i]["label"] == 0) > 3
        assert image[:, away].equal(samples[i]["image"][:1, away])
    assert len(found) == 2


def test_an_exemplar_that_is_all_organ_gives_no_background(tiny):
    dataset = open_dataset(tiny)
    samples = Samples(dataset, dataset.cases[:1], 32)
    samples[0]  # decoded and kept
    (slices,) = samples._cache.values()
    slices.labels.fill_(1)
    with pytest.raises(UserError, match=r"cover more than 60% of every exemplar"):
        backgrounds(samples, dataset)


def test_real_pictures_are_pasted(real_data):
    dataset = open_dataset("polyp_kvasir")
    samples = choose_shots(dataset, 3, 64, seed=0)
    paste = Pasting(ALWAYS, backgrounds(samples, dataset), 1, Augment("none"))
    for i in range(3):
        result = paste(samples[i], i)
        there, before = result["label"].sum(), samples[i]["label"].sum()
        assert 0.4 * before < there < 1.5 * before  # (1 - 0.2)^2 to (1 + 0.2)^2, less what is cut
