"""A picture with known objects, for tests that prompt a SAM."""

import numpy as np
import torch

from medsaga_lib.bench.boxes import Task, load_backbone
from medsaga_lib.data.prompts import box_of

SIDE = 256
# Middle x, y, radius and grey level of each disc
DISCS = ((70, 80, 40, 210), (180, 90, 30, 160), (120, 190, 45, 235))


def discs() -> tuple[np.ndarray, list[np.ndarray]]:
    """Three bright discs on a dark ground with a little noise: uint8 (H, W, 3), and their masks."""
    y, x = np.mgrid[:SIDE, :SIDE]
    picture = np.full((SIDE, SIDE), 50.0)
    masks = []
    for middle_x, middle_y, radius, level in DISCS:
        masks.append((x - middle_x) ** 2 + (y - middle_y) ** 2 < radius**2)
        picture[masks[-1]] = level
    picture += np.random.default_rng(0).normal(0, 6, picture.shape)
    grey = picture.clip(0, 255).astype(np.uint8)
    return np.stack([grey] * 3, -1), masks


def box_task() -> Task:
    """The first two discs as a task of `medsaga_lib.bench.boxes`, for the pocket SAM."""
    image, truth = discs()
    boxes = torch.tensor([box_of(mask).tolist() for mask in truth[:2]])
    return Task("small", load_backbone("pocket"), image / 255, boxes, truth[:2])
