"""Procedural pictures: layered scenes with the exact mask of every object, a function of the seed.

The pocket SAM is pretrained on them, so nothing here comes from a real image. A family lays out
the objects (`FAMILIES`), a smooth deformation bends them, and a random appearance renders them.
Ranges without a source are our choice: as wide as still looks like something one could outline.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter, label, spline_filter1d

BACKGROUND = 0  # the label of pixels that belong to no object
GROUP = -1  # the kind of an object that consists of its parts alone
MAXIMUM_OBJECTS = 255  # labels are uint8
SMALLEST = 0.001  # of the picture's area, 66 pixels of 256 x 256; less is no object
LARGEST = 0.9  # of the picture's area; a larger object is a background


@dataclass(frozen=True)
class Scene:
    """A picture and its objects. An object's pixels are its own label's and its descendants'."""

    image: np.ndarray  # (S, S, 3) uint8
    labels: np.ndarray  # (S, S) uint8, the innermost object of each pixel; 0 is background
    members: np.ndarray  # (N, L) bool: object n covers the pixels of label l
    family: str

    def __len__(self) -> int:
        return len(self.members)

    @property
    def areas(self) -> np.ndarray:
        """(N,) of the objects, parts included, as shares of the picture's."""
        pixels = np.bincount(self.labels.ravel(), minlength=self.members.shape[1])
        return self.members @ pixels / self.labels.size

    def masks(self, objects: Sequence[int] | np.ndarray | slice = slice(None)) -> np.ndarray:
        """Masks (n, S, S) bool of the chosen objects, of all by default; parts lie in wholes."""
        return self.members[objects][:, self.labels]


class Canvas:
    """Where a family paints: opaque objects, later ones in front; each may be part of another.

    Pixels are given as flat indices into the picture, row by row.
    """

    def __init__(self, size: int):
        self.size = size
        self.labels = np.zeros(size * size, np.uint8)  # the innermost object of each pixel
        self.kinds = [0]  # of each label; labels of one kind look alike
        self.parents = [BACKGROUND]
        self.covers = np.eye(MAXIMUM_OBJECTS + 1, dtype=bool)  # [m, l]: l is m or a part of it

    def paint(self, pixels: np.ndarray, parent: int = BACKGROUND, kind: int | None = None) -> int:
        """Adds an object (n,) of pixels, clipped to its parent; returns its label.

        Returns the background, and paints nothing, once all labels are used.
        """
        outline = parent  # a group has no outline of its own
        while outline != BACKGROUND and self.kinds[outline] == GROUP:
            outline = self.parents[outline]
        if outline != BACKGROUND:
            pixels = pixels[self.covers[outline][self.labels[pixels]]]
        new = self._add(parent, max(self.kinds) + 1 if kind is None else kind)
        if new != BACKGROUND:
            self.labels[pixels] = new
        return new

    def group(self, parent: int = BACKGROUND) -> int:
        """Adds an object that consists of the objects painted into it afterwards."""
        return self._add(parent, GROUP)

    def wall(self, whole: int) -> int:
        """Adds the object that a whole is without its parts, which has no outline of its own."""
        new = self._add(BACKGROUND, GROUP)
        if new != BACKGROUND:
            self.covers[new, whole] = True
        return new

    def _add(self, parent: int, kind: int) -> int:
        new = len(self.parents)
        if new > MAXIMUM_OBJECTS:
            return BACKGROUND
        self.parents.append(parent)
        self.kinds.append(kind)
        while parent != BACKGROUND:
            self.covers[parent, new] = True
            parent = self.parents[parent]
        return new


# --- Shapes: exact at pixel centres, which lie at whole numbers, x right and y down ---


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


# --- Families: each paints one kind of layout ---


def _place(rng: Generator, size: int, margin: float = 0.1) -> np.ndarray:
    return rng.uniform(margin * size, (1 - margin) * size, 2)


def _sizes(rng: Generator, size: int, low: float, high: float) -> float:
    """A length between two fractions of the picture, small ones more often (log-uniform)."""
    return size * float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _blob(rng: Generator, size: int, centre: np.ndarray, radius: float) -> np.ndarray:
    outline = blob_outline(rng, centre, radius, rng.uniform(0, 0.5), np.exp(rng.uniform(-0.8, 0.8)))
    return fill_polygon(outline, size)


