"""The tables of the papers, read a second time by the csv module."""

import csv

import numpy as np
import pytest

from medsaga_lib.claims import tables
from medsaga_lib.claims.arithmetic import number
from medsaga_lib.claims.claim import all_claims


def by_hand(name):
    """Return header and rows of a file without its first line."""
    lines = (tables.FOLDER / f"{name}.csv").read_text(encoding="utf-8").splitlines()
    header, *rows = csv.reader(lines[1:])
    return header, rows


@pytest.mark.parametrize("name", tables.names())
def test_a_table_is_read_as_printed(name):
    header, rows = by_hand(name)
    read = tables.printed(name)
    assert list(read.columns) == header
    assert read.to_numpy().tolist() == rows
    assert read.index.is_unique
    assert tables.source(name)


@pytest.mark.parametrize("name", ["medsaga_table1", "medsaga_table3", "litemedsam_table3"])
def test_numbers_are_those_of_the_cells(name):
    _, rows = by_hand(name)
    labels = tables.LABELS.get(name, 1)
    expected = [[float(cell or "nan") for cell in row[labels:]] for row in rows]
    np.testing.assert_array_equal(tables.table(name).to_numpy(), expected)


def test_cells_are_found_by_their_names():
    assert tables.cells("medsaga_table1[AMOS 7*, s*_dice]") == {"AMOS 7000, samed_dice": "0.377"}
    assert len(tables.cells("medsaga_table1[*, *_dice]")) == 66


CELLS = [(claim.id, pattern) for claim in all_claims() for pattern in claim.cells]


@pytest.mark.parametrize(("claim", "pattern"), CELLS)
def test_the_cells_of_a_claim_exist(claim, pattern):
    assert tables.cells(pattern), f"{claim}: no cell is called {pattern}"


def test_a_published_number_is_that_of_its_only_cell():
    checked = 0
    for claim in all_claims():
        found = [value for pattern in claim.cells for value in tables.cells(pattern).values()]
        if len(found) == 1 and any(c.isdigit() for c in claim.published):
            assert number(claim.published) == number(found[0]), claim.id
            checked += 1
    assert checked >= 20
