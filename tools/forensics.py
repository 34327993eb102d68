"""Score the same predictions with several metric libraries and rules, for chapter 11.

    pip install --no-deps seg-metrics==1.2.8 medutils==0.1.21 && pip install pingouin medpy
    python -m tools.forensics
    python -m tools.forensics --cases 2 --methods unet:steps=20 --out /tmp/forensics.json

The methods are trained on 16 slices of hippocampus, and segment test volumes. Each prediction is
scored with the defaults of every library: as a volume, as a volume of every third slice, with the
spacing of 3 mm and without it, and as single slices, every third one. `probes` shows what each
measure returns where the prediction, the truth, or both are empty. The tool writes
notebooks/recorded/forensics.json. The label maps are kept in `--predictions`, and a method whose
label maps are there is not trained again.
"""

import argparse
import json
import logging
import math
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from medsaga_lib.data.cases import read_case_mask, spacing_of
from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.data.dataset import Case, DataSet
from medsaga_lib.evaluation import cvpr24, metrics
from medsaga_lib.evaluation.metrics import TOLERANCE, Mask, score_case
from medsaga_lib.files import write_json
from medsaga_lib.inference.predictor import Predictor
from medsaga_lib.inference.volume_labels import Consistency, consistent
from medsaga_lib.models.feeding import FEED_OF
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.recipe import changed
from medsaga_lib.training.loop import train
from medsaga_lib.training.run_folder import Settings
from tools.provenance import RECORDED, ROOT, machine

TARGET = RECORDED / "forensics.json"
DATA, SHOTS, SIZE, BACKBONE = "hippocampus_msd", 16, 64, "lite_medsam"
CASES = 10  # our choice: every sixth of the 60 test volumes
THINNED = 3  # every third slice is kept, so that a voxel of 1 mm becomes 3 x 1 x 1 mm
NOTHING = "nothing"  # a method that predicts background everywhere
COMPARED = (
    *(  # a plus precedes a step of `inference.volume_labels`
        f"unet:batch=4:steps={steps}{step}" for steps in (100, 40) for step in ("", "+largest")
    ),
    NOTHING,
)
PEERS = ("MedPy", "monai", "numpy", "seg-metrics", "surface-distance")
DIGITS = 4
CASE = "case"  # the "class" of a score of all classes of a case

Labels = NDArray[np.integer]
Spacing = tuple[float, ...]


class Pair(NamedTuple):
    """A prediction and its truth, masks of the same shape, with the spacing in mm."""

    prediction: Mask
    truth: Mask
    spacing: Spacing


@dataclass(frozen=True)
class Measure:
    """A metric as a library computes it by default; it returns NaN for what the library leaves out.

    metric: "dice", "hd95" or "nsd".
    """

    name: str
    metric: str
    score: Callable[[Pair], float]

    @property
    def key(self) -> str:
        """Metric and name, as in the recorded rows."""
        return f"{self.metric} {self.name}"


def tensor(mask: Mask) -> torch.Tensor:
    """Return a mask as MONAI wants it: (1, 1, ...), one case and one class."""
    return torch.from_numpy(mask)[None, None].float()


def monai_dice(pair: Pair, ignore_empty: bool) -> float:
    """Return MONAI's Dice; by default it leaves out a class that the truth does not have."""
    from monai.metrics import compute_dice

    given = tensor(pair.prediction), tensor(pair.truth)
    return float(compute_dice(*given, include_background=True, ignore_empty=ignore_empty))


def monai_hd95(pair: Pair) -> float:
    """Return MONAI's HD95, the larger of two directed percentiles; NaN if a mask is empty."""
    from monai.metrics import compute_hausdorff_distance

    given = tensor(pair.prediction), tensor(pair.truth)
    return float(
        compute_hausdorff_distance(
            *given, include_background=True, percentile=95, spacing=list(pair.spacing)
        )
    )


def monai_nsd(pair: Pair) -> float:
    """Return MONAI's normalised surface Dice, without subvoxels."""
    from monai.metrics import compute_surface_dice

    given = tensor(pair.prediction), tensor(pair.truth)
    return float(
        compute_surface_dice(
            *given, [TOLERANCE], include_background=True, spacing=list(pair.spacing)
        )
    )


def medpy_dice(pair: Pair) -> float:
    """Return MedPy's Dice; that of two empty masks depends on the version of NumPy."""
    from medpy.metric.binary import dc

    return float(dc(pair.prediction, pair.truth))


def medpy_hd95(pair: Pair) -> float:
    """Return MedPy's HD95; NaN where MedPy raises because a mask is empty."""
    from medpy.metric.binary import hd95

    try:
        return float(hd95(pair.prediction, pair.truth, voxelspacing=pair.spacing))
    except RuntimeError:
        return math.nan


