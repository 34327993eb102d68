"""What slices that were predicted one by one do not know: that their neighbours look alike.

Both steps are our choice; neither is part of a published method.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

Step = Literal["none", "majority", "largest"]
Labels = NDArray[np.integer]  # (D, H, W), slices first


def consistent(labels: Labels, step: Step) -> Labels:
    """The label map after that step."""
    return {"none": lambda same: same, "majority": majority, "largest": largest}[step](labels)


def majority(labels: Labels) -> Labels:
    """Each voxel takes the label that it and its two neighbours along the slices agree on.

    Where all three differ, and in the first and last slice, it keeps its own.
    """
    result = labels.copy()
    agree = labels[:-2] == labels[2:]
    result[1:-1][agree] = labels[:-2][agree]
    return result


def largest(labels: Labels) -> Labels:
    """Of each label only its largest piece (of equal ones the first), connected by faces in 3-D."""
    result = np.zeros_like(labels)
    for value in np.unique(labels[labels > 0]):
        pieces, _ = label(labels == value)
        sizes = np.bincount(pieces.ravel())[1:]
        result[pieces == 1 + sizes.argmax()] = value
    return result
