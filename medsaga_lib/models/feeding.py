"""Preprocessing that turns an image into the input of a network: one `Feed` for each backbone.

Training, prediction and evaluation use the same `Feed`, so that a network always gets images
prepared in the same way, and prompts and masks always use the matching `Frame`. A run stores the
name of its feed. A run of an older version stores none; its feed was "squeeze".
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medsaga_lib.data.samples import resize_images, resize_labels
from medsaga_lib.errors import UserError
from medsaga_lib.models.frame import Frame

FeedName = Literal["squeeze", "longest_side", "medsam", "lite_medsam", "lite_medsam_squeezed"]

PIXEL_MEAN = (123.675, 116.28, 103.53)  # SAM's mean of red, green and blue, 0 to 255
LEAST_RANGE = 1e-8  # smallest divisor; a constant image becomes 0 (LiteMedSAM's script)
GREY_LEVEL = 1 / 255  # our smallest divisor, because interpolation makes rounding errors


@dataclass(frozen=True)
class Feed:
    """A preprocessing: the position of images in a square input and the change of intensities.

    prepare: turns images (N, 1 or 3, H, W) in [0, 1] and their `Frame` into squares
        (N, 1 or 3, S, S) in [0, 1]. SAM's normalisation comes later, in `heads.embed_images`.
    squeezed, whole: as in `Frame`.
    """

    name: FeedName
    prepare: Callable[[Tensor, Frame], Tensor]
    squeezed: bool = False
    whole: bool = False

    def frame(self, size: tuple[int, ...], side: int) -> Frame:
        """Return the position of an image of `size` (H, W) in a square of `side` pixels."""
        height, width = size
        return Frame((height, width), side, self.squeezed, self.whole)

    def images(self, images: Tensor, side: int) -> Tensor:
        """Turn images (N, 1 or 3, H, W) into inputs (N, 1 or 3, side, side), both in [0, 1]."""
        return self.prepare(images, self.frame(images.shape[-2:], side))

    def sample(self, images: Tensor, labels: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Turn images into inputs, and labels (N, H, W) into (N, side, side) with padding 0."""
        height, width = self.frame(images.shape[-2:], side).inner
        small = resize_labels(labels, (height, width))
        return self.images(images, side), functional.pad(small, (0, side - width, 0, side - height))


def _squeeze(images: Tensor, frame: Frame) -> Tensor:
    """Resize as SAMed (hitachinsk/SAMed): antialiased bilinear, aspect ratio not kept."""
    return resize_images(images, frame.inner)


def _longest_side(images: Tensor, frame: Frame) -> Tensor:
    """Resize and pad as segment_anything's `SamPredictor`: antialiased bilinear.

    The padding is to the right and below. It has SAM's mean colour, which SAM's normalisation turns
    into zeros.
    """
    small = resize_images(images, frame.inner).expand(-1, 3, -1, -1)
    height, width = frame.inner
    square = torch.tensor(PIXEL_MEAN).view(1, 3, 1, 1) / 255
    square = square.repeat(len(images), 1, frame.side, frame.side)
    square[:, :, :height, :width] = small
    return square


def _lite_medsam(images: Tensor, frame: Frame) -> Tensor:
    """Round images to 8 bits and prepare them as LiteMedSAM; see `lite_medsam_input`."""
    pictures = in_8_bits(images)
    return torch.from_numpy(np.stack([lite_medsam_input(one, frame.side) for one in pictures]))


def _lite_medsam_squeezed(images: Tensor, frame: Frame) -> Tensor:
    """Resize as SAMed, then normalise by minimum and maximum as LiteMedSAM; our choice.

    It was chosen among 15 ways on validation images (`python -m tools.feeds`). Mean IoU on test
    images at 256 px, from exact boxes, against the published feed: lungs 0.736 and 0.643, slices of
    the hippocampus 0.448 and 0.330; polyps and nuclei differ by 0.01 at most. At 128 px lungs gain
    0.02 and the hippocampus loses 0.04, so this feed is not the default of the backbone.
    """
    small = resize_images(images, frame.inner)
    low, high = small.amin((1, 2, 3), keepdim=True), small.amax((1, 2, 3), keepdim=True)
    return (small - low) / (high - low).clamp_min(GREY_LEVEL)


