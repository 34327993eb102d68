"""Grids of runs through Dask: they are recorded, not run twice, and continued after a failure."""

import json
import os
import sys

import pytest
from distributed import LocalCluster

from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.data.shots import count_shots
from medsaga_lib.errors import UserError
from medsaga_lib.reproduce import process, runs
from tools import record

HOW = "seconds", "cpu_seconds", "evaluation_cpu_seconds", "peak_bytes", "commit"
# Without LoRA and without augmentation a run has less to import
RECIPE = "decoder_only:augmentation=none"


def words(folder, data, *more):
    """The command of runs of two steps on small pictures."""
    command = f"small --data {data} --recipes {RECIPE} --weights random --shots 2 --steps 2"
    return [*command.split(), "--size", "32", "--runs", str(folder / "runs"), *more]


def grid(folder, data, *more):
    """Record these runs; returns the content of the file."""
    record.main(words(folder, data, *more), folder)
    return json.loads((folder / "small.json").read_text())


def forget(folder, content, count):
    """Remove the first `count` rows from the file."""
    (folder / "small.json").write_text(json.dumps({**content, "runs": content["runs"][count:]}))


def result_of(row):
    """The part of a row that does not depend on how the run was made."""
    return {k: v for k, v in row.items() if k not in HOW}


@pytest.mark.slow
def test_a_run_is_recorded_and_continued_where_it_is_already_there(
    tmp_path, phantoms, medsaga, monkeypatch
):
    content = grid(tmp_path, phantoms)
    (row,) = content["runs"]
    assert (row["seed"], row["steps"]) == (0, 2)
    assert all(0 <= row[key] <= 1 for key in ("dice", "val_dice"))
    assert row["trainable"] > 0
    by_case = [dice for _, _, dice in row["case_dice"]]
    assert row["dice"] == pytest.approx(sum(by_case) / len(by_case), abs=1e-3)
    assert row["cpu_seconds"] > 0
    assert row["peak_bytes"] > 100 * 2**20  # torch alone takes more
    assert content["provenance"]["test_cases"] > 0

    def in_this_process(words, _):
        code, text, error = medsaga(*words, "--json")
        assert code == 0, error
        return json.loads(text), {"cpu_seconds": 1, "peak_bytes": 1}

    monkeypatch.setattr(process, "medsaga", in_this_process)
    (run,) = record.grid(record.parser().parse_args(words(tmp_path, phantoms)))
    again = runs.row_of(tmp_path / "runs", run, threads=None)
    assert result_of(again) == result_of(row)
    assert again["cpu_seconds"] is None  # an earlier process made the steps
    assert again["commit"] is None


@pytest.fixture
def commands(monkeypatch):
    """Replace the processes of runs by a function; returns what it was called with."""
    called = []

    def medsaga(words, threads):
        seed = words[words.index("--seed") + 1] if "--seed" in words else ""
        called.append((words[0], seed, threads))
        if "broken" in " ".join(words):
            raise process.RunError(3, "medsaga: In its own words.")
        done = {"trainable": 5, "steps": 2, "seconds": 0.4, "val_dice": 0.5}
        scores = {"dice": 0.6, "hd95": 7.0, "nsd": 0.8, "dice_interval": [0.5, 0.7]}
        return done | scores, {"cpu_seconds": 3, "peak_bytes": 4}

    monkeypatch.setattr(process, "medsaga", medsaga)
    return called


