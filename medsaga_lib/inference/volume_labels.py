"""Consistency of a volume whose slices were predicted one by one.

Both steps are our choice; neither is part of a published method.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

Consistency = Literal["none", "majority", "largest"]
Labels = NDArray[np.integer]  # (D, H, W), slices first


def consistent(labels: Labels, step: Consistency) -> Labels:
    """Apply a consistency step to a label map (D, H, W); the input is not modified."""
    return {"none": lambda same: same, "majority": majority, "largest": largest}[step](labels)


def majority(labels: Labels) -> Labels:
    """Give each voxel the majority label of itself and its 2 neighbours along the slices.

    A voxel keeps its label where all 3 differ, and in the first and the last slice.
    """
    result = labels.copy()
    agree = labels[:-2] == labels[2:]
    result[1:-1][agree] = labels[:-2][agree]
    return result


def largest(labels: Labels) -> Labels:
    """Keep the largest component of each label, connected by faces; of equal ones, the first.

    MONAI's `KeepLargestConnectedComponent` gives the same where one component is the largest. Of
    equal components it keeps one that depends on the CPU, because its sort is not stable.
    """
    result = np.zeros_like(labels)
    for value in np.unique(labels[labels > 0]):
        components, _ = label(labels == value)
        sizes = np.bincount(components.ravel())[1:]
        result[components == 1 + sizes.argmax()] = value
    return result
