"""The folder format: what is opened, by which name, and which description is refused."""

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from medsaga_lib.data.folder import data_root, open_dataset, open_or_phantoms, without_ending
from medsaga_lib.errors import UserError


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_opens_every_field(tiny):
    dataset = open_dataset(tiny)
    assert (dataset.root, dataset.name, dataset.modality) == (tiny, "tiny", "X-ray")
    assert (dataset.dimensions, dataset.masks, dataset.licence) == (2, "labels", "CC0")
    assert dataset.labels == {1: "right lung", 2: "left lung"}
    assert dataset.window is None
    assert [case.name for case in dataset.split("train")] == ["case0", "case1", "case2", "case3"]
    assert [case.patient for case in dataset.split("test")] == ["eve"]
    assert dataset.cases[0].image == tiny / "images/case0.png"
    assert dataset.cases[0].mask == tiny / "masks/case0.png"


def test_case_stands_for_a_missing_patient(tiny):
    rewrite(tiny / "index.csv", "patient", "hospital")
    assert [case.patient for case in open_dataset(tiny).cases] == [f"case{n}" for n in range(6)]


def test_mask_may_be_left_out(tiny):
    rewrite(tiny / "index.csv", "masks/case5.png", "")
    assert open_dataset(tiny).cases[5].mask is None


def test_instances_are_one_label(tiny):
    text = (tiny / "dataset.toml").read_text().split("[labels]")[0]
    (tiny / "dataset.toml").write_text(text.replace('"labels"', '"instances"'))
    assert open_dataset(tiny).labels == {1: "object"}


@pytest.mark.parametrize(
    ("line", "twice"), [('3 = "left lung"', "'left lung'"), ('01 = "heart"', "1")]
)
def test_labels_are_told_apart_by_value_and_by_name(tiny, line, twice):
    text = (tiny / "dataset.toml").read_text()
    (tiny / "dataset.toml").write_text(text.replace("[labels]", f"[labels]\n{line}"))
    with pytest.raises(UserError, match=rf"\[labels\] has {twice} twice"):
        open_dataset(tiny)


def test_window_is_read(tiny):
    rewrite(tiny / "dataset.toml", 'licence = "CC0"', "window = [-160, 240]")
    assert open_dataset(tiny).window == (-160.0, 240.0)


def test_name_is_found_below_the_variable(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("MEDSAGA_DATA", str(tiny.parent))
    monkeypatch.chdir("/")
    assert open_dataset("tiny").root == tiny


def test_variable_becomes_absolute_at_once(tiny, monkeypatch):
    monkeypatch.chdir(tiny.parent.parent)
    monkeypatch.setenv("MEDSAGA_DATA", tiny.parent.name)
    assert data_root() == tiny.parent
    monkeypatch.chdir("/")
    assert Path(os.environ["MEDSAGA_DATA"]) == tiny.parent
    assert open_dataset("tiny").root == tiny


@pytest.mark.parametrize("name", ["tiny", "phantom_cxr"])
def test_variable_without_a_folder_is_an_error_for_every_name(name, monkeypatch, tmp_path):
    monkeypatch.setenv("MEDSAGA_DATA", str(tmp_path / "absent"))
    with pytest.raises(UserError, match=r"\$MEDSAGA_DATA names no folder.*correct it or unset"):
        open_dataset(name)


@pytest.mark.parametrize("name", ["no_such_set", "some/where"])
def test_unknown_name_says_what_to_give(name, monkeypatch):
    monkeypatch.delenv("MEDSAGA_DATA", raising=False)
    with pytest.raises(UserError, match=rf"No data set '{name}'.*give a folder.*phantom_cxr"):
        open_dataset(name)


def test_unknown_split(tiny):
    with pytest.raises(UserError, match="no split is called 'training'; use train, val, test"):
        open_dataset(tiny).split("training")


def test_labels_that_differ_by_case_cannot_be_trained(tiny):
    text = (tiny / "dataset.toml").read_text().split("[labels]")[0]
    (tiny / "dataset.toml").write_text(text)
    (tiny / "labels.json").write_text("{}")
    dataset = open_dataset(tiny)
    assert dataset.labels == {}
    with pytest.raises(UserError, match=r"differ from case to case.*add \[labels\]"):
        dataset.require_labels()


def test_blanks_byte_order_mark_and_blank_lines_do_no_harm(tiny):
    text = (tiny / "index.csv").read_text().replace(",", " , ")
    header, rest = text.split("\n", 1)
    header = header.replace(" , ", ",")
    (tiny / "index.csv").write_text("\ufeff" + header + "\n\n" + rest, encoding="utf-8")
    assert open_dataset(tiny).cases[1].patient == "ann"


def test_folder_may_be_copied(tiny, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny, copy)
    assert open_dataset(copy).cases[0].image.is_relative_to(copy)


def test_ending():
    assert without_ending("a/b.c.nii.gz") == "a/b.c"
    assert without_ending("a/b.png") == "a/b"


def test_real_data_sets_open(real_data):
    sizes = {
        "cxr_hannover_lungs": (77, 2),
        "hippocampus_msd": (260, 2),
        "nuclei_dsb2018": (144, 1),
        "polyp_kvasir": (160, 1),
        "ct_spleen_msd_crop": (1, 1),
    }  # data set: cases and labels, as their SOURCE.md say
    for name, size in sizes.items():
        dataset = open_dataset(name)
        assert (len(dataset.cases), len(dataset.labels)) == size
    xray = open_dataset("cxr_hannover_lungs")
    assert len({case.patient for case in xray.cases}) == 43


def test_a_data_set_describes_itself(tiny):
    assert open_dataset(tiny).describe() == "tiny: 6 images of 5 patients, CC0"
    index = tiny / "index.csv"
    table = pd.read_csv(index)
    table.drop(columns="patient").assign(split="train").to_csv(index, index=False)
    assert open_dataset(tiny).describe() == "tiny: 6 images, CC0"


def test_phantoms_stand_in_only_where_no_real_data_are_named(tiny, monkeypatch):
    monkeypatch.setenv("MEDSAGA_DATA", str(tiny.parent))
    assert open_or_phantoms("tiny").name == "tiny"
    with pytest.raises(UserError, match="other"):
        open_or_phantoms("other")


@pytest.mark.parametrize("window", ["[-inf, inf]", "[0, nan]", "[3, 1]"])
def test_a_window_has_two_ends(tiny, window):
    rewrite(tiny / "dataset.toml", 'licence = "CC0"', f"window = {window}")
    with pytest.raises(UserError, match="window"):
        open_dataset(tiny)
