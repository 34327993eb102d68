"""The recorded run of whole cases: its file, written after each case with what was asked for."""

import json

from tools import cases


def test_cases_are_written_with_where_they_were_measured(monkeypatch, tmp_path):
    row = {"name": "one_box", "ratio": 2.0, "ratios": [1.5, 2.5], "least_iou": 1.0}
    written, asked = [], []

    def compare(*arguments):
        asked.append(arguments)
        for name in arguments[0]:
            yield {**row, "name": name, "threads": arguments[2], "runtime": "torch"}
            written.append(json.loads((tmp_path / "cases.json").read_text())["cases"])

    monkeypatch.setattr(cases, "compare_cases", compare)
    monkeypatch.setattr(cases, "missing", lambda runtime: ["a package"])
    monkeypatch.setattr(cases, "TARGET", tmp_path / "cases.json")
    words = ["cases.py", "--only", "one_box", "volume_26", "--threads", "2", "1", "--rounds", "3"]
    monkeypatch.setattr("sys.argv", words)
    cases.main()
    names = ["one_box", "volume_26"]
    assert asked == [(names, ["torch"], threads, 3) for threads in (2, 1)]
    assert [len(rows) for rows in written] == [1, 2, 3, 4]
    origin = json.loads((tmp_path / "cases.json").read_text())["provenance"]
    assert origin["command"] == "python -m tools.cases"
    assert {"commit", "device"} <= origin.keys()
    row["ratio"] = 3.0
    monkeypatch.setattr("sys.argv", ["cases.py", "--only", "volume_26", "--threads", "2"])
    cases.main()
    kept = [(one["name"], one["threads"], one["ratio"]) for one in written[-1]]
    assert kept == [
        ("one_box", 2, 2.0),
        ("one_box", 1, 2.0),
        ("volume_26", 2, 3.0),
        ("volume_26", 1, 2.0),
    ]
