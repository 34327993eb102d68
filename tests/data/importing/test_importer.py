"""An import writes a whole folder once; the command says what it did."""

import json
import os
import tomllib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medsaga_lib import cli
from medsaga_lib.data.cases import read_pair
from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.data.importing import importer
from medsaga_lib.data.importing.assign import Shares
from medsaga_lib.data.importing.importer import LAYOUTS, toml
from medsaga_lib.errors import UserError

PLAIN = ("--modality", "endoscopy")


@pytest.fixture
def source(tmp_path):
    """Ten pictures of five patients with masks of the labels 1 and 2."""
    root = tmp_path / "given"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    random = np.random.default_rng(11)
    for number in range(10):
        name = f"p{number // 2}_{number}"
        picture = random.integers(0, 256, (12, 14, 3), np.uint8)
        Image.fromarray(picture).save(root / f"images/{name}.png")
        mask = np.zeros((12, 14), np.uint8)
        mask[2:6, 3:9], mask[8:, 10:] = 1, 2
        Image.fromarray(mask).save(root / f"masks/{name}_mask.png")
    return root


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_command_writes_and_then_changes_nothing(source, tmp_path, medsaga):
    out = tmp_path / "new" / "out"
    words = ("data", "import", source, out, *PLAIN, "--patient", r"(p\d)_", "--labels", "1=a,2=b")
    code, said, _ = medsaga(*words)
    assert code == 0
    assert "layout: folders" in said
    assert "note: patients: 5, by --patient" in said
    assert said.endswith(f"{out}: no problems\n")
    before = contents(out)
    assert set(before) >= {"dataset.toml", "index.csv", "SOURCE.md", "images/p0_0.png"}
    assert list(tmp_path.glob("new/.*")) == []
    code, said, _ = medsaga(*words)
    assert code == 0
    assert f"{out} was imported before, and nothing was changed" in said
    assert contents(out) == before
    code, _, error = medsaga(*words, "--seed", "1")
    assert code == 2
    assert "its index.csv is not that of this import; choose another OUT" in error
    assert contents(out) == before
    assert str(tmp_path) not in (out / "SOURCE.md").read_text()


def test_the_document_for_machines(source, tmp_path, medsaga):
    code, said, _ = medsaga("data", "import", source, tmp_path / "out", *PLAIN, "--json")
    record = json.loads(said)
    assert code == 0
    assert (record["layout"], record["unchanged"], record["ok"]) == ("folders", False, True)
    assert record["summary"]["cases"] == {"train": 7, "val": 1, "test": 2}
    assert any("does not name the labels 1, 2" in note for note in record["notes"])


def test_problems_of_the_result_are_the_users(source, tmp_path, medsaga):
    Image.fromarray(np.ones((5, 5), np.uint8)).save(source / "masks/p0_0_mask.png")
    code, said, _ = medsaga("data", "import", source, tmp_path / "out", *PLAIN)
    assert code == 2
    assert "p0_0.png: is 5 x 5, but its image is 12 x 14" in said


def test_a_stopped_import_leaves_nothing(source, tmp_path, bring, monkeypatch):
    place, count = importer._copy, []

    def stop(path, target):
        count.append(path)
        if len(count) == 7:
            raise KeyboardInterrupt
        place(path, target)

    monkeypatch.setattr(importer, "_copy", stop)
    with pytest.raises(KeyboardInterrupt):
        bring(source, modality="endoscopy")
    assert [path.name for path in tmp_path.iterdir()] == ["given"]


