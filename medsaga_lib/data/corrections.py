"""Known faults of the masks of a data set, which are corrected when the masks are read.

`cxr_hannover_lungs`, X-rays of Hannover Medical School with lungs by V7 Labs. V7 annotated the
central square of each X-ray. The label maps that the book was given were drawn as if V7 had
annotated a copy that was stretched to a square, so they are too wide by the ratio of the sides of
the X-ray, 1.22 in most of them. Chapter 1 of the book measures this. The masks are recognised by
the hash of one of them, so a copy without the fault is not changed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medsaga_lib.files import file_hash

Correction = Literal["", "central square"]

# File name and sha256 of the first of the label maps that are too wide
TOO_WIDE = ("53c9be49.png", "82634e83b0714f710fc79800b36b6ffb9c7534c928af1272371475848dd88256")


def correction_of(masks: Sequence[Path | None]) -> Correction:
    """Return the correction that the masks of a data set need, "" for none."""
    name, known = TOO_WIDE
    wide = any(
        mask is not None and mask.name == name and mask.is_file() and file_hash(mask) == known
        for mask in masks
    )
    return "central square" if wide else ""


def into_central_square(labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return a label map (H, W) shrunk into the central square of its image, by nearest pixels.

    A side that is longer than the other one is shrunk to its length; outside of the square, the
    label is 0.
    """
    side = min(labels.shape)
    rows, columns = (_sources(length, side) for length in labels.shape)
    inside = np.ix_(rows >= 0, columns >= 0)
    shrunk = np.zeros_like(labels)
    shrunk[inside] = labels[np.ix_(rows[rows >= 0], columns[columns >= 0])]
    return shrunk


def _sources(length: int, side: int) -> NDArray[np.int64]:
    """Return the pixel that each pixel of an axis shows, -1 outside of the central `side`."""
    halves = 2 * np.arange(length) + 1 - (length - side)  # from the square's edge to the centres
    return np.where((halves >= 0) & (halves < 2 * side), halves * length // (2 * side), -1)
