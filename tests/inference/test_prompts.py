"""A mask from a box and points, beside segment_anything's `SamPredictor` and `segment_boxes`."""

import numpy as np
import pytest
import torch

from medsaga_lib.errors import UserError
from medsaga_lib.inference.box_decoder import segment_boxes
from medsaga_lib.inference.box_predictor import load_box_predictor
from medsaga_lib.inference.prompts import segment_prompt

SIZE = (128, 128)
BOX = [20.0, 10.0, 110.0, 70.0]
INSIDE, OUTSIDE = (40.0, 30.0, 1), (100.0, 60.0, 0)


@pytest.fixture(scope="module")
def pocket():
    return load_box_predictor("pocket", size=128)


@pytest.fixture(scope="module")
def embedding():
    torch.manual_seed(0)
    return torch.randn(1, 128, 8, 8)


@pytest.mark.parametrize(
    ("box", "points"),
    [(BOX, []), (None, [INSIDE]), (None, [INSIDE, OUTSIDE]), (BOX, [INSIDE]), (BOX, [OUTSIDE])],
)
def test_the_mask_is_that_of_segment_anything(pocket, embedding, box, points):
    from segment_anything import SamPredictor

    predictor = SamPredictor(pocket.sam)
    predictor.features, predictor.is_image_set = embedding, True
    predictor.original_size = predictor.input_size = SIZE
    given = {"box": np.array(box)} if box else {}
    if points:
        given["point_coords"] = np.array([point[:2] for point in points])
        given["point_labels"] = np.array([point[2] for point in points])
    ambiguous = box is None and len(points) == 1  # SAM, section 3: three masks for one point
    masks, scores, _ = predictor.predict(**given, multimask_output=ambiguous, return_logits=True)
    best = scores.argmax()
    found = segment_prompt(pocket, embedding, SIZE, box, points)
    certain = abs(masks[best]) > 1e-3
    np.testing.assert_array_equal(found.mask[certain], (masks[best] > 0)[certain])
    assert certain.mean() > 0.99
    assert found.score == pytest.approx(scores[best], abs=1e-5)


def test_a_box_alone_has_the_mask_of_the_fast_decoder(pocket, embedding):
    fast = segment_boxes(
        pocket.sam, embedding, torch.tensor([BOX]), SIZE, frame=pocket.frame(SIZE)
    ).masks[0]
    found = segment_prompt(pocket, embedding, SIZE, BOX).mask
    assert (found == fast.whole(SIZE)).mean() > 0.999


@pytest.mark.parametrize(
    ("box", "points", "said"),
    [
        (None, [], "neither a box nor a point"),
        ([50, 50, 20, 60], [], "is empty"),
        ([0, 0, 129, 60], [], "is not between 0 and 128x128"),
        (None, [(128, 5, 1)], "is not in the image; x is from 0 to 127"),
        (None, [(5, -1, 1)], "is not in the image"),
        (None, [(float("nan"), 5, 1)], "is not in the image"),
        (BOX, [(5, 5, 2)], "the third number is 1 or 0"),
    ],
)
def test_a_prompt_that_cannot_be_obeyed_is_refused(pocket, embedding, box, points, said):
    with pytest.raises(UserError, match=said):
        segment_prompt(pocket, embedding, SIZE, box, points)
