"""The recorded run of many boxes: its file, and other fast ways that give the published masks."""

import json

import torch
from pictures import box_task

from tools import boxes


def test_tasks_are_written_with_where_they_were_measured(monkeypatch, tmp_path):
    task = {"name": "a task", "ratio": {"seconds": 2.0}, "least_iou": 1.0}
    way = {"name": "a way", "ratio": 1.5, "start": 3.0}
    monkeypatch.setattr(boxes, "compare_boxes", lambda: [task])
    monkeypatch.setattr(boxes, "attempts", lambda _: [way])
    monkeypatch.setattr(boxes, "tasks", lambda _: [None])
    monkeypatch.setattr(boxes, "RECORDED", tmp_path)
    boxes.main()
    written = json.loads((tmp_path / "boxes.json").read_text())
    assert written["tasks"] == [task]
    assert written["attempts"] == [way]
    assert {"command", "commit", "device", "batched_at_once"} <= written["provenance"].keys()


def test_every_attempt_gives_the_published_masks(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda module: module)  # it would take half a minute
    ways = {way["name"]: way for way in boxes.attempts(box_task(), rounds=1)}
    assert {"published", "ours", "torch.compile", "bfloat16"} <= ways.keys()
    assert ways["published"]["ratio"] == 1
    for way in ways.values():
        assert way["least_iou"] > (0.9 if way["name"] == "bfloat16" else 0.99)
