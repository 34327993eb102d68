"""Compares methods on the same test cases: paired differences, their intervals, and what they tell.

Two sources of chance are kept apart: patients, whose cases are drawn together, and seeds, which
decide shots and random numbers. Both are random effects of a crossed design, in which each seed's
network is tested on the same patients.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq

from medsaga_lib.data.problems import BadFile, listed
from medsaga_lib.errors import UserError
from medsaga_lib.evaluation.scores import CASES_FILE, COVERAGE, METRICS, SEED, bootstrap, over_seeds

POWER = 0.8  # the usual choice (Cohen 1988)
SMALLEST = 1e-3  # effect; our choice, it needs 8 million patients
LARGEST = 100.0  # effect; our choice, 2 patients find it
FLIPS = 9999  # random signs of the permutation test; our choice, so that p has 3 digits
COLUMNS = ("method", "seed", "case", "patient", "score")


@dataclass(frozen=True)
class Difference:
    """The paired difference of a method to a baseline, in the unit of the score.

    mean: over cases, then over the seeds that both have.
    over_patients: 95 % interval of the mean over patients, a bootstrap, for these seeds.
    over_seeds: 95 % interval over seeds (Student's t), for these patients; NaN for one seed.
    over_both: 95 % interval with patients and seeds as crossed random effects; for one seed it
        covers patients alone (Student's t).
    p: of a permutation test that changes the signs of patients' differences.
    p_holm: p adjusted for the number of methods (Holm 1979).
    effect: Cohen's d of paired samples: mean / standard deviation over patients.
    needed: patients for which this difference is found with a power of 80 % (paired t-test, two
        sides, 5 %); infinite if d is below 0.001.
    """

    method: str
    seeds: int
    patients: int
    mean: float
    over_patients: tuple[float, float]
    over_seeds: tuple[float, float]
    over_both: tuple[float, float]
    p: float
    p_holm: float
    effect: float
    needed: float


def compare(scores: pd.DataFrame, baseline: str) -> list[Difference]:
    """Compare each method with a baseline, case by case and seed by seed.

    Args:
        scores: a row for each method, seed and test case, with the columns `COLUMNS`. Cases that
            have no score (NaN) with one of the two methods are left out of their comparison.
        baseline: one of the methods.

    Raises:
        UserError: there is no such method, there are fewer than two, or two of them have no seed or
            fewer than 2 patients in common.
    """
    methods = list(dict.fromkeys(scores["method"]))
    if baseline not in methods or len(methods) < 2:
        raise UserError(
            f"Cannot compare {listed(methods)} with {baseline}; give it and another method."
        )
    found = [_difference(scores, method, baseline) for method in methods if method != baseline]
    adjusted = _holm([one.p for one in found])
    return [replace(one, p_holm=p) for one, p in zip(found, adjusted, strict=True)]


def detectable(scores: pd.DataFrame, method: str, baseline: str) -> float:
    """Return the smallest difference that the patients at hand find with a power of 80 %.

    Raises:
        UserError: as for `compare`.
    """
    spread = _by_patient(_paired(scores, method, baseline)).mean(axis=0)
    effect = brentq(lambda d: _power(d, len(spread)) - POWER, 0, LARGEST)
    return float(effect * spread.std(ddof=1))


def interval_of_mean(scores: pd.DataFrame) -> tuple[float, float]:
    """Return the 95 % interval of one method's mean, with patients and seeds as random effects.

    Args:
        scores: a row for each seed and test case, with the columns `COLUMNS` except the method. A
            case counts if it has a score with each seed. For one seed the interval covers patients
            alone; it is NaN for fewer than 2 patients.
    """
    found = scores.dropna(subset="score").rename(columns={"score": "difference"})
    found = _with_every_seed(found)
    if found["patient"].nunique() < 2:
        return math.nan, math.nan
    return _crossed(_by_patient(found))


def _difference(scores: pd.DataFrame, method: str, baseline: str) -> Difference:
    pairs = _paired(scores, method, baseline)
    parts = _by_patient(pairs)  # (seeds, patients)
    seeds, patients = parts.shape
    by_patient = pairs.groupby("patient")["difference"].agg(["sum", "count"])
    values = parts.mean(axis=0)
    effect = _ratio(values.mean(), values.std(ddof=1))
    mean, half = over_seeds(pairs.groupby("seed")["difference"].mean())
    return Difference(
        method=method,
        seeds=seeds,
        patients=patients,
        mean=float(values.mean()),
        over_patients=bootstrap(by_patient[["sum"]].to_numpy(), by_patient[["count"]].to_numpy()),
        over_seeds=(mean - half, mean + half),
        over_both=_crossed(parts),
        p=_signs(values),
        p_holm=math.nan,
        effect=effect,
        needed=_needed(effect),
    )


def _paired(scores: pd.DataFrame, method: str, baseline: str) -> pd.DataFrame:
    """Return the difference of each case and seed that both methods have.

    Raises:
        UserError: they have no seed or fewer than 2 patients in common.
    """
    keys = ["seed", "case", "patient"]
    one, other = (
        scores[scores["method"] == name].set_index(keys)["score"] for name in (method, baseline)
    )
    pairs = (one - other).dropna().rename("difference").reset_index()
    pairs = _with_every_seed(pairs)
    if pairs["patient"].nunique() < 2:
        raise UserError(
            f"{method} and {baseline} have scores of fewer than 2 patients with the same seed in "
            "common; evaluate both on the same test cases, with the same seeds."
        )
    return pairs


def _with_every_seed(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the cases that each seed has, so that seeds and patients are crossed."""
    seeds = scores["seed"].nunique()
    return scores[scores.groupby("case")["seed"].transform("nunique") == seeds]


def _by_patient(pairs: pd.DataFrame) -> NDArray[np.float64]:
    """Return the contributions of patients (seeds, patients), whose mean is that over cases.

    They linearise the ratio of sums and counts (Taylor's method for clusters, Woodruff 1971), so
    that a patient with several cases counts as often as it has cases.
    """
    table = pairs.groupby(["seed", "patient"])["difference"].agg(["sum", "count"])
    sums, counts = (table[key].unstack().to_numpy(float) for key in ("sum", "count"))
    means = sums.sum(1, keepdims=True) / counts.sum(1, keepdims=True)
    return means + (sums - means * counts) / counts.mean(1, keepdims=True)


def _crossed(parts: NDArray[np.float64]) -> tuple[float, float]:
    """Return the interval of the mean of (seeds, patients), both crossed random effects.

    The mean squares of a two-way layout without repetition give its variance, and Satterthwaite's
    rule (1946) the degrees of freedom.
    """
    seeds, patients = parts.shape
    of_patients = seeds * parts.mean(axis=0).var(ddof=1)
    if seeds == 1:
        variance, freedom = of_patients / patients, float(patients - 1)
    else:
        of_seeds = patients * parts.mean(axis=1).var(ddof=1)
        rest = parts - parts.mean(0) - parts.mean(1, keepdims=True) + parts.mean()
        error = (rest**2).sum() / ((seeds - 1) * (patients - 1))
        # an effect whose mean square is below the error's has an estimated variance of 0
        terms = [(max(of_seeds, error), seeds - 1), (max(of_patients, error), patients - 1)]
        whole = sum(square for square, _ in terms) - error
        variance = whole / (seeds * patients)
        spread = sum(square**2 / free for square, free in terms)
        spread += error**2 / ((seeds - 1) * (patients - 1))
        freedom = whole**2 / spread if spread else math.inf
    half = stats.t.ppf((1 + COVERAGE) / 2, freedom) * math.sqrt(variance)
    return float(parts.mean() - half), float(parts.mean() + half)


def _signs(values: NDArray[np.float64]) -> float:
    """Return p of the hypothesis that the patients' differences are symmetric around 0."""
    if not values.any():
        return 1.0
    test = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=FLIPS,
        rng=np.random.default_rng(SEED),
    )  # fmt: skip
    return float(test.pvalue)


def _holm(values: Sequence[float]) -> list[float]:
    """Return p adjusted by Holm's step-down rule."""
    order = np.argsort(values)
    steps = np.asarray(values)[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return [float(p) for p in adjusted]


def _needed(effect: float) -> float:
    """Return the number of patients for a power of 80 %, at least 2."""
    effect, least = abs(effect), 2.0
    if effect < SMALLEST:
        return math.inf
    if effect >= LARGEST or _power(effect, least) >= POWER:
        return least
    most = 2 * least
    while _power(effect, most) < POWER:
        most *= 2
    return float(math.ceil(brentq(lambda size: _power(effect, size) - POWER, most / 2, most)))


def _power(effect: float, patients: float) -> float:
    """Return the power of a paired t-test with two sides."""
    freedom, centre = patients - 1, effect * math.sqrt(patients)
    least = stats.t.ppf((1 + COVERAGE) / 2, freedom)
    # SciPy 1.17 gives NaN for some of the other side, which is then too small to count
    other = stats.nct.cdf(-least, freedom, centre)
    return float(stats.nct.sf(least, freedom, centre) + np.nan_to_num(other))


def _ratio(mean: float, spread: float) -> float:
    if spread:
        return float(mean / spread)
    return math.copysign(math.inf, mean) if mean else 0.0


def scores_of(evaluations: Sequence[tuple[str, int, Path]], metric: str) -> pd.DataFrame:
    """Read the scores of evaluated runs as `compare` takes them: the mean over classes by case.

    Args:
        evaluations: the method, the seed and the folder with `cases.csv` of each run.
        metric: one of `METRICS`.

    Raises:
        UserError: a file is missing or damaged, or two runs have the same method and seed.
    """
    if metric not in METRICS:
        raise UserError(f"There is no score {metric}; give one of {listed(METRICS)}.")
    seen: dict[tuple[str, int], Path] = {}
    tables = []
    for method, seed, folder in evaluations:
        if other := seen.get((method, seed)):
            raise UserError(f"{other} and {folder} are both {method} with seed {seed}; omit one.")
        seen[method, seed] = folder
        table = _read_cases(folder / CASES_FILE, metric)
        tables.append(table.assign(method=method, seed=seed))
    return pd.concat(tables)[list(COLUMNS)]


def _read_cases(path: Path, metric: str) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype={"case": str, "patient": str}, keep_default_na=False,
                            na_values={metric: [""]})  # fmt: skip
        scores = table.groupby(["case", "patient"], sort=False)[metric].mean()
    except FileNotFoundError:
        raise BadFile(path, "is missing", "run `medsaga evaluate` first.") from None
    except (ValueError, KeyError, OSError) as error:
        raise BadFile(path, f"is damaged ({error})", "run `medsaga evaluate` again.") from None
    return scores.rename("score").reset_index()
