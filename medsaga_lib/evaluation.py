"""From the scores of cases to results: one tidy table, means over classes, and intervals."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from medsaga_lib.data.folder import Case, DataSet
from medsaga_lib.data.images import read_case_mask
from medsaga_lib.data.problems import BadFile
from medsaga_lib.errors import UserError
from medsaga_lib.files import replacing, write_json
from medsaga_lib.metrics import TOLERANCE, score_case

METRICS = ("dice", "hd95", "nsd")
SYNAPSE = ("dice_synapse", "hd95_synapse")
COLUMNS = ("case", "patient", "class", "label", *METRICS, *SYNAPSE)
CASES_FILE = "cases.csv"
SUMMARY_FILE = "summary.json"
RESAMPLES = 2000  # our choice: another seed moves an end by about 1.5 % of the length
COVERAGE = 0.95
SEED = 0  # the same scores give the same interval


@dataclass(frozen=True)
class Evaluation:
    """The scores of some cases: one row for each case and class, columns `COLUMNS`.

    HD95 is in mm (in pixels where the spacing is unknown), `hd95_synapse` always in pixels or
    voxels. NaN stands where neither the prediction nor the truth has the class (`metrics`).
    """

    table: pd.DataFrame
    prompts: str | None = None  # what the model was told of the truth, if anything
    data: str = ""  # name of the data set
    split: str = ""

    def means(self, metrics: Sequence[str] = METRICS) -> pd.DataFrame:
        """Means over cases, without NaN: one row for each class, one column for each metric."""
        return self.table.groupby("class", sort=False)[list(metrics)].mean()

    def summary(self) -> dict[str, Any]:
        """The result as plain numbers.

        `dice`, `hd95`, `nsd` are means over classes of the means over cases, `dice_interval` ...
        their 95 % intervals. NaN scores are left out of every mean; `empty` counts them. `prompts`
        is there if the model was told something of the truth, and says what; `data` and `split`
        are there if they are known. `classes` gives the same for each class with 95 % intervals,
        `cases` for each case.
        """
        overall = self.means().mean()
        return {
            **{metric: float(overall[metric]) for metric in METRICS},
            **{f"{metric}_interval": list(self.interval(metric)) for metric in METRICS},
            "empty": _count_empty(self.table),
            **({"prompts": self.prompts} if self.prompts else {}),
            **({"data": self.data, "split": self.split} if self.data else {}),
            "classes": [
                self._class_summary(name, rows)
                for name, rows in self.table.groupby("class", sort=False)
            ],
            "cases": [
                _case_summary(name, rows) for name, rows in self.table.groupby("case", sort=False)
            ],
        }

    def synapse(self) -> dict[str, float]:
        """Means by the published Synapse rule: over cases, then over classes."""
        overall = self.means(SYNAPSE).mean()
        return {"dice": float(overall["dice_synapse"]), "hd95": float(overall["hd95_synapse"])}

    def interval(self, metric: str, class_name: str | None = None) -> tuple[float, float]:
        """95 % interval of the mean of a class, or of the mean over classes.

        The percentile bootstrap over patients: all cases of a patient are drawn together. It says
        how the mean would move with other patients, not with another seed of training. NaN where
        fewer than two patients have a score.
        """
        rows = self.table if class_name is None else self.table[self.table["class"] == class_name]
        scores = rows.dropna(subset=[metric]).groupby(["patient", "class"])[metric]
        sums = scores.sum().unstack(fill_value=0).to_numpy()  # (patients, classes)
        counts = scores.count().unstack(fill_value=0).to_numpy()
        return bootstrap(sums, counts)

    def save(self, folder: Path) -> None:
        """Write `cases.csv` and `summary.json`, where a NaN is empty and null.

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
) -> Evaluation:
    """Score the predictions of cases against their masks.

    Args:
        predict: gives the label map of a case, integers, with the shape of its mask.
        dataset: says which labels count; numbered instances are one class (id > 0).
        cases: of the data set, each with a mask.
        tolerance: of NSD, in mm.

    Raises:
        UserError: no cases, a case without a mask or with one of another size, or a data set
            without common labels.
    """
    labels = dataset.require_labels()
    rows = []
    for case in cases:
        mask = read_case_mask(case)
        truth = (mask.values > 0).astype(int) if dataset.masks == "instances" else mask.values
        prediction = predict(case)
        if prediction.shape != truth.shape:
            what = f"has shape {truth.shape}, but the prediction has {prediction.shape}"
            raise BadFile(mask.path, what, "give the mask on the grid of its image.")
        rows += [
            {"case": case.name, "patient": case.patient, **score._asdict()}
            for score in score_case(prediction, truth, labels, mask.spacing, tolerance)
        ]
    if not rows:
        raise UserError(f"{dataset.root}: no cases to evaluate; choose another split.")
    return Evaluation(pd.DataFrame(rows).rename(columns={"name": "class"})[list(COLUMNS)])


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
    """Interval of the mean over classes of sums / counts, both (patients, classes)."""
    patients = len(sums)
    if patients < 2:
        return math.nan, math.nan
    # How often each patient is drawn in each resample: (RESAMPLES, patients).
    draws = np.random.default_rng(SEED).multinomial(
        patients, np.full(patients, 1 / patients), size=RESAMPLES
    )
    with np.errstate(invalid="ignore"):  # a class of which no case was drawn is left out
        means = (draws @ sums) / (draws @ counts)  # (RESAMPLES, classes)
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(np.nanmean(means, axis=1), [tail, 1 - tail])
    return float(low), float(high)


def over_seeds(values: Sequence[float]) -> tuple[float, float]:
    """Mean of a few runs and half of its 95 % interval, by Student's t; NaN for a single run.

    It says what other seeds would give, that is other shots and other random numbers. Not what
    other patients would: that is `Evaluation.interval`.
    """
    mean, runs = float(np.mean(values)), len(values)
    if runs < 2:
        return mean, math.nan
    return mean, float(stats.sem(values) * stats.t.ppf((1 + COVERAGE) / 2, runs - 1))


def without_nan(content: Any) -> Any:
    """The same with None for NaN, which JSON does not know."""
    if isinstance(content, dict):
        return {key: without_nan(value) for key, value in content.items()}
    if isinstance(content, list):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content
