"""A trunk in the light that goes through it: every organ adds to what lies behind it.

Proportions are roughly people's, in wide ranges of our choice; no data set was measured for them.
Lengths are shares of the picture's side: x from the middle (1, S), y from the top (S, 1).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter

from medsaga_lib.data.procedural.canvas import Canvas
from medsaga_lib.data.procedural.noise import smooth_noise
from medsaga_lib.data.procedural.shapes import (
    blob_outline,
    fill_polygon,
    fill_tube,
    filled,
    wander,
)

SIDES = (-1, 1)


@dataclass(frozen=True)
class Cage:
    """What holds the air: how wide it is to one side, where it begins, and its floor."""

    wide: float
    apex: float
    floor: float
    recess: float  # how far the floor goes down at the sides
    bend: float  # how suddenly
    lift: float  # and in the middle

    @classmethod
    def draw(cls, rng: Generator, half: float) -> "Cage":
        """One for a trunk that is `half` wide to one side."""
        return cls(
            wide=half * rng.uniform(0.72, 0.95),
            apex=rng.uniform(0.04, 0.2),
            floor=rng.uniform(0.6, 0.88),
            recess=rng.uniform(0.02, 0.16),
            bend=rng.uniform(1.5, 3),
            lift=rng.uniform(0, 0.06),
        )

    def floor_at(self, x: np.ndarray) -> np.ndarray:
        """y of the floor: a dome on each side."""
        beyond = 2 * np.abs(x) / self.wide - 1
        down = self.recess * np.clip(beyond, 0, 1) ** self.bend
        return self.floor + down + self.lift * np.clip(-beyond, 0, 1) ** 2


class Sac(NamedTuple):
    """One side's air."""

    inside: np.ndarray  # (S, S) bool, also behind the heart and the dome of the floor
    air: np.ndarray  # (S, S) float32: how much of it a ray meets


def paint_trunks(rng: Generator, canvas: Canvas) -> None:
    """Two sacs of air in a trunk, a heart that covers a part of them, bones, vessels, gas."""
    size = canvas.size
    across = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = across[None, :] - 0.5, across[:, None]
    half, neck, slope = rng.uniform(0.36, 0.6), rng.uniform(-0.3, 0.1), rng.uniform(0.08, 0.25)
    shoulder = np.clip((y - neck) / slope, 0, 1)
    side = half * (0.25 + 0.75 * shoulder**2 * (3 - 2 * shoulder))
    trunk = np.abs(x) < side
    cage = Cage.draw(rng, half)

    middle = rng.uniform(0.03, 0.09, 2)
    left, right = (_sac(rng, cage, s * x, y, m) for s, m in zip(SIDES, middle, strict=True))
    heart, depth = _heart(rng, cage, x, y)
    air = (left.air + right.air) * (1 - rng.uniform(0.6, 1) * np.sqrt(depth))
    air = air * (1 + rng.uniform(0, 0.15) * smooth_noise(rng, size, int(rng.integers(4, 40))))
    light = np.sqrt(np.clip(1 - (x / side) ** 2, 0, None)) ** rng.uniform(0.4, 1)
    light = light - rng.uniform(0.4, 0.75) * air + rng.uniform(0, 0.3) * depth
    light = light + rng.uniform(0, 0.25) * np.exp(-((x / rng.uniform(0.04, 0.1)) ** 2)) * trunk
    light = light + rng.uniform(0.02, 0.15) * _bones(rng, cage, size)
    light = light + rng.uniform(0, 0.15) * air * _vessels(rng, cage, size, middle)
    light = _exposed(rng, light, trunk)

    whole = canvas.paint(np.flatnonzero(trunk))
    both = canvas.group(whole)
    # A sac is all that rays meet of it, or what one sees: less what lies behind heart and dome
    through, dome = rng.random() < 0.6, y >= cage.floor_at(x)
    outlines = [sac.inside if through else sac.inside & ~dome for sac in (left, right)]
    labels = [canvas.paint(np.flatnonzero(outline), both, kind=2) for outline in outlines]
    front = canvas.paint(np.flatnonzero(heart), whole, kind=3)
    if through:
        for outline, label in zip(outlines, labels, strict=True):
            canvas.overlap(np.flatnonzero(outline & heart & trunk), (label, front))
    if rng.random() < 0.4:
        for _ in range(rng.integers(1, 4)):
            place = [0.5 + cage.wide * rng.uniform(-0.7, 0.7), cage.floor + rng.uniform(0.06, 0.3)]
            radius = size * rng.uniform(0.02, 0.08)
            gas = fill_polygon(blob_outline(rng, size * np.array(place), radius, 0.3), size)
            light = light - rng.uniform(0.5, 2) * light.std() * _soft(gas, size, 0.1 * radius)
            canvas.paint(gas, whole, kind=4)
    canvas.light, canvas.tone = light, 0.0


