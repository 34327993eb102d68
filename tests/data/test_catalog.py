"""What `medsaga data list` shows: the phantoms, and what lies below $MEDSAGA_DATA."""

import pytest

from medsaga_lib.data.catalog import Entry, catalog
from medsaga_lib.errors import UserError


def test_only_phantoms_where_nothing_is_set(monkeypatch):
    monkeypatch.delenv("MEDSAGA_DATA", raising=False)
    (entry,) = catalog()
    assert (entry.name, entry.cases, entry.licence) == ("phantom_cxr", 90, "CC0-1.0")


def test_folders_below_the_variable(tiny, monkeypatch):
    (tiny.parent / "notes").mkdir()
    bad = tiny.parent / "bad"
    bad.mkdir()
    (bad / "dataset.toml").write_text("name = 3")
    monkeypatch.setenv("MEDSAGA_DATA", str(tiny.parent))
    entries = {entry.name: entry for entry in catalog()}
    assert list(entries) == ["phantom_cxr", "bad", "tiny"]
    assert entries["tiny"] == Entry("tiny", "X-ray", 6, "CC0", str(tiny))
    assert f"{bad / 'index.csv'}: is missing" in entries["bad"].fault


def test_a_folder_that_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("MEDSAGA_DATA", str(tmp_path / "absent"))
    with pytest.raises(UserError, match="names no folder"):
        catalog()


def test_real_data_sets(real_data):
    entries = {entry.name: entry for entry in catalog()}
    assert not any(entry.fault for entry in entries.values())
    assert entries["polyp_kvasir"].cases == 160
    assert entries["nuclei_dsb2018"].licence == "CC0 1.0"
    assert entries["hippocampus_msd"].modality == "MR"
