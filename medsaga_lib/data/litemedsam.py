"""What LiteMedSAM's inference script does to pictures and boxes (bowang-lab/MedSAM, LiteMedSAM).

Used for networks that were trained so; `data.longest_side` has the geometry. SAM's own rule
differs in the interpolation, in the normalisation and in that it never rounds a box.
"""

import numpy as np
from numpy.typing import NDArray

from medsaga_lib.data.longest_side import Frame

SIDE = 256  # pixels of the input
SHIFT = 3  # pixels by which the box for the next slice is larger than the last mask
LEAST_RANGE = 1e-8  # of intensities, so that a constant picture becomes 0


def network_input(image: NDArray[np.uint8], side: int = SIDE) -> NDArray[np.float32]:
    """(H, W, 3) with values 0 ... 255 as (3, side, side) in [0, 1]: area, min-max, zeros."""
    small = resize_area(image, Frame(image.shape[:2], side).inner).astype(np.float32)
    low, high = small.min(), small.max()
    scaled = (small - low) / max(high - low, np.float32(LEAST_RANGE))
    padding = [(0, side - length) for length in scaled.shape[:2]]
    return np.pad(scaled, [*padding, (0, 0)]).transpose(2, 0, 1)


def resize_area(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W) or (H, W, C) to another size, each pixel the mean of what it covers, rounded.

    OpenCV's `INTER_AREA`, which enlarges by a linear rule of its own.
    """
    height, width = image.shape[:2]
    shrinks = size[0] <= height and size[1] <= width
    weights = _covered if shrinks else _stretched
    rows, columns = weights(height, size[0]), weights(width, size[1])
    resized = np.einsum("yh,hw...,xw->yx...", rows, image.astype(float), columns, optimize=True)
    return np.rint(resized).astype(np.uint8)


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
    rows, columns = np.flatnonzero(small.any(1)), np.flatnonzero(small.any(0))
    box = np.array([columns[0], rows[0], columns[-1], rows[-1]])
    return np.clip(box + np.repeat([-SHIFT, SHIFT], 2), 0, SIDE)


def _covered(old: int, new: int) -> NDArray[np.float64]:
    """How much of each new pixel each old one covers, (new, old)."""
    edges = np.arange(new + 1)[:, None] * old / new
    right = np.minimum(edges[1:], np.arange(1, old + 1))
    left = np.maximum(edges[:-1], np.arange(old))
    return np.maximum(right - left, 0) * new / old


def _stretched(old: int, new: int) -> NDArray[np.float64]:
    """Linear weights (new, old), as OpenCV places them where a picture grows."""
    at = np.arange(new)
    place = np.floor(at * old / new + 1e-9).astype(int)
    beyond = (at + 1) - (place + 1) * new / old
    beyond = np.where(beyond <= 0, 0, beyond - np.floor(beyond))
    weights = np.zeros((new, old))
    weights[at, place] += 1 - beyond
    weights[at, np.minimum(place + 1, old - 1)] += beyond
    return weights