def test_a_full_disk_is_one_sentence(source, tmp_path, bring, monkeypatch):
    def full(path, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(importer, "_copy", full)
    with pytest.raises(UserError, match=r"No space left on device .*; free some space"):
        bring(source, modality="endoscopy")
    assert [path.name for path in tmp_path.iterdir()] == ["given"]


def test_links_take_no_space(source, tmp_path, bring):
    original = tmp_path / "elsewhere.png"
    (source / "images/p0_0.png").rename(original)
    (source / "images/p0_0.png").symlink_to(original)
    dataset, _ = bring(source, modality="endoscopy", link=True)
    for case in dataset.cases:
        assert os.path.samefile(case.image, source / "images" / case.image.name)
        assert not case.image.is_symlink()
    _, done = bring(source, modality="endoscopy")  # copies would have the same bytes
    assert done.unchanged


def test_an_existing_folder_is_filled_only_if_it_is_empty(source, tmp_path, bring):
    (tmp_path / "out").mkdir()
    _, done = bring(source, modality="endoscopy")
    assert not done.unchanged
    (tmp_path / "out/index.csv").unlink()
    with pytest.raises(UserError, match=r"its index.csv is not that of this import"):
        bring(source, modality="endoscopy")
    assert not (tmp_path / "out/index.csv").exists()


@pytest.mark.parametrize("out", ["given", "given/out", "."])
def test_source_and_result_lie_apart(source, tmp_path, medsaga, out):
    code, _, error = medsaga("data", "import", source, tmp_path / out, *PLAIN)
    assert code == 2
    assert "contain each other; choose another OUT" in error


def test_a_result_that_is_a_file(source, tmp_path, medsaga):
    (tmp_path / "out").write_text("")
    code, _, error = medsaga("data", "import", source, tmp_path / "out", *PLAIN)
    assert (code, "is a file; choose another OUT" in error) == (2, True)


def test_names_that_clash(source, tmp_path, bring):
    (source / "images/P0_0.png").write_bytes((source / "images/p0_1.png").read_bytes())
    with pytest.raises(UserError, match="differ only in upper and lower case"):
        bring(source, modality="endoscopy")
    (source / "images/P0_0.png").rename(source / "images/p0_0.jpg")
    with pytest.raises(UserError, match=r"is the mask of p0_0.jpg and of p0_0.png"):
        bring(source, modality="endoscopy")
    assert not (tmp_path / "out").exists()


def test_a_source_of_two_layouts_needs_a_choice(source, bring):
    content = {"images": [], "annotations": [], "categories": []}
    (source / "i.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="the layouts coco, folders; choose one with --format"):
        bring(source, modality="endoscopy")
    assert bring(source, layout="folders", modality="endoscopy")[1].layout == "folders"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_says_what_it_lacks(tmp_path, bring, layout):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/a.txt").write_text("")
    with pytest.raises(UserError):
        bring(tmp_path / "empty", layout=layout, modality="CT")


def test_a_window_scales_images_of_16_bits(source, tmp_path, medsaga):
    values = np.full((12, 14), 1000, np.uint16)
    values[0] = [0, 4000] * 7
    for path in (source / "images").iterdir():
        Image.fromarray(values).save(path)
    words = ("data", "import", source, tmp_path / "bare", *PLAIN)
    code, said, _ = medsaga(*words)
    assert code == 2
    assert "add `window = [low, high]` to dataset.toml" in said
    code, _, _ = medsaga(*words[:3], tmp_path / "out", *PLAIN, "--window", "0,4000")
    assert code == 0
    dataset = open_dataset(tmp_path / "out")
    assert dataset.window == (0, 4000)
    picture, _ = read_pair(dataset, dataset.cases[0])
    assert picture.pixels[0, :2].tolist() == [0, 1]
    assert picture.pixels[1, 0] == 0.25


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--modality", "sonar"), "--modality sonar is not known; give one of CT"),
        (("--labels", "liver"), "--labels liver is not VALUE=NAME"),
        (("--labels", "0=liver"), "--labels 0=liver is not VALUE=NAME"),
        (("--labels", "1=a", "--labels", "1=b"), "gives 1 or 'b' twice"),
        (("--channel", "1"), "omit --channel"),
        (("--format", "coco"), "holds no COCO instances"),
        (("--window", "5"), "--window 5 is not a window"),
    ],
)
def test_options_that_cannot_be_obeyed(source, tmp_path, medsaga, words, said):
    code, _, error = medsaga("data", "import", source, tmp_path / "out", *PLAIN, *words)
    assert code == 2
    assert said in error
    assert not (tmp_path / "out").exists()


def test_a_data_set_of_this_format_is_not_imported(source, tmp_path, bring):
    dataset, _ = bring(source, modality="endoscopy")
    root = dataset.root.rename(tmp_path / "first")
    with pytest.raises(UserError, match="has the project's format already"):
        bring(root)


def test_a_folder_that_cannot_be_read(source, bring, monkeypatch):
    def scandir(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match=r"given cannot be read \(Permission denied\)"):
        bring(source, modality="endoscopy")


def test_sources_that_are_no_folder(tmp_path, medsaga):
    (tmp_path / "a.zip").write_bytes(b"PK")
    for name, said in (("a.zip", "unpack it"), ("absent", "does not exist")):
        code, _, error = medsaga("data", "import", tmp_path / name, tmp_path / "out")
        assert (code, said in error) == (2, True)


def test_the_commands_choices_are_the_layouts():
    assert set(cli.Layout.__args__) == {*LAYOUTS, importer.AUTO}


@settings(max_examples=30)
@given(
    st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
)
def test_texts_come_back_from_toml(texts):
    labels = {str(number): text for number, text in enumerate(texts.values(), start=1)}
    description = {"name": "".join(texts), "dimensions": 2, "labels": labels}
    assert tomllib.loads(toml(description)) == description


def test_the_seed_and_the_shares_are_used(source, bring):
    dataset, _ = bring(source, modality="endoscopy", shares=Shares(0.5, 0.0, 3))
    assert [len(dataset.split(s)) for s in ("train", "val", "test")] == [5, 0, 5]
