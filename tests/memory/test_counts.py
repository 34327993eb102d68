"""The stored counts are up to date, and are used only for the plan that they belong to."""

import json

import pytest

from medsaga_lib.memory import counts


def test_the_stored_counts_are_what_is_counted_today():
    stored = json.loads(counts.FILE.read_text())
    assert stored["code"] == counts.code_digest(), "out of date; run: make sync"
    assert stored["counts"] == counts.computed(counts.BACKBONE, counts.SIZE, counts.CLASSES)


def test_other_words_and_other_code_are_counted_anew(monkeypatch):
    monkeypatch.setattr(counts, "computed", lambda *words: [words])
    assert counts.counts("vit_b", 512, 8)[0]["name"] == "medsaga"
    assert counts.counts("vit_b", 512, 7) == [("vit_b", 512, 7)]
    monkeypatch.setattr(counts, "code_digest", lambda: "other")
    assert counts.counts("vit_b", 512, 8) == [("vit_b", 512, 8)]


def test_writing_anew(monkeypatch, tmp_path):
    monkeypatch.setattr(counts, "FILE", tmp_path / "counts.json")
    monkeypatch.setattr(counts, "computed", lambda *words: [{"name": "one"}])
    assert counts.write_counts()
    assert not counts.write_counts()
    assert counts.counts("vit_b", 512, 8) == [{"name": "one"}]


@pytest.mark.parametrize("package", counts.FOLLOWS_FROM)
def test_the_digest_follows_the_code(package):
    assert (counts.FILE.parents[1] / package / "__init__.py").is_file()
