"""SAM asked by a grid of points: masks of everything, which have no names of their own.

segment_anything's automatic mask generator: 32 x 32 points, three masks each, doubles removed.
Where a truth is at hand it gives the names, so that a score says what the best choice among the
masks would reach. Therefore no mask is dropped for a low score, which is where SAM itself would.
"""

import numpy as np
import torch
import torch.nn.functional as F
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam

Array = np.ndarray


def everything(sam: Sam, pixels: Array) -> list[Array]:
    """Masks (H, W) bool of a picture (H, W) or (H, W, 3) in [0, 1], in no special order.

    They are made at the size of SAM's input, its longest side, and brought to the picture's.
    """
    image = torch.from_numpy(np.ascontiguousarray(pixels, np.float32))
    image = (image if image.ndim == 3 else image[..., None]).expand(-1, -1, 3).movedim(-1, 0)[None]
    height, width = image.shape[2:]
    factor = sam.image_encoder.img_size / max(height, width)
    inner = round(height * factor), round(width * factor)
    small = F.interpolate(image, inner, mode="bilinear", align_corners=False, antialias=factor < 1)
    grey_levels = (255 * small[0].movedim(0, -1)).round().clamp(0, 255).to(torch.uint8).numpy()
    unfiltered = {"pred_iou_thresh": 0, "stability_score_thresh": 0}
    found = SamAutomaticMaskGenerator(sam, **unfiltered).generate(grey_levels)
    masks = (torch.from_numpy(record["segmentation"]).float() for record in found)
    large = (F.interpolate(m[None, None], (height, width), mode="nearest-exact") for m in masks)
    return [mask[0, 0].numpy() > 0 for mask in large]


def named_by(truth: Array, masks: list[Array], values: list[int]) -> Array:
    """A label map (H, W) int64: each label value of the truth (H, W) gets the mask nearest to it.

    Nearest by IoU. A label that no mask overlaps, or that the truth does not show, is left out.
    """
    labels = np.zeros(truth.shape, np.int64)
    for value in values:
        target = truth == value
        overlaps = [(mask & target).sum() / max(1, (mask | target).sum()) for mask in masks]
        if overlaps and max(overlaps) > 0:
            labels[masks[int(np.argmax(overlaps))] & (labels == 0)] = value
    return labels
