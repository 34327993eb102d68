"""Curves of pretraining runs become a recorded result."""

import json

import pytest
import torch

from medsaga_lib.files import write_tensors
from medsaga_lib.pretraining import run as module
from medsaga_lib.pretraining.pictures import Settings
from medsaga_lib.pretraining.run import Run, train
from tools import curves


def test_the_curve_and_the_settings_of_each_run_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TEST_PICTURES", 1)
    small = {"size": 32, "pictures": 1, "objects": 1, "warmup": 1}
    for name, width in (("narrow", 24), ("wide", 48)):
        train(Run(Settings(steps=1, width=width, depth=1, heads=2, **small)), tmp_path / name)
    printed = tmp_path / "printed"
    printed.write_text('{"families": "trained", "box": 0.5}\n{"spread": 0.9}\n')
    runs = [str(tmp_path / "narrow"), str(tmp_path / "wide")]
    curves.main(["shapes", *runs, "--reports", f"first={printed}"], tmp_path)

    kept = json.loads((tmp_path / "shapes.json").read_text())
    assert kept["provenance"]["commit"]
    assert kept["reports"] == {"first": [{"families": "trained", "box": 0.5}, {"spread": 0.9}]}
    narrow, wide = kept["runs"]
    assert (narrow["settings"]["width"], wide["settings"]["width"]) == (24, 48)
    settings = [Settings(**run["settings"]) for run in (narrow, wide)]
    sizes = [sum(p.numel() for p in Run(each).sam.parameters()) for each in settings]
    assert [narrow["parameters"], wide["parameters"]] == sizes
    for run in (narrow, wide):
        (row,) = run["rows"]
        assert row["step"] == 1
        assert 0 <= row["test_box"] <= 1


def test_an_older_file_is_recorded_without_what_it_does_not_name(tmp_path):
    named = {"steps": 1, "size": 32, "width": 24, "depth": 1, "heads": 2}
    words = {"step": "1", "settings": json.dumps(named)}
    write_tensors(tmp_path / module.RUN_FILE, {"any": torch.zeros(1)}, words)
    (tmp_path / "curve.csv").write_text("step,box\n1,0.5\n2,0.6\n")
    kept = curves.recorded(tmp_path)
    assert kept["settings"].keys() == named.keys() | {"families"}
    assert kept["rows"] == [{"step": 1, "box": 0.5}]


@pytest.mark.parametrize(
    "reports", [[], ["--reports", "nameless"], ["--reports", f"no_json={__file__}"]]
)
def test_what_is_not_there_is_one_sentence(tmp_path, capsys, monkeypatch, reports):
    if reports:
        monkeypatch.setattr(curves, "recorded", lambda run: {})
    with pytest.raises(SystemExit) as stop:
        curves.main(["shapes", str(tmp_path), *reports], tmp_path)
    assert stop.value.code == 2
    assert (reports[-1].split("=")[-1] if reports else str(tmp_path)) in capsys.readouterr().err
    assert not (tmp_path / "shapes.json").exists()
