"""Files appear whole or not at all; the folder of the cache."""

import errno
import json
from pathlib import Path

import pytest

from medsaga_lib.errors import UserError
from medsaga_lib.files import cache_folder, replacing, write_json


def test_the_file_takes_its_place_at_the_end(tmp_path):
    path = tmp_path / "new folder/result.txt"
    with replacing(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert [p.name for p in path.parent.iterdir()] == ["result.txt"]


def interrupted_by(error, path):
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_whatever_goes_wrong_the_old_file_stays(tmp_path, error):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(error):
        interrupted_by(error, path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["result.txt"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(UserError, match=r"Cannot write .*result.txt: No space left.*free some"):
        interrupted_by(full, tmp_path / "result.txt")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"), replacing(tmp_path / "file/result.txt"):
        pass


def test_json_is_strict(tmp_path):
    write_json(tmp_path / "a.json", {"ü": [1, None]})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"ü": [1, None]}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "b.json", float("nan"))
    assert not (tmp_path / "b.json").exists()


def test_the_cache_is_the_folder_that_the_variable_names(own_cache, monkeypatch):
    """Each test has an empty cache of its own, so none of them sees the user's."""
    assert cache_folder() == own_cache
    assert not own_cache.exists()
    monkeypatch.setenv("MEDSAGA_CACHE", "~/somewhere")
    assert cache_folder() == Path.home() / "somewhere"


def test_without_the_variable_the_cache_is_the_users(monkeypatch, tmp_path):
    monkeypatch.delenv("MEDSAGA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # of Linux, where the tests run
    assert cache_folder() == tmp_path / "medsaga"
    assert list(tmp_path.iterdir()) == []
