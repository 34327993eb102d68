"""A folded wall with bumps on it, in the light of a lamp beside the camera, seen mostly by shading.

Ranges are our choice, from how a tube looks from inside; no data set was measured for them.
"""

import numpy as np
from numpy.random import Generator
from scipy.ndimage import distance_transform_edt, gaussian_filter

from medsaga_lib.data.procedural.canvas import BACKGROUND, Canvas
from medsaga_lib.data.procedural.noise import smooth_noise
from medsaga_lib.data.procedural.shapes import (
    blob_outline,
    fill_polygon,
    fill_tube,
    filled,
    wander,
)


def paint_folds(rng: Generator, canvas: Canvas) -> None:
    """Bumps on a wall with folds, a dark way on, perhaps a tool."""
    size = canvas.size
    across = (np.arange(size, dtype=np.float32) + 0.5) / size
    end = rng.uniform(-0.1, 1.1, 2)  # where the tube goes on
    wave = rng.uniform(0, 0.25) * smooth_noise(rng, size, int(rng.integers(3, 7)))
    away = np.hypot(across - end[0], rng.uniform(0.6, 1.5) * (across[:, None] - end[1]))
    away = away * np.exp(wave)
    if rng.random() < 0.5:
        canvas.paint(np.flatnonzero(away < rng.uniform(0.05, 0.15)), kind=1)
    height, bumps = _wall(rng, away), np.zeros((size, size), bool)
    for _ in range(rng.integers(1, 4)):
        inside, dome = _bump(rng, size)
        height = np.where(inside, rng.uniform(0, 1) * height + dome, height)
        bumps |= inside
        canvas.paint(np.flatnonzero(inside), kind=2)

    light = _lit(rng, height)
    far = np.clip(away / rng.uniform(0.3, 1.2), 0, 1) ** rng.uniform(0.3, 1.5)
    light = light * np.where(bumps, 0.3 + 0.7 * far, far)  # bumps are nearer to the lamp
    if rng.random() < 0.4:
        light = light - rng.uniform(0.05, 0.2) * _vessels(rng, size)
    if rng.random() < 0.15:
        tool = _tool(rng, size)
        canvas.paint(tool, kind=3)
        light.flat[tool] = rng.uniform(0.2, 1.2)
    if rng.random() < 0.5:  # the edge of the lens
        lens = np.hypot(across - 0.5, across[:, None] - 0.5) < rng.uniform(0.46, 0.66)
        light = light * lens
        canvas.labels[~lens.ravel()] = BACKGROUND
    canvas.light, canvas.tone = light.astype(np.float32), rng.uniform(0, 0.5)


def _wall(rng: Generator, away: np.ndarray) -> np.ndarray:
    """Its height (S, S) in shares of the side: waves, grain, and folds around the way on."""
    size = len(away)
    height = rng.uniform(0, 0.04) * smooth_noise(rng, size, int(rng.integers(3, 9)))
    height = height + rng.uniform(0, 0.004) * smooth_noise(rng, size, int(rng.integers(16, 64)))
    for fold in away.max() * rng.uniform(0.1, 1, rng.integers(0, 6)):
        width = fold * rng.uniform(0.05, 0.2)
        present = np.clip(smooth_noise(rng, size, 3) + 0.5, 0, 1)
        ridge = np.exp(-(((away - fold) / width) ** 2))
        height = height + rng.uniform(0.3, 1) * width * present * ridge
    return height


def _bump(rng: Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where one is seen (S, S) bool, and its height: steep at the border, then flat."""
    centre, radius = rng.uniform(0.15, 0.85, 2), float(np.exp(rng.uniform(*np.log([0.07, 0.35]))))
    stretch, roughness = np.exp(rng.uniform(-0.5, 0.5)), rng.uniform(0, 0.35)
    outline = blob_outline(rng, size * centre, size * radius, roughness, stretch)
    inside = filled(fill_polygon(outline, size), size) > 0
    if rng.random() < 0.3:  # a fold hides a part of it
        inside &= smooth_noise(rng, size, 3) < rng.uniform(0.3, 1)
    within = distance_transform_edt(inside) / (size * radius * rng.uniform(0.3, 1))
    steep = np.clip(within, 0, 1)
    rough = rng.uniform(0, 0.02) * smooth_noise(rng, size, int(rng.integers(10, 40)))
    return inside, radius * rng.uniform(0.2, 1) * np.sqrt(steep * (2 - steep)) + rough * steep


def _lit(rng: Generator, height: np.ndarray) -> np.ndarray:
    """Lambert's cosine of the surface, and where it shines, with a lamp a little to one side."""
    size = len(height)
    down, right = np.gradient(gaussian_filter(height * size, size * 0.004))
    norm = np.sqrt(1 + down**2 + right**2)
    lamp = rng.normal(0, 0.35, 2)
    cosine = np.clip((1 - lamp[0] * down - lamp[1] * right) / norm, 0.05, None)
    shine = (cosine / np.hypot(1, np.hypot(*lamp))) ** rng.uniform(30, 200)
    wet = smooth_noise(rng, size, 24) > rng.uniform(0, 2)
    return cosine + rng.uniform(0, 1.5) * shine * wet


def _vessels(rng: Generator, size: int) -> np.ndarray:
    """Thin ones on the wall (S, S)."""
    pixels = []
    for _ in range(rng.integers(3, 12)):
        start, heading = rng.uniform(0, size, 2), rng.uniform(0, 2 * np.pi)
        path = wander(rng, start, heading, size * rng.uniform(0.2, 0.6), 2)
        pixels.append(fill_tube(path, np.full(len(path), size * rng.uniform(0.002, 0.006)), size))
    return gaussian_filter(filled(np.concatenate(pixels), size), size * 0.003)


def _tool(rng: Generator, size: int) -> np.ndarray:
    """Pixels (n,) of a rod that comes in from outside."""
    angle = rng.uniform(0, 2 * np.pi)
    start = size * (0.5 + 0.75 * np.array([np.cos(angle), np.sin(angle)]))
    path = wander(rng, start, angle + np.pi, size * rng.uniform(0.3, 0.9), 0.2)
    return fill_tube(path, np.full(len(path), size * rng.uniform(0.01, 0.04)), size)
