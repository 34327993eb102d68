"""Merged rows: the order does not matter, twice is once, and a conflict changes nothing."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reproduce.rows import a_row

from medsaga_lib.errors import UserError
from medsaga_lib.files import write_json
from medsaga_lib.reproduce.folder import ACCUMULATED
from medsaga_lib.reproduce.submission import merge, read_rows, submission

ROWS = [
    a_row(seed=seed, device=device, wall_seconds=seconds, date=date)
    for seed, device in itertools.product((0, 1), ("a GPU", "a CPU"))
    for seconds, date in ((90, "2026-11-30"), (70, "2026-12-01"))
]  # 4 runs, each with two times


@given(st.lists(st.lists(st.sampled_from(ROWS)), min_size=1), st.randoms())
@settings(max_examples=50, deadline=None)
def test_order_and_repetition_do_not_matter(files, random):
    merged = merge([(None, rows) for rows in files])
    shuffled = [random.sample(rows, len(rows)) for rows in [*files, files[0]]]
    random.shuffle(shuffled)
    assert merge([(None, rows) for rows in shuffled]) == merged
    assert merge([(None, merged), (None, merged)]) == merged
    names = {(row["seed"], row["device"]) for row in merged}
    assert len(names) == len(merged)
    assert names == {(row["seed"], row["device"]) for rows in files for row in rows}


def test_other_results_of_the_same_run_are_refused(tmp_path, medsaga):
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    write_json(one, submission([a_row(), a_row(seed=1)]))
    write_json(other, submission([a_row(dice=0.5)]))
    before = one.read_bytes()
    for words in ((one, other), (other, one), (other,)):
        code, _, said = medsaga("reproduce", "merge", *words, "--out", one)
        assert code == 2
        assert f"{one}" in said
        assert f"{other}" in said
        assert a_row()["command"] in said
        assert one.read_bytes() == before


def test_merging_adds_and_is_idempotent(tmp_path, medsaga):
    out, more = tmp_path / "rows.json", tmp_path / "more.json"
    write_json(out, submission([a_row()]))
    write_json(more, submission([a_row(seed=1), a_row()]))
    code, said, _ = medsaga("reproduce", "merge", more, "--out", out, "--json")
    assert code == 0
    assert (json.loads(said)["rows"], json.loads(said)["new"]) == (2, 1)
    after = out.read_bytes(), out.stat().st_mtime_ns
    assert medsaga("reproduce", "merge", more, out, "--out", out)[0] == 0
    assert (out.read_bytes(), out.stat().st_mtime_ns) == after
    code, said, error = medsaga(
        "reproduce", "medsaga_table1", "--rows", out, "--out", tmp_path, "--dataset", "Spleen"
    )
    assert (code, said) == (0, f"{tmp_path / 'page.md'}\n"), error
    text = (tmp_path / "page.md").read_text()
    assert "| Spleen, 100 | MedSAGa | Dice | 0.842 |" in text
    assert "| 2 | undecided |" in text  # two seeds say little about seeds
    assert "## Not run here" in text


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"dice": 1.5}, "has no Dice from 0 to 1"),
        ({"dice": None}, "has no Dice from 0 to 1"),
        ({"dice": True}, "has no Dice from 0 to 1"),
        ({"hd95": -1}, "has a wrong HD95"),
        ({"seed": -1}, "has no count for seed"),
        ({"steps": 2.5}, "has no count for steps"),
        ({"table": "medsaga_table9"}, "is at no place of a table"),
        ({"dataset": "Liver"}, "is at no place of a table"),
        ({"device": "a\nb"}, "has no text for device"),
        ({"official": "yes"}, "does not say whether"),
        ({"versions": ["2"]}, "has no versions"),
        ({"commit": 7}, "has a wrong commit"),
        ({"case_dice": []}, "has no Dice of each case"),
        ({"case_dice": [["a", "b"]]}, "has a wrong Dice of a case"),
        ({"case_dice": [["a", 1, 0.5]]}, "has a case without a name"),
        ({"case_dice": [["a", "b", 2]]}, "has no Dice from 0 to 1 for the case 'a'"),
        ({"case_dice": [["a", "b", 0.5]] * 2}, "has a case twice"),
    ],
)
def test_a_row_that_is_none_is_refused(tmp_path, facts, said):
    path = tmp_path / "rows.json"
    write_json(path, {"format": 1, "rows": [a_row(), a_row() | facts]})
    with pytest.raises(UserError, match=said) as caught:
        read_rows(path)
    assert "row 2" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '{"format": 2, "rows": []}', '{"format": 1, "rows": [3]}',
             '{"format": 1}', "[" * 100_000],
)  # fmt: skip
def test_a_damaged_file_is_one_sentence(tmp_path, medsaga, text):
    path = tmp_path / "rows.json"
    path.write_text(text)
    code, _, said = medsaga("reproduce", "merge", path, "--out", tmp_path / "out.json")
    assert code == 2
    assert str(path) in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out.json").exists()


def test_a_missing_file_and_no_file_are_one_sentence(tmp_path, medsaga):
    code, _, said = medsaga("reproduce", "merge", tmp_path / "no.json")
    assert (code, said.count("\n")) == (2, 1)
    code, _, said = medsaga("reproduce", "merge")
    assert (code, "nothing to merge" in said) == (2, True)


def test_rows_of_the_library_are_sound_and_sorted():
    rows = read_rows(ACCUMULATED)
    assert rows == merge([(ACCUMULATED, rows)])
