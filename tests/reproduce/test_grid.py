"""Grids: which runs, which are missing, their hours; the plan names what is run."""

import json
import math
import shutil

import pytest
from reproduce.rows import a_row

from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.errors import UserError
from medsaga_lib.files import write_json
from medsaga_lib.reproduce import folder, grid
from medsaga_lib.reproduce.grid import Request
from medsaga_lib.reproduce.published import chosen, find_table
from medsaga_lib.reproduce.submission import submission

QUICK = "medsaga_table1 --profile quick --method medsaga --method samed"


@pytest.fixture(autouse=True)
def fresh():
    """Data sets of another test's folder are not remembered."""
    grid._opened.cache_clear()


def request(name, profile, part=([], [], []), **facts):
    table = find_table(name)
    return Request(table, chosen(table, *part), profile, **facts)


def test_the_quick_profile_takes_the_stand_in_for_one_place(stand_in):
    found = grid.grid(request("medsaga_table1", "quick", backbone="pocket", seeds=(0, 1)))
    places = [(run["dataset"], run["images"], run["method"], run["seed"]) for run in found.runs]
    methods = ("medsaga", "samed", "dae_former")
    assert places == [("Chest-Xray", "50", name, seed) for seed in (0, 1) for name in methods]
    assert found.needs.keys() == {"ISLES", "Spleen", "AMOS"}
    run = found.runs[0]
    assert run["command"] == (
        "medsaga train medsaga --data cxr_hannover_lungs --shots 8 --seed 0 --backbone pocket "
        "--weights pretrained --steps 50 --size 128 --set batch=4 --set lr=0.001"
    )
    assert (run["batch"], run["planned_steps"], run["official"]) == (4, 50, False)
    dae = found.runs[2]
    assert (dae["backbone"], dae["weights"]) == ("none", "random")


def test_late_stages_of_lite_medsam(stand_in):
    (run, *_) = grid.grid(request("medsaga_table1", "quick", backbone="lite_medsam")).runs
    assert run["recipe"].split(":")[3:] == list(grid.LATE)
    cheap = find_table("cheap_lunch_dice").methods["Cheap Lunch"]
    kept = grid._quick_changes(grid.recipe_named(cheap), "lite_medsam")
    assert [change for change in kept if "copies" in change] == []  # it makes new images


def test_the_full_profile_trains_as_the_paper(tmp_path, phantoms, monkeypatch):
    """The set of the paper is here when its folder is; steps are epochs over batches."""
    monkeypatch.setenv("MEDSAGA_DATA", str(tmp_path))
    shutil.copytree(phantoms, tmp_path / "chestxray8")
    part = ["Chest-Xray"], ["50", "1800"], []
    monkeypatch.setattr(grid, "labelled", lambda _: [None] * 50)
    found = grid.grid(request("medsaga_table1", "full", part, seeds=(3,)))
    (run, *_, last) = found.runs
    assert found.needs["Chest-Xray"].startswith("has 50 labelled training images in chestxray8")
    assert run["command"] == (
        "medsaga train medsaga --data chestxray8 --shots 50 --seed 3 --backbone vit_b "
        f"--weights pretrained --steps {math.ceil(160 * 50 / 12)} --size 512"
    )
    assert run["backbone_sha256"].startswith("ec2df6273261")  # as published, without a download
    assert not run["official"]
    assert (last["method"], last["size"], last["batch"]) == ("dae_former", 224, 24)
    record = {"set": "chestxray8", "slices": False}
    (tmp_path / "chestxray8" / "fetched.json").write_text(json.dumps(record))
    assert grid.is_official(open_dataset(tmp_path / "chestxray8"), "chestxray8")
    assert not grid.is_official(open_dataset(tmp_path / "chestxray8"), "msd_spleen_slices")


def test_a_share_is_counted(tmp_path, phantoms, monkeypatch):
    monkeypatch.setenv("MEDSAGA_DATA", str(tmp_path))
    (tmp_path / "glas").symlink_to(phantoms, target_is_directory=True)
    (run, _) = grid.grid(request("s_sam_hd95", "full", (["GlaS"], [], []), seeds=(0,))).runs
    opened = open_dataset(phantoms)
    assert run["shots"] == len(opened.split("train"))
    assert run["asked"] == "100%"
    assert run["recipe"] == "s_sam:text=clip"


