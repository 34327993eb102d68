"""Shapes, exact at pixel centres, which lie at whole numbers, x right and y down."""

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike


def fill_polygon(points: np.ndarray, size: int) -> np.ndarray:
    """Pixels (n,) whose centre lies inside the polygon of x, y (corners, 2); even-odd rule."""
    x, y = np.asarray(points, float).T
    following = np.arange(1, len(x) + 1) % len(x)
    next_x, next_y = x[following], y[following]
    window = _Window(x.min(), x.max(), y.min(), y.max(), size)
    rows = window.rows[:, None]
    row, edge = np.nonzero((y <= rows) != (next_y <= rows))  # edges with one end above the row
    slope = (next_x[edge] - x[edge]) / (next_y[edge] - y[edge])
    crossing = x[edge] + (window.rows[row] - y[edge]) * slope
    return window.pixels(window.reached(row, crossing) % 2 == 1)


def fill_ellipses(centres: ArrayLike, radii: ArrayLike, angles: ArrayLike, size: int) -> np.ndarray:
    """Pixels (n,) inside any of k ellipses: centres, radii (k, 2), angles (k,) in radians.

    In row y an ellipse is the span between the two roots of a quadratic in x.
    """
    (x0, y0), (a, b) = np.asarray(centres, float).T, np.asarray(radii, float).T
    cosine, sine = np.cos(angles), np.sin(angles)
    half_height = np.sqrt((a * sine) ** 2 + (b * cosine) ** 2)
    half_width = np.sqrt((a * cosine) ** 2 + (b * sine) ** 2)
    window = _Window(
        (x0 - half_width).min(),
        (x0 + half_width).max(),
        (y0 - half_height).min(),
        (y0 + half_height).max(),
        size,
    )
    reach = int(half_height.max()) + 1
    row = np.round(y0)[:, None] + np.arange(-reach, reach + 1)  # (k, rows around each centre)
    t = (row - y0[:, None]) / half_height[:, None]
    inside = (np.abs(t) <= 1) & (row >= window.top) & (row < window.top + len(window.rows))
    ellipse, _ = np.nonzero(inside)
    row, t = row[inside].astype(int) - window.top, t[inside]
    middle = x0[ellipse] + ((a**2 - b**2) * sine * cosine / half_height)[ellipse] * t
    half = (a * b / half_height)[ellipse] * np.sqrt(1 - t**2)
    past = window.reached(row, np.floor(middle + half) + 1)
    return window.pixels(window.reached(row, middle - half) > past)


def fill_tube(path: np.ndarray, radii: np.ndarray, size: int) -> np.ndarray:
    """Pixels (n,) within `radii` (k,) of the points (k, 2): a tube where points lie close."""
    return fill_ellipses(path, np.stack([radii, radii], axis=1), np.zeros(len(path)), size)


def filled(pixels: np.ndarray, size: int) -> np.ndarray:
    """(size, size) float32: 1 at the flat indices `pixels`, 0 elsewhere."""
    field = np.zeros(size * size, np.float32)
    field[pixels] = 1
    return field.reshape(size, size)


class _Window:
    """The pixels between the given coordinates, cut to the picture."""

    def __init__(self, left: float, right: float, top: float, bottom: float, size: int):
        self.size = size
        self.top, stop = (int(v) for v in np.clip([np.ceil(top), bottom + 1], 0, size))
        self.left, self.right = (int(v) for v in np.clip([np.ceil(left), right + 1], 0, size))
        self.rows = np.arange(self.top, max(stop, self.top))

    def reached(self, row: np.ndarray, x: np.ndarray) -> np.ndarray:
        """(rows, columns): how many of the `x` of its row each pixel has reached."""
        width = self.right - self.left + 1  # the last column collects what lies beyond
        column = (np.clip(np.ceil(x), self.left, self.right) - self.left).astype(int)
        counts = np.bincount(row * width + column, minlength=len(self.rows) * width)
        by_row = counts.astype(np.int16).reshape(len(self.rows), width)
        return by_row.cumsum(axis=1, dtype=np.int16)[:, :-1]

    def pixels(self, inside: np.ndarray) -> np.ndarray:
        row, column = np.nonzero(inside)
        return (row + self.top) * self.size + column + self.left


_ANGLES = np.linspace(0, 2 * np.pi, 96, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
_WAVES = np.arange(2, 8)
_FOURIER = np.concatenate([np.cos(_WAVES[:, None] * _ANGLES), np.sin(_WAVES[:, None] * _ANGLES)])


def blob_outline(
    rng: Generator, centre: ArrayLike, radius: float, roughness: float, stretch: float = 1.0
) -> np.ndarray:
    """A closed curve (96, 2) around a centre: a circle plus random Fourier terms, stretched."""
    amplitudes = rng.standard_normal(2 * len(_WAVES)) / np.concatenate([_WAVES, _WAVES])
    distance = radius * np.maximum(1 + roughness * np.sqrt(0.5) * amplitudes @ _FOURIER, 0.2)
    turn = rng.uniform(0, np.pi)
    cosine, sine = np.cos(turn), np.sin(turn)
    axes = np.array([[cosine, sine], [-sine, cosine]]) * [[stretch**0.5], [stretch**-0.5]]
    return np.asarray(centre) + (distance[:, None] * _CIRCLE) @ axes


def wander(
    rng: Generator, start: ArrayLike, heading: float, length: float, bend: float
) -> np.ndarray:
    """A smooth path (n, 2) with a point for each pixel of `length`; `bend` in radians in all."""
    count = max(3, int(length))
    turns = rng.standard_normal(4) * bend
    direction = heading + np.interp(np.linspace(0, 3, count), np.arange(4), turns.cumsum() / 2)
    steps = np.stack([np.cos(direction), np.sin(direction)], axis=1)
    return np.asarray(start) + steps.cumsum(axis=0)
