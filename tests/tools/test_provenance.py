"""The commit of recorded results; recording imports nothing that executes notebooks."""

import subprocess
import sys

from tools.provenance import ROOT, commit


def test_recording_imports_no_papermill():
    code = "import sys, tools.record, tools.measure; print(*sys.modules)"
    words = [sys.executable, "-c", code]
    said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "tools.record" in said.split()
    assert not {"papermill", "nbformat", "jupytext"} & set(said.split())


def test_without_git_the_commit_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit(tmp_path) == "unknown"


def test_the_commit_shows_changes_but_of_what_is_left_out(small_book):
    small_book.commit()
    clean = commit(small_book.root)
    (small_book.root / "recorded").mkdir()
    (small_book.root / "recorded" / "runs.json").write_text("{}")
    assert commit(small_book.root) == clean + "+"
    assert commit(small_book.root, "recorded") == clean
    (small_book.root / "more.py").write_text("")
    assert commit(small_book.root, "recorded") == clean + "+"