def seg_metrics(pair: Pair, metric: str) -> float:
    """Return the Dice or HD95 of seg-metrics."""
    from seg_metrics.seg_metrics import write_metrics

    given = {"gdth_img": pair.truth.astype(int), "pred_img": pair.prediction.astype(int)}
    (found,) = write_metrics([1], **given, spacing=list(pair.spacing), metrics=[metric])
    return float(found[metric][0])


def robust_hausdorff(pair: Pair) -> float:
    """Return the HD95 of surface-distance; NaN where it fails because a mask is empty."""
    import surface_distance

    try:
        found = surface_distance.compute_surface_distances(
            pair.truth, pair.prediction, pair.spacing
        )
        return float(surface_distance.compute_robust_hausdorff(found, 95))
    except AttributeError:  # surface-distance 0.1 uses np.Inf, which NumPy 2 does not have
        return math.nan


def synapse(pair: Pair, metric: str) -> float:
    """Return Dice or HD95 by the rule of the published Synapse numbers."""
    (score,) = score_case(pair.prediction.astype(int), pair.truth.astype(int), {1: "it"})
    return float(getattr(score, f"{metric}_synapse"))


MEASURES = (
    Measure("MedPy", "dice", medpy_dice),
    Measure("MONAI", "dice", partial(monai_dice, ignore_empty=True)),
    Measure("MONAI, ignore_empty=False", "dice", partial(monai_dice, ignore_empty=False)),
    Measure("seg-metrics", "dice", partial(seg_metrics, metric="dice")),
    Measure("Synapse rule", "dice", partial(synapse, metric="dice")),
    Measure("this library", "dice", lambda pair: metrics.dice(pair.prediction, pair.truth)),
    Measure("MedPy", "hd95", medpy_hd95),
    Measure("MONAI", "hd95", monai_hd95),
    Measure("seg-metrics", "hd95", partial(seg_metrics, metric="hd95")),
    Measure("surface-distance", "hd95", robust_hausdorff),
    Measure("Synapse rule", "hd95", partial(synapse, metric="hd95")),
    Measure("this library", "hd95", lambda pair: metrics.hd95(*pair)),
    Measure("MONAI", "nsd", monai_nsd),
    Measure("surface-distance", "nsd", lambda pair: cvpr24.surface_dice(*pair)),
    Measure("this library", "nsd", lambda pair: metrics.nsd(*pair)),
)
CHALLENGE = ("dice CVPR 2024", "nsd CVPR 2024")  # scores of a case, not of a class


def state(prediction: Mask, truth: Mask) -> str:
    """Return what is empty: "both" masks have elements, "missed", "spurious" or "empty"."""
    if truth.any():
        return "both" if prediction.any() else "missed"
    return "spurious" if prediction.any() else "empty"


def scores_of(pair: Pair) -> dict[str, float]:
    """Return the score of a pair by each measure."""
    if state(pair.prediction, pair.truth) == "empty":
        return of_nothing(pair.truth.shape)
    return {measure.key: measure.score(pair) for measure in MEASURES}


@cache
def of_nothing(shape: tuple[int, ...]) -> dict[str, float]:
    """Return the scores of two empty masks, which many slices have."""
    nothing = np.zeros(shape, bool)
    pair = Pair(nothing, nothing, (1.0,) * len(shape))
    return {measure.key: measure.score(pair) for measure in MEASURES}


def scored(
    prediction: Labels, truth: Labels, labels: dict[int, str], spacing: Spacing
) -> Iterator[dict[str, Any]]:
    """Yield the scores of each class, and those that are defined for all classes of a case."""
    for value, name in labels.items():
        pair = Pair(prediction == value, truth == value, spacing)
        row = {"class": name, "state": state(pair.prediction, pair.truth)}
        yield row | scores_of(pair)
    # the challenge's rule takes the spacing in the order of its files; ours are cubes or slices
    both = cvpr24.cvpr24_scores(prediction, truth, spacing if truth.ndim == 3 else None)
    yield {"class": CASE, "state": "both", **dict(zip(CHALLENGE, both, strict=True))}


def probes() -> list[dict[str, Any]]:
    """Return what each measure gives for a small square that is found, missed, or not there."""
    square, nothing = np.zeros((16, 16), bool), np.zeros((16, 16), bool)
    square[4:8, 4:8] = True
    pairs = [(square, square), (nothing, square), (square, nothing), (nothing, nothing)]
    return [
        {"state": state(*pair)}
        | {key: number(value) for key, value in scores_of(Pair(*pair, (1.0, 1.0))).items()}
        for pair in pairs
    ]


def number(value: float) -> float | None:
    """Return a number for JSON: rounded, and None for NaN."""
    return None if math.isnan(value) else round(float(value), DIGITS)