def test_without_data_it_says_what_to_fetch(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSAGA_DATA", str(tmp_path))
    with pytest.raises(UserError) as caught:
        grid.grid(request("medsaga_table1", "full"))
    for command in (
        "medsaga data fetch isles22 --slices",
        "medsaga data fetch chestxray8 --accept-licence --from FILE",
    ):
        assert command in str(caught.value)


def test_hours_grow_with_the_steps_alone():
    kind = {"recipe": "samed", "backbone": "pocket", "size": 128}
    runs = [kind | {"planned_steps": 100}, kind | {"planned_steps": 0}, kind | {"size": 64}]
    rows = [
        kind | {"steps": 50, "seconds": 1800, "wall_seconds": 2400},
        kind | {"steps": 50, "seconds": 1800, "wall_seconds": None},  # continued: not known
    ]
    # 600 s beside the steps, 36 s for each step
    assert grid.hours(runs, rows) == (pytest.approx((100 * 36 + 600 + 600) / 3600), 1)


def test_the_plan_is_what_is_run(stand_in, tmp_path, medsaga, monkeypatch):
    """Runs whose rows are there are not missing; the others are run, with these commands."""
    out = tmp_path / "out"
    words = ["reproduce", *QUICK.split(), "--backbone", "pocket", "--out", out]
    code, said, error = medsaga(*words, "--plan", "--json")
    assert code == 0, error
    planned = json.loads(said)
    assert len(planned["missing"]) == 4
    assert all(run["peak_bytes"] > 2**20 for run in planned["runs"])
    assert not out.exists()

    trained = []

    def row_of(_, run, threads):
        trained.append(run["command"])
        result = {key: a_row()[key] for key in a_row() if key not in run}
        return result | run | {"steps": run["planned_steps"], "data_text": run["data_text"]}

    monkeypatch.setattr(folder, "row_of", row_of)
    code, said, error = medsaga(*words, "--seeds", "1", "--submit", tmp_path / "submit.json")
    assert code == 0, error
    assert "2 runs, 2 of them missing" in said
    assert len(trained) == 2
    assert medsaga(*words)[0] == 0
    assert sorted(trained) == sorted(planned["missing"])
    assert medsaga(*words)[0] == 0
    assert len(trained) == 4
    page = (out / "page.md").read_text()
    assert "cxr_hannover_lungs instead of Chest-Xray" in page
    assert "8 images instead of 50" in page
    assert "| not comparable |" in page
    assert "ISLES: has no stand-in in the profile quick." in page
    submitted = json.loads((tmp_path / "submit.json").read_text())["rows"]
    assert {row["seed"] for row in submitted} == {1}


def test_rows_of_another_part_stay_in_the_file(tmp_path, monkeypatch):
    write_json(tmp_path / "rows.json", submission([a_row()]))
    run = {"command": "another", "seed": 1}
    monkeypatch.setattr(folder, "row_of", lambda *_: a_row(command="another", seed=1))
    *_, rows = folder.trained([run], tmp_path)
    assert [row["command"] for row in rows] == ["another"]
    assert {row["seed"] for row in folder.all_rows(tmp_path)} == {0, 1}


def test_a_list_names_what_is_here(stand_in, medsaga):
    code, said, _ = medsaga("reproduce", "--list")
    assert code == 0
    assert "medsaga_table1" in said
    (stand_in / "msd_spleen_slices").mkdir()
    records = json.loads(medsaga("reproduce", "--json")[1])
    assert [one["here"] for one in records if one["name"] == "medsaga_table2"] == [
        "msd_spleen_slices"
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["medsaga_table1", "more.json"], "Only merge takes files; omit more.json."),
        (["medsaga_table1", "--seeds", "0,x"], "--seeds 0,x are no seeds"),
        (["medsaga_table1", "--seeds", str(2**32)], "are no seeds"),
        (["medsaga_table1", "--seeds", "²"], "are no seeds"),
        (["medsaga_table_1"], "did you mean medsaga_table1"),
        (["litemedsam_table3"], "cannot be reproduced by a grid of runs"),
        (["medsaga_table1"], "None of these runs of medsaga_table1 can be made here"),
        ([*QUICK.split(), "--backbone", "none"], "none"),
        ([*QUICK.split(), "--size", "33", "--backbone", "pocket"], "33"),
        ([*QUICK.split(), "--scheduler", "nowhere", "--backbone", "pocket"], "No Dask scheduler"),
    ],
)
def test_bad_input_is_one_sentence(stand_in, medsaga, tmp_path, words, said):
    code, _, error = medsaga("reproduce", *words, "--out", tmp_path / "out")
    assert code == 2
    assert said in error
    assert len(error.splitlines()) == 1, error


def test_a_damaged_file_of_rows_is_one_sentence(stand_in, medsaga, tmp_path):
    (tmp_path / "rows.json").write_text("{")
    code, _, error = medsaga("reproduce", *QUICK.split(), "--backbone", "pocket", "--out", tmp_path)
    assert (code, "rows.json is damaged; delete it" in error) == (2, True)
