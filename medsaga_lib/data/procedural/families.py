"""Families of scenes: each paints one kind of layout."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from scipy.ndimage import label

from medsaga_lib.data.procedural.canvas import BACKGROUND, Canvas
from medsaga_lib.data.procedural.noise import smooth_noise, upsample
from medsaga_lib.data.procedural.projections import paint_trunks
from medsaga_lib.data.procedural.reliefs import paint_folds
from medsaga_lib.data.procedural.shapes import (
    blob_outline,
    fill_ellipses,
    fill_polygon,
    fill_tube,
    wander,
)


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
    waves = upsample(size, 6) @ rng.normal(0, 0.03 * size, (6, 1)) + upsample(size, 6) @ (
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
    "trunks": paint_trunks,
    "folds": paint_folds,
    "threads": paint_threads,
    "onions": paint_onions,
    "camouflage": paint_camouflage,
}
HELD_OUT = ("threads", "onions", "camouflage")
TRAINED = tuple(name for name in FAMILIES if name not in HELD_OUT)
DRAWN = (*TRAINED, *2 * ("trunks", "folds"))  # for training, three times as often; our choice
