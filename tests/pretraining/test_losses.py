"""The losses are their formulas."""

import numpy as np
import pytest
import torch

from medsaga_lib.pretraining.losses import mask_iou, mask_losses


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
