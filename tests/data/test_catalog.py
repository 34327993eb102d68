"""Data sets by path and by name, and what `medsaga data list` shows."""

import os

import pytest

from medsaga_lib.data.catalog import Entry, catalog, data_root, open_dataset, open_or_phantoms
from medsaga_lib.errors import UserError


def test_name_is_found_below_the_variable(tiny, monkeypatch):
    monkeypatch.setenv("MEDSAGA_DATA", str(tiny.parent))
    monkeypatch.chdir("/")
    assert open_dataset("tiny").root == tiny


def test_a_relative_variable_gives_an_absolute_folder_and_is_left_unchanged(tiny, monkeypatch):
    monkeypatch.chdir(tiny.parent.parent)
    monkeypatch.setenv("MEDSAGA_DATA", tiny.parent.name)
    assert data_root() == tiny.parent
    root = open_dataset("tiny").root
    assert os.environ["MEDSAGA_DATA"] == tiny.parent.name
    monkeypatch.chdir("/")
    assert root == tiny


def test_no_variable_is_no_folder(monkeypatch):
    monkeypatch.delenv("MEDSAGA_DATA", raising=False)
    assert data_root() is None
    monkeypatch.setenv("MEDSAGA_DATA", "")
    assert data_root() is None
    assert os.environ["MEDSAGA_DATA"] == ""


@pytest.mark.parametrize("name", ["tiny", "phantom_cxr"])
def test_variable_without_a_folder_is_an_error_for_every_name(name, monkeypatch, tmp_path):
    monkeypatch.setenv("MEDSAGA_DATA", str(tmp_path / "absent"))
    with pytest.raises(UserError, match=r"\$MEDSAGA_DATA is not a folder.*correct it or unset"):
        open_dataset(name)


@pytest.mark.parametrize("name", ["no_such_set", "some/where"])
def test_unknown_name_says_what_to_give(name, monkeypatch):
    monkeypatch.delenv("MEDSAGA_DATA", raising=False)
    with pytest.raises(UserError, match=rf"No data set '{name}'.*give a folder.*phantom_cxr"):
        open_dataset(name)


def test_phantoms_replace_real_data_only_where_the_variable_is_not_set(
    tiny, few_phantoms, monkeypatch
):
    assert open_or_phantoms("tiny").name == "phantom_cxr"
    monkeypatch.setenv("MEDSAGA_DATA", str(tiny.parent))
    assert open_or_phantoms("tiny").name == "tiny"
    with pytest.raises(UserError, match="No data set 'other'"):
        open_or_phantoms("other")


def test_only_phantoms_are_listed_where_the_variable_is_not_set(monkeypatch):
    monkeypatch.delenv("MEDSAGA_DATA", raising=False)
    (entry,) = catalog()
    assert (entry.name, entry.cases, entry.licence) == ("phantom_cxr", 90, "CC0-1.0")


def test_folders_below_the_variable_are_listed(tiny, monkeypatch):
    (tiny.parent / "notes").mkdir()
    bad = tiny.parent / "bad"
    bad.mkdir()
    (bad / "dataset.toml").write_text("name = 3")
    monkeypatch.setenv("MEDSAGA_DATA", str(tiny.parent))
    entries = {entry.name: entry for entry in catalog()}
    assert list(entries) == ["phantom_cxr", "bad", "tiny"]
    assert entries["tiny"] == Entry("tiny", "X-ray", 6, "CC0", str(tiny))
    assert f"{bad / 'index.csv'}: is missing" in entries["bad"].fault


def test_a_list_of_a_folder_that_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("MEDSAGA_DATA", str(tmp_path / "absent"))
    with pytest.raises(UserError, match="is not a folder"):
        catalog()


def test_real_data_sets_open(real_data):
    sizes = {
        "cxr_hannover_lungs": (77, 2),
        "hippocampus_msd": (260, 2),
        "nuclei_dsb2018": (144, 1),
        "polyp_kvasir": (160, 1),
        "ct_spleen_msd_crop": (1, 1),
    }  # data set: cases and labels, as in its SOURCE.md
    for name, size in sizes.items():
        dataset = open_dataset(name)
        assert (len(dataset.cases), len(dataset.labels)) == size
    xray = open_dataset("cxr_hannover_lungs")
    assert len({case.patient for case in xray.cases}) == 43


def test_real_data_sets_are_listed(real_data):
    entries = {entry.name: entry for entry in catalog()}
    assert not any(entry.fault for entry in entries.values())
    assert entries["polyp_kvasir"].cases == 160
    assert entries["nuclei_dsb2018"].licence == "CC0 1.0"
    assert entries["hippocampus_msd"].modality == "MR"
