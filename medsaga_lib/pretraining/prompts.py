"""Prompts of the pretraining: a box or a point first, then corrective clicks."""

import numpy as np
import torch
from torch import Tensor

from medsaga_lib.data.prompts import NEGATIVE, POSITIVE, box_around, point_in

REDUCTION = 4  # input pixels along one side of a logit, a cell


def first_prompt(mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    """A jittered box or a random point of a mask: coordinates (2, 2) and roles."""
    return box_around(mask, rng) if rng.random() < 0.5 else point_in(mask, rng)


def corrective_click(logits: Tensor, targets: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """A random cell where the mask is wrong: coordinates (N, 1, 2) and labels (N, 1).

    `noise` (N, h, w) in [0, 1) decides; a mask without an error gets a click where its object
    covers most of a cell.
    """
    truth = targets > 0.5
    wrong = (logits > 0) != truth
    is_right = ~wrong.flatten(1).any(dim=1)
    most = targets == targets.amax(dim=(1, 2), keepdim=True)
    score = torch.where(is_right[:, None, None], most, wrong) + noise
    cell = score.flatten(1).argmax(dim=1)
    row, column = cell // targets.shape[2], cell % targets.shape[2]
    inside = (targets.flatten(1).gather(1, cell[:, None]) > 0.5) | is_right[:, None]
    centre = REDUCTION / 2 - 0.5  # of a cell, in pixels
    coordinates = torch.stack([column, row], dim=1).float() * REDUCTION + centre
    return coordinates[:, None], torch.where(inside, POSITIVE, NEGATIVE)
