"""Procedural pictures against brute force, and what every scene promises."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion, binary_fill_holes

from medsaga_lib.data.procedural import (
    BACKGROUND,
    DRAWN,
    FAMILIES,
    HELD_OUT,
    LARGEST,
    SMALLEST,
    TRAINED,
    procedural_scene,
)
from medsaga_lib.data.procedural.appearance import render
from medsaga_lib.data.procedural.canvas import MAXIMUM_OBJECTS, Canvas
from medsaga_lib.data.procedural.noise import smooth_noise
from medsaga_lib.data.procedural.projections import Cage, paint_trunks
from medsaga_lib.data.procedural.reliefs import _lit, paint_folds
from medsaga_lib.data.procedural.shapes import (
    blob_outline,
    fill_ellipses,
    fill_polygon,
    fill_tube,
)

SIZE = 48
seeds = st.integers(0, 2**32 - 1)


def picture(pixels: np.ndarray) -> np.ndarray:
    mask = np.zeros(SIZE * SIZE, bool)
    mask[pixels] = True
    return mask.reshape(SIZE, SIZE)


def inside_polygon(x: float, y: float, corners: np.ndarray) -> bool:
    """Even-odd rule, one ray to the left."""
    inside = False
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if (ay <= y) != (by <= y) and ax + (y - ay) * (bx - ax) / (by - ay) <= x:
            inside = not inside
    return inside


@settings(deadline=None, max_examples=15)
@given(seed=seeds, corners=st.integers(3, 12))
def test_polygon_equals_brute_force(seed, corners):
    points = np.random.default_rng(seed).uniform(-0.3 * SIZE, 1.3 * SIZE, (corners, 2))
    expected = [[inside_polygon(x, y, points) for x in range(SIZE)] for y in range(SIZE)]
    np.testing.assert_array_equal(picture(fill_polygon(points, SIZE)), expected)


def test_polygon_with_corners_on_pixels_holds_half_of_its_border():
    square = fill_polygon(np.array([(2, 3), (7, 3), (7, 6), (2, 6)]), SIZE)
    rows, columns = np.nonzero(picture(square))
    assert len(rows) == 5 * 3  # its area
    assert (columns.min(), columns.max()) == (2, 6)


@settings(deadline=None, max_examples=25)
@given(seed=seeds, count=st.integers(1, 6))
def test_ellipses_equal_brute_force(seed, count):
    rng = np.random.default_rng(seed)
    centres, angles = rng.uniform(-5, SIZE + 5, (count, 2)), rng.uniform(0, np.pi, count)
    radii = rng.uniform(0.5, 0.5 * SIZE, (count, 2))
    y, x = np.mgrid[:SIZE, :SIZE]
    expected = np.zeros((SIZE, SIZE), bool)
    for (x0, y0), (a, b), angle in zip(centres, radii, angles, strict=True):
        along = (x - x0) * np.cos(angle) + (y - y0) * np.sin(angle)
        across = (y - y0) * np.cos(angle) - (x - x0) * np.sin(angle)
        expected |= (along / a) ** 2 + (across / b) ** 2 <= 1
    np.testing.assert_array_equal(picture(fill_ellipses(centres, radii, angles, SIZE)), expected)


def test_tube_is_what_lies_near_its_path():
    path = np.stack([np.linspace(5, 40, 60), np.linspace(8, 30, 60)], axis=1)
    y, x = np.mgrid[:SIZE, :SIZE]
    distance = np.hypot(x - path[:, :1, None], y - path[:, 1:, None]).min(axis=0)
    mask = picture(fill_tube(path, np.full(60, 2.5), SIZE))
    np.testing.assert_array_equal(mask, distance <= 2.5)


def test_round_blob_has_the_area_of_a_circle():
    outline = blob_outline(np.random.default_rng(0), (24, 24), 15, roughness=0, stretch=1.3)
    assert len(fill_polygon(outline, SIZE)) == pytest.approx(np.pi * 15**2, rel=0.02)


def test_noise_passes_through_its_knots():
    """The spline interpolates: where a pixel lies on a knot, it has the knot's value."""
    noise = smooth_noise(np.random.default_rng(3), size=25, rows=5, columns=9)
    knots = np.random.default_rng(3).standard_normal((5, 9), np.float32)
    np.testing.assert_allclose(noise[::6, ::3], knots, atol=1e-5)


