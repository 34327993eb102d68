"""Point and box prompts for a SAM, drawn from masks.

Coordinates are x, y in pixels of the mask, and whole numbers mean the centre of a pixel, as in
segment_anything. Its prompt encoder adds 0.5.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

PromptKind = Literal["points", "boxes", "grid"]  # a grid of points needs no mask

# Roles of prompt tokens; segment_anything's PromptEncoder calls them labels
PAD, NEGATIVE, POSITIVE, CORNER, OPPOSITE_CORNER = -1, 0, 1, 2, 3
# SAM, appendix A: standard deviation relative to the box side, limit relative to the image side
BOX_NOISE, BOX_NOISE_LIMIT = 0.1, 20 / 1024


class Prompts(NamedTuple):
    """Prompts for K labels, with two tokens for each label.

    A point is a POSITIVE and a PAD token, a box is its two corners, and an absent label is two PAD
    tokens. In a batch, both shapes begin with B.
    """

    coordinates: Tensor  # (K, 2, 2) x, y
    roles: Tensor  # (K, 2) int64: PAD, POSITIVE, CORNER or OPPOSITE_CORNER


def draw_prompts(
    kind: PromptKind, values: Iterable[int], labels: np.ndarray, seed: int, jitter: bool = False
) -> Prompts:
    """Draw one prompt for each label value; labels that do not occur get PAD tokens.

    Args:
        kind: "points" for a random pixel of the label, "boxes" for the box around it.
        values: the values of the K labels, in the order of the classes.
        labels: the label map (H, W).
        seed: seeds the random numbers of each label, independently of the other labels.
        jitter: move the sides of the boxes as SAM's training does; the label map must be square.

    Raises:
        ValueError: the kind is "grid", because a grid of points does not depend on masks.
    """
    if kind == "grid":
        raise ValueError("A grid of points is not drawn from masks; use points or boxes.")
    drawn = []
    for value in values:
        mask, random = labels == value, np.random.default_rng([seed, value])
        if not mask.any():
            drawn.append((np.zeros((2, 2)), [PAD, PAD]))
        elif kind == "points":
            drawn.append(point_in(mask, random))
        else:
            drawn.append(box_around(mask, random if jitter else None))
    coordinates, roles = zip(*drawn, strict=True)
    return Prompts(torch.tensor(np.stack(coordinates)).float(), torch.tensor(roles))


def point_in(mask: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    """Draw a random pixel of a non-empty mask; return the coordinates (2, 2) and roles."""
    pixels = np.flatnonzero(mask)
    row, column = divmod(pixels[random.integers(len(pixels))], mask.shape[1])
    return np.array([[column, row], [0, 0]], float), [POSITIVE, PAD]


def box_around(mask: np.ndarray, random: np.random.Generator | None) -> tuple[np.ndarray, list]:
    """Return a non-empty mask's box as coordinates (2, 2) and roles; `random` adds jitter."""
    box = box_of(mask)
    if random is not None:
        box = jittered(box, len(mask), random)
    return box.reshape(2, 2), [CORNER, OPPOSITE_CORNER]


def box_of(mask: np.ndarray) -> np.ndarray:
    """Return the box (4,) x0, y0, x1, y1 around the pixel centres of a non-empty mask (H, W)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1], rows[-1]], float)


def fill_box(box: np.ndarray, shape: tuple[int, int], ellipse: bool = False) -> np.ndarray:
    """Return the mask (H, W) bool of a box (4,) or its inscribed ellipse, as a simple baseline.

    >>> fill_box(np.array([0, 0, 3, 3]), (4, 5), ellipse=True).astype(int)
    array([[0, 1, 1, 0, 0],
           [1, 1, 1, 1, 0],
           [1, 1, 1, 1, 0],
           [0, 1, 1, 0, 0]])
    """
    left, top, right, bottom = box
    y, x = np.mgrid[: shape[0], : shape[1]]
    across = np.abs(x - (left + right) / 2) / ((right - left + 1) / 2)
    down = np.abs(y - (top + bottom) / 2) / ((bottom - top + 1) / 2)
    return across**2 + down**2 <= 1 if ellipse else (across <= 1) & (down <= 1)


def jittered(box: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """Move each side of a box (4,) in a square image as in SAM's training."""
    sides = np.tile(box[2:] - box[:2] + 1, 2)
    limit = BOX_NOISE_LIMIT * size
    moved = box + np.clip(random.normal(0, BOX_NOISE * sides), -limit, limit)
    return np.clip(moved, 0, size - 1)
