"""Cases as the square 2-D samples that a network is trained on, squeezed as SAMed does.

SAMed (hitachinsk/SAMed) zooms every slice to its input size without keeping the aspect ratio.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset

from medsaga_lib.data.folder import INDEX, Case, DataSet
from medsaga_lib.data.images import read_pair
from medsaga_lib.data.problems import BadFile

CACHE_BYTES = 4 << 30  # our choice: what is decoded beyond this is read again each time


@dataclass(frozen=True)
class _Slices:
    """The labelled 2-D images of a case, (N, C, h, w) float32 with C = 1 or 3; labels (N, h, w).

    `numbers` are their places in the volume, or [None] for a picture.
    """

    images: Tensor
    labels: Tensor
    numbers: list[int] | list[None]

    @property
    def bytes(self) -> int:
        return self.images.nbytes + self.labels.nbytes


class Samples(Dataset[dict[str, Tensor]]):
    """Labelled 2-D samples: {"image": float32 (3, size, size), "label": int64 (size, size)}.

    Labels are classes 1 ... K, in the order of the data set's label values, whatever these are.
    A picture is one sample; a volume gives one for each slice that has a label. Decoded cases are
    kept in memory, up to `CACHE_BYTES`. All masks are read once, at the start.

    Raises:
        UserError: a file cannot be used, the labels differ per case, or no labelled image is left.
    """

    def __init__(self, dataset: DataSet, cases: Sequence[Case], size: int) -> None:
        dataset.require_labels()
        self.dataset, self.size = dataset, size
        self._cached_bytes = 0
        self._cache: dict[Case, _Slices] = {}
        self._places = [
            (case, place, number)
            for case in cases
            for place, number in enumerate(self._slices(case).numbers)
        ]
        if not self._places:
            what = f"gives no labelled image among the {len(cases)} cases asked for"
            raise BadFile(dataset.root / INDEX, what, "name masks, or choose another split.")

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        case, place, _ = self._places[index]
        slices = self._slices(case)
        image, label = squeeze(slices.images[[place]], slices.labels[[place]], self.size)
        return {"image": image[0].expand(3, -1, -1), "label": label[0].long()}

    def key(self, index: int) -> str:
        """The sample's name: the case's, with the number of the slice where it is a volume."""
        case, _, number = self._places[index]
        return case.name if number is None else f"{case.name}/{number:03d}"

    def case(self, index: int) -> Case:
        """The case that the sample is from."""
        return self._places[index][0]

    def _slices(self, case: Case) -> _Slices:
        if case in self._cache:
            return self._cache[case]
        slices = self._decode(case)
        if self._cached_bytes + slices.bytes <= CACHE_BYTES:
            self._cache[case] = slices
            self._cached_bytes += slices.bytes
        return slices

    def _decode(self, case: Case) -> _Slices:
        picture, mask = read_pair(self.dataset, case)
        values = [0, *sorted(self.dataset.labels)]
        if values != list(range(len(values))):
            mask = np.searchsorted(values, mask)
        pixels, labels = torch.from_numpy(picture.pixels), torch.from_numpy(mask)
        if labels.max() <= torch.iinfo(torch.uint8).max:
            labels = labels.to(torch.uint8)
        if labels.ndim == 3:
            numbers = labels.flatten(1).any(1).nonzero().flatten().tolist()
            images, labels = pixels[numbers].unsqueeze(1), labels[numbers]
        else:
            numbers = [None]
            images = pixels.movedim(-1, 0) if pixels.ndim == 3 else pixels.unsqueeze(0)
            images, labels = images.unsqueeze(0), labels.unsqueeze(0)
        if labels.shape[-2] * labels.shape[-1] > self.size**2:  # keep what takes less memory
            images, labels = squeeze(images, labels, self.size)
        return _Slices(images, labels, numbers)


def squeeze(images: Tensor, labels: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Images (N, C, h, w) by antialiased bilinear, labels (N, h, w) by nearest, to size x size."""
    square = (size, size)
    if images.shape[-2:] == square or not len(images):
        return images, labels
    small = interpolate(images, square, mode="bilinear", align_corners=False, antialias=True)
    nearest = interpolate(labels.unsqueeze(1).float(), square, mode="nearest-exact")
    return small, nearest.squeeze(1).to(labels.dtype)
