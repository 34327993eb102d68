"""Prompts of the pretraining: a box or a point first, then corrective clicks."""

import numpy as np
import torch
from scipy.ndimage import find_objects
from torch import Tensor

from medsaga_lib.data.procedural import Scene
from medsaga_lib.data.prompts import NEGATIVE, POSITIVE
from medsaga_lib.pretraining.targets import REDUCTION

LARGEST_CLICKED = 0.5  # of the picture's area, our choice: a click means less than that


def first_asked(
    scene: Scene, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Which objects (count,) of a scene to ask for, and which of them by a box (count,) bool.

    An object's chance grows as the root of its area, since most are small, and most of what people
    outline is not; one may be asked for twice. A box asks for the largest object that it fits, so
    not for a shell without its lumen; a point does not ask for most of the picture. Otherwise a
    coin decides.
    """
    areas = scene.areas
    sides = np.sqrt(areas)
    chosen = rng.choice(len(scene), count, p=sides / sides.sum())
    by_box = (rng.random(count) < 0.5) | (areas[chosen] > LARGEST_CLICKED)
    return chosen, by_box & ~_lies_in_its_box(scene, areas)[chosen]


def _lies_in_its_box(scene: Scene, areas: np.ndarray) -> np.ndarray:
    """(N,) bool: objects whose box is also that of a larger one."""
    size, labels = len(scene.labels), scene.members.shape[1]
    sides = np.full((labels, 4), size)  # of each label: top, left, and bottom, right negated
    for value, found in enumerate(find_objects(scene.labels, labels - 1), start=1):
        if found:
            sides[value] = [found[0].start, found[1].start, -found[0].stop, -found[1].stop]
    boxes = np.where(scene.members[:, :, None], sides, size).min(axis=1)
    same = (boxes[:, None] == boxes).all(axis=2)
    return (same & (areas > areas[:, None])).any(axis=1)


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
