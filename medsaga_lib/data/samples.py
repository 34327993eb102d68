"""Square 2-D training samples from the cases of a data set.

Each backbone has its own way to place an image in the square; see `models.feeding`. The default is
that of SAMed: every slice is resized to the input size, and its aspect ratio is not kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset

from medsaga_lib.data.cases import read_pair
from medsaga_lib.data.dataset import INDEX, Case, DataSet
from medsaga_lib.data.domain import Traits, traits_of
from medsaga_lib.data.problems import BadFile

# Places images (N, 1 or 3, h, w) in [0, 1] and labels (N, h, w) in squares of the given size
Place = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
CACHE_BYTES = 4 << 30  # our choice; cases beyond this limit are decoded again each time


@dataclass(frozen=True)
class _Slices:
    """The labelled 2-D images of a case, (N, C, h, w) float32 with C = 1 or 3; labels (N, h, w).

    `numbers` are the slice numbers in the volume, or [None] for an image. `placed` is true if the
    images are already squares of the input size.
    """

    images: Tensor
    labels: Tensor
    numbers: list[int] | list[None]
    placed: bool

    @property
    def bytes(self) -> int:
        return self.images.nbytes + self.labels.nbytes


class Samples(Dataset[dict[str, Tensor]]):
    """Labelled 2-D samples: {"image": float32 (3, size, size), "label": int64 (size, size)}.

    Labels are the classes 1 ... K in the order of the label values of the data set. An image is one
    sample; a volume gives one sample for each slice that shows a label. Decoded cases stay in
    memory, up to `CACHE_BYTES`. The constructor reads all images and masks once.

    size: pixels along one side. place: places images in the square; default: `squeeze`.
    `traits` has those of the image of each case.

    Raises:
        UserError: a file cannot be used, the label values differ from case to case, or the cases
            have no labelled image.
    """

    def __init__(
        self, dataset: DataSet, cases: Sequence[Case], size: int, place: Place | None = None
    ) -> None:
        dataset.require_labels()
        self.dataset, self.size, self.place = dataset, size, place or squeeze
        self.traits: dict[Case, Traits] = {}
        self._cached_bytes = 0
        self._cache: dict[Case, _Slices] = {}
        self._places = [
            (case, place, number)
            for case in cases
            for place, number in enumerate(self._slices(case).numbers)
        ]
        if not self._places:
            what = f"gives no labelled image for the {len(cases)} chosen cases"
            raise BadFile(dataset.root / INDEX, what, "name their masks, or choose another split.")

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        case, place, _ = self._places[index]
        slices = self._slices(case)
        image, label = slices.images[[place]], slices.labels[[place]]
        if not slices.placed:
            image, label = self.place(image, label, self.size)
        return {"image": image[0].expand(3, -1, -1), "label": label[0].long()}

    def key(self, index: int) -> str:
        """Return the name of the sample: the case, and the slice number if the case is a volume."""
        case, _, number = self._places[index]
        return case.name if number is None else f"{case.name}/{number:03d}"

    def case(self, index: int) -> Case:
        """Return the case of the sample."""
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
        if (traits := traits_of(picture)) is not None:
            self.traits[case] = traits
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
        large = labels.shape[-2] * labels.shape[-1] > self.size**2
        if large and len(images):  # squares take less memory here
            images, labels = self.place(images, labels, self.size)
        return _Slices(images, labels, numbers, placed=large)


def squeeze(images: Tensor, labels: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Resize images (N, C, h, w) and labels (N, h, w) to squares; the aspect ratio is not kept."""
    square = (size, size)
    return resize_images(images, square), resize_labels(labels, square)


def resize_images(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize images (N, C, h, w) to (height, width) by antialiased bilinear interpolation."""
    if images.shape[-2:] == size or not len(images):
        return images
    return interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)


def resize_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize labels (N, h, w) to (height, width) by the nearest pixel."""
    if labels.shape[-2:] == size or not len(labels):
        return labels
    nearest = interpolate(labels.unsqueeze(1).float(), size, mode="nearest-exact")
    return nearest.squeeze(1).to(labels.dtype)
