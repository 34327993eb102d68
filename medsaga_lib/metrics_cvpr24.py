"""The scores of the CVPR 2024 challenge "Segment anything in medical images on laptop".

As its published code computes them (bowang-lab/MedSAM, branch LiteMedSAM, `evaluation/`), with
what surprises in it; for results of our own see `metrics`. Surfaces are DeepMind's
(google-deepmind/surface-distance): triangles of marching cubes between voxels, by their area.
"""

import math
from collections.abc import Sequence

import numpy as np
from monai.metrics.utils import _get_neighbour_code_to_normals_table
from numpy.typing import NDArray
from scipy.ndimage import correlate, distance_transform_edt, find_objects

from medsaga_lib.metrics import TOLERANCE, Mask, dice

LEAST_DICE = 0.2  # of a case; below it the code leaves NSD at 0


def cvpr24_scores(
    prediction: NDArray[np.integer],
    truth: NDArray[np.integer],
    spacing: Sequence[float] | None = None,
) -> tuple[float, float]:
    """Mean DSC and NSD (tolerance 2.0) of a case, over the labels 1 ... max(truth).

    A number that neither map has makes the mean DSC NaN and NSD 0, and so does a truth without
    labels. Labels of the prediction above
    the truth's largest are ignored. NSD is 0 where the mean DSC is 0.2 or less.

    Args:
        prediction, truth: label maps of the same shape, 2-D or 3-D.
        spacing: mm in the order of the axes; None for 2-D, where it is 1. The challenge's files
            store (x, y, z) for arrays (z, y, x), and its code takes that as it is: so did the
            published numbers of volumes that are not isotropic.
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
    """Share of the area of both surfaces within `tolerance` mm of the other; NaN for two empty."""
    if truth.ndim == 2:
        prediction, truth, spacing = prediction[..., None], truth[..., None], (1.0, 1.0, 1.0)
    if not (prediction.any() or truth.any()):
        return math.nan
    scale = np.ones(3) if spacing is None else np.asarray(spacing, float)
    (box,) = find_objects((prediction | truth).astype(np.uint8))
    codes = [_codes(mask[box]) for mask in (prediction, truth)]
    areas = _areas(scale)
    within = total = 0.0
    for ours, other in (codes, codes[::-1]):
        on_surface = (ours != 0) & (ours != 255)
        area = areas[ours[on_surface]]
        total += area.sum()
        others_surface = (other != 0) & (other != 255)
        if others_surface.any():
            distance = distance_transform_edt(~others_surface, sampling=scale)
            within += area[distance[on_surface] <= tolerance].sum()
    return float(within / total)


def _codes(mask: Mask) -> NDArray[np.intp]:
    """Which of the 2 x 2 x 2 voxels around each corner are in the mask, one bit for each."""
    padded = np.pad(mask, 1).astype(np.intp)
    kernel = 2 ** np.arange(7, -1, -1).reshape(2, 2, 2)
    return correlate(padded, kernel, mode="constant")


def _areas(scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area in mm^2 of the triangles of each of the 256 codes."""
    # MONAI's table of DeepMind's; its public function gives the areas in float32 only
    normals = _get_neighbour_code_to_normals_table().numpy().astype(float)  # (256, 4, 3)
    return np.linalg.norm(normals * scale.prod() / scale, axis=-1).sum(-1)
