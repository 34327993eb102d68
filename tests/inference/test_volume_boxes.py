"""Boxes from slice to slice, against the calls of LiteMedSAM's script with a stand-in network."""

import numpy as np
import oracle
import pytest
import torch

from medsaga_lib.inference.volume_boxes import next_box, propagate, same_box
from medsaga_lib.models.feeding import LITE_MEDSAM

CASES = oracle.read("litemedsam_preprocessing")["volume_3d"]["cases"]


class StandIn:
    """The oracle's rule instead of a network; records its calls."""

    def __init__(self, shape, empty=()):
        self.shape, self.empty = shape, set(empty)
        self.calls, self.voxels = [], np.zeros((shape[0], 9), int)

    def __call__(self, z, boxes, objects):
        masks = []
        for box, number in zip(boxes, objects, strict=True):
            mask = np.zeros(self.shape[1:], bool)
            x0, y0, x1, y1 = (box * (max(self.shape[1:]) / 256)).astype(int)
            if len(self.calls) not in self.empty:
                mask[y0 + 4 : y1 - 4, x0 + 5 : x1 - 4] = True
            self.calls.append((number, z, box.tolist()))
            self.voxels[z, number] = mask.sum()
            masks.append(mask)
        return masks


def prompts(case):
    boxes = np.array(case["boxes_xyzxyz"])
    shape = case["volume"]["shape"]
    flat = LITE_MEDSAM.frame(shape[1:], 256).boxes(torch.from_numpy(boxes[:, [0, 1, 3, 4]]))
    return flat.numpy(), [range(box[2], box[5] + 1) for box in boxes], shape


@pytest.mark.parametrize("name", [name for name in CASES if name != "two_objects"])
def test_one_object_is_asked_for_as_published(name):
    case = CASES[name]
    boxes, spans, shape = prompts(case)
    asked = StandIn(shape, case["empty_calls"])
    propagate(boxes, spans, shape[0], asked, next_box)
    assert [box for *_, box in asked.calls] == [call["box_256"] for call in case["calls"]]
    assert asked.voxels[:, :1].tolist() == case["labelled_voxels_per_slice"]


def test_the_number_of_an_object_does_not_change_its_boxes():
    """Both get the boxes of the script's first object, because their geometry is the same."""
    case = CASES["two_objects"]
    boxes, spans, shape = prompts(case)
    asked = StandIn(shape)
    propagate(boxes, spans, shape[0], asked, next_box)
    published = [call["box_256"] for call in case["calls"]]
    for number in (0, 1):
        assert [box for i, _, box in asked.calls if i == number] == published[:6]
    assert published[:6] != published[6:]  # the trap: a pixel or two larger for the second


def test_objects_with_other_spans_walk_alone():
    """Together, each object causes the same calls as alone."""
    rng = np.random.default_rng(0)
    shape = (12, 256, 256)
    boxes = np.array([[20, 20, 200, 180], [60, 50, 250, 256], [0, 0, 100, 90]])
    starts, ends = rng.integers(0, 5, 3), rng.integers(5, 12, 3)
    spans = [range(start, end) for start, end in zip(starts, ends, strict=True)]
    together = StandIn(shape)
    propagate(boxes, spans, shape[0], together, next_box)
    for i in range(3):
        alone = StandIn(shape)
        propagate(boxes[[i]], [spans[i]], shape[0], alone, next_box)
        assert [call[1:] for call in together.calls if call[0] == i] == [
            call[1:] for call in alone.calls
        ]
        assert {call[1] for call in alone.calls} == set(spans[i])


def test_the_same_box_on_each_slice():
    asked = StandIn((9, 64, 64))
    boxes = np.array([[10, 10, 90, 90], [20, 20, 200, 220]])
    same_box(boxes, [range(1, 3), range(5, 12)], 9, asked)
    assert [(i, z) for i, z, _ in asked.calls] == [(0, 1), (0, 2), (1, 5), (1, 6), (1, 7), (1, 8)]
    assert all(box == boxes[i].tolist() for i, _, box in asked.calls)
