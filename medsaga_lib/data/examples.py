"""Chooses a few images of a data set, to show them and to prompt a network with their objects."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medsaga_lib.data.cases import match, read_case, read_case_mask
from medsaga_lib.data.dataset import Case, DataSet

MOST_OBJECTS = 4  # instances of one image; our choice


class Example(NamedTuple):
    """An image or a slice, and its label map with one value for each object."""

    data: str  # name of the data set
    patient: str
    pixels: NDArray[np.floating]  # (H, W) or (H, W, 3) in [0, 1]
    truth: NDArray[np.integer]  # (H, W)
    spacing: tuple[float, float]  # height and width of a pixel in mm, or 1

    @property
    def values(self) -> list[int]:
        """The values of the objects that the label map shows."""
        return [int(value) for value in np.unique(self.truth) if value]


def examples_of(dataset: DataSet, count: int) -> list[Example]:
    """Return at most `count` test images of different patients, in the order of the index.

    Of a volume, it is the slice with most labelled voxels. If there is a single volume, it is at
    most `count` slices, evenly chosen between the first and the last that show a label. Of
    instances, at most `MOST_OBJECTS` are kept, evenly chosen, with new numbers from 1 on. A data
    set without test cases gives others.
    """
    cases = dataset.split("test") or dataset.cases
    first = {case.patient: case for case in reversed(cases) if case.mask is not None}
    chosen = sorted(first.values(), key=cases.index)[:count]
    slices = count if len(first) == 1 else 1
    return [example for case in chosen for example in _of_case(dataset, case, slices)]


def _of_case(dataset: DataSet, case: Case, slices: int) -> list[Example]:
    picture, mask = read_case(dataset, case), read_case_mask(dataset, case)
    truth = match(dataset, picture, mask)
    if dataset.masks == "instances":
        truth = _some_instances(mask.values)
    whose = dataset.name, case.patient
    if truth.ndim == 2:
        spacing = (picture.spacing[0], picture.spacing[1])
        return [Example(*whose, picture.pixels, truth, spacing)]
    spacing = (picture.spacing[1], picture.spacing[2])
    areas = (truth > 0).sum((1, 2))
    shown = np.flatnonzero(areas)
    inside = np.unique(np.linspace(0, len(shown) - 1, slices + 2)[1:-1].round().astype(int))
    numbers = [int(areas.argmax())] if slices == 1 else shown[inside]
    return [Example(*whose, picture.pixels[z], truth[z], spacing) for z in numbers]


def _some_instances(numbers: NDArray[np.integer]) -> NDArray[np.int64]:
    """Keep at most `MOST_OBJECTS` instances of a map of instance numbers, and number them anew."""
    values = np.unique(numbers[numbers > 0])
    kept = values[:: max(1, -(-len(values) // MOST_OBJECTS))]
    return np.where(np.isin(numbers, kept), np.searchsorted(kept, numbers) + 1, 0)