def test_parts_are_clipped_to_wholes_and_counted_in_them():
    canvas = Canvas(SIZE)
    whole = canvas.paint(np.arange(100))
    pair = canvas.group(whole)
    left = canvas.paint(np.arange(90, 110), pair)
    right = canvas.paint(np.arange(20, 30), pair)
    other = canvas.paint(np.arange(25, 40))
    assert np.bincount(canvas.labels)[[left, right, other]].tolist() == [10, 5, 15]
    assert np.flatnonzero(canvas.covers[whole]).tolist() == [whole, pair, left, right]
    assert np.flatnonzero(canvas.covers[pair]).tolist() == [pair, left, right]


def test_what_objects_share_is_a_part_of_each_and_no_object():
    canvas = Canvas(SIZE)
    whole = canvas.paint(np.arange(100))
    left = canvas.paint(np.arange(10, 40), whole)
    right = canvas.paint(np.arange(40, 60), whole)
    other = canvas.paint(np.arange(200, 220))
    canvas.overlap(np.arange(35, 45), (left, right))
    masks = canvas.covers[: len(canvas.parents), canvas.labels]
    found = [np.flatnonzero(masks[this]) for this in (whole, left, right, other)]
    expected = np.arange(100), np.arange(10, 45), np.arange(35, 60), np.arange(200, 220)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not masks[5].any()


def test_more_objects_than_labels_are_left_out():
    canvas = Canvas(SIZE)
    painted = [canvas.paint(np.array([i])) for i in range(MAXIMUM_OBJECTS + 5)]
    assert painted[MAXIMUM_OBJECTS - 1 :] == [MAXIMUM_OBJECTS] + 5 * [BACKGROUND]
    assert canvas.labels.max() == MAXIMUM_OBJECTS


@pytest.mark.parametrize("family", FAMILIES)
def test_scene_keeps_its_promises(family):
    for seed in range(6):
        scene = procedural_scene((seed, 1), size=64, families=[family])
        masks = scene.masks()
        assert scene.family == family
        assert scene.image.shape == (64, 64, 3)
        assert scene.image.dtype == np.uint8
        assert scene.image.std() > 1, "a picture shows something"
        area = masks.mean(axis=(1, 2))
        assert len(area) == len(scene) > 0
        assert area.min() > SMALLEST
        assert area.max() < LARGEST
        assert len(np.unique(masks.reshape(len(masks), -1), axis=0)) == len(masks)
        np.testing.assert_array_equal(scene.masks([0])[0], masks[0])
        if family == "trunks":
            continue  # organs are seen through each other
        # A hierarchy: two objects are apart, or one lies in the other
        common = masks.reshape(len(masks), -1).astype(int)
        common = common @ common.T
        smaller = np.minimum.outer(np.diag(common), np.diag(common))
        assert ((common == 0) | (common == smaller)).all()


def test_a_scene_is_a_function_of_its_seed():
    first, again = (procedural_scene((5, 7), size=64) for _ in range(2))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.masks(), again.masks())
    assert not np.array_equal(first.image, procedural_scene((5, 8), size=64).image)


def test_every_family_is_drawn_and_none_that_is_held_out():
    drawn = {procedural_scene((9, i), size=32).family for i in range(150)}
    assert drawn == set(TRAINED) == set(DRAWN)
    assert drawn.isdisjoint(HELD_OUT)


def test_walls_are_objects_and_have_holes():
    walls = 0
    for seed in range(20):
        masks = procedural_scene((seed, 3), size=96, families=["shells"]).masks()
        walls += sum(binary_fill_holes(mask).sum() > 1.05 * mask.sum() for mask in masks)
    assert walls > 10


def test_camouflage_has_the_hue_of_its_surroundings():
    coloured = 0
    for seed in range(40):
        scene = procedural_scene((seed, 4), size=96, families=["camouflage"])
        colours = scene.image.astype(float) + 0.5  # as `uint8` cuts off what is below
        red = colours[..., 0] / colours.sum(axis=2)
        inside = scene.masks().any(axis=0)
        assert abs(red[inside].mean() - red[~inside].mean()) < 0.02
        coloured += abs(red.mean() - 1 / 3) > 0.02
    assert coloured > 5


