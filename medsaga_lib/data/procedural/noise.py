"""Smooth noise, of which layouts, textures and uneven light are made."""

from functools import lru_cache

import numpy as np
from numpy.random import Generator
from scipy.ndimage import spline_filter1d


@lru_cache(maxsize=256)
def upsample(size: int, knots: int) -> np.ndarray:
    """(size, knots) float32: cubic spline through evenly spaced values, at each pixel."""
    identity = spline_filter1d(np.eye(knots), order=3, axis=0, mode="mirror")
    position = np.linspace(0, knots - 1, size)
    weights = np.zeros((size, knots))
    for offset in range(-1, 3):
        knot = np.floor(position).astype(int) + offset
        t = np.abs(position - knot)
        basis = np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.clip(2 - t, 0, None) ** 3 / 6)
        mirrored = np.abs((knots - 1) - np.abs((knots - 1) - knot)) % max(knots, 1)
        np.add.at(weights, (np.arange(size), mirrored), basis)
    return (weights @ identity).astype(np.float32)


def smooth_noise(rng: Generator, size: int, rows: int, columns: int | None = None) -> np.ndarray:
    """Noise (size, size) float32, about unit variance: a spline of `rows` x `columns` knots."""
    columns = columns or rows
    values = rng.standard_normal((rows, columns), np.float32)
    return upsample(size, rows) @ values @ upsample(size, columns).T
