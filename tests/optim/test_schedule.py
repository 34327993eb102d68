"""Learning rates against those that SAMed's loop logs and uses (oracle), and their shape."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsaga_lib.optim.schedule import scaled_warmup, warmup_polynomial

ORACLE = json.loads(
    (Path(__file__).parents[1] / "oracles" / "samed_learning_rate.json").read_text()
)
BASE, WARMUP, TOTAL = 0.005, 250, 18_600  # the oracle's run


@pytest.mark.parametrize("row", ORACLE["steps"], ids=lambda row: f"step{row['iter_num']}")
def test_equals_samed(row):
    step = row["iter_num"]
    logged = warmup_polynomial(step, BASE, WARMUP, TOTAL)
    used = warmup_polynomial(max(step - 1, 0), BASE, WARMUP, TOTAL)  # that loop is one step late
    assert logged == pytest.approx(row["lr_written_after_the_step"], rel=1e-12)
    assert used == pytest.approx(row["lr_used_by_the_optimizer_step"], rel=1e-12)


@pytest.mark.parametrize("row", ORACLE["without_warmup"], ids=lambda row: f"step{row['iter_num']}")
def test_equals_samed_without_warmup(row):
    rate = warmup_polynomial(row["iter_num"], BASE, 0, TOTAL)
    assert rate == pytest.approx(row["lr_written_after_the_step"], rel=1e-12)


@given(st.integers(1, 5000), st.floats(1e-6, 1))
def test_rises_to_base_once_then_falls_and_stays_positive(total, base):
    warmup = scaled_warmup(total)
    rates = [warmup_polynomial(step, base, warmup, total) for step in range(total)]
    top = warmup - 1
    assert rates[top] == pytest.approx(base)
    assert max(rates) <= base * (1 + 1e-12)
    assert all(earlier < later for earlier, later in itertools.pairwise(rates[: top + 1]))
    assert all(earlier > later for earlier, later in itertools.pairwise(rates[warmup:]))
    assert min(rates) > 0


def test_decay_ends_at_zero_one_total_after_the_warmup():
    assert warmup_polynomial(110, 1.0, 10, 100) == 0


@pytest.mark.parametrize("step", [-1, 111])
def test_steps_outside_the_schedule_are_refused(step):
    with pytest.raises(ValueError, match=r"10 \+ 100 steps"):
        warmup_polynomial(step, 1.0, 10, 100)


@pytest.mark.parametrize(
    ("steps", "warmup"), [(1, 1), (9, 1), (200, 20), (2499, 249), (2500, 250), (14_880, 250)]
)
def test_warmup_is_a_tenth_of_a_short_run_and_250_of_a_long_one(steps, warmup):
    assert scaled_warmup(steps) == warmup
