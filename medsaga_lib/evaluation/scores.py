"""Results over cases: a table of scores, means over classes, and confidence intervals."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit  # scipy.stats takes a quarter of a second to import

from medsaga_lib.data.cases import read_case_mask, spacing_of
from medsaga_lib.data.dataset import Case, DataSet
from medsaga_lib.data.images import Picture, Stored
from medsaga_lib.data.problems import BadFile
from medsaga_lib.data.seen import Seen
from medsaga_lib.errors import UserError
from medsaga_lib.evaluation.metrics import TOLERANCE, ClassScore, score_case
from medsaga_lib.files import replacing, write_json

METRICS = ("dice", "hd95", "nsd")
SYNAPSE = ("dice_synapse", "hd95_synapse")
CONFUSED = "confused"
COLUMNS = ("case", "patient", "class", "label", *METRICS, *SYNAPSE, CONFUSED)
CASES_FILE = "cases.csv"
SUMMARY_FILE = "summary.json"
RESAMPLES = 2000  # our choice: another seed moves a limit by about 1.5 % of the interval's width
COVERAGE = 0.95
BESIDE = 2**24  # elements of a case that leaves room for another: maps of 128 MiB; our choice
SEED = 0  # fixed, so that the same scores give the same interval


@dataclass(frozen=True)
class Evaluation:
    """Scores of a set of cases: one row per case and class, with the columns `COLUMNS`.

    HD95 is in mm, or in pixels where the spacing is unknown; `hd95_synapse` is always in pixels or
    voxels. A score is NaN where neither the prediction nor the truth has the class, see `metrics`.
    """

    table: pd.DataFrame
    prompts: str | None = None  # how prompts were made from the truth, if they were
    data: str = ""  # name of the data set
    split: str = ""
    unit: str = ""  # of HD95: "mm", "px", or "mm or px" if some cases have a spacing
    notes: tuple[str, ...] = ()  # in what images are far from the training images
    seen: Seen | None = None  # whether the backbone was pretrained on this data set

    def means(self, metrics: Sequence[str] = METRICS) -> pd.DataFrame:
        """Means over cases, ignoring NaN: one row per class, one column per metric."""
        return self.table.groupby("class", sort=False)[list(metrics)].mean()

    def summary(self) -> dict[str, Any]:
        """Summary of the scores as plain numbers, for `summary.json`.

        `dice`, `hd95` and `nsd` are means over classes of the means over cases, `dice_interval` and
        so on are their 95 % intervals. `synapse` has the means by the published Synapse rule. Means
        ignore NaN scores; `empty` counts them. `confused` is the share of predicted elements that
        belong to another class. `hd95_unit` is "mm" or "px". `prompts` describes prompts that were
        made from the truth; it is absent if there were none. `data` and `split` are absent if
        unknown, and `notes` if there are none. `seen` is the word of `data.seen`; it is absent for
        random weights and drawn images. `classes` has the same numbers per class, `cases`
        per case without intervals.
        """
        overall = self.means().mean()
        return {
            **{metric: float(overall[metric]) for metric in METRICS},
            **{f"{metric}_interval": list(self.interval(metric)) for metric in METRICS},
            "synapse": self.synapse(),
            "confused": float(self.means([CONFUSED]).mean()[CONFUSED]),
            "empty": _count_empty(self.table),
            **({"hd95_unit": self.unit} if self.unit else {}),
            **({"prompts": self.prompts} if self.prompts else {}),
            **({"data": self.data, "split": self.split} if self.data else {}),
            **({"notes": list(self.notes)} if self.notes else {}),
            **({"seen": self.seen.exposure} if self.seen else {}),
            "classes": [
                self._class_summary(name, rows)
                for name, rows in self.table.groupby("class", sort=False)
            ],
            "cases": [
                _case_summary(name, rows) for name, rows in self.table.groupby("case", sort=False)
            ],
        }

    def synapse(self) -> dict[str, float]:
        """Means of Dice and HD95 (in voxels) by the published Synapse rule: cases, then classes."""
        overall = self.means(SYNAPSE).mean()
        return {"dice": float(overall["dice_synapse"]), "hd95": float(overall["hd95_synapse"])}

    def interval(self, metric: str, class_name: str | None = None) -> tuple[float, float]:
        """95 % interval of the mean of a class, or of the mean over classes if none is given.

        It is a percentile bootstrap over patients: all cases of a patient are drawn together. It
        covers the variation between patients, not the variation between training seeds. NaN where
        fewer than 2 patients have a score.
        """
        rows = self.table if class_name is None else self.table[self.table["class"] == class_name]
        scores = rows.dropna(subset=[metric]).groupby(["patient", "class"])[metric]
        sums = scores.sum().unstack(fill_value=0).to_numpy()  # (patients, classes)
        counts = scores.count().unstack(fill_value=0).to_numpy()
        return bootstrap(sums, counts)

    def save(self, folder: Path) -> None:
        """Write `cases.csv`, with NaN as an empty field, and `summary.json`, with NaN as null.

        Raises:
            UserError: the folder cannot be written.
        """
        with replacing(folder / CASES_FILE) as temporary:
            self.table.to_csv(temporary, index=False)
        write_json(folder / SUMMARY_FILE, without_nan(self.summary()))

    def _class_summary(self, name: str, rows: pd.DataFrame) -> dict[str, Any]:
        result: dict[str, Any] = {"name": name, "label": int(rows["label"].iloc[0])}
        for metric in METRICS:
            result[metric] = float(rows[metric].mean())
            result[f"{metric}_interval"] = list(self.interval(metric, name))
        return result | {"empty": _count_empty(rows)}


def evaluate_cases(
    predict: Callable[[Case], NDArray[np.integer]],
    dataset: DataSet,
    cases: Iterable[Case],
    tolerance: float = TOLERANCE,
    read: Callable[[Case], tuple[Picture | None, Stored]] | None = None,
) -> Evaluation:
    """Score the predictions of cases against their masks.

    Args:
        predict: returns the label map of a case, integers, with the shape of its mask.
        dataset: data set of the cases, with their labels; numbered instances are one class (> 0).
        cases: cases of the data set, each with a mask.
        tolerance: tolerance of NSD in mm.
        read: returns the image and the mask of a case; default: it reads the mask, and the image
            only if the spacing is not known without it.

    Raises:
        UserError: there are no cases, a case has no mask or a mask of another size, or the data
            set has no common labels.
    """
    labels = dataset.require_labels()
    read = read or (lambda case: (None, read_case_mask(dataset, case)))
    units: set[str] = set()
    scores: list[tuple[Case, Future[list[ClassScore]]]] = []
    # while a case is predicted, the one before it is scored, and the one after it is read
    with ThreadPoolExecutor(2) as threads:
        for case, (image, mask) in _read_ahead(list(cases), read, threads):
            spacing, known = spacing_of(dataset, case, mask, image)
            units.add("mm" if known else "px")
            truth = (mask.values > 0).astype(int) if dataset.masks == "instances" else mask.values
            prediction = predict(case)
            if prediction.shape != truth.shape:
                what = f"has shape {truth.shape}, but the prediction has {prediction.shape}"
                raise BadFile(mask.path, what, "give the mask on the grid of its image.")
            if scores:
                scores[-1][1].result()  # so that at most one case waits for its scores
            found = threads.submit(score_case, prediction, truth, labels, spacing, tolerance)
            scores.append((case, found))
            if truth.size > BESIDE:
                found.result()
    rows = [
        {"case": case.name, "patient": case.patient, **score._asdict()}
        for case, found in scores
        for score in found.result()
    ]
    if not rows:
        raise UserError(f"{dataset.root}: no cases to evaluate; choose another split.")
    table = pd.DataFrame(rows).rename(columns={"name": "class"})[list(COLUMNS)]
    return Evaluation(table, unit=" or ".join(sorted(units)))


def _read_ahead(
    cases: Sequence[Case],
    read: Callable[[Case], tuple[Picture | None, Stored]],
    threads: ThreadPoolExecutor,
) -> Iterator[tuple[Case, tuple[Picture | None, Stored]]]:
    """Yield each case with what `read` returns, which is called in the order of the cases.

    A case is read in a thread while the caller works on the one before it. The first two are read
    when their turn comes, since `data.quiet` keeps the standard error of the whole process off the
    terminal: what a network prints once, in its first prediction, is seen.
    """
    ahead: Future[tuple[Picture | None, Stored]] | None = None
    for number, case in enumerate(cases):
        found = ahead.result() if ahead else read(case)
        beside = 0 < number < len(cases) - 1 and found[1].values.size <= BESIDE
        ahead = threads.submit(read, cases[number + 1]) if beside else None
        yield case, found


def _count_empty(rows: pd.DataFrame) -> int:
    return int(rows["dice"].isna().sum())


def _case_summary(name: str, rows: pd.DataFrame) -> dict[str, Any]:
    columns = ["class", "label", *METRICS]
    return {
        "case": name,
        "patient": rows["patient"].iloc[0],
        **{metric: float(rows[metric].mean()) for metric in METRICS},
        "classes": rows[columns].rename(columns={"class": "name"}).to_dict("records"),
    }


def bootstrap(sums: NDArray, counts: NDArray) -> tuple[float, float]:
    """Bootstrap interval of the mean over classes of sums / counts, both (patients, classes)."""
    patients = len(sums)
    if patients < 2:
        return math.nan, math.nan
    # (RESAMPLES, patients): how often each patient is drawn in each resample
    draws = np.random.default_rng(SEED).multinomial(
        patients, np.full(patients, 1 / patients), size=RESAMPLES
    )
    with np.errstate(invalid="ignore"):  # a class without a drawn case is left out
        means = (draws @ sums) / (draws @ counts)  # (RESAMPLES, classes)
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(np.nanmean(means, axis=1), [tail, 1 - tail])
    return float(low), float(high)


def over_seeds(values: Sequence[float]) -> tuple[float, float]:
    """Mean over runs and half the width of its 95 % interval (Student's t); NaN for 1 run.

    The interval covers the variation between seeds: other shots and other random numbers.
    `Evaluation.interval` covers the variation between patients.
    """
    mean, runs = float(np.mean(values)), len(values)
    if runs < 2:
        return mean, math.nan
    error = np.std(values, ddof=1) / math.sqrt(runs)
    return mean, float(error * stdtrit(runs - 1, (1 + COVERAGE) / 2))


def without_nan(content: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by None in dictionaries and lists."""
    if isinstance(content, dict):
        return {key: without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
