"""Patients and splits of imported cases."""

from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsaga_lib.data.importing.assign import Shares, patients_of, splits_of
from medsaga_lib.data.importing.found import Item, LabelMap
from medsaga_lib.errors import UserError

MASK = LabelMap(lambda: None)


def item(number, split=None, mask=MASK):
    return Item(f"c{number}", PurePath(f"p{number // 2}/c{number}.png"), None, mask, split)


ITEMS = [item(number) for number in range(20)]
PATIENTS = {one.name: str(int(one.name[1:]) // 2) for one in ITEMS}


def test_the_first_group_in_the_path_is_the_patient():
    patients, rule = patients_of(ITEMS, r"p(\d+)/", None)
    assert patients == PATIENTS
    assert rule == "by --patient"


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("p(", "is no regular expression"),
        (r"p\d", "has no group"),
        (r"p(\d\d)", r"finds no patient in p0/c0.png.*and 15 more"),
        (r"p(\d*?)", "finds no patient in"),
    ],
)
def test_patterns_that_find_no_patient(pattern, said):
    with pytest.raises(UserError, match=said):
        patients_of(ITEMS, pattern, None)


def test_a_table_names_the_patients(tmp_path):
    table = tmp_path / "t.csv"
    rows = [f"{name},{patient}" for name, patient in PATIENTS.items()]
    table.write_text("case,patient\n" + "\n".join(rows))
    assert patients_of(ITEMS, None, table) == (PATIENTS, "by t.csv")
    table.write_text("case,patient\n" + "\n".join(rows[:-2]))
    with pytest.raises(UserError, match=r"has no patient of p9/c18.png, p9/c19.png; name each"):
        patients_of(ITEMS, None, table)
    table.write_text("image,patient\n")
    with pytest.raises(UserError, match="has the columns image, patient; give it"):
        patients_of(ITEMS, None, table)
    with pytest.raises(UserError, match="cannot be read"):
        patients_of(ITEMS, None, tmp_path / "absent.csv")
    with pytest.raises(UserError, match="omit one"):
        patients_of(ITEMS, "(.)", table)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("ending", ["", ".png"])
def test_tables_of_spreadsheets(tmp_path, separator, ending):
    table = tmp_path / "t.csv"
    rows = [("case", "age", "patient"), *[(c + ending, "60", p) for c, p in PATIENTS.items()]]
    table.write_text("\r\n".join(map(separator.join, rows)), encoding="utf-8-sig")
    assert patients_of(ITEMS, None, table)[0] == PATIENTS


def test_tables_that_leave_a_patient_open(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("case,patient\nc0,0\nc0,1\n")
    with pytest.raises(UserError, match=r"gives c0 the patients 0, 1; keep one\.$"):
        patients_of(ITEMS, None, table)
    same = [Item(f"{at}_c", PurePath(at, "c.png"), None, MASK, None) for at in ("left", "right")]
    table.write_text("case,patient\nc.png,0\n")
    with pytest.raises(UserError, match=r"no patient of left/c.png, right/c.png; name each"):
        patients_of(same, None, table)


def test_without_a_rule_a_case_is_a_patient():
    patients, rule = patients_of(ITEMS, None, None)
    assert patients == {one.name: one.name for one in ITEMS}
    assert "give --patient" in rule


def test_shares_of_patients():
    splits, notes = splits_of(ITEMS, PATIENTS, Shares())
    assert [list(splits.values()).count(s) for s in ("train", "test", "val")] == [14, 4, 2]
    assert notes == ["splits: 10 patients at random: train 0.7, test 0.2, val 0.1"]
    other, _ = splits_of(ITEMS, PATIENTS, Shares(seed=1))
    assert other != splits
    halves, _ = splits_of(ITEMS, PATIENTS, Shares(0.5, 0.5))
    assert set(halves.values()) == {"test", "val"}


@pytest.mark.parametrize(("patients", "expected"), [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)),
                                                    (5, (3, 1, 1)), (40, (28, 8, 4))])  # fmt: skip
def test_few_patients_are_in_every_split(patients, expected):
    items = [item(2 * number) for number in range(patients)]
    splits, _ = splits_of(items, {one.name: one.name for one in items}, Shares())
    found = tuple(list(splits.values()).count(split) for split in ("train", "test", "val"))
    assert found == expected


@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=15),
    st.dictionaries(st.integers(0, 4), st.sampled_from(["train", "val", "test"])),
    st.integers(0, 9),
)
def test_no_patient_is_in_two_splits_and_the_sources_are_kept(rows, official, seed):
    items = [
        Item(str(n), PurePath(str(n)), None, MASK, official.get(patient) if said else None)
        for n, (patient, said) in enumerate(rows)
    ]
    patients = {str(n): str(patient) for n, (patient, _) in enumerate(rows)}
    splits, _ = splits_of(items, patients, Shares(seed=seed))
    sides = {
        patient: {splits[n] for n in patients if patients[n] == patient} for patient in "01234"
    }
    assert all(len(side) <= 1 for side in sides.values())
    assert all(splits[one.name] == one.split for one in items if one.split)
    for split in ("val", "test"):  # no case joins by chance a split that the source has
        if split in {one.split for one in items}:
            fixed = {patients[one.name] for one in items if one.split == split}
            assert {patients[n] for n in splits if splits[n] == split} == fixed


def test_test_images_without_masks_do_not_replace_a_test_split():
    items = [*ITEMS, item(98, "test", None)]
    splits, _ = splits_of(items, {**PATIENTS, "c98": "x"}, Shares())
    assert splits["c98"] == "test"
    assert list(splits.values()).count("test") == 5


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        (Shares(test=1.2), "1.2 is no share"),
        (Shares(val=-0.1), "--val-share -0.1"),
        (Shares(test=float("nan")), "no share"),
        (Shares(0.6, 0.6), "more than 1"),
    ],
)
def test_shares_that_are_none(shares, said):
    with pytest.raises(UserError, match=said):
        splits_of(ITEMS, PATIENTS, shares)


def test_splits_of_the_source_are_not_replaced():
    items = [item(0, "train"), item(2, "test"), item(4)]
    with pytest.raises(UserError, match="omit --test-share"):
        splits_of(items, PATIENTS, Shares(test=0.5))
    splits, _ = splits_of(items, PATIENTS, Shares(val=1.0))
    assert splits == {"c0": "train", "c2": "test", "c4": "val"}
    with pytest.raises(UserError, match="omit --val-share"):
        splits_of(items[:2], PATIENTS, Shares(val=0.5))
    with pytest.raises(UserError, match=r"1 patient in several splits \(0\)"):
        splits_of([item(0, "train"), item(1, "test")], PATIENTS, Shares())
