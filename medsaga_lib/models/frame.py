"""The position of an image in the square input of a network, to map prompts and masks.

The default is SAM's geometry: the longer side of the image becomes the side of the input, and the
rest is padded to the right and below (segment_anything's `ResizeLongestSide`; LiteMedSAM's script
rounds in the same way). SAMed and MedSAM resize images to the square instead and do not keep the
aspect ratio. `feeding.Feed` chooses between the two.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Frame:
    """The position of an image of `size` (H, W) in a square input of `side` pixels.

    squeezed: the image fills the square; its aspect ratio is not kept.
    whole: coordinates are truncated to whole pixels, as in LiteMedSAM's script.
    """

    size: tuple[int, int]
    side: int
    squeezed: bool = False
    whole: bool = False

    @property
    def inner(self) -> tuple[int, int]:
        """Height and width of the image within the input, rounded half up, at least 1."""
        if self.squeezed:
            return self.side, self.side
        height, width = self.size
        longest = max(self.size)
        return (
            max(1, (2 * height * self.side + longest) // (2 * longest)),
            max(1, (2 * width * self.side + longest) // (2 * longest)),
        )

    @property
    def ratios(self) -> Tensor:
        """Pixels of the input for each pixel of the image, to the right and down."""
        down, right = (new / old for new, old in zip(self.inner, self.size, strict=True))
        return torch.tensor([right, down])

    def coordinates(self, places: Tensor) -> Tensor:
        """Map coordinates (..., 2) x, y from image pixels to input pixels, float32."""
        if self.whole:
            return (places * (self.side / max(self.size))).trunc().float()
        return places.float() * self.ratios

    def boxes(self, boxes: Tensor) -> Tensor:
        """Map boxes (N, 4) x0, y0, x1, y1 from image pixels to input pixels, float32."""
        return self.coordinates(boxes.unflatten(1, (2, 2))).flatten(1)

    def enlarge(self, logits: Tensor) -> Tensor:
        """Resize logits (N, C, h, w) of the input to the image size (N, C, H, W), bilinear.

        For a padded input there are two steps, as in `Sam.postprocess_masks`: resize to the input
        size and remove the padding, then resize to the image size. A squeezed input needs one step.
        """
        if not self.squeezed:
            height, width = self.inner
            logits = _bilinear(logits, (self.side, self.side))[..., :height, :width]
        return _bilinear(logits, self.size)

    def enlarging(self, axis: int, cells: int) -> Tensor:
        """Return the matrix (H or W, cells) from the logits of the input to the image pixels.

        It does the work of `Sam.postprocess_masks` along one axis in one product: resize to the
        input side, remove the padding, resize to the image size. Both steps interpolate linearly.
        """
        to_input = _linear(cells, self.side)[: self.inner[axis]]
        return _linear(self.inner[axis], self.size[axis]) @ to_input


def _linear(old: int, new: int) -> Tensor:
    """Return the matrix (new, old) that interpolates `old` numbers linearly to `new` numbers."""
    unit = torch.eye(old)[None]
    return functional.interpolate(unit, new, mode="linear", align_corners=False)[0].T


def _bilinear(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(logits, size, mode="bilinear", align_corners=False)
