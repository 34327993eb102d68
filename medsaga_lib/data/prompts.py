"""Points and boxes to ask a SAM with, drawn from masks.

Coordinates are x, y in pixels of the mask, and a pixel's own numbers mean its centre, as in
segment_anything, whose prompt encoder adds the half.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

Kind = Literal["points", "boxes", "grid"]  # a grid asks for no label

# Roles of prompt tokens, which segment_anything's PromptEncoder calls labels
PAD, NEGATIVE, POSITIVE, CORNER, OPPOSITE_CORNER = -1, 0, 1, 2, 3
BOX_NOISE, BOX_NOISE_LIMIT = 0.1, 20 / 1024  # SAM, appendix A: of the box's side, of the picture's


class Prompts(NamedTuple):
    """What is asked for each of K labels; two tokens each, all PAD where a label is absent.

    A point is a POSITIVE and a PAD, a box its two corners. A batch has B in front of both shapes.
    """

    coordinates: Tensor  # (K, 2, 2) x, y
    roles: Tensor  # (K, 2) int64: PAD, POSITIVE, CORNER or OPPOSITE_CORNER


def draw_prompts(
    kind: Kind, values: Iterable[int], labels: np.ndarray, seed: int, jitter: bool = False
) -> Prompts:
    """One prompt for each label value that a label map shows.

    Args:
        kind: "points", a random pixel of the label; "boxes", the box around it.
        values: of the K labels, in the order of the classes.
        labels: (H, W).
        seed: of the random numbers; each label has its own, whatever the others are.
        jitter: move the sides of boxes, as SAM's training does; then the label map is square.

    Raises:
        ValueError: of a grid, which no mask has a part in.
    """
    if kind == "grid":
        raise ValueError("A grid of points is not drawn from masks.")
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
    """A random pixel of a mask that is not empty: coordinates (2, 2) and roles."""
    pixels = np.flatnonzero(mask)
    row, column = divmod(pixels[random.integers(len(pixels))], mask.shape[1])
    return np.array([[column, row], [0, 0]], float), [POSITIVE, PAD]


def box_around(mask: np.ndarray, random: np.random.Generator | None) -> tuple[np.ndarray, list]:
    """The box around a mask that is not empty, jittered or exact: coordinates (2, 2) and roles."""
    box = box_of(mask)
    if random is not None:
        box = jittered(box, len(mask), random)
    return box.reshape(2, 2), [CORNER, OPPOSITE_CORNER]


def box_of(mask: np.ndarray) -> np.ndarray:
    """The box (4,) x0, y0, x1, y1 around the pixel centres of a mask (H, W) that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1], rows[-1]], float)


def fill_box(box: np.ndarray, shape: tuple[int, int], ellipse: bool = False) -> np.ndarray:
    """The pixels (H, W) bool of a box (4,), or of the ellipse inscribed in it: no network's answer.

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
    """The box (4,) in a square picture with each side moved as in SAM's training."""
    sides = np.tile(box[2:] - box[:2] + 1, 2)
    limit = BOX_NOISE_LIMIT * size
    moved = box + np.clip(random.normal(0, BOX_NOISE * sides), -limit, limit)
    return np.clip(moved, 0, size - 1)


def middle_of(mask: np.ndarray) -> np.ndarray:
    """The pixel (x, y) of a mask that lies farthest from its border."""
    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), mask.shape)
    return np.array([column, row], float)
