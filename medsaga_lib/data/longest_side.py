"""SAM's geometry: the longer side becomes the input's side, the rest is padded right and below.

What is trained here sees pictures squeezed to a square (`samples.squeeze`, as SAMed does), and so
does MedSAM; other SAMs as they came see them with their proportions, as they were pretrained
(segment_anything's `ResizeLongestSide`; LiteMedSAM's inference script rounds in the same way).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Frame:
    """How a picture of `size` (H, W) lies in a square input of `side` pixels.

    squeezed: it fills the square, whatever its proportions.
    whole: boxes are cut off to whole pixels, as in LiteMedSAM's script.
    """

    size: tuple[int, int]
    side: int
    squeezed: bool = False
    whole: bool = False

    @property
    def inner(self) -> tuple[int, int]:
        """Height and width of the picture within the input, rounded half up, at least 1."""
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
        """Pixels of the input for one of the picture: right, down, right, down."""
        down, right = (new / old for new, old in zip(self.inner, self.size, strict=True))
        return torch.tensor([right, down, right, down])

    def boxes(self, boxes: Tensor) -> Tensor:
        """Boxes (N, 4) x0, y0, x1, y1 of the picture in pixels of the input, float32."""
        if self.whole:
            return (boxes * (self.side / max(self.size))).trunc().float()
        return boxes.float() * self.ratios

    def enlarging(self, axis: int, cells: int) -> Tensor:
        """The matrix (H or W, cells) from logits of the input to pixels of the picture.

        What `Sam.postprocess_masks` does along an axis, in one product: bilinear to the input's
        side, without the padding, bilinear to the picture's size.
        """
        to_input = _linear(cells, self.side)[: self.inner[axis]]
        return _linear(self.inner[axis], self.size[axis]) @ to_input


def _linear(old: int, new: int) -> Tensor:
    """Linear interpolation of `old` numbers to `new` ones as a matrix (new, old)."""
    unit = torch.eye(old)[None]
    return functional.interpolate(unit, new, mode="linear", align_corners=False)[0].T