def _medsam(images: Tensor, frame: Frame) -> Tensor:
    """Prepare images as MedSAM's inference script: 8 bits, cubic splines, min-max normalisation.

    The aspect ratio is not kept. Source: bowang-lab/MedSAM, MedSAM_Inference.py.
    """
    from skimage.transform import resize

    def one(picture: NDArray) -> NDArray[np.float32]:
        grey_levels = picture.astype(float)
        square = resize(grey_levels, frame.inner, order=3, preserve_range=True, anti_aliasing=True)
        return min_max(np.trunc(square)).astype(np.float32)  # trunc: the script casts to uint8

    pictures = np.stack([one(picture) for picture in in_8_bits(images)])
    return torch.from_numpy(pictures).movedim(-1, 1)


SQUEEZE = Feed("squeeze", _squeeze, squeezed=True)
LONGEST_SIDE = Feed("longest_side", _longest_side)
MEDSAM = Feed("medsam", _medsam, squeezed=True)
LITE_MEDSAM = Feed("lite_medsam", _lite_medsam, whole=True)
LITE_MEDSAM_SQUEEZED = Feed("lite_medsam_squeezed", _lite_medsam_squeezed, squeezed=True)
FEEDS = {
    feed.name: feed for feed in (SQUEEZE, LONGEST_SIDE, MEDSAM, LITE_MEDSAM, LITE_MEDSAM_SQUEEZED)
}

# Each backbone has the feed of its pretraining; networks from scratch have the feed of SAMed.
FEED_OF = {
    "pocket": SQUEEZE,
    "vit_b": LONGEST_SIDE,
    "medsam": MEDSAM,
    "mobile_sam": LONGEST_SIDE,
    "lite_medsam": LITE_MEDSAM,
    "none": SQUEEZE,
}


def get_feed(name: str) -> Feed:
    """Return the feed of a name; raise UserError if there is no such feed."""
    if name not in FEEDS:
        raise UserError(f"There is no feed {name!r}; choose one of {', '.join(FEEDS)}.")
    return FEEDS[name]


def lite_medsam_input(image: NDArray, side: int = 256) -> NDArray[np.float32]:
    """Prepare an image as LiteMedSAM's script: (H, W, 1 or 3) to (1 or 3, side, side) in [0, 1].

    The script resizes by area interpolation, normalises by minimum and maximum, and pads with zeros
    to the right and below (bowang-lab/MedSAM, branch LiteMedSAM). SAM uses another interpolation
    and another normalisation, and it does not round boxes.

    image: uint8 or any other numbers.
    """
    height, width = Frame(image.shape[:2], side).inner
    small = resize_area(image, (height, width)).astype(np.float32).reshape(height, width, -1)
    return np.pad(min_max(small), [(0, side - height), (0, side - width), (0, 0)]).transpose(
        2, 0, 1
    )


def resize_area(image: NDArray, size: tuple[int, int]) -> NDArray:
    """Resize (H, W) or (H, W, C) to (height, width) by OpenCV's `INTER_AREA`, as LiteMedSAM does.

    Each pixel is the mean of the area that it covers; integer types are rounded. If the image
    is enlarged, OpenCV uses its own variant of linear interpolation.
    """
    import cv2

    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)


def in_8_bits(images: Tensor) -> NDArray[np.uint8]:
    """Turn images (N, C, H, W) in [0, 1] into uint8 images (N, H, W, C)."""
    return (255 * images).round().to(torch.uint8).movedim(1, -1).contiguous().numpy()


def min_max(picture: NDArray) -> NDArray:
    """Normalise an image to [0, 1] by its minimum and maximum; a constant image becomes 0."""
    low, high = picture.min(), picture.max()
    return (picture - low) / max(high - low, picture.dtype.type(LEAST_RANGE))