def paint_blobs(rng: Generator, canvas: Canvas) -> None:
    """Smooth lumps, some with a part of their own."""
    for _ in range(rng.integers(1, 8)):
        centre, radius = _place(rng, canvas.size), _sizes(rng, canvas.size, 0.03, 0.3)
        whole = canvas.paint(_blob(rng, canvas.size, centre, radius))
        if rng.random() < 0.3:
            shift = rng.uniform(-0.4, 0.4, 2) * radius
            inner = radius * rng.uniform(0.2, 0.6)
            canvas.paint(_blob(rng, canvas.size, centre + shift, inner), whole)


def paint_ellipses(rng: Generator, canvas: Canvas) -> None:
    """Ellipses of any size and tilt."""
    for _ in range(rng.integers(1, 10)):
        radii = [_sizes(rng, canvas.size, 0.03, 0.3) for _ in range(2)]
        place = _place(rng, canvas.size)
        canvas.paint(fill_ellipses([place], [radii], [rng.uniform(0, np.pi)], canvas.size))


def paint_polygons(rng: Generator, canvas: Canvas) -> None:
    """Polygons with straight sides, convex and star-shaped."""
    for _ in range(rng.integers(1, 8)):
        corners = rng.integers(3, 9)
        angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
        distance = _sizes(rng, canvas.size, 0.06, 0.4) * rng.uniform(0.5, 1, corners)
        outline = np.stack([np.cos(angle), np.sin(angle)], axis=1) * distance[:, None]
        canvas.paint(fill_polygon(_place(rng, canvas.size) + outline, canvas.size))


def paint_curves(rng: Generator, canvas: Canvas) -> None:
    """Tubes of constant or tapering width: catheters, ribs, tendons."""
    kind = None if rng.random() < 0.5 else 1
    for _ in range(rng.integers(1, 7)):
        length = _sizes(rng, canvas.size, 0.2, 1.2)
        path = wander(rng, _place(rng, canvas.size), rng.uniform(0, 2 * np.pi), length, 0.8)
        width = _sizes(rng, canvas.size, 0.008, 0.06)
        radii = width * np.linspace(1, rng.uniform(0.4, 1), len(path))
        canvas.paint(fill_tube(path, radii, canvas.size), kind=kind)


def paint_trees(rng: Generator, canvas: Canvas) -> None:
    """Branching vessels: the tree is the object."""
    for _ in range(rng.integers(1, 3)):
        paths, radii = [], []
        width = _sizes(rng, canvas.size, 0.012, 0.04)
        tips = [(_place(rng, canvas.size, 0), rng.uniform(0, 2 * np.pi), width)]
        for _ in range(rng.integers(6, 20)):
            start, heading, width = tips.pop(0)
            path = wander(rng, start, heading, canvas.size * rng.uniform(0.1, 0.35), 0.5)
            paths.append(path)
            radii.append(np.linspace(width, 0.75 * width, len(path)))
            for side in (-1, 1):
                turn = heading + side * rng.uniform(0.2, 0.9)
                tips.append((path[-1], turn, max(0.75 * width, 0.7)))
        canvas.paint(fill_tube(np.concatenate(paths), np.concatenate(radii), canvas.size))


def paint_shells(rng: Generator, canvas: Canvas) -> None:
    """Lumens in walls, and the walls alone: vessels in section, ventricles, bladders, cysts."""
    for _ in range(rng.integers(1, 6)):
        centre, radius = _place(rng, canvas.size), _sizes(rng, canvas.size, 0.05, 0.3)
        outline = blob_outline(rng, centre, radius, rng.uniform(0, 0.4))
        whole = canvas.paint(fill_polygon(outline, canvas.size))
        shift = rng.uniform(-0.1, 0.1, 2) * radius
        inner = centre + shift + (outline - centre) * rng.uniform(0.4, 0.9)
        if canvas.paint(fill_polygon(inner, canvas.size), whole):
            canvas.wall(whole)


