"""Evaluation of a trained run on a split of a data set: a table, a summary and a figure."""

import zlib
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from medsaga_lib.data.cases import match, read_case, read_case_mask, read_pair
from medsaga_lib.data.dataset import Case, DataSet
from medsaga_lib.data.domain import shifts
from medsaga_lib.data.images import Picture, Stored
from medsaga_lib.data.phantoms import PHANTOMS
from medsaga_lib.data.seen import Seen, seen
from medsaga_lib.errors import UserError
from medsaga_lib.evaluation.scores import Evaluation, evaluate_cases
from medsaga_lib.files import write_bytes
from medsaga_lib.inference.predictor import PROMPT_SEED, load_run
from medsaga_lib.inference.runtime import Runtime
from medsaga_lib.models.heads import Promptable
from medsaga_lib.training.run_folder import read_run

TRUTH_PROMPTS = {
    "points": f"a random pixel of each label in each slice of the truth, seed {PROMPT_SEED}",
    "boxes": "the exact box of each label in each slice of the truth",
    "grid": "a grid of points; each label gets the mask that is nearest to its truth",
}


def evaluation_folder(run: Path, dataset: DataSet, split: str) -> Path:
    """Folder for the scores of a run.

    It is `evaluation` for the test split of the run's own data set. For other data it contains the
    names of the data set and the split, so that evaluations do not overwrite each other.
    """
    own = (dataset.name, split) == (read_run(run)["settings"]["data"], "test")
    return run / ("evaluation" if own else f"evaluation-{dataset.name}-{split}")


def evaluate_run(
    folder: Path, dataset: DataSet, split: str, out: Path, runtime: Runtime = "torch"
) -> Evaluation:
    """Score a run on a split and write cases.csv, summary.json and figure.png to `out`.

    runtime: of the image encoder (`inference.runtime`).

    Raises:
        UserError: the labels of the data set differ from those of the run, a file cannot be used,
            or the runtime cannot be used.
    """
    predictor = load_run(folder, runtime)
    if dataset.require_labels() != predictor.labels:
        raise UserError(
            f"{dataset.root} has the labels {dataset.labels}, but {folder} was trained for "
            f"{predictor.labels}; evaluate it on a data set with the same labels."
        )
    cases = [case for case in dataset.split(split) if case.mask is not None]
    shifted: dict[str, list[str]] = defaultdict(list)

    pairs: dict[str, tuple[Picture, Stored]] = {}  # of the cases that are not predicted yet

    def read(case: Case) -> tuple[Picture, Stored]:
        picture = read_case(dataset, case)
        for kind, what in shifts(predictor.domain, picture).items():
            shifted[kind].append(f"{case.image}: {what} as the training images")
        pairs[case.name] = picture, read_case_mask(dataset, case, picture)
        return pairs[case.name]

    kept: dict[str, Kept] = {}  # the figure shows 3 of the predictions

    def predict(case: Case) -> np.ndarray:
        picture, mask = pairs.pop(case.name)
        labels = predictor.pair(case.name, picture, match(dataset, picture, mask))
        kept[case.name] = Kept.of(labels)
        return labels

    evaluation = evaluate_cases(predict, dataset, cases, read=read)
    notes = tuple(_note(found, len(cases)) for found in shifted.values())
    saw = _seen(folder, dataset)
    evaluation = replace(evaluation, data=dataset.name, split=split, notes=notes, seen=saw)
    if isinstance(predictor.model, Promptable):
        evaluation = replace(evaluation, prompts=TRUTH_PROMPTS[predictor.model.kind])
    evaluation.save(out)
    _write_figure(out / "figure.png", predictor.labels, dataset, cases, kept, evaluation)
    return evaluation


def _seen(folder: Path, dataset: DataSet) -> Seen | None:
    """Return whether a run's backbone saw the data set; None for random weights or drawn images."""
    settings = read_run(folder)["settings"]
    backbone, weights = settings["backbone"], settings["weights"]
    if backbone == "none" or weights == "random" or dataset.name == PHANTOMS:
        return None
    if weights != "pretrained":
        return Seen("not known", "the weights are a file of your own")
    return seen(backbone, dataset.name)


def _note(found: list[str], cases: int) -> str:
    """Return one sentence for all images that are far from the training images in one thing."""
    others = f", as {len(found) - 1} more of the {cases} images" if len(found) > 1 else ""
    return f"{found[0]}{others}; the scores say little about images like those of training."


class Kept(NamedTuple):
    """A label map in little memory: label maps of large volumes do not fit beside each other."""

    content: bytes
    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, labels: np.ndarray) -> "Kept":
        """Compress a label map."""
        small = labels.astype(np.min_scalar_type(labels.max(initial=0)))
        return cls(zlib.compress(small.tobytes(), 1), small.dtype.str, small.shape)

    def labels(self) -> np.ndarray:
        """Return the label map, int64."""
        flat = np.frombuffer(zlib.decompress(self.content), self.dtype)
        return flat.reshape(self.shape).astype(np.int64)


def drawn(evaluation: Evaluation) -> dict[str, str]:
    """Return the names of the cases in the figure: worst, middle and best by Dice."""
    names = _by_dice(evaluation).index
    if not len(names):
        return {}
    places = {len(names) // 2: "middle", 0: "worst", len(names) - 1: "best"}  # the same if few
    return {rank: names[place] for place, rank in sorted(places.items())}


def _by_dice(evaluation: Evaluation) -> pd.Series:
    return evaluation.table.groupby("case")["dice"].mean().dropna().sort_values()


def _write_figure(
    path: Path,
    labels: dict[int, str],
    dataset: DataSet,
    cases: list[Case],
    kept: dict[str, Kept],
    evaluation: Evaluation,
) -> None:
    """Draw the cases with the lowest, the middle and the highest Dice side by side."""
    from medsaga_lib.display import Panel, grid, to_png

    panels = []
    for rank, name in drawn(evaluation).items():
        case = next(case for case in cases if case.name == name)
        picture, truth = read_pair(dataset, case)
        prediction = kept[name].labels()
        image, spacing = picture.pixels, picture.spacing
        if len(picture.shape) == 3:  # the slice with the largest object
            middle = int((truth > 0).sum((1, 2)).argmax())
            image, truth, prediction = image[middle], truth[middle], prediction[middle]
            spacing = spacing[1:]
        title = f"{rank}: Dice {_by_dice(evaluation)[name]:.3f}"
        panels.append(Panel(image, truth, prediction, title, (spacing[0], spacing[1])))
    if panels:
        alt = "Worst, middle and best case: truth dashed, prediction solid."
        write_bytes(path, to_png(grid(panels, labels, alt), alt))
