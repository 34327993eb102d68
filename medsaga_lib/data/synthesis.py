"""Exemplar-guided synthesis: organs are cut out of labelled images and pasted on backgrounds.

Cheap Lunch (Feng et al. 2023, arXiv 2308.14133) changes the blur, intensity, scale, flip and
rotation of the organ and of the background. It gives no numbers: every number here is our choice.

A background must not show an organ, because the new label map would call this organ background.
An unlabelled image may show one, so unlabelled images are not used. The backgrounds are the
exemplars with their organs filled in, and the slices of their volumes that show no organ.
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

from medsaga_lib.data.cases import read_pair
from medsaga_lib.data.dataset import Case, DataSet
from medsaga_lib.data.samples import Place, Samples
from medsaga_lib.data.transforms import Augment, Sample, distinct, move
from medsaga_lib.errors import UserError

BACKGROUNDS = 64  # largest number of each kind, to limit the memory
SOFT = 1 / 128  # standard deviation of the blur of a pasted edge, in image widths
MARGIN = 1 / 50  # margin that is filled in around an organ, in image widths
LARGEST = 0.6  # largest share of an image that is filled in; the lungs of an X-ray reach 0.58
HUE = 0.08  # largest colour shift of a pasted organ: channel minus mean, in the range [0, 1]
FILLED_AT = 64  # pixels along one side of the grid on which the smooth filling is solved


@dataclass(frozen=True)
class Synthesis:
    """The ranges in which a synthesised sample differs from its exemplar; 0 means no change."""

    share: float = 0.5  # share of the training samples that are synthesised
    turn: float = 15.0  # rotation in degrees of the organs about their centre and of the background
    scale: float = 0.2  # relative size
    shift: float = 0.06  # of the organs and of the background, in image widths
    gain: float = 0.15  # relative contrast
    bias: float = 0.05  # brightness, in the range [0, 1]
    blur: float = 1 / 256  # largest standard deviation, in image widths


class Pasting:
    """Turns an exemplar into a synthesised sample; the result depends on the seed alone.

    All organs of an exemplar move together, so that neighbours stay neighbours. They are pasted
    where the exemplar has them, up to `Synthesis.shift`. Only data sets with one label are flipped,
    because several labels may include left and right. An organ that is cut off by the image border
    stays cut off.

    Args:
        config: the ranges.
        backgrounds: images (1 or 3, S, S) in [0, 1] without organs.
        classes: number of foreground labels, numbered from 1.
        augment: the augmentation of every sample, synthesised or not.
    """

    def __init__(
        self, config: Synthesis, backgrounds: list[Tensor], classes: int, augment: Augment
    ):
        self.config, self.backgrounds, self.classes = config, backgrounds, classes
        self.augment = augment

    def __call__(self, sample: Sample, seed: int) -> Sample:
        """Augment a sample {"image": (3, S, S), "label": (S, S)}, or a synthesised one instead."""
        random = np.random.default_rng([seed, 0, 1])  # independent of `augment`
        if random.random() < self.config.share and sample["label"].any():
            sample = self.paste(sample, random)
        return self.augment(sample, seed)

    def paste(self, sample: Sample, random: np.random.Generator) -> Sample:
        """Paste the changed organs of a sample on a changed background."""
        ground = self._ground(random)
        image, soft = self._organs(sample, random)
        alpha = soft.sum(0)  # (S, S)
        edge = alpha * (1 - alpha)
        if edge.any():  # match the background's brightness at the edge
            shift = ((ground - image) * edge).sum((1, 2), keepdim=True) / edge.sum()
            grey = shift.mean()  # `HUE` keeps a polyp near a black corner from turning purple
            image = image + grey + (shift - grey).clamp(-HUE, HUE)
        image = self._toned(image, random)
        picture = (alpha * image + (1 - alpha) * ground).clamp(0, 1).expand(3, -1, -1)
        label = torch.where(alpha > 0.5, 1 + soft.argmax(0), 0)
        return {**sample, "image": picture, "label": label.to(sample["label"].dtype)}

    def _ground(self, random: np.random.Generator) -> Tensor:
        """Draw a background and change it: (1 or 3, S, S)."""
        image = self.backgrounds[random.integers(len(self.backgrounds))]
        flips = self.classes == 1 and random.random() < 0.5
        image = image.flip(2) if flips else image
        turn, factor, shift = self._drawn(random)
        still = torch.zeros(image.shape[1:])
        moved = move({"image": image, "label": still}, turn, factor, shift, "reflection")["image"]
        return self._toned(moved, random)

    def _organs(self, sample: Sample, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return the moved image (1 or 3, S, S) and the coverage of each label (K, S, S)."""
        image, label = distinct(sample["image"])[0], sample["label"]
        if self.classes == 1 and random.random() < 0.5:
            image, label = image.flip(2), label.flip(1)
        turn, factor, shift = self._drawn(random)
        shift = about(label > 0, turn, factor, shift)
        layers = one_hot(label, self.classes + 1).movedim(2, 0)[1:].float()  # (K, S, S)
        layers = move({"image": layers, "label": label}, turn, factor, shift)["image"]
        image = move({"image": image, "label": label}, turn, factor, shift, "reflection")["image"]
        soft = blurred(layers, SOFT * label.shape[1])
        # Without the organs that are too small to appear in the label map
        return image, soft * (soft.amax((1, 2), keepdim=True) > 0.5)

    def _drawn(self, random: np.random.Generator) -> tuple[float, float, tuple[float, float]]:
        """Draw an angle in radians, a scale factor and a shift (down, right)."""
        turn, scale, down, right = random.uniform(-1, 1, 4) * (
            np.deg2rad(self.config.turn),
            self.config.scale,
            self.config.shift,
            self.config.shift,
        )
        return float(turn), 1 + float(scale), (float(down), float(right))

    def _toned(self, image: Tensor, random: np.random.Generator) -> Tensor:
        """Blur an image, then change its brightness and contrast."""
        image = blurred(image, random.uniform(0, self.config.blur) * image.shape[2])
        gain, bias = random.uniform(-1, 1, 2) * (self.config.gain, self.config.bias)
        middle = image.mean()
        return (image - middle) * (1 + float(gain)) + middle + float(bias)