def predicted(
    name: str, dataset: DataSet, cases: Sequence[Case], folder: Path, seed: int
) -> dict[str, Labels]:
    """Return the label maps of the cases by a method; train it if they are not in the folder."""
    recipe, _, step = name.partition("+")
    file = folder / f"{recipe.replace(':', ' ')} {seed}.npz"
    found = dict(np.load(file)) if file.exists() else {}
    if not {case.name for case in cases} <= set(found):
        head, *changes = recipe.split(":")
        settings = Settings(shots=SHOTS, backbone=BACKBONE, size=SIZE, seed=seed, validations=0)
        model = train(changed(get_recipe(head), changes), dataset, settings, progress=False).model
        described = dataset.labels, dataset.modality, dataset.window
        feed = FEED_OF["none" if get_recipe(head).network else BACKBONE]
        predictor = Predictor(model.eval(), *described, feed)
        found = {case.name: predictor.case(dataset, case).astype(np.uint8) for case in cases}
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(file, **found)
    kind = cast(Consistency, step or "none")
    return {case.name: consistent(found[case.name], kind) for case in cases}


def rows_of(prediction: Labels, truth: Labels, labels: dict[int, str]) -> Iterator[dict[str, Any]]:
    """Yield the scores of a volume of 1 mm, of every third of its slices, and of each of those."""
    cube = (1.0,) * truth.ndim
    thick = (float(THINNED), *cube[1:])
    for row in scored(prediction, truth, labels, cube):
        yield {"unit": "volumes"} | row
    kept = prediction[::THINNED], truth[::THINNED]
    for unit, spacing in (("3 mm slices, with spacing", thick), ("3 mm slices, without", cube)):
        for row in scored(*kept, labels, spacing):
            yield {"unit": unit} | row
    for pair in zip(*kept, strict=True):
        for row in scored(*pair, labels, cube[1:]):
            yield {"unit": "slices"} | row


def by_state(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return number and mean of the scores of slices: one row per method, class and state.

    A score is a list of how many slices have it, and their mean.
    """
    keys = ["method", "class", "state"]
    keyed = rows.drop(columns=["unit", "case"]).groupby(keys, sort=False)
    means, counts = keyed.mean(), keyed.count()
    return [
        dict(zip(keys, place, strict=True))
        | {"number": int(keyed.size()[place])}
        | {
            key: [int(counts.at[place, key]), number(means.at[place, key])]
            for key in means.columns
            if counts.at[place, key]
        }
        for place in means.index
    ]


def main(words: list[str] | None = None) -> None:
    """Train, predict, score and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--out", type=Path, default=TARGET)
    add("--methods", nargs="+", default=list(COMPARED), help="Recipes, as NAME:lr=0.001+largest.")
    add("--cases", type=int, default=CASES, help="Number of test volumes.")
    add("--seed", type=int, default=0)
    add("--predictions", type=Path, default=ROOT / "_build" / "forensics")
    options = parser.parse_args(words)
    if find_spec("seg_metrics") is None or find_spec("medpy") is None:
        raise SystemExit("MedPy or seg-metrics is missing; the head of this file installs them.")
    logging.disable(logging.WARNING)  # seg-metrics and MONAI warn about each empty mask
    warnings.simplefilter("ignore")
    dataset = open_dataset(DATA)
    cases = [case for case in dataset.split("test") if case.mask is not None]
    cases = cases[:: max(1, len(cases) // options.cases)][: options.cases]
    truths = {case.name: read_case_mask(dataset, case) for case in cases}
    for case in cases:
        spacing, _ = spacing_of(dataset, case, truths[case.name])
        assert np.allclose(spacing, 1), f"{case.name} has the spacing {spacing}, not 1 mm"
    said = sys.argv[1:] if words is None else words
    origin = {"command": shlex.join(["python", "-m", "tools.forensics", *said]), **machine()}
    origin |= {"peers": {name: version(name) for name in PEERS}, "data": dataset.describe()}
    origin |= {"size": SIZE, "shots": SHOTS, "seed": options.seed, "tolerance": TOLERANCE}
    old = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    whole, slices = old.get("cases", []), old.get("slices", [])
    known = {row["method"] for row in slices}
    for name in (name for name in options.methods if name not in known):
        if name == NOTHING:
            found = {case.name: np.zeros_like(truths[case.name].values) for case in cases}
        else:
            found = predicted(name, dataset, cases, options.predictions, options.seed)
        rows = [
            {"method": name, "case": case.name} | row
            for case in cases
            for row in rows_of(found[case.name], truths[case.name].values, dataset.labels)
        ]
        table = pd.DataFrame(rows)
        single = table["unit"] == "slices"
        whole += [
            {key: value for key, value in row.items() if value is not None}
            for row in json.loads(table[~single].round(DIGITS).to_json(orient="records"))
        ]
        slices += by_state(table[single])
        content = {"probes": probes(), "cases": whole, "slices": slices}
        write_json(options.out, {"provenance": origin, **content})
        print(name, f"{len(rows)} rows", flush=True)


if __name__ == "__main__":
    main()