def paint_cells(rng: Generator, canvas: Canvas) -> None:
    """Many cells of one kind on a jittered grid, some with nuclei; a cluster may be one object."""
    spacing = _sizes(rng, canvas.size, 0.09, 0.25)
    lattice = np.arange(0, canvas.size + spacing, spacing)
    centres = np.stack(np.meshgrid(lattice, lattice), axis=-1).reshape(-1, 2)
    centres = centres + rng.normal(0, 0.2 * spacing, centres.shape)
    centres = centres[rng.random(len(centres)) < rng.uniform(0.3, 1)][:100]
    nuclei, roughness = rng.random() < 0.5, rng.uniform(0, 0.3)
    for centre in centres:
        radius = spacing * rng.uniform(0.3, 0.55)
        outline = blob_outline(rng, centre, radius, roughness, np.exp(rng.uniform(-0.4, 0.4)))
        cell = canvas.paint(fill_polygon(outline, canvas.size), kind=1)
        if nuclei and cell:
            inner = blob_outline(rng, centre, radius * rng.uniform(0.3, 0.6), 0.1)
            canvas.paint(fill_polygon(inner, canvas.size), cell, kind=2)


def paint_organs(rng: Generator, canvas: Canvas) -> None:
    """A body, organs in it, lesions in them."""
    size = canvas.size
    body = canvas.paint(_blob(rng, size, np.full(2, size / 2), size * rng.uniform(0.3, 0.45)))
    for _ in range(rng.integers(2, 8)):
        centre, radius = _place(rng, size, 0.25), _sizes(rng, size, 0.05, 0.2)
        organ = canvas.paint(_blob(rng, size, centre, radius), body)
        for _ in range(rng.integers(0, 3)):
            spot = centre + rng.uniform(-0.6, 0.6, 2) * radius
            canvas.paint(_blob(rng, size, spot, radius * rng.uniform(0.1, 0.5)), organ)


def paint_pairs(rng: Generator, canvas: Canvas) -> None:
    """A torso with mirrored organs, something between them and bars across."""
    size, middle = canvas.size, canvas.size / 2
    torso = canvas.paint(_blob(rng, size, np.full(2, middle), size * rng.uniform(0.36, 0.5)))
    for _ in range(rng.integers(1, 3)):
        offset = size * np.array([rng.uniform(0.1, 0.25), rng.uniform(-0.2, 0.2)])
        radius, stretch = _sizes(rng, size, 0.06, 0.2), np.exp(rng.uniform(-0.7, 0.3))
        outline = blob_outline(rng, (0, 0), radius, rng.uniform(0.1, 0.5), stretch)
        pair, kind = canvas.group(torso), max(canvas.kinds) + 1
        for mirror in (-1, 1):
            bent = outline + rng.normal(0, 0.03 * radius, 2)
            organ = fill_polygon(middle + (bent + offset) * [mirror, 1], size)
            canvas.paint(organ, pair, kind)
    if rng.random() < 0.6:
        centre = middle + size * np.array([rng.uniform(-0.05, 0.1), rng.uniform(-0.1, 0.2)])
        canvas.paint(_blob(rng, size, centre, _sizes(rng, size, 0.07, 0.16)), torso)
    if rng.random() < 0.5:
        kind = max(canvas.kinds) + 1
        for y in np.arange(0.15, 0.85, rng.uniform(0.08, 0.15)) * size:
            path = wander(rng, (0.15 * size, y), rng.uniform(-0.3, 0.3), 0.7 * size, 0.3)
            canvas.paint(fill_tube(path, np.full(len(path), 0.012 * size), size), torso, kind)


def paint_islands(rng: Generator, canvas: Canvas) -> None:
    """Where smooth noise is high: the connected pieces of a level set."""
    noise = smooth_noise(rng, canvas.size, int(rng.integers(4, 14)))
    pieces, count = label(noise > rng.uniform(0.2, 1.2))
    for piece in range(1, min(count, 40) + 1):
        canvas.paint(np.flatnonzero(pieces == piece), kind=1)


