"""The losses are their formulas."""

import numpy as np
import pytest
import torch

from medsaga_lib.backbones.sam import build_sam
from medsaga_lib.data.prompts import CORNER, OPPOSITE_CORNER, PAD, POSITIVE
from medsaga_lib.pretraining import losses
from medsaga_lib.pretraining.losses import _best_mask, mask_iou, mask_losses, pretraining_loss
from medsaga_lib.pretraining.pictures import Pictures, Settings


def test_losses_equal_the_formulas_for_binary_targets():
    """Focal loss after Lin et al. and Dice, pixel by pixel in float64."""
    rng = np.random.default_rng(1)
    logits, truth = rng.normal(0, 3, (4, 5)), rng.random((4, 5)) < 0.4
    probability = 1 / (1 + np.exp(-logits))
    right = np.where(truth, probability, 1 - probability)
    focal = (-((1 - right) ** 2) * np.log(right)).mean()
    dice = 1 - (2 * probability[truth].sum() + 1) / ((probability**2).sum() + truth.sum() + 1)
    ours = mask_losses(torch.tensor(logits), torch.tensor(truth).double())
    assert ours.item() == pytest.approx(20 * focal + dice, abs=1e-12)


def test_iou_counts_cells_that_are_covered_by_more_than_half():
    logits = torch.tensor([[[1.0, 1, -1, -1]]])
    targets = torch.tensor([[[0.6, 0.5, 1, 0]]])
    assert mask_iou(logits, targets).item() == pytest.approx(1 / 3)
    assert mask_iou(-logits.abs(), 0 * targets).item() == 0


def test_the_best_of_three_is_taught_and_the_iou_head_learns_of_all_three():
    """One prompt for the single mask (token 0), one that leaves three possible; float64."""
    truth = torch.zeros(2, 4, 4, dtype=torch.float64)
    truth[:, :2] = 1  # eight cells
    cells = [8, 4, 2, 0], [8, 2, 6, 4]  # of the truth that each token's mask has, for each prompt
    logits = torch.full((2, 4, 4, 4), -6.0, dtype=torch.float64)
    for prompt, counts in enumerate(cells):
        for token, count in enumerate(counts):
            logits[prompt, token].view(-1)[:count] = 6.0
    scores = torch.tensor([[0.9, 0.1, 0.2, 0.3], [0.4, 0.5, 0.6, 0.7]])
    loss, iou, mask = _best_mask(logits, scores, truth, torch.tensor([False, True]))
    assert iou.tolist() == [1, 6 / 8]  # token 0, though another would do; token 2, not token 0
    assert torch.equal(mask, torch.stack([logits[0, 0], logits[1, 2]]))
    taught = mask_losses(torch.stack([logits[0, 0], logits[1, 2]]), truth).mean()
    errors = [0.9 - 1, 0.5 - 2 / 8, 0.6 - 6 / 8, 0.7 - 4 / 8]  # of the scores that count
    assert loss.item() == pytest.approx(taught.item() + np.square(errors).mean(), rel=1e-6)


@pytest.fixture(scope="module")
def batch():
    return Pictures(Settings(size=64, pictures=2, objects=6, corrections=1))[0]


@pytest.fixture(scope="module")
def sam():
    torch.manual_seed(0)
    return build_sam("pocket", 64)


def test_boxes_without_a_picture_see_its_mean_colour_alone(sam, batch):
    """Mixing up the pixels of the first picture changes its answers, not those on the blank."""
    mixed = batch["images"].clone()
    order = torch.randperm(64 * 64, generator=torch.Generator().manual_seed(0))
    mixed[0] = mixed[0].flatten(1)[:, order].view(3, 64, 64)
    first, second = (pretraining_loss(sam, batch | {"images": i}) for i in (batch["images"], mixed))
    assert second["unseen"].item() == pytest.approx(first["unseen"].item(), abs=1e-6)
    assert second["loss"].item() != pytest.approx(first["loss"].item(), abs=1e-3)


def asked_by(batch, roles):
    return batch | {"labels": torch.tensor([roles]).expand_as(batch["labels"])}


def test_boxes_without_a_picture_are_segment_anythings_answers(sam, batch):
    grey = batch["images"][0].float().mean(dim=(1, 2)).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    with torch.no_grad():
        embedding = sam.image_encoder(sam.preprocess(grey))
        sparse, dense = sam.prompt_encoder(None, batch["coordinates"].view(-1, 4), None)
        position = sam.prompt_encoder.get_dense_pe()
        logits, _ = sam.mask_decoder.predict_masks(embedding, position, sparse, dense)
        parts = pretraining_loss(sam, asked_by(batch, [CORNER, OPPOSITE_CORNER]))
    expected = mask_iou(logits[:, 0], batch["targets"]).mean()
    assert parts["unseen"].item() == pytest.approx(expected.item(), abs=1e-5)


def test_the_loss_is_the_sum_over_what_is_asked(sam, batch, monkeypatch):
    """Each mask costs 1 here: objects, borders, first prompts, clicks and, of boxes, the unseen."""
    monkeypatch.setattr(losses, "mask_losses", lambda logits, _: torch.ones(logits.shape[:-2]))
    monkeypatch.setattr(losses, "IOU_WEIGHT", 0.0)
    boxes, points = [CORNER, OPPOSITE_CORNER], [POSITIVE, PAD]
    assert pretraining_loss(sam, asked_by(batch, boxes))["loss"].item() == 2 + 1 + 1 + 1
    of_points = pretraining_loss(sam, asked_by(batch, points))
    assert of_points["loss"].item() == 2 + 1 + 1
    assert of_points["unseen"].isnan()
