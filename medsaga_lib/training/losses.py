"""Training losses: cross-entropy + Dice over classes (SAMed, MedSAGa); focal + Dice (S-SAM).

Both are written out here, because the memory ledger and the recorded runs depend on them:
`monai.losses.DiceLoss` fails on the ledger's fake tensors and its float32 results differ by 1e-6,
and `torchvision.ops.sigmoid_focal_loss` keeps a second map of probabilities for the backward pass.
The tests compare with both.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

SMOOTH = 1e-5  # added to numerator and denominator; SAMed's code
FOCAL_ALPHA, FOCAL_GAMMA = 0.75, 3.0  # S-SAM's code


class Loss(NamedTuple):
    """The loss of a step and, without gradient, its two parts for the log; all scalars."""

    total: Tensor
    cross_entropy: Tensor  # or the focal loss
    dice: Tensor


def dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over classes, background included, of 1 minus the soft Dice of the class.

    Sums run over the whole batch, so a class that is absent from one image but present in
    another adds nothing by its absence. A class that is absent from the batch adds nearly 1 until
    its probabilities vanish. The terms of the denominator are squared (V-Net, arXiv 1606.04797).

    Args:
        logits: (B, C, h, w), floating point.
        labels: (B, h, w), int64 in 0..C-1.
    """
    classes = logits.shape[1]
    probability = logits.softmax(dim=1)
    truth = functional.one_hot(labels, classes).movedim(-1, 1).to(probability.dtype)  # (B, C, h, w)
    over = (0, 2, 3)
    intersection = (probability * truth).sum(over)  # (C,)
    sizes = (probability**2).sum(over) + (truth**2).sum(over)
    return (1 - (2 * intersection + SMOOTH) / (sizes + SMOOTH)).mean()


def cross_entropy_dice(
    logits: Tensor, labels: Tensor, ce_weight: float = 0.2, dice_weight: float = 0.8
) -> Loss:
    """Weighted sum of cross-entropy and Dice loss; the default weights are SAMed's.

    Half-precision logits are converted to float32, because a batch has more pixels than float16
    can count.

    Args:
        logits: (B, C, h, w), floating point; class 0 is the background.
        labels: (B, h, w), int64 in 0..C-1, at the size of the logits (`reduce_labels`).

    Raises:
        ValueError: the shapes do not fit together.

    >>> _ = torch.manual_seed(0)
    >>> labels = torch.randint(3, (2, 8, 8))
    >>> sure = 50.0 * functional.one_hot(labels, 3).movedim(-1, 1)
    >>> round(cross_entropy_dice(sure, labels).total.item(), 6)
    0.0
    """
    if logits.ndim != 4 or labels.shape != logits[:, 0].shape:
        raise ValueError(
            f"logits must be (B, C, h, w) and labels (B, h, w) of the same size, "
            f"not {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    cross_entropy = functional.cross_entropy(logits, labels)
    dice = dice_loss(logits, labels)
    total = ce_weight * cross_entropy + dice_weight * dice
    return Loss(total, cross_entropy.detach(), dice.detach())


def focal_dice(
    logits: Tensor, labels: Tensor, focal_weight: float = 1.0, dice_weight: float = 1.0
) -> Loss:
    """Weighted sum of focal loss and Dice loss of each label, with one sigmoid per label (S-SAM).

    The focal loss is that of Lin et al. (arXiv 1708.02002) and takes logits; S-SAM's code gives it
    probabilities instead. The Dice loss is computed for each image and label and then averaged; a
    label that is absent from an image adds up to 1.

    Args:
        logits: (B, K + 1, h, w), floating point; channel 0, the background, is ignored.
        labels: (B, h, w), int64 in 0..K, at the size of the logits (`reduce_labels`).
    """
    logits = logits[:, 1:].float()
    truth = functional.one_hot(labels, logits.shape[1] + 1).movedim(-1, 1)[:, 1:].float()
    probability = logits.sigmoid()
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    missed = (truth - probability).abs() ** FOCAL_GAMMA
    share = truth * FOCAL_ALPHA + (1 - truth) * (1 - FOCAL_ALPHA)
    focal = (share * missed * entropy).mean()
    over = (2, 3)
    sizes = probability.sum(over) + truth.sum(over)
    dice = 1 - ((2 * (probability * truth).sum(over) + 1) / (sizes + 1)).mean()
    return Loss(focal_weight * focal + dice_weight * dice, focal.detach(), dice.detach())


OBJECTIVES = {"cross_entropy_dice": cross_entropy_dice, "focal_dice": focal_dice}


def reduce_labels(labels: Tensor, logits: Tensor) -> Tensor:
    """Resize labels (B, S, S) to the logits (B, C, S/4, S/4), nearest pixel (MedSAGa, eq. 4)."""
    small = functional.interpolate(labels[:, None].float(), logits.shape[2:], mode="nearest-exact")
    return small[:, 0].long()
