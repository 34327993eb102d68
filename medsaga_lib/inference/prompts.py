"""One mask from a box, from points, or from both: a choice among SAM's answers to a prompt."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medsaga_lib.data.prompts import CORNER, NEGATIVE, OPPOSITE_CORNER, PAD, POSITIVE
from medsaga_lib.errors import UserError
from medsaga_lib.inference.answers import answer
from medsaga_lib.inference.box_predictor import BoxPredictor
from medsaga_lib.inference.user_boxes import require_boxes

Point = tuple[float, float, int]  # x, y in pixels; 1 in the object, 0 outside of it


class PromptedMask(NamedTuple):
    """A mask (H, W) bool, and the network's own estimate of its IoU."""

    mask: NDArray[np.bool_]
    score: float


def segment_prompt(
    predictor: BoxPredictor,
    embedding: Tensor,
    size: tuple[int, int],
    box: Sequence[float] | None = None,
    points: Sequence[Point] = (),
) -> PromptedMask:
    """Segment the object that a box and points mean.

    A single point without a box can mean several objects. Then the decoder's three masks for
    ambiguous prompts are computed, and the one with the highest estimated IoU is returned (Segment
    Anything, section 3, "Resolving ambiguity"); otherwise its single mask.

    Args:
        predictor: the network.
        embedding: image embedding (1, C, h, w), as `predictor.embed` returns it.
        size: (H, W) of the image.
        box: x0, y0, x1, y1 in pixels of the image.
        points: x, y in pixels of the image, and 1 for a point in the object or 0 for one outside.

    Raises:
        UserError: there is neither a box nor a point, or one of them is not in the image.
    """
    if box is None and not points:
        raise UserError("There is neither a box nor a point; give one of them.")
    for x, y, inside in points:
        if not (0 <= x < size[1] and 0 <= y < size[0] and inside in (0, 1)):
            raise UserError(
                f"The point {x:g}, {y:g}, {inside} is not in the image; x is from 0 to "
                f"{size[1] - 1}, y from 0 to {size[0] - 1}, and the third number is 1 or 0."
            )
    coordinates = [[x, y] for x, y, _ in points]
    roles = [POSITIVE if inside else NEGATIVE for *_, inside in points]
    if box is None:
        coordinates, roles = [*coordinates, [0, 0]], [*roles, PAD]
    else:
        require_boxes(np.array([box], np.float64), size)
        coordinates = [*coordinates, [*box[:2]], [*box[2:]]]
        roles = [*roles, CORNER, OPPOSITE_CORNER]
    found = answer(predictor.sam, embedding, predictor.frame(size), coordinates, roles)
    ambiguous = box is None and len(points) == 1
    best = 1 + int(found.predicted_iou[1:].argmax()) if ambiguous else 0
    return PromptedMask(found.masks[best], float(found.predicted_iou[best]))
