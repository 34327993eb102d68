"""Chooses the labelled images that a few-shot run trains on."""

import math
from collections.abc import Sequence
from fractions import Fraction

from torch.utils.data import Subset

from medsaga_lib.data.cases import read_case_mask
from medsaga_lib.data.dataset import Case, DataSet
from medsaga_lib.data.domain import Domain
from medsaga_lib.data.samples import Place, Samples, squeeze
from medsaga_lib.data.splits import few_shot
from medsaga_lib.errors import UserError


def count_shots(dataset: DataSet, text: str) -> int:
    """Return the number of labelled training images, or slices of volumes, for "32" or "1%".

    A share is rounded up, so that the number is never 0.

    Raises:
        UserError: the text is neither a whole number from 1 nor a share up to 100 %.
    """
    number = text.strip().removesuffix("%")
    try:
        count = float(number) if "%" in text else int(number)
    except ValueError:
        count = 0
    if not 0 < count <= (100 if "%" in text else math.inf):
        raise UserError(
            f"--shots {text} is not a number of images; write 32, or a share such as 1%."
        )
    if "%" not in text:
        return int(count)
    cases = labelled(dataset)
    total = len(cases)
    if dataset.dimensions == 3:  # a slice without a label is not a sample
        total = sum(
            int(read_case_mask(dataset, case).values.any(axis=(1, 2)).sum()) for case in cases
        )
    return math.ceil(Fraction(number) * total / 100)


def labelled(dataset: DataSet) -> list[Case]:
    """Return the training cases that have a mask."""
    return [case for case in dataset.split("train") if case.mask is not None]


def choose_shots(
    dataset: DataSet, shots: int, size: int, seed: int, place: Place = squeeze
) -> Samples | Subset:
    """Choose `shots` labelled images of the training split, or as many slices of its volumes.

    size, place: as in `Samples`.

    Raises:
        UserError: the split has fewer labelled images or slices, or one of them cannot be used.
    """
    cases = labelled(dataset)
    if dataset.dimensions == 2:
        return Samples(dataset, few_shot(cases, shots, seed), size, place)
    samples = Samples(dataset, cases, size, place)
    return Subset(samples, few_shot(range(len(samples)), shots, seed, name=samples.key))


def sample_names(samples: Samples | Subset) -> list[str]:
    """Return the names of all samples, in order."""
    whole, indices = _indices(samples)
    return [whole.key(i) for i in indices]


def domain_of(samples: Samples | Subset) -> Domain | None:
    """Return what the images are like that samples belong to."""
    whole, indices = _indices(samples)
    cases = dict.fromkeys(whole.case(i) for i in indices)
    return Domain.of(whole.traits[case] for case in cases if case in whole.traits)


def _indices(samples: Samples | Subset) -> tuple[Samples, Sequence[int]]:
    if isinstance(samples, Subset):
        return samples.dataset, samples.indices  # type: ignore[return-value]
    return samples, range(len(samples))
