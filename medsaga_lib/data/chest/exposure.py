"""From density to a picture: pose, what lies on the patient, exposure, collimation."""

import numpy as np
from scipy import ndimage

from medsaga_lib.data.chest.anatomy import View
from medsaga_lib.data.chest.profiles import Array, Random, smooth


def pose(view: View, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """The map from places of the picture to places of the body, for `affine_transform`."""
    angle = np.deg2rad(view.turn)
    cos, sin = np.cos(angle) / view.scale, np.sin(angle) / view.scale
    matrix = np.array([[cos, -sin], [sin, cos]])
    centre = (np.array(shape) - 1) / 2
    shift = np.array([view.down * shape[0], view.right * shape[1]])
    return matrix, centre - matrix @ (centre + shift)


def expose(dense: Array, view: View, random: Random) -> Array:
    """From density to grey: quantum noise, removal of slow changes, tone curve; float, 0 to 1."""
    grain = ndimage.gaussian_filter(random.standard_normal(dense.shape), 0.6)
    noisy = dense + view.noise * (0.6 + dense) * grain * 1.6
    slow = smooth(dense, dense.shape[1] / 9)
    flat = noisy - view.flatten * slow
    inside = flat[dense > 0.25]
    low, high = np.percentile(inside, (1, 99)) if inside.size else (0.0, 1.0)
    tone = np.clip((flat - low) / (high - low), -0.08, 1.1)
    rising = np.sign(tone) * np.abs(tone) ** view.contrast
    beam = np.clip((dense - 0.03) / 0.25, 0, 1)  # beside the patient the film is black
    return np.clip(view.dark + (view.bright - view.dark) * rising, 0, 1) * beam


def devices(shape: tuple[int, ...], random: Random) -> Array:
    """What lies on a patient in bed: leads, a central line, a breathing tube."""
    total = np.zeros(shape)
    for _ in range(random.integers(0, 4)):  # leads of the monitor
        ends = random.uniform([-0.2, 0.1], [1.2, 1.0], (4, 2))
        ends[:, 0].sort()  # without loops
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
    """A cubic Bezier curve through the picture, its four points as (x, y) fractions."""
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
    """Black borders outside the beam, the side marker, and rounding to 8 bits."""
    height, width = picture.shape
    if random.random() < 0.45:
        for axis, length in enumerate((height, width)):
            first, last = (int(random.uniform(0, 0.05) * length) for _ in range(2))
            index = np.arange(length)
            outside = np.expand_dims((index < first) | (index >= length - last), 1 - axis)
            picture, labels = np.where(outside, 0.02, picture), np.where(outside, 0, labels)
    if random.random() < 0.6:  # an L on the patient's left
        top, left = (
            int(random.uniform(0.03, 0.12) * height),
            int(random.uniform(0.88, 0.94) * width),
        )
        picture[top : top + 11, left : left + 2] = 0.97
        picture[top + 9 : top + 11, left : left + 7] = 0.97
    return np.round(255 * picture).astype(np.uint8), labels
