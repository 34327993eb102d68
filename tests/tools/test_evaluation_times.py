"""The times of an evaluation: the network's share, and the ratio to an older version."""

from pathlib import Path

from runs import SMALL, short, train

from medsaga_lib.data.catalog import open_dataset
from tools import evaluation_times


def test_the_share_is_the_networks_time_in_all_forward_passes(phantom_cxr, tmp_path, monkeypatch):
    dataset = open_dataset("phantom_cxr")
    train(short("decoder_only", steps=1), dataset, 4, tmp_path / "run", **SMALL)
    clock = iter(range(1000))  # each look at the clock takes a second
    monkeypatch.setattr(evaluation_times.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(evaluation_times, "DATA", "phantom_cxr")
    row = evaluation_times.share(tmp_path / "run")
    assert row["cases"] == len(dataset.split(evaluation_times.SPLIT))
    assert row["network"] >= row["cases"]  # one forward pass or more for each picture
    assert 0 < row["share"] == row["network"] / row["seconds"] < 1


def test_versions_take_turns_and_the_ratio_is_the_median(monkeypatch):
    seconds = {"ours": iter([2.0, 2.0, 4.0]), "before": iter([4.0, 8.0, 6.0])}
    turns = []

    def medsaga(root, *words):
        turns.append(root.name)
        return next(seconds[root.name]), {"ours": 1.0, "before": 3.0}[root.name]

    monkeypatch.setattr(evaluation_times, "medsaga", medsaga)
    monkeypatch.setattr(evaluation_times, "ROUNDS", 3)
    versions = {name: (Path(name), Path("run")) for name in ("ours", "before")}
    row = evaluation_times.compared(versions)
    assert turns == ["ours", "before"] * 3
    assert (row["ours"], row["before"]) == (2, 6)
    assert row["ratio"] == 2  # of 2, 4 and 1.5
    assert row["ratios"] == [1.5, 4]
    assert row["processor_ratio"] == 3