def paint_layers(rng: Generator, canvas: Canvas) -> None:
    """Wavy bands on top of each other: retina, skin, vessel walls cut lengthwise."""
    size, count = canvas.size, int(rng.integers(3, 9))
    depth = np.sort(rng.uniform(0.1, 0.9, count)) * size
    waves = _upsample(size, 6) @ rng.normal(0, 0.03 * size, (6, 1)) + _upsample(size, 6) @ (
        rng.normal(0, 0.008 * size, (6, count))
    )  # (S, count): the bands share a wave and have one of their own
    borders = np.sort(waves.T + depth[:, None], axis=0)
    rows = np.arange(size)[:, None]
    for top, bottom in pairwise(borders):
        canvas.paint(np.flatnonzero((rows >= top) & (rows < bottom)))


def paint_mosaic(rng: Generator, canvas: Canvas) -> None:
    """Regions around random points (Voronoi), with walls between them or without."""
    seeds = rng.uniform(0, canvas.size, (int(rng.integers(5, 16)), 2)).astype(np.float32)
    y, x = np.mgrid[: canvas.size, : canvas.size].astype(np.float32)
    distance = (x - seeds[:, :1, None]) ** 2 + (y - seeds[:, 1:, None]) ** 2
    nearest = distance.argmin(axis=0)
    gap = rng.uniform(0.0, 0.03) * canvas.size
    distance = np.sqrt(np.partition(distance, 1, axis=0)[:2])
    inside = distance[1] - distance[0] > gap
    for region in range(len(seeds)):
        if rng.random() < 0.7:
            canvas.paint(np.flatnonzero((nearest == region) & inside))


def paint_threads(rng: Generator, canvas: Canvas) -> None:
    """Long thin loops that cross each other (never trained on: thin)."""
    for _ in range(rng.integers(2, 6)):
        length = canvas.size * rng.uniform(1.0, 2.5)
        path = wander(rng, _place(rng, canvas.size, 0.2), rng.uniform(0, 2 * np.pi), length, 3.0)
        radii = np.full(len(path), _sizes(rng, canvas.size, 0.006, 0.014))
        canvas.paint(fill_tube(path, radii, canvas.size))


def paint_onions(rng: Generator, canvas: Canvas) -> None:
    """Several closed shells in each other (never trained on: nested)."""
    for _ in range(rng.integers(1, 4)):
        centre = _place(rng, canvas.size, 0.25)
        outline = blob_outline(rng, centre, _sizes(rng, canvas.size, 0.12, 0.35), 0.2) - centre
        parent = BACKGROUND
        for scale in np.linspace(1, 0.2, int(rng.integers(3, 6))):
            parent = canvas.paint(fill_polygon(centre + scale * outline, canvas.size), parent)


def paint_camouflage(rng: Generator, canvas: Canvas) -> None:
    """Lumps of their surroundings' tone and tint (never trained on: told apart by texture)."""
    for _ in range(rng.integers(1, 5)):
        centre, radius = _place(rng, canvas.size, 0.2), _sizes(rng, canvas.size, 0.08, 0.25)
        canvas.paint(_blob(rng, canvas.size, centre, radius))


FAMILIES: dict[str, Callable[[Generator, Canvas], None]] = {
    "blobs": paint_blobs,
    "ellipses": paint_ellipses,
    "polygons": paint_polygons,
    "curves": paint_curves,
    "trees": paint_trees,
    "shells": paint_shells,
    "cells": paint_cells,
    "organs": paint_organs,
    "pairs": paint_pairs,
    "islands": paint_islands,
    "layers": paint_layers,
    "mosaic": paint_mosaic,
    "threads": paint_threads,
    "onions": paint_onions,
    "camouflage": paint_camouflage,
}
HELD_OUT = ("threads", "onions", "camouflage")
TRAINED = tuple(name for name in FAMILIES if name not in HELD_OUT)


# --- Noise, deformation and appearance ---


@lru_cache(maxsize=256)
def _upsample(size: int, knots: int) -> np.ndarray:
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
    return _upsample(size, rows) @ values @ _upsample(size, columns).T


