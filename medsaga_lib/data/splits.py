"""Nested few-shot subsets, and splits that keep all cases of a patient together.

Cases are ordered by a SHA-256 hash of the seed and the name. The order is the same on every machine
and with every version of NumPy. It does not depend on the order in which the cases are given, and
it stays the same when cases are added.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from operator import attrgetter
from typing import TypeVar

from medsaga_lib.data.dataset import Case
from medsaga_lib.errors import UserError

T = TypeVar("T")

SUM_TOLERANCE = 1e-6  # our choice; floating-point fractions do not add up to exactly 1


def few_shot(
    items: Sequence[T], shots: int, seed: int, name: Callable[[T], str] = attrgetter("name")
) -> tuple[T, ...]:
    """Choose `shots` of the items; with the same seed, a larger subset contains a smaller one.

    Args:
        items: cases, or other items for which `name` returns a unique name.

    Raises:
        UserError: `shots` is less than 1 or more than the number of items.
    """
    if not 1 <= shots <= len(items):
        raise UserError(
            f"Cannot choose {shots} shots of {len(items)} labelled training images; "
            f"ask for 1 to {len(items)}."
        )
    return tuple(sorted(items, key=lambda item: _rank(name(item), seed))[:shots])


def split_by_patient(
    cases: Sequence[Case], fractions: Mapping[str, float], seed: int
) -> dict[str, tuple[Case, ...]]:
    """Split the patients in the given fractions, and return the cases with their new `split`.

    A split with a fraction above 0 gets a patient, at the cost of the largest one, as long as that
    keeps one. Without this rule, 5 patients at 0.7, 0.1 and 0.2 would leave val empty.

    Example: `split_by_patient(cases, {"train": 0.7, "val": 0.1, "test": 0.2}, seed=0)`.

    Raises:
        UserError: the fractions are negative or do not add up to 1.
    """
    shares = list(fractions.values())
    if min(shares, default=0) < 0 or abs(sum(shares) - 1) > SUM_TOLERANCE:
        raise UserError(f"The fractions {dict(fractions)} must be 0 or more and add up to 1.")
    patients = sorted({case.patient for case in cases}, key=lambda name: _rank(name, seed))
    ends = accumulate(_counts(shares, len(patients)))
    side = {
        patient: split
        for split, (start, end) in zip(fractions, pairwise([0, *ends]), strict=True)
        for patient in patients[start:end]
    }
    return {
        split: tuple(replace(case, split=split) for case in cases if side[case.patient] == split)
        for split in fractions
    }


def _counts(shares: list[float], patients: int) -> list[int]:
    """Return the number of patients of each split; each end of a split is rounded."""
    ends = [round(end * patients) for end in accumulate(shares)]
    counts = [end - start for start, end in pairwise([0, *ends])]
    for split, share in enumerate(shares):
        largest = counts.index(max(counts))
        if share > 0 and counts[split] == 0 and counts[largest] > 1:
            counts[split] += 1
            counts[largest] -= 1
    return counts


def _rank(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()
