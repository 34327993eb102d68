"""Turns a density into an X-ray image: pose, medical devices, exposure and collimation."""

import numpy as np
from scipy import ndimage

from medsaga_lib.data.chest.anatomy import View
from medsaga_lib.data.chest.profiles import Array, Random, smooth


def pose(view: View, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Return the affine map from image to body coordinates, for SciPy's `affine_transform`."""
    angle = np.deg2rad(view.turn)
    cos, sin = np.cos(angle) / view.scale, np.sin(angle) / view.scale
    matrix = np.array([[cos, -sin], [sin, cos]])
    centre = (np.array(shape) - 1) / 2
    shift = np.array([view.down * shape[0], view.right * shape[1]])
    return matrix, centre - matrix @ (centre + shift)


def expose(dense: Array, view: View, random: Random) -> Array:
    """Turn densities into grey levels, 0 to 1: quantum noise, flattening and tone curve."""
    grain = ndimage.gaussian_filter(random.standard_normal(dense.shape), 0.6)
    noisy = dense + view.noise * (0.6 + dense) * grain * 1.6
    slow = smooth(dense, dense.shape[1] / 9)
    flat = noisy - view.flatten * slow
    inside = flat[dense > 0.25]
    low, high = np.percentile(inside, (1, 99)) if inside.size else (0.0, 1.0)
    tone = np.clip((flat - low) / (high - low), -0.08, 1.1)
    rising = np.sign(tone) * np.abs(tone) ** view.contrast
    beam = np.clip((dense - 0.03) / 0.25, 0, 1)  # the film is black beside the patient
    return np.clip(view.dark + (view.bright - view.dark) * rising, 0, 1) * beam


def devices(shape: tuple[int, ...], random: Random) -> Array:
    """Draw the density of the devices of a patient in bed: leads, central line, breathing tube."""
    total = np.zeros(shape)
    for _ in range(random.integers(0, 4)):  # leads of the monitor
        ends = random.uniform([-0.2, 0.1], [1.2, 1.0], (4, 2))
        ends[:, 0].sort()  # so that a lead has no loops
        total += 0.16 * _line(ends, shape, 0.8)
    if random.random() < 0.5:  # central line, from the neck to the vena cava
        side = random.choice([-0.12, 0.12])
        ends = np.array([[0.5 + side, -0.02], [0.5 + side * 0.8, 0.1], [0.45, 0.2], [0.45, 0.45]])
        total += 0.10 * _line(ends, shape, 0.6)
    if random.random() < 0.4:  # breathing tube, ending above the carina
        total += 0.12 * _line(
            np.array([[0.5, -0.05], [0.5, 0.1], [0.5, 0.2], [0.503, 0.3]]), shape, 1.2
        )
    return total


def _line(ends: Array, shape: tuple[int, ...], blur: float) -> Array:
    """Draw a cubic Bezier curve with 4 control points (x, y), as fractions of the image."""
    height, width = shape
    t = np.linspace(0, 1, 4 * width)[:, None]
    weights = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    x, y = np.floor((weights @ ends) * [width, height]).astype(int).T
    seen = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    drawn = np.zeros(shape)
    drawn[y[seen], x[seen]] = 1
    soft = ndimage.gaussian_filter(drawn, blur)
    return soft / max(soft.max(), 1e-9)


def collimate(picture: Array, labels: Array, random: Random) -> tuple[Array, Array]:
    """Add black borders outside the beam and a side marker, and round the image to 8 bits."""
    height, width = picture.shape
    if random.random() < 0.45:
        for axis, length in enumerate((height, width)):
            first, last = (int(random.uniform(0, 0.05) * length) for _ in range(2))
            index = np.arange(length)
            outside = np.expand_dims((index < first) | (index >= length - last), 1 - axis)
            picture, labels = np.where(outside, 0.02, picture), np.where(outside, 0, labels)
    if random.random() < 0.6:  # the letter L on the patient's left
        top, left = (
            int(random.uniform(0.03, 0.12) * height),
            int(random.uniform(0.88, 0.94) * width),
        )
        picture[top : top + 11, left : left + 2] = 0.97
        picture[top + 9 : top + 11, left : left + 7] = 0.97
    return np.round(255 * picture).astype(np.uint8), labels
