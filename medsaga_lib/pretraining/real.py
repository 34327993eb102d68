"""Real objects to ask a promptable SAM for: labels, and instances in magnified tiles."""

from collections.abc import Iterator

import numpy as np
import torch

from medsaga_lib.data.folder import DataSet
from medsaga_lib.data.images import read_case_mask, read_pair
from medsaga_lib.data.prompts import box_of
from medsaga_lib.data.samples import squeeze
from medsaga_lib.pretraining.scores import Prompted

SMALLEST_SIDE = 24  # pixels of a box's shorter side after magnification, for instances; our choice
MAGNIFIED = 0.9  # of a picture's instances are at least that large; our choice


def real_objects(dataset: DataSet, size: int) -> Iterator[tuple[str, Iterator[Prompted]]]:
    """The name of each kind of object, and the pictures (size, size, 3) that show it.

    Every label of a labelled picture is one object; volumes give their labelled slices. Instances
    are shown in tiles, magnified until `MAGNIFIED` of a picture's are `SMALLEST_SIDE` pixels or
    more; smaller ones and those that a tile cuts are left out.

    Raises:
        UserError: the data set has no labels, or a file cannot be used.
    """
    if dataset.masks == "instances":
        yield dataset.name, _tiles(dataset, size)
        return
    for value, name in dataset.require_labels().items():
        yield f"{dataset.name}, {name}", _labelled(dataset, value, size)


def _labelled(dataset: DataSet, value: int, size: int) -> Iterator[Prompted]:
    for case in dataset.cases:
        if case.mask is None:
            continue
        picture, labels = read_pair(dataset, case)
        pixels = _with_channels(picture.pixels, len(picture.shape) == 3)
        for image, mask in zip(
            pixels, labels.reshape(len(pixels), *labels.shape[-2:]), strict=True
        ):
            if (mask == value).any():
                image, mask = _square(image, mask == value, size)
                if mask.any():
                    yield Prompted(image, mask[None])


def _tiles(dataset: DataSet, size: int) -> Iterator[Prompted]:
    for case in dataset.cases:
        if case.mask is None:
            continue
        picture, _ = read_pair(dataset, case)
        (pixels,), numbers = _with_channels(picture.pixels, False), read_case_mask(case).values
        sides = [_side(numbers == n) for n in np.unique(numbers[numbers > 0])]
        if not sides:
            continue
        magnification = SMALLEST_SIDE / np.quantile(sides, 1 - MAGNIFIED)
        tile = min(int(size / magnification), *numbers.shape)
        for top in range(0, numbers.shape[0] - tile + 1, tile):
            for left in range(0, numbers.shape[1] - tile + 1, tile):
                cut = slice(top, top + tile), slice(left, left + tile)
                image, inside = _square(pixels[cut], numbers[cut], size)
                masks = [inside == n for n in _whole(inside)]
                masks = [mask for mask in masks if _side(mask) >= SMALLEST_SIDE]
                if masks:
                    yield Prompted(image, np.stack(masks))


def _whole(numbers: np.ndarray) -> np.ndarray:
    """The instances that do not touch the edge."""
    edge = np.concatenate([numbers[[0, -1]].ravel(), numbers[:, [0, -1]].ravel()])
    return np.setdiff1d(numbers[numbers > 0], edge)


def _side(mask: np.ndarray) -> float:
    left, top, right, bottom = box_of(mask)
    return 1 + min(right - left, bottom - top)


def _with_channels(pixels: np.ndarray, is_volume: bool) -> np.ndarray:
    """Slices (N, H, W, C) of a picture's pixels."""
    slices = pixels if is_volume else pixels[None]
    return slices if slices.ndim == 4 else slices[..., None]


def _square(image: np.ndarray, labels: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Both squeezed to size x size; the image (H, W, C) in [0, 1] becomes uint8 with 3 channels."""
    channels = torch.from_numpy(np.ascontiguousarray(image)).movedim(-1, 0)[None]
    grid = torch.from_numpy(np.ascontiguousarray(labels)).to(torch.int64)[None]
    channels, grid = squeeze(channels, grid, size)
    grey = (255 * channels[0].expand(3, -1, -1)).round().clamp(0, 255).to(torch.uint8)
    return grey.movedim(0, -1).numpy(), grid[0].numpy().astype(labels.dtype)
