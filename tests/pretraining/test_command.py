"""The command: what it writes, what it prints, and one sentence for what is typed wrongly."""

import gc
import json
import sys
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file

from medsaga_lib.backbones.weights import file_of
from medsaga_lib.pretraining import __main__ as command
from medsaga_lib.pretraining import run as module

SMALL = "--size 64 --pictures 1 --objects 2 --corrections 1 --steps 2 --seed 7"


@pytest.fixture
def pretraining(monkeypatch, capsys):
    """The command with these words; what it printed, and where it stopped with an error."""

    def called(words):
        monkeypatch.setattr(sys, "argv", ["pretraining", *words.split()])
        monkeypatch.setattr(module, "TEST_PICTURES", 1)
        monkeypatch.setattr(command, "REPORT_PICTURES", 2)
        command.main()
        return capsys.readouterr().out

    return called


def test_a_run_is_exported_reported_on_and_started_from(tmp_path, pretraining, capsys):
    out, half = tmp_path / "run", tmp_path / "half.safetensors"
    assert "step=2 " in pretraining(f"--out {out} {SMALL} --export {half}")
    weights = load_file(half)
    assert {value.dtype for value in weights.values()} == {torch.float16}
    assert "loss" in (out / "curve.csv").read_text()

    with pytest.raises(SystemExit):
        pretraining(f"--out {out} {SMALL} --bf16")
    assert "was begun with bf16 False, not True" in capsys.readouterr().err

    of_run = pretraining(f"--out {out} --report")  # the run's own settings
    of_file = pretraining(f"--start {half} --report")  # of the settings that the file names
    rows = [json.loads(line) for line in of_run.splitlines()]
    assert [row.get("families") for row in rows] == ["trained", "held_out", None]
    assert all(0 <= row["box"] <= 1 for row in rows[:2])
    for ours, theirs in zip(rows, map(json.loads, of_file.splitlines()), strict=True):
        assert ours.get("box") == pytest.approx(theirs.get("box"), abs=0.02)  # float16

    other = tmp_path / "other"
    pretraining(f"--out {other} --start {half} {SMALL} --iou-head-alone")
    begun = load_file(other / "run.safetensors")
    key = "image_encoder.patch_embed.proj.weight"
    assert torch.equal(begun[f"average.{key}"], weights[key].float())


def test_a_run_is_gone_before_the_group_of_its_processes_is(tmp_path, pretraining, monkeypatch):
    left = []

    @contextmanager
    def joined(device):
        yield
        left.append(sum(isinstance(thing, module.Run) for thing in gc.get_objects()))

    before = sum(isinstance(thing, module.Run) for thing in gc.get_objects())
    monkeypatch.setattr(command, "joined", joined)
    pretraining(f"--out {tmp_path} {SMALL}")
    assert left == [before]


def test_a_report_on_the_shipped_weights_reaches_real_objects(pretraining, phantoms):
    printed = pretraining(f"--start {file_of('pocket')} --report --data {phantoms}")
    rows = [json.loads(line) for line in printed.splitlines()]
    assert [row["real"].split(", ")[1] for row in rows[3:]] == ["right lung", "left lung", "heart"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--out OUT --start no.safetensors", "Cannot read no.safetensors"),
        ("--out OUT --report", "to report on; train it first"),
        ("--report", "A report is on the run in --out or on the weights of --start; give one"),
        ("--out OUT --start POCKET --report", "give one"),
        ("--out OUT --heads 5", "no 5 equal heads"),
        ("--out OUT --steps 0", "steps is 0"),
        ("--out OUT --families blobs onions", "No run trains on onions; there are blobs, ellipses"),
        ("--out OUT --device gpu", "invalid choice"),
        ("--steps 1", "A run needs a folder"),
        ("--out OUT --data phantom_cxr", "--data is for --report"),
    ],
)
def test_one_sentence(words, expected, tmp_path, pretraining, capsys):
    places = {"OUT": str(tmp_path / "run"), "POCKET": str(file_of("pocket"))}
    with pytest.raises(SystemExit) as stopped:
        pretraining(" ".join(places.get(word, word) for word in words.split()))
    assert stopped.value.code == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
