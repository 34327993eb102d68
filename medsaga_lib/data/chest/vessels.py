"""The vessels of a lung: branching paths from the hilum, drawn as dots and blurred into tubes."""

from collections.abc import Iterator

import numpy as np

from medsaga_lib.data.chest.profiles import Array, Random

VESSEL_BLUR = (0.55, 0.9, 1.5, 2.4)  # standard deviations in pixels, for 4 widths of vessels
VESSEL_STEPS = 60  # points of a path
VESSEL_STEP = 0.006  # length of a step, in image widths
VESSELS = 26  # main branches of each lung
TWIGS = 3  # side branches of each main branch


def branches(
    random: Random, side: int, hilum: tuple[float, float], height: float
) -> Iterator[tuple[Array, Array]]:
    """Yield paths from a hilum: points (N, steps, 2) as (x, y) and widths (N, steps), at most 1."""
    angle = random.uniform(-1.45, 1.45, VESSELS)  # 0 is straight outwards
    start = np.tile(hilum, (VESSELS, 1)) + random.normal(0, 0.012, (VESSELS, 2))
    points, widths = _paths(random, start, angle, side, height, np.full(VESSELS, 1.0))
    yield points, widths
    for _ in range(TWIGS):
        at = random.integers(5, VESSEL_STEPS - 15, VESSELS)
        rows = np.arange(VESSELS)
        step = points[rows, at + 1] - points[rows, at]
        heading = np.arctan2(step[:, 1] * height, side * step[:, 0])
        turned = heading + random.choice([-1, 1], VESSELS) * random.uniform(0.3, 0.8, VESSELS)
        yield _paths(random, points[rows, at], turned, side, height, 0.8 * widths[rows, at])


def _paths(
    random: Random, start: Array, angle: Array, side: int, height: float, width: Array
) -> tuple[Array, Array]:
    """Draw random walks from given points in given directions; they become thinner."""
    bend = random.normal(0, 0.012, (len(angle), 1)) + random.normal(
        0, 0.05, (len(angle), VESSEL_STEPS)
    )
    heading = angle[:, None] + np.cumsum(bend, 1)
    step = VESSEL_STEP * np.stack([side * np.cos(heading), np.sin(heading) / height], -1)
    points = start[:, None] + np.cumsum(step, 1)
    fade = np.linspace(1, 0.08, VESSEL_STEPS)
    return points, width[:, None] * fade


def scatter(layers: list[Array], points: Array, widths: Array) -> None:
    """Add dots to the layer of their width; a later blur turns them into tubes."""
    height, width = layers[0].shape
    rows = np.floor(points[..., 1] * height).astype(int).ravel()
    columns = np.floor((points[..., 0] + 0.5) * width).astype(int).ravel()
    thickness = widths.ravel()
    level = np.minimum((thickness * len(layers)).astype(int), len(layers) - 1)
    seen = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    for number, layer in enumerate(layers):
        here = seen & (level == number)
        places = rows[here] * width + columns[here]
        weights = 0.05 + 0.22 * thickness[here]
        layer += np.bincount(places, weights, height * width).reshape(height, width)
