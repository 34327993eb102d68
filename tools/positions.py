"""Compare the kinds of the position lift on a frozen LiteMedSAM, over seeds and data sets.

    python -m tools.positions
    python -m tools.positions --data cxr_hannover_lungs:4 --kinds none fourier --seeds 0 \
        --out /tmp/positions.json                                             # a quick look

Every run is the recipe `frozen_encoder`: the mask decoder, the class tokens and the lift train, and
the image encoder does not. Therefore the test images are encoded once for all runs. The tool writes
notebooks/recorded/positions.json after each run and does not repeat runs that are in the file.
"""

import argparse
import itertools
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medsaga_lib.data.cases import read_case, read_case_mask
from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.data.dataset import Case, DataSet
from medsaga_lib.evaluation.metrics import dice
from medsaga_lib.evaluation.scores import evaluate_cases, without_nan
from medsaga_lib.files import write_json
from medsaga_lib.inference.predictor import SLICES_AT_ONCE
from medsaga_lib.models.feeding import FEED_OF
from medsaga_lib.models.frame import Frame
from medsaga_lib.models.heads import SamHead
from medsaga_lib.models.lift import LiftName
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.recipe import changed
from medsaga_lib.training.loop import train
from medsaga_lib.training.run_folder import Settings
from tools.provenance import RECORDED, machine

TARGET = RECORDED / "positions.json"
DATA = ("cxr_hannover_lungs:4", "polyp_kvasir:16", "hippocampus_msd:16")  # with shots
SEEDS = range(5)
BACKBONE = "lite_medsam"
SIZE = 64  # pixels; hippocampus slices have about 35 x 50
# as in the recorded runs of `tools.record late_hippocampus`
CHANGES = ("image_encoder.copies=12", "lr=0.001", "batch=4", "steps=150")
METRICS = ("dice", "hd95", "nsd", "confused")


class Run(NamedTuple):
    """The settings that decide a run."""

    data: str
    shots: int
    lift: LiftName
    seed: int
    changes: str = ""  # other values of the recipe than `CHANGES`


class Kept(NamedTuple):
    """The image embeddings (slices or 1, C, h, w) of a test case, and how its masks come back."""

    embeddings: Tensor
    frame: Frame
    is_volume: bool


def main(words: list[str] | None = None) -> None:
    """Read the command line, train and score the missing runs and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--out", type=Path, default=TARGET)
    add("--data", nargs="+", default=list(DATA), metavar="NAME:SHOTS")
    add("--kinds", nargs="+", default=list(get_args(LiftName)), choices=get_args(LiftName))
    add("--seeds", nargs="+", type=int, default=list(SEEDS))
    add("--set", nargs="+", default=[], help="Other values of the recipe: weight_decay=1.")
    options = parser.parse_args(words)
    said = sys.argv[1:] if words is None else words
    origin = {"command": shlex.join(["python", "-m", "tools.positions", *said]), **machine()}
    origin |= {"size": SIZE, "recipe": ":".join(["frozen_encoder", *CHANGES])}
    datasets = [open_dataset(entry.split(":")[0]) for entry in options.data]
    origin["data"] = "; ".join(dataset.describe() for dataset in datasets)
    rows = json.loads(options.out.read_text())["runs"] if options.out.exists() else []
    known = [Run(*(row[field] for field in Run._fields)) for row in rows]
    for entry in options.data:
        data, shots = entry.split(":")
        runs = [
            Run(data, int(shots), kind, seed, " ".join(options.set))
            for seed, kind in itertools.product(options.seeds, options.kinds)
        ]
        missing = [run for run in runs if run not in known]
        print(f"{entry}: {len(missing)} of {len(runs)} runs are missing", flush=True)
        if missing:
            dataset = open_dataset(data)
            cases = [case for case in dataset.split("test") if case.mask is not None]
            kept: dict[str, Kept] = {}
        for run in missing:
            model = trained(run, dataset)
            kept = kept or {case.name: encoded(model, dataset, case) for case in cases}
            rows.append(row_of(run, model, dataset, cases, kept))
            print(*run, f"{rows[-1]['dice']:.3f}", flush=True)
            write_json(options.out, {"provenance": origin, "runs": rows})


def trained(run: Run, dataset: DataSet) -> SamHead:
    """Train the decoder with a kind of lift on a frozen encoder."""
    values = *CHANGES, *run.changes.split(), f"lift={run.lift}"
    recipe = changed(get_recipe("frozen_encoder"), values)
    settings = Settings(shots=run.shots, backbone=BACKBONE, size=SIZE, seed=run.seed, validations=0)
    model = train(recipe, dataset, settings, progress=False).model.eval()
    assert isinstance(model, SamHead)
    return model


def row_of(
    run: Run,
    model: SamHead,
    dataset: DataSet,
    cases: Sequence[Case],
    kept: Mapping[str, Kept],
) -> dict[str, Any]:
    """Return the scores of a trained run."""
    found = {case.name: labels_of(model, kept[case.name], dataset) for case in cases}
    evaluation = evaluate_cases(lambda case: found[case.name], dataset, cases)
    truths = [read_case_mask(dataset, case).values for case in cases]
    return {
        **run._asdict(),
        "lift_weights": 0 if model.lift is None else model.lift.weight.numel(),
        **without_nan({name: float(evaluation.means([name]).mean().iloc[0]) for name in METRICS}),
        "alike": alike(list(found.values())),
        "alike_truth": alike(truths),
    }


@torch.inference_mode()
def encoded(model: SamHead, dataset: DataSet, case: Case) -> Kept:
    """Encode the slices of a case."""
    picture = read_case(dataset, case)
    is_volume = len(picture.shape) == 3
    pixels = torch.from_numpy(np.ascontiguousarray(picture.pixels))
    if is_volume:
        images = pixels[:, None]
    else:
        images = (pixels if pixels.ndim == 3 else pixels[..., None]).movedim(-1, 0)[None]
    feed = FEED_OF[BACKBONE]
    parts = [
        model.embed(feed.images(part, SIZE).expand(-1, 3, -1, -1))
        for part in images.split(SLICES_AT_ONCE)
    ]
    return Kept(torch.cat(parts), feed.frame(images.shape[2:], SIZE), is_volume)


@torch.inference_mode()
def labels_of(model: SamHead, kept: Kept, dataset: DataSet) -> NDArray[np.int64]:
    """Return the label map of an encoded case, as `Predictor` does."""
    parts = kept.embeddings.split(SLICES_AT_ONCE)
    classes = torch.cat([kept.frame.enlarge(model.decode(part)).argmax(1) for part in parts])
    labels = torch.tensor([0, *sorted(dataset.labels)])[classes].numpy()
    return labels if kept.is_volume else labels[0]


def alike(labels: Sequence[NDArray[np.integer]]) -> float | None:
    """Return the mean Dice of the foregrounds of two cases, over all pairs of cases.

    All images are stretched to one square. A network that predicts the same place in each image has
    a value near 1. None for volumes.
    """
    if labels[0].ndim != 2:
        return None
    foregrounds = [torch.from_numpy(some > 0)[None, None].float() for some in labels]
    squares = [functional.interpolate(some, SIZE)[0, 0].numpy() > 0 for some in foregrounds]
    return float(np.nanmean([dice(*pair) for pair in itertools.combinations(squares, 2)]))


if __name__ == "__main__":
    main()
