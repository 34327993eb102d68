"""Arithmetic with printed numbers, which are rounded: intervals, agreement and counts."""

import re
from collections.abc import Iterable, Sequence

import numpy as np

NUMBER = re.compile(r"[-−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")


def number(text: str) -> float:
    """Return the first number of a text as printed.

    >>> number("over 1,000,000 pairs")
    1000000.0
    """
    return float(_first(text).replace(",", "").replace("−", "-"))


def half_unit(text: str) -> float:
    """Return half a unit of the last printed digit, the largest error of rounding.

    >>> half_unit("0.930"), half_unit("96")
    (0.0005, 0.5)
    """
    _, _, decimals = _first(text).partition(".")
    return 0.5 * 10.0 ** -len(decimals)


def interval(text: str) -> tuple[float, float]:
    """Return the values that are printed as this text when rounded."""
    return number(text) - half_unit(text), number(text) + half_unit(text)


def rounds_to(value: float, text: str) -> bool:
    """Return whether a value may be printed as this text; the ends of the interval count."""
    low, high = interval(text)
    slack = 1e-9 * max(1.0, abs(value))  # of binary fractions
    return low - slack <= value <= high + slack


def mean_interval(texts: Iterable[str]) -> tuple[float, float]:
    """Return the smallest and largest mean of numbers that are printed as these texts."""
    low, high = np.array([interval(text) for text in texts]).mean(axis=0)
    return float(low), float(high)


def overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Return whether two intervals have a point in common."""
    slack = 1e-9 * max(map(abs, (*one, *other)))
    return max(one[0], other[0]) <= min(one[1], other[1]) + slack


def percent_less(value: float, than: float) -> float:
    """Return by how many percent a value is below another one."""
    return 100 * (1 - value / than)


def signs(differences: Iterable[float]) -> tuple[int, int, int]:
    """Return how many differences are positive, zero and negative."""
    values = np.asarray(list(differences))
    return int((values > 0).sum()), int((values == 0).sum()), int((values < 0).sum())


def rank_of(matrix: np.ndarray, relative: float = 1e-3) -> int:
    """Return the number of singular values above a share of the largest one; float32 has noise."""
    values = np.linalg.svd(np.asarray(matrix, dtype=np.float64), compute_uv=False)
    return int((values > relative * values[0]).sum())


def listed(values: Sequence[float], digits: int) -> str:
    """Return numbers as a text with this many decimals, such as "0.1, 0.2"."""
    return ", ".join(f"{value:.{digits}f}" for value in values)


def _first(text: str) -> str:
    match = NUMBER.search(text)
    if match is None:
        raise ValueError(f"{text!r} has no number; give a text with one.")
    return match.group()