def about(
    mask: Tensor, turn: float, factor: float, shift: tuple[float, float]
) -> tuple[float, float]:
    """Return the shift with which `move` turns and scales about the centre of a mask (S, S).

    `move` maps p to F(p - m) + m + shift, where m is the centre of the image. To turn and scale
    about c instead of m, the shift grows by (c - m) - F(c - m).
    """
    size = torch.tensor(mask.shape)
    off = (mask.nonzero().float().mean(0) - (size - 1) / 2) / size
    cos, sin = factor * np.cos(turn), factor * np.sin(turn)
    further = off - torch.tensor([[cos, -sin], [sin, cos]], dtype=off.dtype) @ off
    return shift[0] + further[0].item(), shift[1] + further[1].item()


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Blur each channel of (C, S, S) by a Gaussian with standard deviation `sigma` in pixels."""
    return torch.from_numpy(gaussian_filter(images.numpy(), (0, sigma, sigma), mode="nearest"))


def backgrounds(samples: Samples | Subset, dataset: DataSet) -> list[Tensor]:
    """Return images (1 or 3, S, S) without organs, at most `BACKGROUNDS` of each of two kinds.

    The first kind is the exemplars with their organs filled in. The second kind is slices without
    an organ, if the exemplars are slices: they come from the same volumes, those nearest to a
    labelled slice first, and there are at most as many as exemplars.

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
        empty = [
            pair for case in cases for pair in _empty_slices(dataset, case, whole.size, whole.place)
        ]
        empty.sort(key=lambda pair: pair[0])  # stable, so by distance, then by case
        found += [image for _, image in empty[: len(indices)]]
    if not found:
        raise UserError(
            f"{dataset.name}: the labels cover more than {LARGEST:.0%} of every exemplar, so there "
            "is no background; use more shots, or set synthesis.share=0."
        )
    return found


def filled(image: Tensor, mask: Tensor) -> Tensor | None:
    """Fill in the part of an image (C, S, S) under a mask (S, S) and a margin, or return None.

    The filling is harmonic: each pixel is the mean of its neighbours, solved on a small grid. The
    result is None if the part is more than `LARGEST` of the image.
    """
    image = distinct(image)[0]
    if not mask.any():
        return image
    size = mask.shape[0]
    margin = max(1, round(MARGIN * size))  # SciPy dilates without end for 0
    hole = torch.from_numpy(binary_dilation(mask.numpy(), iterations=margin))
    if hole.float().mean() > LARGEST:
        return None
    square = FILLED_AT, FILLED_AT
    known = (~hole).float()[None, None]
    part = interpolate(known, square, mode="area")[0]  # the known share of each cell
    small = interpolate(image * known, square, mode="area")[0] / part.clamp(min=1e-6)
    solved = _harmonic(small.numpy(), (part[0] < 0.5).numpy())[None]
    smooth = interpolate(torch.from_numpy(solved), mask.shape, mode="bilinear")[0]
    return torch.where(hole, smooth, image)


def _harmonic(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Fill the hole (n, n) of an image (C, n, n) with a solution of Laplace's equation."""
    line = sparse.diags_array([1.0, 1.0], offsets=[-1, 1], shape=hole.shape)
    neighbours = sparse.csr_array(sparse.kronsum(line, line))
    rows, inside = neighbours[hole.ravel()], hole.ravel()
    matrix = sparse.diags_array(rows.sum(1)) - rows[:, inside]
    values = image.reshape(len(image), -1).T.copy()  # (n n, C)
    values[inside] = splu(matrix.tocsc()).solve((rows[:, ~inside] @ values[~inside]).astype(float))
    return values.T.reshape(image.shape)


def _empty_slices(
    dataset: DataSet, case: Case, size: int, place: Place
) -> Iterator[tuple[int, Tensor]]:
    """Yield the unlabelled slices (1, S, S) of a volume and the distance to a labelled slice."""
    picture, labels = read_pair(dataset, case)
    shown = labels.reshape(len(labels), -1).any(1)
    for number in np.flatnonzero(~shown):
        image = torch.from_numpy(picture.pixels[number])[None, None]
        small, _ = place(image, torch.zeros(1, *image.shape[2:]), size)
        yield int(np.abs(np.flatnonzero(shown) - number).min()), small[0]
