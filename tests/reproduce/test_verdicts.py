"""Verdicts on made-up rows: each rule, the interval against statsmodels' and scipy's own."""

import math
from dataclasses import replace

import numpy as np
import pytest
from reproduce.rows import a_row
from scipy import stats

from medsaga_lib.reproduce.published import Cell, chosen, find_table
from medsaga_lib.reproduce.verdicts import TOLERANCE, ahead, differences, judge, scores_of

TABLE = find_table("medsaga_table1")
DICE = Cell("Spleen", "100", "medsaga", "dice", "0.842")
HD95 = Cell("Spleen", "100", "medsaga", "hd95", "14.645")


def verdict(rows, cell=DICE, table=TABLE):
    return judge(table, cell, rows, {})


def test_interval_of_one_seed_is_students_t_over_patients():
    row = a_row()
    values = np.array([dice for _, _, dice in row["case_dice"]])
    low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    found = verdict([row])
    assert found.ours == pytest.approx(values.mean(), abs=1e-4)
    assert found.interval == pytest.approx((low - 0.842, high - 0.842), abs=2e-4)
    assert found.difference == pytest.approx(found.ours - 0.842)


@pytest.mark.parametrize(
    ("mean", "facts", "expected"),
    [
        (0.84, {}, "reproduced"),
        (0.842 + TOLERANCE, {}, "undecided"),
        (0.7, {}, "unspecified"),  # the paper does not state the split
        (0.84, {"size": 256}, "not comparable"),
        (0.84, {"data": "hippocampus_msd"}, "not comparable"),
        (0.84, {"official": False}, "not comparable"),
        (0.84, {"asked": "8"}, "not comparable"),
        (0.84, {"backbone": "pocket"}, "not comparable"),
        (0.84, {"recipe": "medsaga:lr=0.001"}, "not comparable"),
        (0.84, {"planned_steps": 50}, "not comparable"),
        (0.84, {"collapsed": {"what": "background"}}, "undecided"),
        (0.84, {"case_dice": [["a", "b", 0.84]]}, "undecided"),  # one patient
    ],
)
def test_verdicts_of_a_dice(mean, facts, expected):
    found = verdict([a_row(mean=mean, **facts)])
    assert found.verdict == expected, found.why
    assert found.why


def test_a_paper_that_states_everything_is_contradicted():
    closed = replace(TABLE, open=[])
    assert verdict([a_row(mean=0.7)], table=closed).verdict == "contradicted"
    assert verdict([a_row(mean=0.95)], table=closed).verdict == "contradicted"
    assert verdict([a_row(mean=0.84)], table=closed).verdict == "reproduced"


def test_scores_without_a_unit_and_places_without_a_run():
    found = verdict([a_row()], HD95)
    assert (found.verdict, found.difference) == ("unspecified", pytest.approx(14.0 - 14.645))
    assert math.isnan(found.interval[0])
    nothing = judge(TABLE, DICE, [], {"Spleen": "needs it"})
    assert (nothing.verdict, nothing.why, nothing.seeds) == ("not run here", "needs it", 0)


def test_a_part_of_the_data_is_not_comparable():
    place = ("AMOS", "500", "medsaga")
    cell = Cell(*place, "dice", "0.199")
    row = a_row(place=place, mean=0.2)
    assert differences(TABLE, cell, row) == [TABLE.partial["AMOS"]]


def test_a_percentage_is_compared_as_printed():
    table = find_table("cheap_lunch_dice")
    place = ("BraTS", "1%", "Cheap Lunch")
    cell = chosen(table, ["BraTS"], [], [])[0]
    found = judge(table, cell, [a_row(table.name, place, mean=0.85)], {})
    values = [dice for _, _, dice in a_row(table.name, place, mean=0.85)["case_dice"]]
    assert found.ours == pytest.approx(100 * np.mean(values), abs=0.01)
    assert found.interval[0] < found.ours - 84.1 < found.interval[1]


def test_the_same_seed_of_two_machines_counts_once():
    one, other = a_row(mean=0.80), a_row(mean=0.84, device="another")
    assert len(scores_of([one, other])) == 30
    both = [(a[2] + b[2]) / 2 for a, b in zip(one["case_dice"], other["case_dice"], strict=True)]
    assert scores_of([one, other]).sort_values("case")["score"].mean() == pytest.approx(
        np.mean(both)
    )
    assert verdict([one, other]).seeds == 1


@pytest.mark.parametrize(
    ("medsaga", "samed", "facts", "expected"),
    [
        (0.85, 0.80, {}, "reproduced"),  # published: 0.842 and 0.807
        (0.80, 0.85, {}, "unspecified"),
        (0.84, 0.84, {}, "undecided"),
        (0.85, 0.80, {"size": 128}, "not comparable"),
    ],
)
def test_which_method_is_ahead(medsaga, samed, facts, expected):
    shift = np.random.default_rng(9).normal(0, 0.01, 30)
    one = a_row(mean=medsaga, **facts)
    other = a_row(place=("Spleen", "100", "samed"), mean=samed)
    for case, more in zip(other["case_dice"], shift, strict=True):
        case[2] = round(case[2] + more, 4)
    cells = chosen(TABLE, ["Spleen"], ["100"], [])
    (pair,) = ahead(TABLE, cells, [one, other])
    pairs = zip(other["case_dice"], one["case_dice"], strict=True)
    by_case = np.array([a[2] - b[2] for a, b in pairs])
    assert pair.ours == pytest.approx(by_case.mean())
    low, high = stats.t.interval(0.95, 29, by_case.mean(), stats.sem(by_case))
    assert pair.interval == pytest.approx((low, high))
    assert pair.published == pytest.approx(0.807 - 0.842)
    assert (pair.method, pair.baseline, pair.verdict) == ("samed", "medsaga", expected)


def test_nothing_is_ahead_of_nothing():
    cells = chosen(TABLE, ["Spleen"], ["100"], [])
    assert ahead(TABLE, cells, []) == []
    assert ahead(TABLE, cells, [a_row()]) == []
    other = a_row(place=("Spleen", "100", "samed"), seed=1)  # no seed in common
    assert ahead(TABLE, cells, [a_row(), other]) == []


def test_a_constant_difference_is_compared():
    one, other = a_row(mean=0.85), a_row(place=("Spleen", "100", "samed"), mean=0.8)
    (pair,) = ahead(TABLE, chosen(TABLE, ["Spleen"], ["100"], []), [one, other])
    assert pair.ours == pytest.approx(-0.05, abs=1e-4)
    assert pair.verdict == "reproduced"


def test_rows_of_the_paper_s_kind_come_before_others():
    quick = [a_row(seed=seed, mean=0.5, size=128) for seed in range(3)]
    found = verdict([*quick, a_row()])
    assert (found.verdict, found.seeds) == ("reproduced", 1)
    smaller = [a_row(seed=seed, mean=0.4, size=64) for seed in range(2)]
    found = verdict([*smaller, *quick])
    assert found.seeds == 3
    assert found.ours == pytest.approx(0.5, abs=0.02)