def test_air_lets_more_light_through_than_what_is_around_it():
    """Sacs are darker than what is left of the trunk, and one lies on each side of the spine."""
    darker = shared = 0
    for seed in range(20):
        canvas = Canvas(96)
        paint_trunks(np.random.default_rng(seed), canvas)
        labels, kinds = canvas.labels.reshape(96, 96), np.array(canvas.kinds)
        sacs, trunk = np.flatnonzero(kinds == 2), kinds[labels] == 1
        assert len(sacs) == 2
        assert canvas.light.dtype == np.float32
        darker += all(
            canvas.light[labels == sac].mean() < canvas.light[trunk].mean() for sac in sacs
        )
        left, right = (np.nonzero(labels == sac)[1] for sac in sacs)
        assert left.max() < right.min()
        heart = canvas.covers[np.flatnonzero(kinds == 3)[0]]
        shared += any((canvas.covers[sac] & heart).any() for sac in sacs)
    assert darker >= 18
    assert 5 < shared < 18, "some are seen through the heart, others are not"


def test_the_floor_of_the_cage_is_a_dome_on_each_side():
    cage = Cage(wide=0.4, apex=0.1, floor=0.7, recess=0.1, bend=2.0, lift=0.05)
    x = np.array([-0.4, -0.3, -0.2, 0.0, 0.2, 0.3, 0.4])
    expected = [0.8, 0.7 + 0.1 * 0.5**2, 0.7, 0.75, 0.7, 0.7 + 0.1 * 0.5**2, 0.8]
    np.testing.assert_allclose(cage.floor_at(x), expected)


def test_a_plane_is_lit_evenly_and_by_the_cosine_of_its_slope():
    """Lambert's law; what is wet only adds to it."""
    size, across = 64, np.arange(64) / 64
    for slope in (0.0, 0.5, 1.0):
        rng = np.random.default_rng(3)
        tilted = _lit(rng, np.broadcast_to(slope * across, (size, size)))
        _, right = np.random.default_rng(3).normal(0, 0.35, 2)
        cosine = (1 - right * slope) / np.hypot(1, slope)
        middle = tilted[16:-16, 16:-16]
        assert middle.min() == pytest.approx(cosine, rel=1e-3)
        assert middle.max() <= cosine + 1.5


def test_bumps_are_seen_by_their_shading():
    """Along the border of a bump the light changes more than elsewhere."""
    steeper = 0
    for seed in range(20):
        canvas = Canvas(96)
        paint_folds(np.random.default_rng(seed), canvas)
        bump = np.array(canvas.kinds)[canvas.labels.reshape(96, 96)] == 2
        edge = bump & ~binary_erosion(bump, iterations=2)
        change = np.hypot(*np.gradient(canvas.light))
        steeper += change[edge].mean() > 1.5 * np.median(change)
    assert steeper >= 18


def test_organs_cross_in_trunks_only_where_one_of_them_is_the_heart():
    crossings = 0
    for seed in range(10):
        canvas = Canvas(96)
        paint_trunks(np.random.default_rng(seed), canvas)
        masks = canvas.covers[: len(canvas.parents), canvas.labels]
        objects = [this for this in range(1, len(masks)) if masks[this].any()]
        for one, other in itertools.combinations(objects, 2):
            shared, areas = (masks[one] & masks[other]).sum(), masks[[one, other]].sum(axis=1)
            if 0 < shared < areas.min():
                assert 3 in (canvas.kinds[one], canvas.kinds[other])
                crossings += 1
    assert crossings


def test_light_is_seen_and_labels_without_tone_are_not():
    """Where the objects of a canvas lie changes nothing in its picture; its light does."""
    size = 64
    left = np.zeros((size, size), np.float32)
    left[:, : size // 2] = 1
    images = []
    for lit, painted in ((left, left), (left, 1 - left), (1 - left, left)):
        canvas = Canvas(size)
        canvas.paint(np.flatnonzero(painted))
        canvas.light, canvas.tone = lit, 0.0
        seen = np.arange(size * size).reshape(size, size)
        images.append(render(np.random.default_rng(5), canvas, seen, by_texture=False))
    np.testing.assert_array_equal(images[0], images[1])
    sides = [image[:, : size // 2].mean() - image[:, size // 2 :].mean() for image in images]
    assert abs(sides[0]) > 20
    assert sides[0] * sides[2] < 0, "the light has changed sides"
