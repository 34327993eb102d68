"""The recorded run of many boxes is written with its provenance."""

import json

from tools import boxes


def test_tasks_are_written_with_where_they_were_measured(monkeypatch, tmp_path):
    task = {"name": "a task", "ratio": {"seconds": 2.0}, "least_iou": 1.0}
    monkeypatch.setattr(boxes, "bench", lambda: [task])
    monkeypatch.setattr(boxes, "RECORDED", tmp_path)
    boxes.main()
    written = json.loads((tmp_path / "boxes.json").read_text())
    assert written["tasks"] == [task]
    assert {"command", "commit", "device", "batched_at_once"} <= written["provenance"].keys()