def _deformed(rng: Generator, labels: np.ndarray, size: int) -> np.ndarray:
    """The labels (S, S), bent smoothly, turned, mirrored and enlarged; nearest label."""
    bend = rng.uniform(0, 0.05) * size
    knots = int(rng.integers(3, 7))
    turn, zoom = rng.normal(0, 0.2), rng.uniform(0.65, 1.0)
    centre = size / 2 + rng.uniform(-0.5, 0.5, 2) * (1 - zoom) * size
    across = np.linspace(-0.5, 0.5, size, dtype=np.float32) * size * zoom
    flip = rng.choice([-1.0, 1.0])
    x, y = across[None, :] * flip, across[:, None]
    source_x = centre[0] + x * np.cos(turn) - y * np.sin(turn)
    source_y = centre[1] + x * np.sin(turn) + y * np.cos(turn)
    source_x = source_x + bend * smooth_noise(rng, size, knots)
    source_y = source_y + bend * smooth_noise(rng, size, knots)
    column = np.clip(source_x + 0.5, 0, size - 1).astype(np.int32)
    row = np.clip(source_y + 0.5, 0, size - 1).astype(np.int32)
    return labels.take(row * size + column)


TEXTURES = (0.3, 0.3, 0.15, 0.1, 0.15)  # how often: gradient, clouds, fibres, stripes, spots


def _texture(rng: Generator, size: int) -> np.ndarray:
    """A field (size, size) float32 about 0, of about unit variance, in one of five styles."""
    style = rng.choice(5, p=TEXTURES)
    if style == 0:  # a gradient
        return smooth_noise(rng, size, int(rng.integers(2, 5)))
    if style == 1:  # clouds
        return smooth_noise(rng, size, int(rng.integers(8, 32)))
    if style == 2:  # fibres along an axis
        knots = [int(rng.integers(4, 10)), int(rng.integers(24, 80))]
        rng.shuffle(knots)
        return smooth_noise(rng, size, *knots)
    if style == 3:  # stripes, bent
        wave = 2 * np.pi / (size * rng.uniform(0.02, 0.12))
        angle = rng.uniform(0, np.pi)
        across = np.arange(size, dtype=np.float32) * np.float32(wave)
        phase = across * np.float32(np.cos(angle)) + across[:, None] * np.float32(np.sin(angle))
        return np.float32(1.4) * np.sin(phase + 2 * smooth_noise(rng, size, 4))
    spots = smooth_noise(rng, size, int(rng.integers(16, 64)))
    marked = 2 * (spots > rng.uniform(0.3, 1)).astype(np.float32)
    return marked - marked.mean()


def _tones(rng: Generator, canvas: Canvas, contrast: float, by_texture: bool) -> np.ndarray:
    """Brightness (L,) of each label: its kind's, which differs from its whole's by `contrast`."""
    of_kind: dict[int, float] = {}
    tones = np.empty(len(canvas.parents), np.float32)
    tones[0] = rng.uniform(0, 1)
    for this, (parent, kind) in enumerate(zip(canvas.parents, canvas.kinds, strict=True)):
        if this == BACKGROUND:
            continue
        if kind == GROUP:
            tones[this] = tones[parent]
            continue
        if kind not in of_kind:
            step = contrast * rng.uniform(0.5, 2.5) * rng.choice([-1, 1])
            tone = tones[parent] + step
            of_kind[kind] = tone if 0 <= tone <= 1 else tones[parent] - step
        tones[this] = of_kind[kind] + rng.normal(0, 0.1 * contrast)
    return np.full_like(tones, tones[0]) if by_texture else tones


def _render(rng: Generator, canvas: Canvas, labels: np.ndarray, by_texture: bool) -> np.ndarray:
    """The picture (S, S, 3) uint8 of deformed labels."""
    size = canvas.size
    contrast = float(np.exp(rng.uniform(np.log(0.06), np.log(0.6))))
    tones = _tones(rng, canvas, contrast, by_texture)
    grey = tones[labels]

    # Textures, in each kind with a strength of its own
    kinds = np.array(canvas.kinds)
    strength = contrast * (1.0 if by_texture else max(0.0, rng.uniform(-0.2, 0.5)))
    for _ in range(2):
        of_kind = strength * rng.standard_normal(kinds.max() + 1).astype(np.float32)
        grey = grey + of_kind[kinds][labels] * _texture(rng, size)

    # Blur, with edges enhanced in some pictures
    if rng.random() < 0.8:
        soft = gaussian_filter(grey, size / 256 * rng.uniform(0.3, 2.0), truncate=2.5)
        grey = soft if rng.random() < 0.8 else soft + rng.uniform(0.5, 1.5) * (grey - soft)

    # What a scanner or a camera adds
    if rng.random() < 0.5:  # uneven light or coil sensitivity
        grey = grey * (
            1 + rng.uniform(0.05, 0.3) * smooth_noise(rng, size, int(rng.integers(2, 4)))
        )
    if rng.random() < 0.2:  # vignette
        across = np.linspace(-1, 1, size, dtype=np.float32) ** 2
        grey = grey * (1 - rng.uniform(0.1, 0.5) * (across + across[:, None]))
    grey = _noisy(rng, grey, contrast)
    if rng.random() < 0.3:
        grey = 1 - grey
    return _coloured(rng, grey, np.zeros_like(kinds) if by_texture else kinds, labels)


