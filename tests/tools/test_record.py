"""Grids of runs through Dask: recorded, not run twice, taken up after a failure."""

import json
import sys

import pytest
from distributed import LocalCluster

from medsaga_lib.data.batches import count_shots
from medsaga_lib.data.folder import open_dataset
from medsaga_lib.errors import UserError
from tools import record

HOW = "seconds", "cpu_seconds", "peak_bytes", "commit"


def grid(folder, data, *more):
    """Records two runs of a few tiny steps; the file's content."""
    words = f"small --data {data} --recipes samed --weights random --seeds 0 1 --shots 2 --steps 2"
    words = [*words.split(), "--size", "32", "--runs", str(folder / "runs"), *more]
    record.main(words, folder)
    return json.loads((folder / "small.json").read_text())


def numbers(row):
    """The row without how, by what and on what it came about."""
    return {k: v for k, v in row.items() if k not in HOW}


@pytest.mark.slow
def test_grid_is_recorded_once_resumes_and_fails_in_words(tmp_path, phantoms, capfd):
    whole = grid(tmp_path, phantoms, "--workers", "2")
    assert [(run["seed"], run["steps"]) for run in whole["runs"]] == [(0, 2), (1, 2)]
    assert all(0 <= run[key] <= 1 for run in whole["runs"] for key in ("dice", "val_dice"))
    assert whole["provenance"]["test_cases"] > 0
    for run in whole["runs"]:
        assert run["trainable"] > 0
        assert run["cpu_seconds"] > 0
        assert run["peak_bytes"] > 100 * 2**20  # torch alone takes more

    # One row lost: only that one is run again, to the same numbers
    half = {**whole, "runs": whole["runs"][1:]}
    (tmp_path / "small.json").write_text(json.dumps(half))
    capfd.readouterr()
    with LocalCluster(1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        again = grid(tmp_path, phantoms, "--scheduler", cluster.scheduler_address)
    assert capfd.readouterr().out.count("medsaga train") == 1
    assert again["runs"][1] == whole["runs"][1]
    assert numbers(again["runs"][0]) == numbers(whole["runs"][0])
    assert again["runs"][0]["cpu_seconds"] is None  # the run itself was there already
    assert again["runs"][0]["commit"] is None

    # A run that cannot be ends the grid in its own words; what stands in the file stays
    with pytest.raises(SystemExit) as caught:
        grid(tmp_path, phantoms, "--recipes", "nonsense")
    assert caught.value.code == 2
    assert "no recipe 'nonsense'" in capfd.readouterr().err
    assert json.loads((tmp_path / "small.json").read_text()) == again


def test_network_from_scratch_is_run_once_and_changes_go_into_the_command():
    words = "name --data chest --shots 4 8 --recipes unet samed:lr=0.001 --steps 5"
    runs = record.grid(record.parser().parse_args(words.split()))
    kinds = [(run["recipe"], run["weights"], run["shots"]) for run in runs]
    assert len(kinds) == 6
    assert [kind for kind in kinds if kind[0] == "unet"] == [("unet", "random", n) for n in (4, 8)]
    assert {run["command"].split(" --steps ")[1] for run in runs} == {"5", "5 --set lr=0.001"}
    words = "name --data chest:4 --recipes sam_zero_shot --weights pretrained --steps 5"
    (untrained,) = record.grid(record.parser().parse_args(words.split()))
    assert "--steps" not in untrained["command"]


def test_data_sets_have_their_own_shots_or_those_of_all(phantoms):
    def pairs(words):
        return record.data_and_shots(record.parser().parse_args(["name", *words.split()]))

    assert pairs("--data chest:8,32 polyps:64") == [("chest", 8), ("chest", 32), ("polyps", 64)]
    assert pairs("--data chest polyps:64 --shots 4") == [("chest", 4), ("polyps", 64)]
    third = count_shots(open_dataset(phantoms), "33.5%")
    assert pairs(f"--data {phantoms}:1,33.5%") == [(str(phantoms), 1), (str(phantoms), third)]
    for words in ("--data chest polyps:64", "--data chest:8,few", "--data chest:8.5,"):
        with pytest.raises(UserError, match=r"chest.* has no numbers of shots"):
            pairs(words)
    with pytest.raises(UserError, match="few% is no number of images"):
        pairs(f"--data {phantoms}:few%")


def test_rows_of_other_weights_are_not_kept(tmp_path):
    target = tmp_path / "name.json"
    row = {"command": "medsaga train samed", "backbone_sha256": "old", "dice": 0.9}
    target.write_text(json.dumps({"runs": [row]}))
    run = {"command": "medsaga train samed", "backbone_sha256": "new"}
    assert record.recorded(target, [run]) == {}
    assert record.recorded(target, [run | {"backbone_sha256": "old"}]) == {row["command"]: row}


def test_a_row_of_another_file_is_kept_and_the_own_one_before_it(tmp_path):
    run = {"command": "medsaga train samed", "backbone_sha256": "new"}
    (tmp_path / "a.json").write_text(json.dumps({"runs": [run | {"dice": 0.8}]}))
    (tmp_path / "z.json").write_text(json.dumps({"rows": [1, 2]}))  # another kind of record
    target = tmp_path / "name.json"
    assert record.recorded(target, [run]) == {run["command"]: run | {"dice": 0.8}}
    target.write_text(json.dumps({"runs": [run | {"backbone_sha256": "old", "dice": 0.7}]}))
    assert record.recorded(target, [run]) == {run["command"]: run | {"dice": 0.8}}
    (tmp_path / "b.json").write_text(json.dumps({"runs": [run | {"dice": 0.6}]}))
    target.write_text(json.dumps({"runs": [run | {"dice": 0.9}]}))
    assert record.recorded(target, [run]) == {run["command"]: run | {"dice": 0.9}}


def test_no_worker_is_one_sentence(tmp_path, phantoms, capsys):
    with pytest.raises(SystemExit) as caught:
        record.main(["few", "--data", str(phantoms), "--shots", "2", "--workers", "0"], tmp_path)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "--workers 0: give 1 or more.\n"


def test_the_file_holds_the_last_grid_even_if_nothing_is_missing(tmp_path, phantoms, monkeypatch):
    target, words = tmp_path / "few.json", ["few", "--data", str(phantoms), "--shots", "2"]
    options = record.parser().parse_args([*words, "--seeds", "0", "1"])
    target.write_text(json.dumps({"runs": [run | {"dice": 0.5} for run in record.grid(options)]}))
    monkeypatch.setattr(sys, "argv", ["record", *words])
    record.main(words, tmp_path)  # of the first seed alone
    kept = json.loads(target.read_text())
    assert {run["seed"] for run in kept["runs"]} == {0}
    assert kept["provenance"]["command"].endswith(f"few --data {phantoms} --shots 2")
