"""Procedural pictures: layered scenes with the exact mask of every object, a function of the seed.

The pocket SAM is pretrained on them, so nothing here comes from a real image. A family lays out
the objects (`FAMILIES`), a smooth deformation bends them, and a random appearance renders them.
Ranges without a source are our choice: as wide as still looks like something one could outline.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medsaga_lib.data.procedural.appearance import deformation, render
from medsaga_lib.data.procedural.canvas import BACKGROUND, Canvas
from medsaga_lib.data.procedural.families import DRAWN, FAMILIES, HELD_OUT, TRAINED

__all__ = ["BACKGROUND", "DRAWN", "FAMILIES", "HELD_OUT", "TRAINED", "Scene", "procedural_scene"]

SMALLEST = 0.001  # of the picture's area, 66 pixels of 256 x 256; less is no object
LARGEST = 0.9  # of the picture's area; a larger object is a background


@dataclass(frozen=True)
class Scene:
    """A picture and its objects: each has its label's pixels, its parts' and those it shares."""

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
        seen = deformation(rng, size)
        labels = canvas.labels.take(seen)
        members = _objects(canvas.covers[:count, :count], labels)
        if len(members):
            image = render(rng, canvas, seen, by_texture=family == "camouflage")
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
