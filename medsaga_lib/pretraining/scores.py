"""How well a promptable SAM answers: IoU for boxes, points and clicks, against baselines."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import distance_transform_edt
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional

from medsaga_lib.data.procedural import TRAINED, Scene
from medsaga_lib.data.prompts import (
    CORNER,
    NEGATIVE,
    OPPOSITE_CORNER,
    PAD,
    POSITIVE,
    box_of,
    fill_box,
    middle_of,
)
from medsaga_lib.errors import UserError
from medsaga_lib.evaluation import bootstrap
from medsaga_lib.heads import decode_masks, embed_prompts
from medsaga_lib.pretraining.pictures import unseen_scenes
from medsaga_lib.pretraining.targets import REDUCTION, coverage

SPREAD_PICTURES = 16


class Prompted(NamedTuple):
    """A picture (S, S, 3) uint8 and the masks (n, S, S) bool of what is asked for in it."""

    image: np.ndarray
    masks: np.ndarray


def prompted(scenes: Iterable[Scene], objects: int = 4) -> Iterable[Prompted]:
    """`objects` objects of each scene, drawn at random but always the same; all if it has fewer."""
    for number, scene in enumerate(scenes):
        chosen = np.random.default_rng(number).permutation(len(scene))[:objects]
        yield Prompted(scene.image, scene.masks(chosen))


def evaluate(sam: Sam, pictures: Iterable[Prompted], clicks: int = 3) -> dict:
    """Mean IoU at full resolution over all objects of the pictures.

    Returns:
        `box`: the exact box; `box_kept`, `box_kept_blank`: IoU of the box around its answer with
        the box itself, on the picture and on one of the mean colour; `point`: one point in the
        middle of the object, best of three masks;
        `clicks_k`: k clicks in all, each in the middle of the larger error, the first one's mask
        chosen by the IoU head. Beside them `box_itself` and the `ellipse` inscribed in it, and
        `ceiling`, the truth passed through logits of a quarter of the size (its coverage, cut at a
        half; other logits may be a little better). `gain`: the 95 % interval of `box` - `ellipse`,
        by drawing pictures. `iou_head`: correlation of predicted with true IoU over the masks for
        boxes and points; None where either is always the same. `pictures`, `objects`: how many.

    Raises:
        UserError: the pictures show nothing to ask for.
    """
    rows, heads = [], []
    size = sam.image_encoder.img_size
    with torch.no_grad():
        blank = sam.image_encoder(torch.zeros(1, 3, size, size, device=sam.device))
    for number, (image, masks) in enumerate(pictures):
        pixels = torch.from_numpy(image.transpose(2, 0, 1).copy()).float()
        with torch.no_grad():
            embedding = sam.image_encoder(sam.preprocess(pixels.to(sam.device))[None])
        for truth in masks:
            row, pairs = _answers(sam, embedding, truth, clicks)
            row["box_kept_blank"] = _kept(_boxed(sam, blank, truth)[0][0], truth)
            rows.append({"picture": number} | row | baselines(truth))
            heads += pairs
    if not rows:
        raise UserError("These pictures show no object to ask for; take a data set with masks.")
    table = pd.DataFrame(rows).set_index("picture")
    predicted, true = np.array(heads).T
    known = predicted.std() > 0 and true.std() > 0
    gain = (table["box"] - table["ellipse"]).groupby("picture").agg(["sum", "count"])
    return table.mean().to_dict() | {
        "gain": list(bootstrap(gain[["sum"]].to_numpy(), gain[["count"]].to_numpy())),
        "iou_head": float(np.corrcoef(predicted, true)[0, 1]) if known else None,
        "pictures": len(gain),
        "objects": len(table),
    }


@torch.no_grad()
def spread(sam: Sam) -> float:
    """How much the embedding of a place differs from picture to picture: 0 not at all, 1 wholly.

    The standard deviation over pictures, of each channel at each place, root mean square, divided
    by the standard deviation of all values. 0 means an encoder that does not look.
    """
    size = sam.image_encoder.img_size
    images = np.stack([scene.image for scene in unseen_scenes(SPREAD_PICTURES, TRAINED, size)])
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2)).float().to(sam.device)
    embeddings = sam.image_encoder(sam.preprocess(pixels))
    return (embeddings.var(dim=0).mean() / embeddings.var()).sqrt().item()


def baselines(truth: np.ndarray) -> dict[str, float]:
    """IoU of the box, of the ellipse inscribed in it and of the truth at a quarter of the size."""
    box = box_of(truth)
    cells = torch.from_numpy(coverage(truth))[None] - 0.5
    return {
        "box_itself": _iou(fill_box(box, truth.shape), truth),
        "ellipse": _iou(fill_box(box, truth.shape, ellipse=True), truth),
        "ceiling": _iou(_enlarged(cells)[0], truth),
    }


def _answers(
    sam: Sam, embedding: Tensor, truth: np.ndarray, clicks: int
) -> tuple[dict[str, float], list[tuple[float, float]]]:
    """IoU after each prompt for one object, and pairs of predicted and true IoU."""
    masks, scores, _ = _boxed(sam, embedding, truth)
    row = {"box": _iou(masks[0], truth), "box_kept": _kept(masks[0], truth)}
    pairs = [(scores[0], row["box"])]

    points, labels = [middle_of(truth)], [POSITIVE]
    masks, scores, logits = ask(sam, embedding, np.array([*points, (0, 0)]), [*labels, PAD])
    three = [_iou(mask, truth) for mask in masks[1:]]
    row["point"] = max(three)
    pairs += zip(scores[1:], three, strict=True)
    which = 1 + int(np.argmax(scores[1:]))
    row["clicks_1"] = three[which - 1]

    for count in range(2, clicks + 1):
        missed, extra = truth & ~masks[which], masks[which] & ~truth
        if missed.any() or extra.any():
            grows = _depth(missed) >= _depth(extra)
            points.append(middle_of(missed if grows else extra))
            labels.append(POSITIVE if grows else NEGATIVE)
        asked = np.array([*points, (0, 0)]), [*labels, PAD]
        masks, scores, logits = ask(sam, embedding, *asked, logits[which])
        which = 0
        row[f"clicks_{count}"] = _iou(masks[0], truth)
    return row, pairs


def _boxed(sam: Sam, embedding: Tensor, truth: np.ndarray) -> tuple[np.ndarray, list, Tensor]:
    """What is answered to the exact box."""
    return ask(sam, embedding, box_of(truth).reshape(2, 2), [CORNER, OPPOSITE_CORNER])


def _kept(mask: np.ndarray, truth: np.ndarray) -> float:
    """IoU of the boxes around both; 0 of an empty mask."""
    if not mask.any():
        return 0.0
    return _iou(*(fill_box(box_of(m), truth.shape) for m in (mask, truth)))


@torch.no_grad()
def ask(
    sam: Sam,
    embedding: Tensor,
    coordinates: np.ndarray,
    labels: list[int],
    mask: Tensor | None = None,
) -> tuple[np.ndarray, list[float], Tensor]:
    """Masks (T, S, S) bool, predicted IoU of each, logits (T, S/4, S/4) for one prompt."""
    encoder = sam.prompt_encoder
    where = torch.from_numpy(coordinates).float()[None].to(sam.device)
    sparse = embed_prompts(encoder, where, torch.tensor([labels], device=sam.device))
    dense = encoder.no_mask_embed.weight[:, :, None, None].expand_as(embedding)
    if mask is not None:
        dense = encoder.mask_downscaling(mask[None, None])
    position = encoder.get_dense_pe()
    logits, scores = decode_masks(sam.mask_decoder, embedding, position, sparse, dense)
    return _enlarged(logits[0].cpu()), scores[0].tolist(), logits[0]


def _enlarged(logits: Tensor) -> np.ndarray:
    """Masks (T, S, S) bool of logits (T, S/4, S/4)."""
    large = functional.interpolate(logits[None], scale_factor=REDUCTION, mode="bilinear")[0]
    return (large > 0).numpy()


def _depth(mask: np.ndarray) -> float:
    return distance_transform_edt(np.pad(mask, 1)).max()


def _iou(mask: np.ndarray, truth: np.ndarray) -> float:
    return (mask & truth).sum() / max((mask | truth).sum(), 1)
