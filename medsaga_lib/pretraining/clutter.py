"""What real pictures have and drawn scenes lack: uneven light, relief, ribs, glare, veils, haze.

Without it the pocket SAM learned that an object is what has one brightness and a border all around:
with a box around a lung it left out ribs and what lies behind the heart. None of this changes a
mask. Ranges are our choice.
"""

import numpy as np
from numpy.random import Generator
from scipy.ndimage import distance_transform_edt, gaussian_filter, maximum, zoom

from medsaga_lib.data.procedural.noise import smooth_noise
from medsaga_lib.data.procedural.shapes import (
    blob_outline,
    fill_ellipses,
    fill_polygon,
    fill_tube,
    filled,
    wander,
)
from medsaga_lib.pretraining.targets import borders


def cluttered(image: np.ndarray, labels: np.ndarray, rng: Generator) -> np.ndarray:
    """A less tidy version of the picture (S, S, 3) uint8 of a scene with labels (S, S)."""
    size, unit = len(labels), float(image.std()) + 8  # grey values: what counts as much here
    added = np.zeros((size, size), np.float32)
    for _ in range(2):  # every object, and the background, in a light of its own
        strength = unit * rng.uniform(0, 1.2) * rng.standard_normal(labels.max() + 1)
        light = smooth_noise(rng, size, int(rng.integers(2, 9)))
        added += strength.astype(np.float32)[labels] * light
    if rng.random() < 0.5:  # objects are round: a polyp is lit so, a lung in X-rays is thin so
        height = unit * rng.uniform(0, 1.5) * rng.standard_normal(labels.max() + 1)
        added += height.astype(np.float32)[labels] * _dome(labels)
    if rng.random() < 0.3:
        added += unit * rng.uniform(-1, 1) * _bands(rng, size)
    if rng.random() < 0.3:
        added += unit * rng.uniform(-1, 3) * _spots(rng, size)
    if rng.random() < 0.2:
        added += unit * rng.uniform(-2, 2) * _lines(rng, size)
    result = image + added[..., None] * rng.uniform(0.8, 1, 3).astype(np.float32)
    if rng.random() < 0.6:  # an object goes on behind a veil, as a lung behind the heart
        veil = _veil(rng, size)[..., None]
        if rng.random() < 0.6:
            tone = rng.choice(result[::16, ::16].reshape(-1, 3))
            result += rng.uniform(0.5, 1) * veil * (tone - result)
        else:
            result += unit * rng.uniform(-2, 2) * veil
    if rng.random() < 0.4:  # borders get lost, as a lung's beneath the shoulder
        lost = _somewhere(rng, size)[..., None]
        result += lost * (_without_detail(rng, result) - result)
    if rng.random() < 0.15:  # haze: little is left but the prompt
        result = result.mean() + rng.uniform(0, 0.4) * (result - result.mean())
    return np.clip(result, 0, 255).astype(np.uint8)


def _dome(labels: np.ndarray) -> np.ndarray:
    """From 0 at the borders of each label's region to 1 where it is deepest, as a circle rises."""
    inside = ~borders(labels)
    depth = distance_transform_edt(inside).astype(np.float32)
    deepest = maximum(depth, labels, np.arange(labels.max() + 1))
    share = depth / np.maximum(np.float32(deepest), 1)[labels]
    return np.sqrt(share * (2 - share))


def _bands(rng: Generator, size: int) -> np.ndarray:
    """Bent, half transparent bands over a part of the picture, as ribs lie over a lung."""
    angle, period = rng.uniform(0, np.pi), size * rng.uniform(0.05, 0.2)
    across = np.arange(size, dtype=np.float32) / np.float32(period)
    phase = across * np.float32(np.cos(angle)) + across[:, None] * np.float32(np.sin(angle))
    wave = np.cos(2 * np.pi * (phase + smooth_noise(rng, size, 3)))
    band = np.clip((wave - rng.uniform(-0.3, 0.5)) * 3, 0, 1)
    return band * np.clip(smooth_noise(rng, size, 3) + 0.7, 0, 1)


def _spots(rng: Generator, size: int) -> np.ndarray:
    """Glare on wet tissue, bubbles, dust."""
    count = int(rng.integers(3, 25))
    radii = size * np.exp(rng.uniform(np.log(0.004), np.log(0.03), (count, 2)))
    centres = rng.uniform(0, size, (count, 2))
    return _painted(fill_ellipses(centres, radii, rng.uniform(0, np.pi, count), size), rng, size)


def _lines(rng: Generator, size: int) -> np.ndarray:
    """Tubes, wires and hair."""
    pixels = []
    for _ in range(int(rng.integers(1, 5))):
        length, bend = size * rng.uniform(0.3, 1.2), rng.uniform(0, 1)
        start = rng.uniform(0, size, 2)
        path = wander(rng, start, rng.uniform(0, 2 * np.pi), length, bend)
        radius = size * rng.uniform(0.002, 0.01)
        pixels.append(fill_tube(path, np.full(len(path), radius), size))
    return _painted(np.concatenate(pixels), rng, size)


def _veil(rng: Generator, size: int) -> np.ndarray:
    """A large blob with a soft edge, from 0 to 1."""
    radius = size * rng.uniform(0.08, 0.4)
    outline = blob_outline(
        rng, rng.uniform(0, size, 2), radius, 0.3, np.exp(rng.uniform(-0.8, 0.8))
    )
    canvas = filled(fill_polygon(outline, size), size)
    return gaussian_filter(canvas, radius * rng.uniform(0.02, 0.2), truncate=2)


def _somewhere(rng: Generator, size: int) -> np.ndarray:
    """From 0 to 1: smooth patches that cover some of the picture, or all of it."""
    height = smooth_noise(rng, size, int(rng.integers(2, 6))) + rng.uniform(-1, 1)
    return np.clip(2 * height, 0, 1)


def _without_detail(rng: Generator, image: np.ndarray) -> np.ndarray:
    """The picture (S, S, 3) blurred over a tenth of its side and more, in steps of 8 pixels."""
    size, step = len(image), 8
    coarse = image.reshape(size // step, step, size // step, step, 3).mean(axis=(1, 3))
    radius = size / step * rng.uniform(0.06, 0.2)
    coarse = gaussian_filter(coarse, (radius, radius, 0), truncate=2)
    return zoom(coarse, (step, step, 1), order=1, grid_mode=True, mode="nearest")


def _painted(pixels: np.ndarray, rng: Generator, size: int) -> np.ndarray:
    return gaussian_filter(filled(pixels, size), size / 256 * rng.uniform(0.3, 1.5))
