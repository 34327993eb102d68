"""A run goes on where it stopped, and trains what it says."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from medsaga_lib.data.procedural import TRAINED, procedural_scene
from medsaga_lib.errors import UserError
from medsaga_lib.files import write_tensors
from medsaga_lib.pretraining import run as module
from medsaga_lib.pretraining.curve import Curve
from medsaga_lib.pretraining.pictures import TRAIN_STREAM, Pictures, Settings
from medsaga_lib.pretraining.run import Run, saved_state, train

SMALL = Settings(steps=6, size=64, pictures=2, objects=3, warmup=2)


def test_batches_follow_from_seed_and_step():
    first, again = Pictures(SMALL)[3], Pictures(SMALL)[3]
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert first["images"].shape == (2, 3, 64, 64)
    assert first["targets"].shape == (6, 16, 16)
    assert not torch.equal(first["images"], Pictures(SMALL)[4]["images"])
    assert not torch.equal(first["images"], Pictures(replace(SMALL, seed=1))[3]["images"])


def test_pictures_are_of_the_families_that_were_asked_for(tmp_path):
    settings = replace(SMALL, families=("folds", "folds", "cells"))
    seeds = [(TRAIN_STREAM, 0, 5, position) for position in range(2)]
    scenes = [procedural_scene(seed, 64, ("folds", "folds", "cells")) for seed in seeds]
    for image, scene in zip(Pictures(settings)[5]["images"], scenes, strict=True):
        np.testing.assert_array_equal(image.permute(1, 2, 0), scene.image)
    Run(settings).save(tmp_path / "run.safetensors")
    assert saved_state(tmp_path / "run.safetensors") == (0, settings)


def test_files_that_do_not_name_families_are_older_than_two_of_them(tmp_path):
    write_tensors(tmp_path / "older", {"any": torch.zeros(1)}, {"step": "3", "settings": "{}"})
    _, settings = saved_state(tmp_path / "older")
    assert set(TRAINED) - set(settings.families) == {"trunks", "folds"}
    assert Settings().trained == TRAINED


def test_a_step_changes_what_has_a_gradient_and_nothing_else():
    run = Run(replace(SMALL, weight_decay=0.0))
    run.train_step(Pictures(SMALL)[0])
    before = {key: value.clone() for key, value in run.sam.state_dict().items()}
    run.train_step(Pictures(SMALL)[1])
    changed = {k for k, v in run.sam.state_dict().items() if not torch.equal(v, before[k])}
    names = {name for name, _ in run.sam.named_parameters()}
    assert changed <= names, "no buffer changes"
    # A hypernetwork whose mask was never the best of three has no gradient
    assert all(".output_hypernetworks_mlps." in name for name in names - changed)
    assert len(names - changed) < len(names) / 4


def test_the_iou_head_can_learn_alone_and_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TEST_PICTURES", 1)
    whole, halves = (Run(replace(SMALL, iou_head_alone=True)) for _ in range(2))
    before = {key: value.clone() for key, value in whole.sam.state_dict().items()}
    train(whole, tmp_path / "whole")
    after = whole.sam.state_dict()
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    head = "mask_decoder.iou_prediction_head."
    assert changed == {key for key in after if key.startswith(head)}
    assert all(torch.equal(whole.average[key], before[key]) for key in after.keys() - changed)

    train(halves, tmp_path / "halves", minutes=0)
    resumed = Run.load(tmp_path / "halves" / "run.safetensors")
    train(resumed, tmp_path / "halves")
    assert all(torch.equal(after[key], value) for key, value in resumed.sam.state_dict().items())


def test_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TEST_PICTURES", 1)
    whole = Run(SMALL)
    train(whole, tmp_path / "whole")

    halves = Run(SMALL)
    train(halves, tmp_path / "halves", minutes=0)  # stops after its first step
    assert halves.step == 1
    resumed = Run.load(tmp_path / "halves" / "run.safetensors")
    train(resumed, tmp_path / "halves")

    assert resumed.step == whole.step == SMALL.steps
    for ours, theirs in (
        (resumed.sam.state_dict(), whole.sam.state_dict()),
        (resumed.average, whole.average),
        (
            load_file(tmp_path / "halves/run.safetensors"),
            load_file(tmp_path / "whole/run.safetensors"),
        ),
    ):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_processes_that_draw_pictures_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TEST_PICTURES", 1)
    runs = [Run(replace(SMALL, steps=2)) for _ in range(2)]
    for workers, run in enumerate(runs):
        train(run, tmp_path / str(workers), workers=workers)
    ours, theirs = (run.sam.state_dict() for run in runs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_learning_rate_rises_then_falls_to_nothing():
    run = Run(replace(SMALL, steps=100, warmup=10, learning_rate=1.0))
    rates = []
    for run.step in range(101):
        rates.append(run.rate())
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0, abs=1e-12)


def test_export_starts_a_run_of_another_size(tmp_path):
    run = Run(SMALL)
    run.export(tmp_path / "half.safetensors")
    assert saved_state(tmp_path / "half.safetensors") == (0, SMALL)
    large = Run(replace(SMALL, size=96))
    large.start_from(tmp_path / "half.safetensors")
    key = "mask_decoder.mask_tokens.weight"
    assert torch.equal(large.sam.state_dict()[key], run.average[key].half().float())
    assert large.average["image_encoder.pos_embed"].shape == (1, 6, 6, 192)
    with pytest.raises(UserError, match="not of this network; give its --width"):
        Run(replace(SMALL, width=96)).start_from(tmp_path / "half.safetensors")


def test_a_file_that_holds_no_run_is_one_sentence(tmp_path):
    path = tmp_path / "run.safetensors"
    path.write_bytes(b"cut off")
    with pytest.raises(UserError, match="cannot be read"):
        Run.load(path)
    write_tensors(path, {"other": torch.zeros(1)}, {})
    with pytest.raises(UserError, match="not written by this command"):
        Run.load(path)
    Run(SMALL).export(path)  # weights, but nothing to go on from
    with pytest.raises(UserError, match="no run that goes on"):
        Run.load(path)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"steps": 0}, "steps is 0; give 1 or more"),
        ({"corrections": -1}, "corrections is -1; give 0 or more"),
        ({"families": ()}, "No run trains on nothing; there are blobs"),
        ({"families": ("folds", "threads")}, "No run trains on threads; there are blobs"),
        ({"heads": 5}, "width 192 has no 5 equal heads"),
        ({"pictures": 3, "processes": 2}, "2 processes cannot share 3 pictures"),
    ],
)
def test_settings_that_no_run_can_have(wrong, says):
    with pytest.raises(UserError, match=says):
        Settings(**wrong)


def test_a_curve_goes_on_from_the_saved_step(tmp_path):
    curve = Curve(tmp_path / "curve.csv", 0)
    for step in (1, 2, 3):
        curve.add({"step": step, "minutes": step / 2, "loss": step})
    resumed = Curve(tmp_path / "curve.csv", 2)  # the third step was not saved
    assert resumed.minutes == 1
    resumed.add({"step": 3, "minutes": 2, "loss": 7})
    assert [row["loss"] for row in Curve(tmp_path / "curve.csv", 9).rows] == ["1", "2", "7"]


def test_bfloat16_is_near_float32():
    batch = Pictures(SMALL)[0]
    exact, rough = (Run(replace(SMALL, bf16=b)).train_step(batch)["loss"] for b in (False, True))
    assert exact != rough
    assert exact == pytest.approx(rough, rel=0.02)
