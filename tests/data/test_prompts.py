"""Prompts lie in their label, depend on the seed alone, and mark labels that are absent."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsaga_lib.data.prompts import (
    CORNER,
    OPPOSITE_CORNER,
    PAD,
    POSITIVE,
    box_of,
    draw_prompts,
    fill_box,
)


@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.integers(2, 30))
def test_points_lie_in_their_label_and_boxes_touch_its_outermost_pixels(seed, height, width):
    labels = np.random.default_rng(seed).integers(0, 4, (height, width))
    values = (1, 2, 3, 9)  # 9 is never there
    points = draw_prompts("points", values, labels, seed)
    boxes = draw_prompts("boxes", values, labels, seed)
    for k, value in enumerate(values):
        rows, columns = (labels == value).nonzero()
        if not len(rows):
            assert points.roles[k].tolist() == boxes.roles[k].tolist() == [PAD, PAD]
            continue
        assert points.roles[k].tolist() == [POSITIVE, PAD]
        x, y = points.coordinates[k, 0].int().tolist()
        assert labels[y, x] == value
        assert boxes.roles[k].tolist() == [CORNER, OPPOSITE_CORNER]
        corners = [[columns.min(), rows.min()], [columns.max(), rows.max()]]
        assert boxes.coordinates[k].tolist() == corners


def test_every_pixel_of_a_label_may_be_the_point():
    labels = np.array([[1, 0, 1], [0, 1, 0]])
    seen = {
        tuple(draw_prompts("points", [1], labels, seed).coordinates[0, 0].tolist())
        for seed in range(60)
    }
    assert seen == {(0, 0), (2, 0), (1, 1)}


@pytest.mark.parametrize("kind", ["points", "boxes"])
def test_a_prompt_depends_on_seed_and_label_alone(kind):
    labels = np.random.default_rng(0).integers(0, 3, (40, 40))
    one, again, other = (draw_prompts(kind, (1, 2), labels, s, jitter=True) for s in (5, 5, 6))
    assert one.coordinates.equal(again.coordinates)
    assert not one.coordinates.equal(other.coordinates)
    alone = draw_prompts(kind, (2,), labels * (labels == 2), 5, jitter=True)
    assert alone.coordinates[0].equal(one.coordinates[1])


def test_a_box_is_filled_and_its_ellipse_touches_all_four_sides():
    drawn = np.zeros((30, 40), bool)
    drawn[4:11, 3:30] = True
    box = box_of(drawn)
    assert np.array_equal(fill_box(box, drawn.shape), drawn)
    ellipse = fill_box(box, drawn.shape, ellipse=True)
    assert box_of(ellipse).tolist() == box.tolist()
    assert ellipse.sum() / drawn.sum() == pytest.approx(np.pi / 4, abs=0.03)
