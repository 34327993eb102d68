"""Compares our scores with published ones: difference, interval and verdict.

The rules are fixed before any run:
- not comparable: our run differs from the paper's in data, images, weights, size, recipe or steps.
- unspecified: the paper does not state the unit of the score; or our Dice is off by more than the
  tolerance, and the paper does not state something that we had to choose.
- reproduced: the 95 % interval of the difference is within the tolerance.
- contradicted: the interval is outside the tolerance, and the paper states everything.
- undecided: the interval is too wide; more seeds or patients would decide.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from medsaga_lib.claims.claim import Verdict
from medsaga_lib.data.problems import listed
from medsaga_lib.errors import UserError
from medsaga_lib.evaluation.compare import compare, interval_of_mean
from medsaga_lib.reproduce.published import Cell, Table
from medsaga_lib.reproduce.runs import Row

TOLERANCE = 0.03  # of Dice; our choice, fixed before any run
KIND = ("data", "index_sha256", "shots", "recipe", "backbone", "backbone_sha256", "size",
        "planned_steps")  # fmt: skip
Decision = Verdict | Literal["undecided"]
Interval = tuple[float, float]
UNKNOWN: Interval = (math.nan, math.nan)


@dataclass(frozen=True)
class Judged:
    """A published number beside ours, as printed: Dice is in percent if the paper's is.

    difference, interval: ours - published, and its 95 % interval over patients and seeds.
    """

    cell: Cell
    ours: float
    difference: float
    interval: Interval
    seeds: int
    verdict: Decision
    why: str


@dataclass(frozen=True)
class Ahead:
    """The difference in Dice of two methods: published, ours, and its interval."""

    dataset: str
    images: str
    method: str
    baseline: str
    published: float
    ours: float
    interval: Interval
    p: float  # Holm's, over the methods that are compared with the baseline
    verdict: Decision
    why: str


def judge(table: Table, cell: Cell, rows: Iterable[Row], needs: dict[str, str]) -> Judged:
    """Compare a published number with the rows of its place.

    needs: why a data set of the table has no runs.
    """
    own = at(table, rows, cell)
    if not own:
        why = needs.get(cell.dataset, "no run of it is here")
        return Judged(cell, math.nan, math.nan, UNKNOWN, 0, "not run here", why)
    scale = table.scale(cell)
    low, high = table.bounds(cell)
    ours = _mean_over_seeds(own, cell.metric)
    spread = _interval(own) if cell.metric == "dice" else UNKNOWN
    verdict, why = _verdict(table, cell, own, (spread[0] - high, spread[1] - low))
    published = (low + high) / 2
    return Judged(
        cell,
        ours * scale,
        (ours - published) * scale,
        ((spread[0] - published) * scale, (spread[1] - published) * scale),
        len({row["seed"] for row in own}),
        verdict,
        why,
    )


def at(table: Table, rows: Iterable[Row], cell: Cell) -> list[Row]:
    """Return the rows of a cell's place in its table, all of the same kind.

    If runs of several kinds are there, such as those of both profiles, it takes the kind that
    differs least from the paper's, and of these the one with the most rows.
    """
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        if (row["dataset"], row["images"], row["method"]) == cell.place:
            kinds.setdefault(str([row.get(key) for key in KIND]), []).append(row)
    return min(
        (kinds[kind] for kind in sorted(kinds)),
        key=lambda own: (len(differences(table, cell, own[0])), -len(own)),
        default=[],
    )


def differences(table: Table, cell: Cell, row: Row) -> list[str]:
    """Return in which points a run differs from the paper's."""
    found = []
    if row["data"] != table.sets[cell.dataset]:
        found.append(f"{row['data']} instead of {cell.dataset}")
    elif not row["official"]:
        found.append(f"{row['data']} was not made by `medsaga data fetch`")
    if cell.dataset in table.partial:
        found.append(table.partial[cell.dataset])
    if row["asked"] != cell.shots:
        found.append(f"{row['asked']} images instead of {cell.images}")
    if row["backbone"] not in (table.backbone, "none"):
        found.append(f"{row['backbone']} instead of {table.backbone}")
    if row["size"] != table.size_of(cell.method):
        found.append(f"{row['size']} px instead of {table.size_of(cell.method)}")
    wanted = table.recipe_of(cell.method).split(":")
    if changes := [change for change in row["recipe"].split(":") if change not in wanted]:
        found.append(f"other values: {' '.join(changes)}")
    if row["planned_steps"] * row["batch"] < table.epochs * row["shots"]:
        found.append(f"{row['planned_steps']} steps, fewer than {table.epochs} epochs")
    return found