def _sac(rng: Generator, cage: Cage, out: np.ndarray, y: np.ndarray, middle: float) -> Sac:
    """One between `middle` and the cage; `out` is how far a column is from the spine."""
    lowest = cage.floor + cage.recess
    low = np.clip((y - cage.apex) / (lowest - cage.apex), 0, 1)  # 0 at the apex, 1 at the bottom

    # The outer side widens from a tip and draws in a little below its middle
    tip = rng.uniform(0.3, 0.6)
    wide = tip + (1 - tip) * (1 - (1 - low) ** rng.uniform(1.5, 3.5))
    wide = cage.wide * (wide - rng.uniform(0, 0.15) * np.clip(2 * low - 1, 0, 1) ** 2)
    # Above, both sides bend towards each other and meet at `top`
    arch = np.sqrt(1 - (1 - np.clip((y - cage.apex) / rng.uniform(0.08, 0.2), 0, 1)) ** 2)
    top = 0.5 * (tip * cage.wide + middle)
    outer, inner = top + (wide - top) * arch, top + (middle - top) * arch
    within = (out < outer) & (y > cage.apex) & (y < lowest)

    # A ray meets most air in the middle of the trunk, none at the inner side, little below the dome
    chord = np.sqrt(np.clip(1 - (out / (outer + 0.01)) ** 2, 0, 1)) * (0.5 + 0.5 * arch)
    edge = np.sqrt(np.clip((out - inner) / rng.uniform(0.01, 0.08), 0, 1))
    dome = cage.floor_at(out)
    behind = np.exp(np.minimum(dome - y, 0) * rng.uniform(8, 40)) * rng.uniform(0, 0.5)
    deep = np.where(y < dome, 1, behind)
    return Sac(within & (out > inner), (chord * edge * deep * within).astype(np.float32))


def _heart(
    rng: Generator, cage: Cage, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Its outline (S, S) bool above the floor, and its depth, 0 to 1; more of it on one side."""
    size, (wide, tall) = len(y), (cage.wide * rng.uniform(0.38, 0.6), rng.uniform(0.13, 0.25))
    centre = 0.5 + wide * rng.uniform(0.05, 0.4), cage.floor - tall * rng.uniform(0.3, 0.8)
    outline = centre + blob_outline(rng, (0, 0), 1, rng.uniform(0, 0.25)) * [wide, tall]
    inside = filled(fill_polygon(size * outline, size), size) > 0
    away = ((x + 0.5 - centre[0]) / wide) ** 2 + ((y - centre[1]) / tall) ** 2
    # A ball's, a tenth wider than the outline and a little raised, so the border shows
    depth = np.sqrt(np.clip(1.05 - away / 1.1**2, 0, 1)) * inside
    return inside & (y < cage.floor_at(x)), depth


def _bones(rng: Generator, cage: Cage, size: int) -> np.ndarray:
    """(S, S): ribs from the spine round the sides to the front, the spine, the collar bones."""
    total, angle = np.zeros((size, size), np.float32), np.linspace(0.1, 2.7, size)
    count, drop, width = rng.integers(7, 12), rng.uniform(0.1, 0.3), rng.uniform(0.008, 0.02)
    for rib in range(count):
        start = cage.apex + (rib - 0.5) / count * (cage.floor - cage.apex) * rng.uniform(1, 1.1)
        reach = (cage.wide + 0.01) * (0.55 + 0.45 * min(1, (rib + 1) / 5))
        height = start + drop * (1 - np.cos(angle)) / 2
        for side in SIDES:
            path = np.stack([0.5 + side * reach * np.sin(angle), height], axis=1) * size
            total += filled(fill_tube(path, np.full(size, width / 2 * size), size), size)
    for side in SIDES:
        ends = np.array([[0.5 + side * 0.03, 0.05], [0.5 + side * cage.wide, -0.04]])
        ends += rng.normal(0, 0.015, (2, 2)) + np.array([0, cage.apex])
        path = size * np.linspace(ends[0], ends[1], size // 2)
        total += filled(fill_tube(path, np.full(len(path), 0.7 * width * size), size), size)
    spine = wander(rng, (size / 2, 0), np.pi / 2, size, 0.05)
    radii = size * rng.uniform(0.025, 0.05) * (1 + 0.1 * np.sin(np.arange(len(spine)) / size * 75))
    total += rng.uniform(0.3, 1.5) * filled(fill_tube(spine, radii, size), size)
    return gaussian_filter(total, size * rng.uniform(0.001, 0.005))


def _vessels(rng: Generator, cage: Cage, size: int, middle: np.ndarray) -> np.ndarray:
    """(S, S): branches that fan out from the inner side of each sac and get thinner."""
    pixels, height = [], cage.apex + (cage.floor - cage.apex) * rng.uniform(0.4, 0.6)
    for side, inner in zip(SIDES, middle, strict=True):
        root = size * np.array([0.5 + side * (inner + 0.01), height])
        for _ in range(rng.integers(4, 10)):
            heading = rng.uniform(-1.3, 1.3) + (np.pi if side < 0 else 0)
            path = wander(rng, root, heading, size * rng.uniform(0.08, 0.3), 0.6)
            radii = size * rng.uniform(0.004, 0.012) * np.linspace(1, 0.2, len(path))
            pixels.append(fill_tube(path, radii, size))
    return _soft(np.concatenate(pixels), size, size * rng.uniform(0.002, 0.008))


def _exposed(rng: Generator, light: np.ndarray, trunk: np.ndarray) -> np.ndarray:
    """The light through a tone curve, less slow changes, as scanners' software shows it."""
    low, high = np.percentile(light[trunk], [1, 99])
    light = (np.clip((light - low) / (high - low), -0.3, 1.2) + 0.3) ** rng.uniform(0.6, 1.6)
    size, step = len(light), 4
    slow = gaussian_filter(light[::step, ::step], size / step * rng.uniform(0.08, 0.25), truncate=2)
    slow = slow.repeat(step, axis=0).repeat(step, axis=1)[:size, :size]
    return (light - rng.uniform(0, 0.6) * slow).astype(np.float32)


def _soft(pixels: np.ndarray, size: int, blur: float) -> np.ndarray:
    return gaussian_filter(filled(pixels, size), blur)