def _noisy(rng: Generator, grey: np.ndarray, contrast: float) -> np.ndarray:
    """Gaussian, Poisson (its normal limit) or speckle (Rayleigh) noise, fine or coarse, or none."""
    kind = rng.integers(5)
    if kind == 0:
        return grey
    size = len(grey)
    level = np.float32(contrast * rng.uniform(0.05, 0.7))
    if kind == 1:
        return grey + level * smooth_noise(rng, size, int(size * rng.uniform(0.3, 0.6)))
    if kind == 2:
        speckle = np.sqrt(2 * rng.standard_exponential(grey.shape, np.float32))
        return grey * (1 + level * (gaussian_filter(speckle, rng.uniform(0.3, 1.0)) - 1.25))
    noise = level * rng.standard_normal(grey.shape, np.float32)
    return grey + noise * (np.sqrt(np.abs(grey)) if kind == 3 else 1)


def _coloured(
    rng: Generator, grey: np.ndarray, kinds: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """(S, S, 3) uint8: grey stretched to a random range, in 35 of 100 pictures with tints."""
    low, high = np.percentile(grey[::8, ::8], [1, 99])
    dark, bright = rng.uniform(0, 70), rng.uniform(150, 255)
    grey = (grey - low) * np.float32((bright - dark) / max(high - low, 1e-3)) + np.float32(dark)
    np.clip(grey, 0, 255, out=grey)
    if rng.random() > 0.35:
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    cast = rng.uniform(0.55, 1, 3)
    tints = cast * (1 + rng.uniform(0, 0.25) * rng.uniform(-1, 1, (kinds.max() + 1, 3)))
    tints = np.clip(tints / tints.max(axis=1, keepdims=True), 0, 1).astype(np.float32)
    return np.stack([grey * tint[kinds][labels] for tint in tints.T], axis=2).astype(np.uint8)


def procedural_scene(
    seed: Sequence[int] | int, size: int = 256, families: Sequence[str] = TRAINED
) -> Scene:
    """One picture, a function of its arguments alone.

    Args:
        seed: any number of integers >= 0, for example (run, step, position).
        size: pixels along one side.
        families: names from `FAMILIES`; one is drawn.

    Returns:
        a scene with at least one object; each has more than `SMALLEST` and less than `LARGEST`
        of the picture's pixels, and no two have the same pixels.
    """
    rng = np.random.default_rng(seed)
    while True:  # a layout whose objects all fell outside is drawn again
        family = families[int(rng.integers(len(families)))]
        canvas = Canvas(size)
        FAMILIES[family](rng, canvas)
        count = len(canvas.parents)
        labels = _deformed(rng, canvas.labels, size)
        members = _objects(canvas.covers[:count, :count], labels)
        if len(members):
            image = _render(rng, canvas, labels, by_texture=family == "camouflage")
            return Scene(image, labels, members, family)


def _objects(table: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The rows of (L, L) `table` that are objects: of a fit size, and each mask once."""
    pixels = np.bincount(labels.ravel(), minlength=len(table))
    areas = table @ pixels / labels.size
    present = table[:, pixels > 0]
    fit = (areas > SMALLEST) & (areas < LARGEST)
    fit[BACKGROUND] = False
    _, first = np.unique(present, axis=0, return_index=True)
    return table[np.sort(first[fit[first]])]
