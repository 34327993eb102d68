"""What the pretraining minimises: SAM's focal + dice on the best mask, and its IoU head."""

import math

import torch
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional

from medsaga_lib.data.prompts import POSITIVE
from medsaga_lib.heads import decode_masks, embed_prompts, grid_positions
from medsaga_lib.pretraining.prompts import corrective_click

FOCAL_WEIGHT, DICE_WEIGHT, IOU_WEIGHT = 20.0, 1.0, 1.0  # SAM, appendix A
FOCAL_GAMMA = 2.0  # Lin et al., arXiv 1708.02002


def mask_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """20 x focal + dice loss (...) of masks (..., h, w); targets may be any part of 1.

    For fractions the focal factor is |target - probability| (Li et al., arXiv 2006.04388) and the
    Dice has squared denominators, so that both are least where the probability is the target.
    """
    logits = logits.to(targets.dtype)  # in bfloat16 a probability near 1 has no gradient
    probability = logits.sigmoid()
    entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    focal = ((targets - probability).abs() ** FOCAL_GAMMA * entropy).mean(dim=(-2, -1))
    overlap = (probability * targets).sum(dim=(-2, -1))
    squares = (probability**2 + targets**2).sum(dim=(-2, -1))
    return FOCAL_WEIGHT * focal + DICE_WEIGHT * (1 - (2 * overlap + 1) / (squares + 1))


def mask_iou(logits: Tensor, targets: Tensor) -> Tensor:
    """IoU (...) of masks (..., h, w) with the cells that their targets cover by more than half."""
    predicted, truth = logits > 0, targets > 0.5
    union = (predicted | truth).sum(dim=(-2, -1))
    return (predicted & truth).sum(dim=(-2, -1)) / union.clamp(min=1)


def pretraining_loss(sam: Sam, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The loss of one step and, for the log, its parts (scalars).

    Args:
        batch: of `Pictures`.

    Returns:
        `loss` with gradient, the sum over the rounds; without: `foreground` and `borders`, the IoU
        without a prompt; `box` and `point`, the IoU after the first prompt (of three masks the
        best); `click`, the IoU after the last click; `unseen`, the IoU of boxes on a blank picture.
    """
    encoder, picture, targets = sam.prompt_encoder, batch["picture"], batch["targets"]
    coordinates, labels = batch["coordinates"], batch["labels"]
    pixels = (batch["images"].float() - sam.pixel_mean) / sam.pixel_std
    blank = pixels[:1].mean(dim=(2, 3), keepdim=True).expand_as(pixels[:1])
    embedded = sam.image_encoder(torch.cat([pixels, blank]))
    of_pictures, of_blank = embedded[:-1], embedded[-1:]  # (B, C, h, w), (1, C, h, w)
    position = grid_positions(encoder, embedded.dtype)
    no_mask = encoder.no_mask_embed.weight[:, :, None, None]

    # No prompt (not in SAM): token 0 draws all objects, token 1 their borders. It makes the
    # encoder look at all of a picture, and it is how class tokens will ask (`heads.ClassTokens`).
    nothing = coordinates.new_zeros(1, 0, of_pictures.shape[1])
    logits, _ = decode_masks(sam.mask_decoder, of_pictures, position, nothing, no_mask)
    dense_targets = torch.stack([batch["foreground"], batch["borders"]], dim=1)
    loss = mask_losses(logits[:, :2], dense_targets).sum(dim=1).mean()
    foreground, borders = mask_iou(logits[:, :2], dense_targets).mean(dim=0)
    parts = {"foreground": foreground, "borders": borders}

    embeddings = of_pictures[picture]  # (N, C, h, w)

    # First prompt: a box asks for the single mask, a point for the best of three
    is_point = labels[:, 0] == POSITIVE
    sparse = embed_prompts(encoder, coordinates, labels)
    dense = no_mask.expand_as(embeddings)
    answer = decode_masks(sam.mask_decoder, embeddings, position, sparse, dense)
    more, iou, shown = _best_mask(*answer, targets, is_point)
    loss = loss + more
    parts |= {"box": iou[~is_point].nanmean(), "point": iou[is_point].nanmean()}
    parts["unseen"] = iou.new_tensor(math.nan)  # if there is no box

    # The same boxes with nothing to see (not in SAM): what is learned is where a box lies and what
    # tends to fill it. From pictures alone the decoder learned that too late to use it.
    boxes, boxed = sparse[~is_point], targets[~is_point]
    if len(boxes):
        nowhere = of_blank.expand(len(boxes), -1, -1, -1)
        logits, _ = decode_masks(sam.mask_decoder, nowhere, position, boxes, no_mask)
        loss = loss + mask_losses(logits[:, 0], boxed).mean()
        parts["unseen"] = mask_iou(logits[:, 0], boxed).mean()

    # Corrective clicks ask for the single mask; half of the prompts come with the mask so far
    for of_click, of_mask in batch["noise"]:
        click, label = corrective_click(shown, targets, of_click)
        coordinates = torch.cat([click, coordinates], dim=1)
        labels = torch.cat([label, labels], dim=1)
        sparse = embed_prompts(encoder, coordinates, labels)
        with_mask = of_mask[:, None, :1, :1] < 0.5
        dense = torch.where(with_mask, encoder.mask_downscaling(shown[:, None]), no_mask)
        answer = decode_masks(sam.mask_decoder, embeddings, position, sparse, dense)
        more, iou, shown = _best_mask(*answer, targets, torch.zeros_like(is_point))
        loss = loss + more
    return {"loss": loss, **parts, "click": iou.mean()}


def _best_mask(
    logits: Tensor, scores: Tensor, targets: Tensor, is_ambiguous: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss (scalar), the IoU (N,) and the logits (N, h, w), without gradient, of one mask each.

    The mask is token 0's or, for ambiguous prompts (N,), the one of the others with the least loss.
    The IoU head learns about all of those others, because it has to choose among them when nobody
    knows the loss (as in SAM 2, arXiv 2408.00714; SAM does not say).
    """
    targets = targets[:, None].expand_as(logits)  # (N, T, h, w)
    is_single = torch.arange(logits.shape[1], device=logits.device)[None] == 0
    asked = is_single != is_ambiguous[:, None]  # (N, T)
    least, best = mask_losses(logits, targets).masked_fill(~asked, math.inf).min(dim=1)
    prompts = torch.arange(len(best), device=best.device)
    iou = mask_iou(logits.detach(), targets)  # (N, T)
    score_loss = functional.mse_loss(scores[asked].float(), iou[asked])
    mask = logits.detach()[prompts, best]
    return least.mean() + IOU_WEIGHT * score_loss, iou[prompts, best], mask
