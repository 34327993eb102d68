"""The arithmetic with printed numbers, against decimal arithmetic and brute force."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsaga_lib.claims.arithmetic import (
    half_unit,
    interval,
    mean_interval,
    number,
    overlap,
    percent_less,
    rank_of,
    rounds_to,
    signs,
)

printed = st.decimals(0, 1000, places=3).map(str)


@pytest.mark.parametrize(
    ("text", "value", "half"),
    [
        ("0.930", 0.93, 0.0005),
        ("96", 96, 0.5),
        ("10,300 slices", 10300, 0.5),
        ("over 1,000,000", 1e6, 0.5),
        ("18.81M", 18.81, 0.005),
        ("-0.5", -0.5, 0.05),
        ("0.899 to 0.938", 0.899, 0.0005),
    ],
)
def test_a_number_is_read_with_its_digits(text, value, half):
    assert number(text) == value
    assert half_unit(text) == pytest.approx(half)


def test_a_text_without_a_number_is_refused():
    with pytest.raises(ValueError, match="has no number"):
        number("almost every")


@settings(deadline=None)
@given(st.decimals(0, 1000, places=6), st.integers(0, 4))
def test_a_rounded_number_agrees_with_its_print(value, places):
    text = str(value.quantize(Decimal(1).scaleb(-places)))
    assert rounds_to(float(value), text)
    apart = value + Decimal(1).scaleb(-places) * Decimal("1.01")
    assert not rounds_to(float(apart), text)


@settings(deadline=None)
@given(st.lists(printed, min_size=1, max_size=9), st.randoms())
def test_a_mean_of_rounded_numbers_stays_in_its_interval(texts, random):
    unrounded = [number(t) + random.uniform(-half_unit(t), half_unit(t)) for t in texts]
    low, high = mean_interval(texts)
    assert low - 1e-9 <= np.mean(unrounded) <= high + 1e-9
    assert high - low == pytest.approx(float(np.mean([2 * half_unit(t) for t in texts])))


@settings(deadline=None)
@given(printed, printed)
def test_intervals_overlap_as_by_decimals(one, other):
    a, b = Decimal(one), Decimal(other)
    assert overlap(interval(one), interval(other)) == (abs(a - b) <= Decimal("0.001"))


def test_percent_and_signs():
    assert percent_less(39, 100) == pytest.approx(61)
    assert signs([0.1, 0, -2, 3]) == (2, 1, 1)


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_the_rank_of_a_product_is_that_of_its_factors(rank):
    random = np.random.default_rng(rank)
    product = random.standard_normal((24, rank)) @ random.standard_normal((rank, 16))
    assert rank_of(product.astype(np.float32)) == rank
