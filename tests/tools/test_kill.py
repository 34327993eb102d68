"""Kills at random moments leave whole files, and what is half-written is noticed."""

from random import Random

import pytest

from tools import kill


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("kill")
    kill.prepare(root)
    return root


@pytest.mark.parametrize("name", ["predict", "import", "fix"])
def test_a_kill_leaves_nothing_half_written(name, folder):
    """The command kills more often, and all commands."""
    found = kill.kill_often(name, folder, 2, Random(0))
    assert found["faults"] == []
    assert sum(found["states"].values()) == 2


def test_a_part_of_a_folder_is_noticed(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new/a.txt").write_text("a")
    (tmp_path / "new/.b.txt.1.tmp").write_text("hidden")
    whole = kill.content_of(tmp_path / "new")
    assert list(whole) == ["a.txt"]
    assert kill._faults("fix", tmp_path, whole) == []
    assert kill._faults("fix", tmp_path, whole | {"b.txt": ""}) == ["1 of 2 files are there"]
    assert kill._faults("predict", tmp_path, whole | {"b.txt": ""}) == []
    (tmp_path / "new/a.txt").write_text("")
    assert kill._faults("predict", tmp_path, whole) == ["a.txt is not whole"]


def test_half_a_json_is_noticed(tmp_path):
    (tmp_path / "new").mkdir()
    path = tmp_path / "new/a.json"
    path.write_text('{"seconds": 2, "n": 1}')
    whole = kill.content_of(tmp_path / "new")
    path.write_text('{"seconds": 3, "n": 1}')
    assert kill._faults("evaluate", tmp_path, whole) == []
    path.write_text('{"seconds":')
    assert kill._faults("evaluate", tmp_path, whole) == ["a.json is not whole"]
