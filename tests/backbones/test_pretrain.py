"""The pretraining computes what it says, goes on where it stopped, and makes a promptable SAM."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from medsaga_lib.backbones import pretrain
from medsaga_lib.backbones.pretrain import (
    CORNER,
    NEGATIVE,
    OPPOSITE_CORNER,
    PAD,
    POSITIVE,
    Pictures,
    Run,
    Settings,
)
from medsaga_lib.backbones.sam import build_sam
from medsaga_lib.data.procedural import TRAINED

SHIPPED = Path(pretrain.__file__).with_name("pocket.safetensors")
SMALL = Settings(steps=6, size=64, pictures=2, objects=3, warmup=2)


@pytest.fixture(scope="module")
def pocket():
    sam = build_sam("pocket")
    sam.load_state_dict({key: value.float() for key, value in load_file(SHIPPED).items()})
    return sam.eval()


# --- Prompts and losses ---


def test_prompt_tokens_equal_segment_anythings():
    encoder = build_sam("pocket").prompt_encoder
    points = torch.tensor([[[3.0, 200.0], [77.0, 5.0]], [[128.0, 9.0], [0.0, 255.0]]])
    labels = torch.tensor([[POSITIVE, NEGATIVE], [NEGATIVE, POSITIVE]])
    expected, _ = encoder(points=(points, labels), boxes=None, masks=None)
    padded = torch.cat([points, torch.zeros(2, 1, 2)], dim=1)
    padded_labels = torch.cat([labels, torch.full((2, 1), PAD)], dim=1)
    torch.testing.assert_close(pretrain.embed_prompts(encoder, padded, padded_labels), expected)

    expected, _ = encoder(points=None, boxes=points.flatten(1), masks=None)
    corners = torch.tensor([[CORNER, OPPOSITE_CORNER]]).expand(2, 2)
    torch.testing.assert_close(pretrain.embed_prompts(encoder, points, corners), expected)


def test_box_and_middle_of_a_mask():
    mask = np.zeros((20, 20), bool)
    mask[4:9, 10:17] = True
    assert pretrain.box_of(mask).tolist() == [10, 4, 16, 8]
    x, y = pretrain.middle_of(mask)
    assert y == 6  # the one middle row
    assert 12 <= x <= 14


def test_jitter_stays_within_its_limit_and_the_picture():
    rng = np.random.default_rng(0)
    box = np.array([2.0, 50, 250, 60])
    moved = np.array([pretrain.jittered(box, 256, rng) for _ in range(200)])
    assert np.abs(moved - box).max() == pytest.approx(5)  # 20 of 1024 pixels
    assert moved.min() >= 0
    assert moved.max() <= 255
    assert moved[:, 1].std() == pytest.approx(1.1, rel=0.2)  # a tenth of 11 rows


def test_coverage_is_the_area_in_each_cell():
    mask = np.zeros((8, 8), bool)
    mask[:3, :6] = True
    np.testing.assert_array_equal(pretrain.coverage(mask), [[12 / 16, 6 / 16], [0, 0]])


def test_clicks_fall_where_the_mask_is_wrong():
    torch.manual_seed(0)
    truth = torch.zeros(3, 8, 8)
    truth[:, 2:6, 2:6] = 1
    logits = 8 * truth - 4
    logits[0, 2, 3] = -1  # missed
    logits[1, 7, 0] = 1  # too much
    where, label = pretrain.corrective_click(logits, truth, torch.rand(3, 8, 8))
    assert where[0].tolist() == [[4 * 3 + 1.5, 4 * 2 + 1.5]]
    assert where[1].tolist() == [[1.5, 4 * 7 + 1.5]]
    assert label.flatten().tolist() == [POSITIVE, NEGATIVE, POSITIVE]
    column, row = (int(v // 4) for v in where[2, 0])
    assert truth[2, row, column] == 1, "a mask without an error is clicked inside"


def test_losses_equal_the_formulas_for_binary_targets():
    """Focal loss after Lin et al. and Dice, pixel by pixel in float64."""
    rng = np.random.default_rng(1)
    logits, truth = rng.normal(0, 3, (4, 5)), rng.random((4, 5)) < 0.4
    probability = 1 / (1 + np.exp(-logits))
    right = np.where(truth, probability, 1 - probability)
    focal = (-((1 - right) ** 2) * np.log(right)).mean()
    dice = 1 - (2 * probability[truth].sum() + 1) / ((probability**2).sum() + truth.sum() + 1)
    ours = pretrain.mask_losses(torch.tensor(logits), torch.tensor(truth).double())
    assert ours.item() == pytest.approx(20 * focal + dice, abs=1e-12)


def test_iou_counts_cells_that_are_covered_by_more_than_half():
    logits = torch.tensor([[[1.0, 1, -1, -1]]])
    targets = torch.tensor([[[0.6, 0.5, 1, 0]]])
    assert pretrain.mask_iou(logits, targets).item() == pytest.approx(1 / 3)
    assert pretrain.mask_iou(-logits.abs(), 0 * targets).item() == 0


# --- Training ---


def test_batches_follow_from_seed_and_step():
    first, again = Pictures(SMALL)[3], Pictures(SMALL)[3]
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert first["images"].shape == (2, 3, 64, 64)
    assert first["targets"].shape == (6, 16, 16)
    assert not torch.equal(first["images"], Pictures(SMALL)[4]["images"])
    assert not torch.equal(first["images"], Pictures(replace(SMALL, seed=1))[3]["images"])


def test_a_step_changes_what_has_a_gradient_and_nothing_else():
    run = Run(replace(SMALL, weight_decay=0.0))
    run.train_step(Pictures(SMALL)[0])
    before = {key: value.clone() for key, value in run.sam.state_dict().items()}
    run.train_step(Pictures(SMALL)[1])
    changed = {k for k, v in run.sam.state_dict().items() if not torch.equal(v, before[k])}
    names = {name for name, _ in run.sam.named_parameters()}
    assert changed <= names, "no buffer changes"
    # Of the three masks for a point only the best is taught
    assert all(".output_hypernetworks_mlps." in name for name in names - changed)


def test_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "TEST_PICTURES", 1)
    whole = Run(SMALL)
    pretrain.train(whole, tmp_path / "whole")

    halves = Run(SMALL)
    pretrain.train(halves, tmp_path / "halves", minutes=0)  # stops after its first step
    assert halves.step == 1
    resumed = Run.load(tmp_path / "halves" / "run.safetensors")
    pretrain.train(resumed, tmp_path / "halves")

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
    pretrain.export(run, tmp_path / "half.safetensors")
    large = Run(replace(SMALL, size=96))
    large.start_from(tmp_path / "half.safetensors")
    key = "mask_decoder.mask_tokens.weight"
    assert torch.equal(large.sam.state_dict()[key], run.average[key].half().float())
    assert large.average["image_encoder.pos_embed"].shape == (1, 6, 6, 192)


# --- The shipped weights ---


def test_shipped_weights_fit_strictly_and_say_where_they_come_from(pocket):
    assert SHIPPED.stat().st_size <= 10e6
    with safe_open(SHIPPED, "pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118
        settings = json.loads(file.metadata()["settings"])
    assert settings["size"] == 256


def test_segment_anythings_predictor_runs_on_them(pocket):
    """`SamPredictor` answers as our own evaluation does."""
    from segment_anything import SamPredictor  # works once medsaga_lib is imported

    (scene,) = pretrain.unseen_scenes(1, ["blobs"])
    truth = scene.masks([0])[0]
    predictor = SamPredictor(pocket)
    predictor.set_image(scene.image)
    masks, scores, logits = predictor.predict(box=pretrain.box_of(truth), multimask_output=False)
    ours, our_scores, our_logits = pretrain._ask(
        pocket, predictor.features, pretrain.box_of(truth).reshape(2, 2), [CORNER, OPPOSITE_CORNER]
    )
    np.testing.assert_allclose(logits[0], our_logits[0], atol=1e-3)
    np.testing.assert_array_equal(masks[0], ours[0])
    assert scores[0] == pytest.approx(our_scores[0], abs=1e-4)
    assert masks.shape == (1, 256, 256)


@pytest.fixture(scope="module")
def scores(pocket):
    return pretrain.evaluate(pocket, pretrain.unseen_scenes(16, TRAINED), clicks=1)


def test_pretraining_taught_it_to_answer_prompts(scores):
    """Measured for the first weights: box 0.54, point 0.45; untrained both give 0.05."""
    torch.manual_seed(0)
    untrained = build_sam("pocket").eval()
    random = pretrain.evaluate(untrained, pretrain.unseen_scenes(16, TRAINED), clicks=1)
    assert scores["box"] > random["box"] + 0.3
    assert scores["point"] > random["point"] + 0.2
    assert scores["iou_head"] > 0.2
    assert scores["box"] < scores["ceiling"]


@pytest.mark.xfail(
    strict=True, reason="the first weights were trained for 42 minutes: see pocket.md"
)
def test_box_prompt_beats_the_ellipse_in_the_box(scores):
    assert scores["box"] > scores["ellipse"]
