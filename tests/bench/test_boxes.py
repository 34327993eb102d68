"""The comparison of many boxes: its tasks, its ratios, and that all ways give the same masks."""

import numpy as np
import pytest
import torch
from pictures import box_task, discs

from medsaga_lib.bench.boxes import iou, measure, nuclei, one_by_one, rectangles, tasks
from medsaga_lib.inference.user_boxes import require_boxes


def test_the_ratios_are_of_the_measured_seconds_with_and_without_the_encoder():
    row = measure(box_task(), rounds=1)
    ways = "published", "ours", "encoder"
    (published,), (ours,), (encoder,) = (row["seconds"][way] for way in ways)
    assert row["ratio_with_encoder"] == pytest.approx((published + encoder) / (ours + encoder))
    assert row["ratio"]["seconds"] == pytest.approx(published / ours)
    assert row["least_iou"] > 0.99
    assert row["iou_with_truth"] > 0.5


def test_several_boxes_in_a_call_give_the_masks_of_one_box_in_a_call():
    task = box_task()
    sam, embedding = task.predictor.sam, task.predictor.embed(task.pixels)
    single, batched = (list(one_by_one(sam, embedding, task.boxes, task.frame, n)) for n in (1, 2))
    assert len(single) == len(batched) == len(task.boxes)
    assert min(map(iou, single, batched)) > 0.999


def test_iou_of_masks():
    (first, second, _), nothing = discs()[1], np.zeros((256, 256), bool)
    assert iou(first, first) == 1
    assert iou(first, nothing) == 0
    assert iou(nothing, nothing) == 1
    both = (first & second).sum() / (first | second).sum()
    assert iou(first, second) == both


def test_without_data_there_are_rectangles_on_a_drawn_x_ray(phantom_cxr, monkeypatch):
    monkeypatch.delenv("MEDSAGA_DATA", raising=False)
    pixels, boxes = rectangles(50)
    require_boxes(boxes.double().numpy(), pixels.shape)
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    named = [(one.name, len(one.boxes), one.truth) for one in tasks(3)]
    assert named == [
        ("pocket SAM, rectangles", 3, None), ("LiteMedSAM, rectangles", 3, None),
    ]  # fmt: skip


def test_with_data_there_are_nuclei_with_their_boxes(real_data):
    pixels, boxes, truth = nuclei(4)
    assert truth.shape == (4, *pixels.shape[:2])
    for box, mask in zip(boxes.int().tolist(), truth, strict=True):
        rows, columns = np.nonzero(mask)
        assert box == [columns.min(), rows.min(), columns.max(), rows.max()]
    assert torch.is_floating_point(boxes)
