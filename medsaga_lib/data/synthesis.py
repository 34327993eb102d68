"""Exemplar-guided synthesis: organs cut out of labelled pictures, pasted where there are none.

Cheap Lunch (Feng et al. 2023, arXiv 2308.14133) names the changes (blur, intensity, scale, flip,
rotation, of the organ and of the background) and no number: every number here is our choice.

A background must not show an organ that the new label map then calls background. A picture that
nobody has labelled may show one, so none is used. Backgrounds are the exemplars themselves with
their organs filled in from around, and the slices of their volumes that show no organ.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.ndimage import binary_dilation, gaussian_filter
from scipy.sparse.linalg import splu
from torch import Tensor
from torch.nn.functional import interpolate, one_hot
from torch.utils.data import Subset

from medsaga_lib.data.folder import Case, DataSet
from medsaga_lib.data.images import read_pair
from medsaga_lib.data.samples import Samples, squeeze
from medsaga_lib.data.transforms import Augment, Sample, distinct, move
from medsaga_lib.errors import UserError

BACKGROUNDS = 64  # at most, to keep memory small
SOFT = 1 / 128  # standard deviation of the pasted edge, of the picture's width
MARGIN = 1 / 50  # around an organ that is filled in, of the picture's width
LARGEST = 0.6  # of a picture may be filled in: the lungs of an X-ray reach 0.58
HUE = 0.08  # a channel's shift from the others', of the range [0, 1], where an organ is pasted
FILLED_AT = 64  # pixels along one side where the filling is solved; it is smooth


@dataclass(frozen=True)
class Synthesis:
    """How far things may differ from their exemplar; 0 is not at all."""

    share: float = 0.5  # of the training samples that are synthesised
    turn: float = 15.0  # degrees, of the organs about their middle, and of the background
    scale: float = 0.2  # relative size
    shift: float = 0.06  # of the organs from the exemplar's place, in widths of the picture
    gain: float = 0.15  # relative contrast
    bias: float = 0.05  # brightness, of the range [0, 1]
    blur: float = 1 / 256  # largest standard deviation, in widths of the picture


class Pasting:
    """Turns an exemplar into a synthesised sample, by a seed and by nothing else.

    All organs of an exemplar move as one, so that neighbours stay neighbours. They land at the
    exemplar's own place, give or take `Synthesis.shift`. Flips are for data with a single label: of
    several, some may be called left and right. An organ that the picture's edge cuts keeps its cut.

    Args:
        config: the ranges.
        backgrounds: (1 or 3, S, S) in [0, 1], without organs.
        classes: foreground labels, numbered from 1.
        augment: for every sample, synthesised or not.
    """

    def __init__(
        self, config: Synthesis, backgrounds: list[Tensor], classes: int, augment: Augment
    ):
        self.config, self.backgrounds, self.classes = config, backgrounds, classes
        self.augment = augment

    def __call__(self, sample: Sample, seed: int) -> Sample:
        """A sample {"image": (3, S, S), "label": (S, S)}, or a synthesised one in its place."""
        random = np.random.default_rng([seed, 0, 1])  # neither the augmentation's nor the prompts'
        if random.random() < self.config.share and sample["label"].any():
            sample = self.paste(sample, random)
        return self.augment(sample, seed)

    def paste(self, sample: Sample, random: np.random.Generator) -> Sample:
        """The sample's organs, changed, on a changed background."""
        ground = self._ground(random)
        image, soft = self._organs(sample, random)
        alpha = soft.sum(0)  # (S, S)
        edge = alpha * (1 - alpha)
        if edge.any():  # what surrounded the organ gets the brightness of what it comes into
            shift = ((ground - image) * edge).sum((1, 2), keepdim=True) / edge.sum()
            grey = shift.mean()  # a polyp beside a black corner must not come out purple
            image = image + grey + (shift - grey).clamp(-HUE, HUE)
        image = self._toned(image, random)
        picture = (alpha * image + (1 - alpha) * ground).clamp(0, 1).expand(3, -1, -1)
        label = torch.where(alpha > 0.5, 1 + soft.argmax(0), 0)
        return {**sample, "image": picture, "label": label.to(sample["label"].dtype)}

    def _ground(self, random: np.random.Generator) -> Tensor:
        """A changed background (1 or 3, S, S)."""
        image = self.backgrounds[random.integers(len(self.backgrounds))]
        flips = self.classes == 1 and random.random() < 0.5
        image = image.flip(2) if flips else image
        turn, factor, shift = self._drawn(random)
        still = torch.zeros(image.shape[1:])
        moved = move({"image": image, "label": still}, turn, factor, shift, "reflection")["image"]
        return self._toned(moved, random)

    def _organs(self, sample: Sample, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """The moved picture (1 or 3, S, S) and how much of it each label covers (K, S, S)."""
        image, label = distinct(sample["image"])[0], sample["label"]
        if self.classes == 1 and random.random() < 0.5:
            image, label = image.flip(2), label.flip(1)
        turn, factor, shift = self._drawn(random)
        shift = about(label > 0, turn, factor, shift)
        layers = one_hot(label, self.classes + 1).movedim(2, 0)[1:].float()  # (K, S, S)
        layers = move({"image": layers, "label": label}, turn, factor, shift)["image"]
        image = move({"image": image, "label": label}, turn, factor, shift, "reflection")["image"]
        soft = blurred(layers, SOFT * label.shape[1])
        return image, soft * (soft.amax((1, 2), keepdim=True) > 0.5)  # or no label would show it

    def _drawn(self, random: np.random.Generator) -> tuple[float, float, tuple[float, float]]:
        """Radians, factor and shift (down, right)."""
        turn, scale, down, right = random.uniform(-1, 1, 4) * (
            np.deg2rad(self.config.turn),
            self.config.scale,
            self.config.shift,
            self.config.shift,
        )
        return float(turn), 1 + float(scale), (float(down), float(right))

    def _toned(self, image: Tensor, random: np.random.Generator) -> Tensor:
        """Blurred, then brighter or darker, flatter or steeper."""
        image = blurred(image, random.uniform(0, self.config.blur) * image.shape[2])
        gain, bias = random.uniform(-1, 1, 2) * (self.config.gain, self.config.bias)
        middle = image.mean()
        return (image - middle) * (1 + float(gain)) + middle + float(bias)


def about(
    mask: Tensor, turn: float, factor: float, shift: tuple[float, float]
) -> tuple[float, float]:
    """The shift for `move` that turns and enlarges about the middle of a mask (S, S), not of all.

    `move` maps p to F(p - m) + m + shift, with m the middle of the picture; about c instead of m
    that is a further shift by (c - m) - F(c - m).
    """
    size = torch.tensor(mask.shape)
    off = (mask.nonzero().float().mean(0) - (size - 1) / 2) / size
    cos, sin = factor * np.cos(turn), factor * np.sin(turn)
    further = off - torch.tensor([[cos, -sin], [sin, cos]], dtype=off.dtype) @ off
    return shift[0] + further[0].item(), shift[1] + further[1].item()


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Each channel of (C, S, S) blurred by a Gaussian; its standard deviation is in pixels."""
    return torch.from_numpy(gaussian_filter(images.numpy(), (0, sigma, sigma), mode="nearest"))


def backgrounds(samples: Samples | Subset, dataset: DataSet) -> list[Tensor]:
    """Pictures (1 or 3, S, S) without organs, at most `BACKGROUNDS` of each of two kinds.

    The exemplars with their organs filled in; and, where they are slices, those slices of the same
    volumes that show no organ, the nearest first, no more than there are exemplars.

    Raises:
        UserError: the organs cover too much of every exemplar.
    """
    whole: Any = samples
    indices: Sequence[int] = range(len(samples))
    if isinstance(samples, Subset):
        whole, indices = samples.dataset, samples.indices
    indices = indices[:BACKGROUNDS]
    own = [filled(whole[i]["image"], whole[i]["label"] > 0) for i in indices]
    found = [image for image in own if image is not None]
    if dataset.dimensions == 3:
        cases = dict.fromkeys(whole.case(i) for i in indices)
        empty = [pair for case in cases for pair in _empty_slices(dataset, case, whole.size)]
        empty.sort(key=lambda pair: pair[0])  # stable: by distance, then by case
        found += [image for _, image in empty[: len(indices)]]
    if not found:
        raise UserError(
            f"{dataset.name}: the labels cover more than {LARGEST:.0%} of every exemplar, so there "
            "is no background to paste on; use more shots, or set synthesis.share=0."
        )
    return found


def filled(image: Tensor, mask: Tensor) -> Tensor | None:
    """The image (C, S, S) with what a mask (S, S) covers, and a margin, filled in from around.

    The filling is harmonic: each pixel is the mean of its neighbours, solved on a small grid. None
    where that would be more than `LARGEST` of the picture.
    """
    image = distinct(image)[0]
    if not mask.any():
        return image
    size = mask.shape[0]
    margin = max(1, round(MARGIN * size))  # to SciPy, 0 would mean without end
    hole = torch.from_numpy(binary_dilation(mask.numpy(), iterations=margin))
    if hole.float().mean() > LARGEST:
        return None
    square = FILLED_AT, FILLED_AT
    known = (~hole).float()[None, None]
    part = interpolate(known, square, mode="area")[0]  # of each cell, how much is known
    small = interpolate(image * known, square, mode="area")[0] / part.clamp(min=1e-6)
    solved = _harmonic(small.numpy(), (part[0] < 0.5).numpy())[None]
    smooth = interpolate(torch.from_numpy(solved), mask.shape, mode="bilinear")[0]
    return torch.where(hole, smooth, image)


def _harmonic(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The image (C, n, n) with a solution of Laplace's equation where the hole (n, n) is."""
    line = sparse.diags_array([1.0, 1.0], offsets=[-1, 1], shape=hole.shape)
    neighbours = sparse.csr_array(sparse.kronsum(line, line))
    rows, inside = neighbours[hole.ravel()], hole.ravel()
    matrix = sparse.diags_array(rows.sum(1)) - rows[:, inside]
    values = image.reshape(len(image), -1).T.copy()  # (n n, C)
    values[inside] = splu(matrix.tocsc()).solve((rows[:, ~inside] @ values[~inside]).astype(float))
    return values.T.reshape(image.shape)


def _empty_slices(dataset: DataSet, case: Case, size: int) -> Iterator[tuple[int, Tensor]]:
    """Slices (1, S, S) of a volume without a label, and how far the next labelled one is."""
    picture, labels = read_pair(dataset, case)
    shown = labels.reshape(len(labels), -1).any(1)
    for number in np.flatnonzero(~shown):
        image = torch.from_numpy(picture.pixels[number])[None, None]
        small, _ = squeeze(image, torch.zeros(1, *image.shape[2:]), size)
        yield int(np.abs(np.flatnonzero(shown) - number).min()), small[0]
