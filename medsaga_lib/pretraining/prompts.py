"""Prompts for a mask: jittered boxes, points, corrective clicks, and their tokens."""

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from segment_anything.modeling import PromptEncoder
from torch import Tensor

# Labels of prompt tokens, as in segment_anything's PromptEncoder
PAD, NEGATIVE, POSITIVE, CORNER, OPPOSITE_CORNER = -1, 0, 1, 2, 3
REDUCTION = 4  # input pixels along one side of a logit, a cell
BOX_NOISE, BOX_NOISE_LIMIT = 0.1, 20 / 1024  # SAM, appendix A: of the box's side, of the picture's


def box_of(mask: np.ndarray) -> np.ndarray:
    """The box (4,) x0, y0, x1, y1 around the pixel centres of a mask (H, W) that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1], rows[-1]], float)


def jittered(box: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """The box (4,) with each side moved as in SAM's training."""
    sides = np.tile(box[2:] - box[:2] + 1, 2)
    limit = BOX_NOISE_LIMIT * size
    moved = box + np.clip(rng.normal(0, BOX_NOISE * sides), -limit, limit)
    return np.clip(moved, 0, size - 1)


def middle_of(mask: np.ndarray) -> np.ndarray:
    """The pixel (x, y) of a mask that lies farthest from its border."""
    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), mask.shape)
    return np.array([column, row], float)


def embed_prompts(encoder: PromptEncoder, coordinates: Tensor, labels: Tensor) -> Tensor:
    """Prompt tokens (N, K, C) of points and box corners in any mixture.

    The same as `PromptEncoder`, which cannot mix prompts of several kinds in one batch.

    Args:
        coordinates: (N, K, 2) x, y in input pixels.
        labels: (N, K) PAD, NEGATIVE, POSITIVE, CORNER or OPPOSITE_CORNER.
    """
    centres = coordinates + 0.5
    position = encoder.pe_layer.forward_with_coords(centres, encoder.input_image_size)
    kinds = torch.cat([e.weight for e in (encoder.not_a_point_embed, *encoder.point_embeddings)])
    return torch.where(labels[..., None] == PAD, 0.0, position) + kinds[labels - PAD]


def first_prompt(mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    """A jittered box or a random point of a mask: coordinates (2, 2) and labels."""
    if rng.random() < 0.5:
        return jittered(box_of(mask), len(mask), rng).reshape(2, 2), [CORNER, OPPOSITE_CORNER]
    pixels = np.flatnonzero(mask)
    row, column = divmod(pixels[rng.integers(len(pixels))], mask.shape[1])
    return np.array([[column, row], [0, 0]], float), [POSITIVE, PAD]


def corrective_click(logits: Tensor, targets: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """A random cell where the mask is wrong: coordinates (N, 1, 2) and labels (N, 1).

    `noise` (N, h, w) in [0, 1) decides; a mask without an error gets a click in the object.
    """
    truth = targets > 0.5
    wrong = (logits > 0) != truth
    score = 2.0 * wrong + targets * ~wrong.flatten(1).any(dim=1)[:, None, None] + noise
    cell = score.flatten(1).argmax(dim=1)
    row, column = cell // targets.shape[2], cell % targets.shape[2]
    inside = targets.flatten(1).gather(1, cell[:, None]) > 0.5
    centre = REDUCTION / 2 - 0.5  # of a cell, in pixels
    coordinates = torch.stack([column, row], dim=1).float() * REDUCTION + centre
    return coordinates[:, None], torch.where(inside, POSITIVE, NEGATIVE)
