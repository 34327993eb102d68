"""Scores of the CVPR 2024 challenge "Segment anything in medical images on laptop".

They follow its published code (bowang-lab/MedSAM, branch LiteMedSAM, `evaluation/`), including its
peculiarities, for comparison with published numbers; `metrics` has the scores for our own results.
Surface Dice is that of the package surface-distance (google-deepmind/surface-distance), which the
code uses: it weights each surface element by its area.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from surface_distance import compute_surface_dice_at_tolerance, compute_surface_distances

from medsaga_lib.evaluation.metrics import TOLERANCE, Mask, dice

LEAST_DICE = 0.2  # NSD is computed only for cases with a mean DSC above it


def cvpr24_scores(
    prediction: NDArray[np.integer],
    truth: NDArray[np.integer],
    spacing: Sequence[float] | None = None,
) -> tuple[float, float]:
    """Mean DSC and NSD (tolerance 2.0) of a case, over the labels 1 ... max(truth).

    The mean DSC is NaN and NSD is 0 where one of these labels is in neither map, and where the
    truth has no labels. Labels of the prediction above max(truth) are ignored. NSD is 0 where the
    mean DSC is 0.2 or less.

    Args:
        prediction, truth: label maps of the same shape, 2-D or 3-D.
        spacing: mm per voxel in the order of the axes; ignored for 2-D maps, where it is 1. The
            challenge's files store (x, y, z) for arrays (z, y, x), and its code uses that order
            unchanged, so the published numbers of anisotropic volumes do as well.
    """
    labels = range(1, int(truth.max()) + 1)
    each = [dice(prediction == v, truth == v) for v in labels]
    dsc = float(np.mean(each)) if each else math.nan
    if not dsc > LEAST_DICE:
        return dsc, 0.0
    nsd = [surface_dice(prediction == v, truth == v, spacing) for v in labels]
    return dsc, float(np.mean(nsd))


def surface_dice(
    prediction: Mask,
    truth: Mask,
    spacing: Sequence[float] | None = None,
    tolerance: float = TOLERANCE,
) -> float:
    """Share of the area of both surfaces that lies within `tolerance` mm of the other surface.

    NaN where both masks are empty, 0 where one is.
    """
    if truth.ndim == 2:
        prediction, truth, spacing = prediction[..., None], truth[..., None], None
    if not (prediction.any() and truth.any()):  # surface-distance 0.1 fails here with NumPy 2
        return 0.0 if prediction.any() or truth.any() else math.nan
    size = (1.0, 1.0, 1.0) if spacing is None else spacing
    distances = compute_surface_distances(truth, prediction, size)
    return float(compute_surface_dice_at_tolerance(distances, tolerance))
