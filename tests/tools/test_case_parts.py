"""The parts of whole cases: what is timed and what is counted; and the rest of the benchmark."""

import json

import pytest
import torch

from tools import bench, case_parts


class Owner:
    """Two parts of a case."""

    def encode(self):
        return torch.zeros(1, 2, 3, 3)

    def decode(self, embedding, boxes):
        yield from boxes


def test_calls_are_counted_by_part_and_the_functions_are_put_back():
    before = Owner.encode, Owner.decode
    with case_parts.timed([(Owner, "encode", "encoder"), (Owner, "decode", "boxes")]) as found:
        one = Owner()
        for count in (2, 3):
            assert len(one.decode(one.encode(), torch.zeros(count, 4))) == count
    spent, calls = found
    assert calls == {"encoder": [1, 1], "boxes": [2, 3]}
    assert all(seconds > 0 for seconds in spent.values())
    assert (Owner.encode, Owner.decode) == before


def test_operations_are_those_of_chapter_8():
    of = case_parts.operations()
    assert of["published", "encoder"]([1]) / 1e9 == pytest.approx(74.95, abs=0.005)
    assert of["ours", "encoder"]([1]) / 1e9 == pytest.approx(71.18, abs=0.005)  # without padding
    assert of["published", "boxes"]([1, 1]) / 1e9 == pytest.approx(2 * 3.62, abs=0.01)
    first, both = of["ours", "boxes"]([1]), of["ours", "boxes"]([2])
    assert of["ours", "boxes"]([1, 1]) == 2 * first
    assert first < both < 2 * first  # what boxes share is counted once


def test_the_benchmark_replaces_the_rows_that_are_asked_for(monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "RECORDED", tmp_path)
    for ratio, only in ((1, ["evaluate", "one_box"]), (2, ["one_box", "galore_step"])):
        row = {"ratio": ratio}
        monkeypatch.setattr(
            bench, "compare", lambda names, row=row: ({"name": n} | row for n in names)
        )
        monkeypatch.setattr("sys.argv", ["bench.py", "--name", "bench_chip", "--only", *only])
        bench.main()
    content = json.loads((tmp_path / "bench_chip.json").read_text(encoding="utf-8"))
    found = [(row["name"], row["ratio"]) for row in content["rows"]]
    assert found == [("one_box", 2), ("evaluate", 1), ("galore_step", 2)]
    assert {"date", "commit", "device"} <= content["provenance"].keys()
    assert content["provenance"]["command"] == "python -m tools.bench --name bench_chip"