def test_a_grid_runs_what_is_missing_and_keeps_what_is_there(tmp_path, phantoms, commands):
    seeds = ("--seeds", "0", "1", "2")
    whole = grid(tmp_path, phantoms, *seeds, "--workers", "2")
    assert [run["seed"] for run in whole["runs"]] == [0, 1, 2]
    threads = max(1, os.cpu_count() // 2)
    assert sorted(commands) == [("evaluate", "", threads)] * 3 + [
        ("train", seed, threads) for seed in "012"
    ]

    forget(tmp_path, whole, 1)
    commands.clear()
    with LocalCluster(1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        again = grid(tmp_path, phantoms, *seeds, "--scheduler", cluster.scheduler_address)
    assert commands == [("train", "0", None), ("evaluate", "", None)]
    assert again["runs"] == whole["runs"]


def test_a_grid_that_cannot_be_ends_in_one_sentence_and_keeps_its_file(
    tmp_path, phantoms, commands, capfd
):
    before = grid(tmp_path, phantoms)
    for more, code, said in (
        (("--recipes", "nonsense"), 2, "no recipe 'nonsense'"),
        (("--backbone", "broken"), 3, "medsaga: In its own words."),
    ):
        with pytest.raises(SystemExit) as caught:
            grid(tmp_path, phantoms, *more)
        assert caught.value.code == code
        assert said in capfd.readouterr().err
        assert json.loads((tmp_path / "small.json").read_text()) == before


def test_network_from_scratch_is_run_once_and_changes_go_into_the_command():
    words = "name --data chest --shots 4 8 --recipes unet samed:lr=0.001 --steps 5"
    grid = record.grid(record.parser().parse_args(words.split()))
    kinds = [(run["recipe"], run["weights"], run["shots"]) for run in grid]
    assert len(kinds) == 6
    assert [kind for kind in kinds if kind[0] == "unet"] == [("unet", "random", n) for n in (4, 8)]
    assert {run["command"].split(" --steps ")[1] for run in grid} == {"5", "5 --set lr=0.001"}
    words = "name --data chest:4 --recipes sam_zero_shot --weights pretrained --steps 5"
    (untrained,) = record.grid(record.parser().parse_args(words.split()))
    assert "--steps" not in untrained["command"]


def test_another_feed_is_another_run():
    words = ["name", "--data", "chest:4", "--recipes", "late_stages", "--weights", "random"]
    (usual,) = record.grid(record.parser().parse_args(words))
    (other,) = record.grid(record.parser().parse_args([*words, "--feed", "lite_medsam_squeezed"]))
    assert other.pop("feed") == "lite_medsam_squeezed"
    assert other.pop("command") == usual.pop("command") + " --feed lite_medsam_squeezed"
    assert other == usual


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
    with pytest.raises(UserError, match="few% is not a number of images"):
        pairs(f"--data {phantoms}:few%")


@pytest.fixture
def put(tmp_path, phantoms):
    """A function that writes rows of a data set to a file, with its description or another one."""

    def write(name, *rows, data=None):
        origin = {"data": data or open_dataset(str(phantoms)).describe()}
        (tmp_path / name).write_text(json.dumps({"provenance": origin, "runs": rows}))

    return write


def test_rows_of_other_weights_are_not_kept(tmp_path, phantoms, put):
    run = {"command": "medsaga train samed", "data": str(phantoms)}
    row = run | {"backbone_sha256": "old", "dice": 0.9}
    put("name.json", row)
    target = tmp_path / "name.json"
    assert record.recorded(target, [run | {"backbone_sha256": "new"}]) == {}
    assert record.recorded(target, [run | {"backbone_sha256": "old"}]) == {row["command"]: row}


def test_rows_of_other_masks_are_not_kept(tmp_path, phantoms, put):
    """The same command was recorded before and after the masks of a data set were corrected."""
    run = {"command": "medsaga train samed", "data": str(phantoms)}
    put("a.json", run | {"dice": 0.8})
    put("b.json", run | {"dice": 0.6}, data="14 images, masks corrected")
    assert record.recorded(tmp_path / "name.json", [run])[run["command"]]["dice"] == 0.8


def test_a_row_of_another_file_is_kept_and_the_own_one_before_it(tmp_path, phantoms, put):
    run = {"command": "medsaga train samed", "data": str(phantoms), "backbone_sha256": "new"}
    put("a.json", run | {"dice": 0.8})
    (tmp_path / "z.json").write_text(json.dumps({"rows": [1, 2]}))  # another kind of record
    target = tmp_path / "name.json"
    assert record.recorded(target, [run]) == {run["command"]: run | {"dice": 0.8}}
    put("name.json", run | {"backbone_sha256": "old", "dice": 0.7})
    assert record.recorded(target, [run]) == {run["command"]: run | {"dice": 0.8}}
    put("b.json", run | {"dice": 0.6})
    put("name.json", run | {"dice": 0.9})
    assert record.recorded(target, [run]) == {run["command"]: run | {"dice": 0.9}}


def test_no_worker_is_one_sentence(tmp_path, phantoms, capsys):
    with pytest.raises(SystemExit) as caught:
        record.main(["few", "--data", str(phantoms), "--shots", "2", "--workers", "0"], tmp_path)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "--workers is 0; it must be at least 1.\n"


def test_the_file_holds_the_last_grid_even_if_nothing_is_missing(
    tmp_path, phantoms, put, monkeypatch
):
    target, words = tmp_path / "few.json", ["few", "--data", str(phantoms), "--shots", "2"]
    options = record.parser().parse_args([*words, "--seeds", "0", "1"])
    put("few.json", *(run | {"dice": 0.5} for run in record.grid(options)))
    monkeypatch.setattr(sys, "argv", ["record", *words])
    record.main(words, tmp_path)  # of the first seed alone
    kept = json.loads(target.read_text())
    assert {run["seed"] for run in kept["runs"]} == {0}
    assert kept["provenance"]["command"].endswith(f"few --data {phantoms} --shots 2")


def test_a_plan_counts_what_is_missing_and_its_hours():
    missing = [
        {"data": "a", "recipe": "x"},
        {"data": "a", "recipe": "y"},
        {"data": "b", "recipe": "x"},
    ]
    rows = [
        {"data": "a", "recipe": "x", "cpu_seconds": 1800},
        {"data": "a", "recipe": "z", "cpu_seconds": 5000, "evaluation_cpu_seconds": 400},
        {"data": "b", "recipe": "x", "cpu_seconds": None},  # continued: its time is not known
    ]
    # 0.5 for x on a; (0.5 + 1.5) / 2 for y on a; b has no time
    assert record.plan(missing, rows) == (
        "3 runs are missing: 1.5 hours of one core for 2 of them, not known for 1"
    )


def test_with_plan_nothing_runs(tmp_path, phantoms, commands, capsys):
    record.main([*words(tmp_path, phantoms), "--plan"], tmp_path)
    assert "runs are missing" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.json"))
