"""SAM's answer to any prompt, beside segment_anything's own `SamPredictor`."""

import numpy as np
import pytest
import torch

from medsaga_lib.data.prompts import CORNER, NEGATIVE, OPPOSITE_CORNER, PAD, POSITIVE
from medsaga_lib.inference.answers import answer
from medsaga_lib.models.frame import Frame
from medsaga_lib.models.sam import build_sam
from medsaga_lib.models.weights import load_state

SIZE = (90, 150)  # not square, so that the frame has padding
POINTS = [[40.0, 30.0], [100.0, 60.0]]
BOX = [20.0, 10.0, 110.0, 70.0]
CORNERS = [BOX[:2], BOX[2:]]
PROMPTS = {  # coordinates and roles, and what SamPredictor gets
    "point": (
        [POINTS[0], [0, 0]],
        [POSITIVE, PAD],
        {"point_coords": np.array(POINTS[:1]), "point_labels": np.array([1])},
    ),
    "points": (
        [*POINTS, [0, 0]],
        [POSITIVE, NEGATIVE, PAD],
        {"point_coords": np.array(POINTS), "point_labels": np.array([1, 0])},
    ),
    "box": (CORNERS, [CORNER, OPPOSITE_CORNER], {"box": np.array(BOX)}),
    "point and box": (
        [POINTS[0], *CORNERS],
        [POSITIVE, CORNER, OPPOSITE_CORNER],
        {
            "point_coords": np.array(POINTS[:1]),
            "point_labels": np.array([1]),
            "box": np.array(BOX),
        },
    ),
}


@pytest.fixture(scope="module")
def sam():
    network = build_sam("pocket", 128)
    network.load_state_dict(load_state("pocket", 128))
    return network.eval()


@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("name", PROMPTS)
def test_the_answer_is_that_of_segment_anything(sam, name, with_mask):
    from segment_anything import SamPredictor

    torch.manual_seed(0)
    frame, embedding = Frame(SIZE, 128), torch.randn(1, 128, 8, 8)
    mask = 5 * torch.randn(32, 32) if with_mask else None
    coordinates, roles, theirs = PROMPTS[name]

    predictor = SamPredictor(sam)
    predictor.features, predictor.is_image_set = embedding, True
    predictor.original_size, predictor.input_size = frame.size, frame.inner
    if mask is not None:
        theirs = {**theirs, "mask_input": mask[None].numpy()}
    several = predictor.predict(**theirs, multimask_output=True, return_logits=True)
    single = predictor.predict(**theirs, multimask_output=False, return_logits=True)

    found = answer(sam, embedding, frame, coordinates, roles, mask)
    large, scores, logits = (np.concatenate(pair) for pair in zip(single, several, strict=True))
    np.testing.assert_allclose(found.predicted_iou, scores, atol=1e-5)
    np.testing.assert_allclose(found.logits, logits, atol=1e-4)
    certain = abs(large) > 1e-3
    np.testing.assert_array_equal(found.masks[certain], (large > 0)[certain])
    assert certain.mean() > 0.99
