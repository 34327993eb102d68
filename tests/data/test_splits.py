"""Subsets are nested and the same on every machine; no patient is in two splits."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsaga_lib.data.dataset import Case
from medsaga_lib.data.splits import few_shot, split_by_patient
from medsaga_lib.errors import UserError

FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}


def cases(patients: list[int]) -> list[Case]:
    return [
        Case(f"case{n}", f"patient{patient}", Path(f"{n}.png"), None, "train")
        for n, patient in enumerate(patients)
    ]


@given(st.integers(2, 60), st.integers(0, 10_000), st.data())
def test_subsets_are_nested_whatever_the_order(total, seed, data):
    everyone = cases(list(range(total)))
    small = data.draw(st.integers(1, total))
    large = data.draw(st.integers(small, total))
    shuffled = data.draw(st.permutations(everyone))
    few, more = few_shot(everyone, small, seed), few_shot(shuffled, large, seed)
    assert len(set(few)) == small
    assert few == more[:small]


@given(st.integers(0, 1000))
def test_subset_is_kept_when_a_case_is_added(seed):
    before, after = few_shot(cases([0] * 30), 8, seed), few_shot(cases([0] * 31), 8, seed)
    assert len(set(before) & set(after)) >= 7


def test_every_case_is_drawn_equally_often():
    everyone = cases([0] * 10)
    drawn = [case.name for seed in range(2000) for case in few_shot(everyone, 3, seed)]
    for case in everyone:  # binomial(2000, 0.3): 600 +- 20.5; five sigma
        assert abs(drawn.count(case.name) - 600) < 103


def test_order_is_the_same_on_every_machine():
    names = [case.name for case in few_shot(cases([0] * 9), 4, seed=1)]
    assert names == ["case8", "case4", "case0", "case7"]  # smallest of `sha256sum` of "1/case8" ...


@pytest.mark.parametrize("shots", [0, -1, 6])
def test_impossible_number_of_shots(shots):
    with pytest.raises(
        UserError, match=f"{shots} shots of 5 labelled training images; ask for 1 to 5"
    ):
        few_shot(cases([0] * 5), shots, 0)


@given(st.lists(st.integers(0, 15), min_size=1, max_size=60), st.integers(0, 1000))
def test_patients_are_never_on_two_sides(patients, seed):
    everyone = cases(patients)
    parts = split_by_patient(everyone, FRACTIONS, seed)
    sides = {name: {case.patient for case in part} for name, part in parts.items()}
    assert sides["train"].isdisjoint(sides["val"] | sides["test"])
    assert sides["val"].isdisjoint(sides["test"])
    assert sorted(case.name for part in parts.values() for case in part) == sorted(
        case.name for case in everyone
    )
    assert all(case.split == name for name, part in parts.items() for case in part)
    count = len(set(patients))
    for name, fraction in FRACTIONS.items():
        # Each boundary is rounded to a whole patient, and the largest split may give up two
        assert -3 < len(sides[name]) - fraction * count <= 1
        assert sides[name] or count < len(FRACTIONS)


@pytest.mark.parametrize(
    ("patients", "counts"),
    [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (5, (3, 1, 1)), (10, (7, 1, 2))],
)
def test_no_split_is_empty_if_there_are_patients_enough(patients, counts):
    fractions = {"train": 0.7, "val": 0.1, "test": 0.2}
    parts = split_by_patient(cases(list(range(patients))), fractions, 0)
    assert tuple(len(part) for part in parts.values()) == counts


def test_a_fraction_of_0_stays_empty():
    parts = split_by_patient(cases([0, 1, 2]), {"train": 0.8, "val": 0.0, "test": 0.2}, 0)
    assert [len(part) for part in parts.values()] == [2, 0, 1]


@pytest.mark.parametrize("fractions", [{"train": 0.5}, {"train": 1.5, "test": -0.5}, {}])
def test_fractions_must_add_up(fractions):
    with pytest.raises(UserError, match="must be 0 or more and add up to 1"):
        split_by_patient(cases([1, 2]), fractions, 0)
