"""What LiteMedSAM's inference script does to pictures and boxes (bowang-lab/MedSAM, LiteMedSAM).

Used for networks that were trained so; `data.longest_side` has the geometry. SAM's own rule
differs in the interpolation, in the normalisation and in that it never rounds a box.
"""

import numpy as np
from numpy.typing import NDArray

from medsaga_lib.data import prompts
from medsaga_lib.data.longest_side import Frame

SIDE = 256  # pixels of the input
SHIFT = 3  # pixels by which the box for the next slice is larger than the last mask
LEAST_RANGE = 1e-8  # of intensities, so that a constant picture becomes 0


def network_input(image: NDArray, side: int = SIDE) -> NDArray[np.float32]:
    """(H, W, 3), uint8 or any other numbers, as (3, side, side) in [0, 1]: area, min-max, zeros."""
    small = resize_area(image, Frame(image.shape[:2], side).inner).astype(np.float32)
    low, high = small.min(), small.max()
    scaled = (small - low) / max(high - low, np.float32(LEAST_RANGE))
    padding = [(0, side - length) for length in scaled.shape[:2]]
    return np.pad(scaled, [*padding, (0, 0)]).transpose(2, 0, 1)


def resize_area(image: NDArray, size: tuple[int, int]) -> NDArray:
    """(H, W) or (H, W, C) to another size (height, width), as the script: OpenCV's `INTER_AREA`.

    Each pixel is the mean of what it covers, rounded where the type is of whole numbers; where a
    picture grows, a linear rule of OpenCV's own.
    """
    import cv2

    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)


def resize_box(box: NDArray, size: tuple[int, int], side: int = SIDE) -> NDArray:
    """A box of a picture of `size` (H, W) in pixels of the input, cut off to whole ones."""
    return np.trunc(np.asarray(box) * (side / max(size)))


def box_of(mask: NDArray[np.bool_]) -> NDArray | None:
    """The box (4,) around a mask (H, W), in pixels of the input and `SHIFT` larger; or None.

    The script gives the mask its object's number before it is resized and rounded: of an edge
    pixel that is covered by a third, 1/3 is rounded to nothing and 2/3 to one, so that the same
    mask has a larger box as object 2 than as object 1. Here every object is treated as the first.
    """
    small = resize_area(mask.astype(np.uint8), Frame(mask.shape, SIDE).inner) > 0
    if not small.any():
        return None
    return np.clip(prompts.box_of(small) + np.repeat([-SHIFT, SHIFT], 2), 0, SIDE)
