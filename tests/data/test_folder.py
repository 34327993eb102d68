"""The folder format: how a description and an index are read, and which ones are refused."""

import shutil
from pathlib import Path

import pytest

from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.data.check import check_dataset
from medsaga_lib.errors import UserError


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


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


@pytest.mark.parametrize("window", ["[-inf, inf]", "[0, nan]", "[3, 1]"])
def test_a_window_has_two_ends(tiny, window):
    rewrite(tiny / "dataset.toml", 'licence = "CC0"', f"window = {window}")
    with pytest.raises(UserError, match="window"):
        open_dataset(tiny)


@pytest.mark.parametrize("change", ["backslashes", "absolute", "blanks"])
def test_other_ways_to_write_the_index(tiny, change):
    index = tiny / "index.csv"
    text = index.read_text()
    if change == "backslashes":
        index.write_text(text.replace("images/", "images\\").replace("masks/", "masks\\"))
    elif change == "absolute":
        index.write_text(text.replace("images/", f"{tiny}/images/"))
    else:
        index.write_text(text.replace(",", ", "))
    assert check_dataset(tiny) == []
    index.write_text(text.replace("images/case0", f"{tiny.parent}/images/case0"))
    (problem,) = (p for p in check_dataset(tiny) if not p.note)
    assert "is outside the data set's folder" in problem.what
