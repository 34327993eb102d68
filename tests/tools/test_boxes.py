"""The recorded run of many boxes: written with its provenance, all ways with the same masks."""

import json

import numpy as np
import pytest
import torch

from medsaga_lib.backbones.sam import build_sam
from medsaga_lib.backbones.weights import load_state
from medsaga_lib.bench_boxes import Task, measure
from medsaga_lib.pretraining.pictures import unseen_scenes
from medsaga_lib.prompted import embed
from tools import boxes


@pytest.fixture
def task():
    sam = build_sam("pocket", 128)
    sam.load_state_dict(load_state("pocket", 128))
    (scene,) = unseen_scenes(1, ["ellipses"])
    pixels = scene.image.astype(np.float32) / 255
    look = lambda: embed(sam.eval(), pixels)  # noqa: E731
    return Task("small", sam, look(), np.stack(list(scene.masks())[:2]), look)


def test_tasks_are_written_with_where_they_were_measured(monkeypatch, tmp_path):
    task = {"name": "a task", "ratio": {"seconds": 2.0}, "least_iou": 1.0}
    way = {"name": "a way", "ratio": 1.5, "start": 3.0}
    monkeypatch.setattr(boxes, "bench", lambda: [task])
    monkeypatch.setattr(boxes, "attempts", lambda _: [way])
    monkeypatch.setattr(boxes, "RECORDED", tmp_path)
    boxes.main()
    written = json.loads((tmp_path / "boxes.json").read_text())
    assert written["tasks"] == [task]
    assert written["attempts"] == [way]
    assert {"command", "commit", "device", "batched_at_once"} <= written["provenance"].keys()


def test_every_attempt_gives_the_published_masks(task, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda module: module)  # it would take half a minute
    ways = {way["name"]: way for way in boxes.attempts(task, rounds=1)}
    assert {"published", "ours", "torch.compile", "bfloat16"} <= ways.keys()
    assert ways["published"]["ratio"] == 1
    for way in ways.values():
        assert way["least_iou"] > (0.9 if way["name"] == "bfloat16" else 0.99)


def test_the_look_counts_in_both_ways(task):
    row = measure(task, rounds=1)
    (published,), (ours,), (look,) = (row["seconds"][w] for w in ("published", "ours", "look"))
    assert row["ratio_with_look"] == pytest.approx((published + look) / (ours + look))
    assert row["ratio"]["seconds"] == pytest.approx(published / ours)
