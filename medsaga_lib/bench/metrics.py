"""Benchmark of Dice, HD95 and NSD of a large volume, against MONAI's, in one run."""

import time
import warnings
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medsaga_lib.evaluation.metrics import TOLERANCE, dice, hd95, nsd

SHAPE = (100, 512, 512)  # z, y, x: a CT of the abdomen
SPACING = (3.0, 0.8, 0.8)  # mm
RADII = (100, 70, 90)  # mm, of an ellipsoid as large as a liver
MOVED = (3, 4, -2)  # voxels between truth and prediction


def compare_metrics(rounds: int, shape: tuple[int, int, int] = SHAPE) -> dict[str, Any]:
    """Return median seconds of both, their ratio, and the largest difference of the 3 numbers.

    HD95 has MONAI's rule here, the larger of the 2 directed percentiles.
    """
    truth = ellipsoid(shape)
    masks = np.roll(truth, MOVED, (0, 1, 2)), truth
    spent: dict[str, list[float]] = {"ours": [], "peer": []}
    numbers = {}
    for _ in range(rounds):
        for name, run in {"ours": here, "peer": monai}.items():
            began = time.perf_counter()
            numbers[name] = run(*masks)
            spent[name].append(time.perf_counter() - began)
    ratios = [p / o for p, o in zip(spent["peer"], spent["ours"], strict=True)]
    return {
        **{name: median(times) for name, times in spent.items()},
        "ratio": median(ratios),
        "ratios": [min(ratios), max(ratios)],
        "difference": float(np.abs(np.subtract(numbers["ours"], numbers["peer"])).max()),
        "rounds": rounds,
    }


def here(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Compute Dice, HD95 and NSD with this library."""
    largest = hd95(prediction, truth, SPACING, "maximum")
    return dice(prediction, truth), largest, nsd(prediction, truth, SPACING)


def monai(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Compute Dice, HD95 and NSD with MONAI."""
    from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

    one, two = (torch.from_numpy(mask)[None, None] for mask in (prediction, truth))
    how: dict[str, Any] = {"include_background": True, "spacing": SPACING}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = (
            compute_dice(one, two),
            compute_hausdorff_distance(one, two, percentile=95, **how),
            compute_surface_dice(one, two, class_thresholds=[TOLERANCE], **how),
        )
    overlap, largest, surface = (float(value) for value in found)
    return overlap, largest, surface


def ellipsoid(shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Return an ellipsoid of `RADII` in the middle of a volume; a small volume shortens them."""
    axes = []
    for length, step, radius in zip(shape, SPACING, RADII, strict=True):
        within = min(radius, 0.4 * length * step)
        axes.append((np.arange(length) - length / 2) * step / within)
    z, y, x = np.ix_(*axes)
    return z**2 + y**2 + x**2 < 1
