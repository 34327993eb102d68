"""Prompts are what SAM's paper and segment_anything's prompt encoder say."""

import numpy as np
import pytest
import torch

from medsaga_lib.backbones.sam import build_sam
from medsaga_lib.data.procedural import Scene
from medsaga_lib.data.prompts import (
    CORNER,
    NEGATIVE,
    OPPOSITE_CORNER,
    PAD,
    POSITIVE,
    box_of,
    jittered,
    middle_of,
)
from medsaga_lib.heads import embed_prompts
from medsaga_lib.pretraining.prompts import LARGEST_CLICKED, corrective_click, first_asked
from medsaga_lib.pretraining.targets import borders, coverage


def test_prompt_tokens_equal_segment_anythings():
    encoder = build_sam("pocket").prompt_encoder
    points = torch.tensor([[[3.0, 200.0], [77.0, 5.0]], [[128.0, 9.0], [0.0, 255.0]]])
    labels = torch.tensor([[POSITIVE, NEGATIVE], [NEGATIVE, POSITIVE]])
    expected, _ = encoder(points=(points, labels), boxes=None, masks=None)
    padded = torch.cat([points, torch.zeros(2, 1, 2)], dim=1)
    padded_labels = torch.cat([labels, torch.full((2, 1), PAD)], dim=1)
    torch.testing.assert_close(embed_prompts(encoder, padded, padded_labels), expected)

    expected, _ = encoder(points=None, boxes=points.flatten(1), masks=None)
    corners = torch.tensor([[CORNER, OPPOSITE_CORNER]]).expand(2, 2)
    torch.testing.assert_close(embed_prompts(encoder, points, corners), expected)


def test_box_and_middle_of_a_mask():
    mask = np.zeros((20, 20), bool)
    mask[4:9, 10:17] = True
    assert box_of(mask).tolist() == [10, 4, 16, 8]
    x, y = middle_of(mask)
    assert y == 6  # the one middle row
    assert 12 <= x <= 14


def test_jitter_stays_within_its_limit_and_the_picture():
    rng = np.random.default_rng(0)
    box = np.array([2.0, 50, 250, 60])
    moved = np.array([jittered(box, 256, rng) for _ in range(200)])
    assert np.abs(moved - box).max() == pytest.approx(5)  # 20 of 1024 pixels
    assert moved.min() >= 0
    assert moved.max() <= 255
    assert moved[:, 1].std() == pytest.approx(1.1, rel=0.2)  # a tenth of 11 rows


def test_coverage_is_the_area_in_each_cell():
    mask = np.zeros((8, 8), bool)
    mask[:3, :6] = True
    np.testing.assert_array_equal(coverage(mask), [[12 / 16, 6 / 16], [0, 0]])


def test_clicks_fall_where_the_mask_is_wrong():
    torch.manual_seed(0)
    truth = torch.zeros(3, 8, 8)
    truth[:, 2:6, 2:6] = 1
    logits = 8 * truth - 4
    logits[0, 2, 3] = -1  # missed
    logits[1, 7, 0] = 1  # too much
    where, label = corrective_click(logits, truth, torch.rand(3, 8, 8))
    assert where[0].tolist() == [[4 * 3 + 1.5, 4 * 2 + 1.5]]
    assert where[1].tolist() == [[1.5, 4 * 7 + 1.5]]
    assert label.flatten().tolist() == [POSITIVE, NEGATIVE, POSITIVE]
    column, row = (int(v // 4) for v in where[2, 0])
    assert truth[2, row, column] == 1, "a mask without an error is clicked inside"


def test_an_object_smaller_than_a_cell_is_clicked_inside():
    truth = torch.zeros(40, 8, 8)
    truth[:, 3, 5], truth[:, 3, 6] = 0.4, 0.1  # no cell is covered by more than half
    where, label = corrective_click(torch.full((40, 8, 8), -4.0), truth, torch.rand(40, 8, 8))
    assert (label == POSITIVE).all()
    assert where.unique(dim=0).tolist() == [[[4 * 5 + 1.5, 4 * 3 + 1.5]]]


def test_borders_lie_where_labels_meet():
    labels = np.zeros((8, 8), np.uint8)
    labels[2:5, 3:7] = 1
    labels[3, 4] = 2
    expected = np.zeros((8, 8), bool)
    for row in range(8):  # brute force: another label to the left or above
        for column in range(8):
            left = column > 0 and labels[row, column - 1] != labels[row, column]
            above = row > 0 and labels[row - 1, column] != labels[row, column]
            expected[row, column] = left or above
    np.testing.assert_array_equal(borders(labels), expected)


def test_boxes_ask_for_what_fills_them_and_points_for_less_than_half():
    labels = np.zeros((32, 32), np.uint8)
    labels[2:30, 2:30] = 1  # most of the picture
    labels[4:16, 4:16] = 2  # a shell and its lumen
    labels[7:13, 7:13] = 3
    members = np.array([[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 0], [0, 0, 0, 1]], bool)
    scene = Scene(np.zeros((32, 32, 3), np.uint8), labels, members, "shells")
    assert scene.areas[0] > LARGEST_CLICKED
    chosen, by_box = first_asked(scene, 4000, np.random.default_rng(0))
    boxed = [by_box[chosen == number].mean() for number in range(4)]
    assert boxed[0] == 1
    assert boxed[2] == 0  # the shell without its lumen
    assert boxed[1] == pytest.approx(0.5, abs=0.1)
    assert boxed[3] == pytest.approx(0.5, abs=0.1)
    sides = np.sqrt([28 * 28, 12 * 12, 12 * 12 - 6 * 6, 6 * 6])
    shares = np.bincount(chosen) / len(chosen)
    np.testing.assert_allclose(shares, sides / sides.sum(), atol=0.03)
