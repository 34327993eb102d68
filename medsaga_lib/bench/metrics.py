"""Benchmark of Dice, HD95 and NSD of a large volume against the fastest library, in one run."""

import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
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
    """Compare this library with the installed ones of `LIBRARIES`.

    HD95 has MONAI's rule here, the larger of the 2 directed percentiles.

    Returns:
        the median seconds, `ours` and `peer`, and their `ratio`; the peer is the fastest `library`,
        and `seconds` has those of all; `difference` is the largest of the 3 numbers to MONAI's.
    """
    truth = ellipsoid(shape)
    masks = np.roll(truth, MOVED, (0, 1, 2)), truth
    ways = {"ours": here, **{name: run for name, run in LIBRARIES.items() if find_spec(name)}}
    spent: dict[str, list[float]] = {name: [] for name in ways}
    numbers = {}
    for _ in range(rounds):
        for name, run in ways.items():
            began = time.perf_counter()
            numbers[name] = run(*masks)
            spent[name].append(time.perf_counter() - began)
    seconds = {name: median(times) for name, times in spent.items()}
    library = min((name for name in ways if name != "ours"), key=lambda name: seconds[name])
    ratios = [p / o for p, o in zip(spent[library], spent["ours"], strict=True)]
    return {
        "ours": seconds.pop("ours"),
        "peer": seconds[library],
        "ratio": median(ratios),
        "ratios": [min(ratios), max(ratios)],
        "library": library,
        "seconds": seconds,
        "difference": float(np.abs(np.subtract(numbers["ours"], numbers["monai"])).max()),
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


def medpy(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> tuple[float, float]:
    """Compute Dice and HD95 with MedPy, which has no NSD."""
    from medpy.metric.binary import dc, hd95

    return dc(prediction, truth), hd95(prediction, truth, SPACING)


def surface_distance(
    prediction: NDArray[np.bool_], truth: NDArray[np.bool_]
) -> tuple[float, float, float]:
    """Compute Dice, HD95 and NSD with surface-distance, which weights surfaces by their area."""
    import surface_distance as library

    found = library.compute_surface_distances(truth, prediction, SPACING)
    return (
        library.compute_dice_coefficient(truth, prediction),
        library.compute_robust_hausdorff(found, 95),
        library.compute_surface_dice_at_tolerance(found, TOLERANCE),
    )


# By the name of the module; MONAI is always here, the others if somebody installed them
LIBRARIES: dict[str, Callable[..., tuple[float, ...]]] = {
    "monai": monai,
    "medpy": medpy,
    "surface_distance": surface_distance,
}


def ellipsoid(shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Return an ellipsoid of `RADII` in the middle of a volume; a small volume shortens them."""
    axes = []
    for length, step, radius in zip(shape, SPACING, RADII, strict=True):
        within = min(radius, 0.4 * length * step)
        axes.append((np.arange(length) - length / 2) * step / within)
    z, y, x = np.ix_(*axes)
    return z**2 + y**2 + x**2 < 1
