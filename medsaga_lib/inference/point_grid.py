"""SAM prompted with a grid of points: masks of the whole image, which have no names.

This is segment_anything's automatic mask generator: 32 x 32 points, 3 masks each, duplicates
removed. Where a ground truth is available, it names the masks, so a score says what the best choice
among the masks reaches. Therefore no mask is dropped for a low predicted score, unlike in SAM.
"""

import numpy as np
import torch
import torch.nn.functional as F
from segment_anything.modeling import Sam

from medsaga_lib.data.samples import resize_images
from medsaga_lib.models.frame import Frame

Array = np.ndarray
PER_SIDE = 32  # points along one side of the grid; segment_anything's default
# Our choice: a quarter of segment_anything's 64, because each point has image tokens of its own
AT_ONCE = 16  # points per call of the decoder


def everything(sam: Sam, pixels: Array, per_side: int = PER_SIDE) -> list[Array]:
    """Return masks (h, w) bool of an image (H, W) or (H, W, 3) in [0, 1], in no special order.

    Their longest side is that of the image encoder's input. `per_side` is the number of points
    along each side of the grid.
    """
    from segment_anything import SamAutomaticMaskGenerator  # imports torchvision, which is slow

    image = torch.from_numpy(np.ascontiguousarray(pixels, np.float32))
    channels = (image if image.ndim == 3 else image[..., None]).movedim(-1, 0)[None]
    inner = Frame(pixels.shape[:2], sam.image_encoder.img_size).inner
    small = resize_images(channels, inner).expand(-1, 3, -1, -1)[0].movedim(0, -1)
    grey_levels = (255 * small).round().clamp(0, 255).to(torch.uint8).numpy()
    unfiltered = {"pred_iou_thresh": 0, "stability_score_thresh": 0}
    generator = SamAutomaticMaskGenerator(sam, per_side, AT_ONCE, **unfiltered)
    found = generator.generate(grey_levels)
    return [record["segmentation"] for record in found]


def named_by(truth: Array, masks: list[Array], values: list[int]) -> Array:
    """Return a label map (H, W) int64 in which each label of the ground truth has its nearest mask.

    The nearest mask has the largest IoU, at the size of the masks (h, w). A label is omitted if no
    mask overlaps it, or if the ground truth does not show it.
    """
    if not masks:
        return np.zeros(truth.shape, np.int64)
    small = _resized(truth, masks[0].shape)
    labels = np.zeros(small.shape, np.int64)
    for value in values:
        target = small == value
        overlaps = [(mask & target).sum() / max(1, (mask | target).sum()) for mask in masks]
        if max(overlaps) > 0:
            labels[masks[int(np.argmax(overlaps))] & (labels == 0)] = value
    return _resized(labels, truth.shape)


def _resized(labels: Array, size: tuple[int, ...]) -> Array:
    """Resize a label map with nearest-neighbour interpolation; int64."""
    tensor = torch.from_numpy(labels.astype(np.int64))[None, None].double()
    return F.interpolate(tensor, size, mode="nearest-exact")[0, 0].long().numpy()