def _verdict(table: Table, cell: Cell, rows: list[Row], off: Interval) -> tuple[Decision, str]:
    """Return the verdict of a cell; `off` has the ends of our interval less the published value."""
    if differ := differences(table, cell, rows[0]):
        return "not comparable", "; ".join(differ)
    if cell.metric in table.unit:
        return "unspecified", f"the paper does not state the unit of {cell.metric.upper()}"
    if collapsed := sum(bool(row["collapsed"]) for row in rows):
        return "undecided", f"{collapsed} of {len(rows)} runs collapsed"
    if math.isnan(off[0]):
        return "undecided", "fewer than 2 patients"
    within = f"the tolerance of {TOLERANCE * table.scale(cell):g}"
    if off[0] >= -TOLERANCE and off[1] <= TOLERANCE:
        return "reproduced", f"within {within}"
    if off[1] >= -TOLERANCE and off[0] <= TOLERANCE:
        return "undecided", f"the interval crosses {within}; add seeds"
    return _against(table, f"outside {within}")


def _against(table: Table, what: str) -> tuple[Decision, str]:
    """Return the verdict of a result against the paper, which may leave something open."""
    if table.open:
        return "unspecified", f"{what}, but the paper does not state: {', '.join(table.open)}"
    return "contradicted", what


def ahead(table: Table, cells: Sequence[Cell], rows: Sequence[Row]) -> list[Ahead]:
    """Compare each method with the table's first one, on the same test cases and seeds."""
    first, *others = table.methods
    printed = {cell.place: cell for cell in cells if cell.metric == "dice"}
    found = []
    for dataset, images in dict.fromkeys((cell.dataset, cell.images) for cell in cells):
        here = [printed.get((dataset, images, method)) for method in (first, *others)]
        runs = {cell.method: at(table, rows, cell) for cell in here if cell is not None}
        if not runs.get(first):
            continue
        scores = {method: scores_of(own).assign(method=method) for method, own in runs.items()}
        for one in _compared(scores, first):
            cell, base = (printed[dataset, images, name] for name in (one.method, first))
            published = _difference(table, cell, base)
            verdict, why = _of_sign(table, cell, base, runs, one.over_both, published)
            found.append(
                Ahead(dataset, images, one.method, first, sum(published) / 2, one.mean,
                      one.over_both, one.p_holm, verdict, why)
            )  # fmt: skip
    return found


def _compared(scores: dict[str, pd.DataFrame], first: str) -> list:
    """Return the differences to the first method; [] if nothing can be compared."""
    filled = [frame for frame in scores.values() if len(frame)]
    try:
        return compare(pd.concat(filled), first)
    except UserError:  # one method, no seed in common, or one patient
        return []


def _difference(table: Table, cell: Cell, base: Cell) -> Interval:
    """Return the smallest and the largest published difference that rounding allows."""
    (low, high), (base_low, base_high) = table.bounds(cell), table.bounds(base)
    return low - base_high, high - base_low


def _of_sign(
    table: Table,
    cell: Cell,
    base: Cell,
    runs: dict[str, list[Row]],
    ours: Interval,
    published: Interval,
) -> tuple[Decision, str]:
    """Return the verdict of which method is ahead."""
    same = math.copysign(1, sum(ours)) == math.copysign(1, sum(published))
    sign = f"the sign is {'as' if same else 'not as'} published"
    differ = differences(table, cell, runs[cell.method][0])
    differ += differences(table, base, runs[base.method][0])
    if differ:
        return "not comparable", sign
    if published[0] <= 0 <= published[1]:
        return "unspecified", "the published numbers are equal within rounding"
    if not (ours[0] > 0 or ours[1] < 0):
        return "undecided", f"{sign}, and the interval contains 0; add seeds"
    return ("reproduced", sign) if same else _against(table, sign)


def scores_of(rows: Sequence[Row]) -> pd.DataFrame:
    """Return the Dice of each seed and case; the mean if several machines ran the same seed."""
    found = [
        (row["seed"], case, patient, math.nan if dice is None else dice)
        for row in rows
        for case, patient, dice in row["case_dice"]
    ]
    frame = pd.DataFrame(found, columns=["seed", "case", "patient", "score"])
    return frame.groupby(["seed", "case", "patient"], as_index=False)["score"].mean()


def _interval(rows: Sequence[Row]) -> Interval:
    """Return the interval of the mean Dice.

    It is that of the mean over cases, moved to the mean over classes; they differ a little if a
    class is absent from some cases.
    """
    scores = scores_of(rows)
    low, high = interval_of_mean(scores)
    by_seed = scores.groupby("seed")["score"].mean()
    moved = _mean_over_seeds(rows, "dice") - float(by_seed.mean())
    return low + moved, high + moved


def _mean_over_seeds(rows: Sequence[Row], metric: str) -> float:
    frame = pd.DataFrame([(row["seed"], row[metric]) for row in rows], columns=["seed", "score"])
    return float(frame.astype({"score": float}).groupby("seed")["score"].mean().mean())


def reasons(found: Iterable[Judged]) -> str:
    """Return why numbers are not comparable, each reason once."""
    parts = [
        part for one in found if one.verdict == "not comparable" for part in one.why.split("; ")
    ]
    return listed(list(dict.fromkeys(parts)))
