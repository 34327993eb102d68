"""Clutter: the same for the same numbers, and never in a mask."""

from unittest.mock import Mock

import numpy as np
import torch

from medsaga_lib.data.procedural import procedural_scene
from medsaga_lib.pretraining import clutter
from medsaga_lib.pretraining.clutter import cluttered
from medsaga_lib.pretraining.pictures import Pictures, Settings


def test_same_numbers_give_the_same_pixels_and_others_do_not():
    scene = procedural_scene(3, 64)
    before = scene.image.copy()
    first, again, other = (
        cluttered(scene.image, scene.labels, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert first.shape == before.shape
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.3
    np.testing.assert_array_equal(scene.image, before)


def test_every_kind_is_drawn_and_fits_every_scene(monkeypatch):
    kinds = {"_dome": 0.5, "_bands": 0.3, "_spots": 0.3, "_lines": 0.2}
    kinds |= {"_veil": 0.6, "_without_detail": 0.4}
    spies = {name: Mock(wraps=getattr(clutter, name)) for name in kinds}
    for name, spy in spies.items():
        monkeypatch.setattr(clutter, name, spy)
    for seed in range(60):
        scene = procedural_scene(seed, 48)
        image = cluttered(scene.image, scene.labels, np.random.default_rng(seed))
        assert (image != scene.image).any()
    for name, share in kinds.items():
        spread = (share * (1 - share) / 60) ** 0.5
        assert abs(spies[name].call_count / 60 - share) < 3 * spread, name


def test_a_dome_rises_from_the_border_of_a_disc_as_a_circle_does():
    y, x = np.mgrid[-48:48, -48:48]
    disc = (x**2 + y**2 <= 40**2).astype(np.uint8)
    expected = np.sqrt(np.clip(1 - (x**2 + y**2) / 40**2, 0, None))
    inside = x**2 + y**2 <= 36**2  # pixels blur the rim, where a circle is steep
    np.testing.assert_allclose(clutter._dome(disc)[inside], expected[inside], atol=0.05)


def test_clutter_changes_a_share_of_the_pictures_and_no_target():
    settings = Settings(steps=1, size=32, pictures=40)
    tidy = Pictures(settings)[0]
    mixed = Pictures(Settings(steps=1, size=32, pictures=40, clutter=0.5))[0]
    same = (tidy["images"] == mixed["images"]).flatten(1).all(dim=1)
    assert 8 < int(same.sum()) < 32
    for key in tidy.keys() - {"images"}:
        assert torch.equal(tidy[key], mixed[key]), key
