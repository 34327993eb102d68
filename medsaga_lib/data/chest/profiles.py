"""The density profiles of rods, hollow bones and smooth noise along parallel rays."""

import numpy as np
from scipy import ndimage

Array = np.ndarray
Random = np.random.Generator


def tube(distance: Array, radius: float | Array) -> Array:
    """Return the chord length of a round rod, relative to its diameter."""
    return np.sqrt(np.clip(1 - (distance / radius) ** 2, 0, None))


def shaft(distance: Array) -> Array:
    """Return the profile of a bone shaft: a hollow rod of radius 1, brighter at its edges."""
    return np.sqrt(np.clip(1 - distance**2, 0, None)) - 0.55 * np.sqrt(
        np.clip(1 - (distance / 0.72) ** 2, 0, None)
    )


def between(y: Array, top: float, bottom: float, soft: float = 0.03) -> Array:
    """Return 1 between two heights and 0 outside, with soft transitions."""
    return np.clip((y - top) / soft + 0.5, 0, 1) * np.clip((bottom - y) / soft + 0.5, 0, 1)


def cloud(shape: tuple[int, ...], random: Random, size: float) -> Array:
    """Draw smooth noise of unit variance with structures of about `size` pixels."""
    noise = smooth(random.standard_normal(shape), size)
    return noise / noise.std()


def smooth(picture: Array, size: float) -> Array:
    """Smooth by 3 box filters, close to a Gaussian of standard deviation `size` but faster."""
    box = max(round(2 * size), 1)
    for axis in (0, 1) * 3:
        picture = ndimage.uniform_filter1d(picture, box, axis, mode="nearest")
    return picture
