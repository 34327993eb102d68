"""Random augmentation of a training sample: as in SAMed, flips, or small changes without flips.

"samed" is the augmentation of hitachinsk/SAMed. With probability 0.5 it applies quarter turns and a
flip; otherwise, with probability 0.5, it rotates by up to 20 degrees and puts zeros in the corners.
"small" keeps left and right apart, for images such as chest X-rays; its ranges are our choice.
MONAI's `Affine` moves the pixels. The random numbers are drawn here, so that they depend on the
seed alone.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from medsaga_lib.errors import UserError

Augmentation = Literal["samed", "small", "flips", "none"]
Sample = dict[str, Tensor]

SAMED_DEGREES = 20  # largest rotation in SAMed's code
# The ranges of "small", our choice: about the variation of patient positioning
SMALL_DEGREES = 8
SMALL_SCALE = 0.1  # relative size
SMALL_SHIFT = 0.06  # relative to the width and height of the image
SMALL_GAIN = 0.2  # relative contrast
SMALL_BIAS = 0.1  # brightness, in the range [0, 1]
SMALL_GAMMA = 0.3  # natural logarithm of the exponent


@dataclass(frozen=True)
class Augment:
    """Augments a sample {"image": (C, H, W), "label": (H, W), ...}; the seed decides the result.

    The image keeps its range [0, 1], dtype and shape. Image and label move together.

    Example: `Augment("small")(samples[0], seed=7)`.

    Raises:
        UserError: there is no such kind of augmentation.
    """

    kind: Augmentation

    def __post_init__(self) -> None:
        if self.kind not in get_args(Augmentation):
            raise UserError(
                f"No augmentation '{self.kind}'; use {', '.join(get_args(Augmentation))}."
            )

    def __call__(self, sample: Sample, seed: int) -> Sample:
        random = np.random.default_rng(seed)
        if self.kind == "samed":
            return _samed(sample, random)
        if self.kind == "small":
            return _small(sample, random)
        if self.kind == "flips":
            axes = [axis for axis in (-2, -1) if random.random() < 0.5]
            return _both(sample, lambda x: x.flip(axes))
        return sample


def _samed(sample: Sample, random: np.random.Generator) -> Sample:
    if random.random() < 0.5:
        turns, axis = int(random.integers(4)), int(random.integers(2))
        return _both(sample, lambda x: x.rot90(turns, (-2, -1)).flip(axis - 2))
    if random.random() < 0.5:
        angle = math.radians(random.uniform(-SAMED_DEGREES, SAMED_DEGREES))
        return move(sample, angle)
    return sample


def _small(sample: Sample, random: np.random.Generator) -> Sample:
    angle = math.radians(random.uniform(-SMALL_DEGREES, SMALL_DEGREES))
    factor = 1 + random.uniform(-SMALL_SCALE, SMALL_SCALE)
    down, right = random.uniform(-SMALL_SHIFT, SMALL_SHIFT, 2)
    moved = move(sample, angle, factor, (float(down), float(right)))
    gain = 1 + random.uniform(-SMALL_GAIN, SMALL_GAIN)
    bias = random.uniform(-SMALL_BIAS, SMALL_BIAS)
    gamma = math.exp(random.uniform(-SMALL_GAMMA, SMALL_GAMMA))
    grey, channels = distinct(moved["image"])
    changed = grey.sub_(0.5).mul_(gain).add_(0.5 + bias).clamp_(0, 1).pow_(gamma)  # `grey` is new
    return {**moved, "image": changed.expand(channels, -1, -1)}


def move(
    sample: Sample,
    angle: float,
    factor: float = 1,
    shift: tuple[float, float] = (0, 0),
    outside: Literal["zeros", "reflection"] = "zeros",
) -> Sample:
    """Turn a sample anticlockwise by `angle` radians, scale it by `factor` and shift it.

    `shift` is (down, right) as fractions of height and width. The image is interpolated bilinearly,
    the label by nearest neighbour. `outside` is the padding of the image and the label.
    """
    from monai.transforms import Affine

    grey, channels = distinct(sample["image"])
    height, width = grey.shape[-2:]
    cos, sin = math.cos(angle) / factor, math.sin(angle) / factor
    # The inverse map, from a position in the result to its position in the sample. Both are
    # (row, column) in pixels from the centre.
    turn = torch.tensor([[cos, sin], [-sin, cos]])
    origin = -turn @ torch.tensor([shift[0] * height, shift[1] * width], dtype=turn.dtype)
    inverse = torch.eye(3)
    inverse[:2, :2], inverse[:2, 2] = turn, origin
    affine = Affine(affine=inverse, padding_mode=outside, image_only=True)
    label = sample["label"]
    with _plain_tensors():
        image = torch.as_tensor(affine(grey, mode="bilinear")).expand(channels, -1, -1)
        near = torch.as_tensor(affine(label[None].float(), mode="nearest"))[0]
    return {**sample, "image": image, "label": near.to(label.dtype)}


@contextmanager
def _plain_tensors() -> Iterator[None]:
    """Turn off MONAI's record of transforms, which would double the time."""
    from monai.data import get_track_meta, set_track_meta

    before = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(before)


def _both(sample: Sample, change: Callable[[Tensor], Tensor]) -> Sample:
    return {**sample, "image": change(sample["image"]), "label": change(sample["label"])}


def distinct(image: Tensor) -> tuple[Tensor, int]:
    """Return the image, or 1 channel of it if all channels share memory, and the channel count."""
    grey = image[:1] if image.stride(0) == 0 else image
    return grey, image.shape[0]
