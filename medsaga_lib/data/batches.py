"""Which samples make up a batch and how each is changed: functions of (seed, step, place)."""

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from medsaga_lib.data.folder import Case, DataSet
from medsaga_lib.data.images import read_case_mask
from medsaga_lib.data.prompts import Prompts
from medsaga_lib.data.samples import Samples
from medsaga_lib.data.splits import few_shot
from medsaga_lib.data.transforms import Sample
from medsaga_lib.errors import UserError

GPU_WORKERS = 4  # our choice; on a CPU the cores are busy with the network


def count_shots(dataset: DataSet, text: str) -> int:
    """The number of labelled training images that "32" or "1%" means; of volumes, of slices.

    A share is rounded up, so that it is never nothing.

    Raises:
        UserError: the text is neither a whole number from 1 nor a share up to 100 %.
    """
    number = text.strip().removesuffix("%")
    try:
        count = float(number) if "%" in text else int(number)
    except ValueError:
        count = 0
    if not 0 < count <= (100 if "%" in text else math.inf):
        raise UserError(f"--shots {text} is no number of images; write 32, or a share as 1%.")
    if "%" not in text:
        return int(count)
    cases = labelled(dataset)
    total = len(cases)
    if dataset.dimensions == 3:  # slices without a label are no samples
        total = sum(int(read_case_mask(case).values.any(axis=(1, 2)).sum()) for case in cases)
    return math.ceil(Fraction(number) * total / 100)


def labelled(dataset: DataSet) -> list[Case]:
    """The training cases that have a mask."""
    return [case for case in dataset.split("train") if case.mask is not None]


def choose_shots(dataset: DataSet, shots: int, size: int, seed: int) -> Samples | Subset:
    """`shots` labelled images of the training split, or as many slices where it holds volumes.

    Raises:
        UserError: there are fewer, or one cannot be used.
    """
    cases = labelled(dataset)
    if dataset.dimensions == 2:
        return Samples(dataset, few_shot(cases, shots, seed), size)
    samples = Samples(dataset, cases, size)
    return Subset(samples, few_shot(range(len(samples)), shots, seed, name=samples.key))


def sample_names(samples: Samples | Subset) -> list[str]:
    """The names of all samples, in order."""
    if isinstance(samples, Subset):
        return [samples.dataset.key(i) for i in samples.indices]  # type: ignore[attr-defined]
    return [samples.key(i) for i in range(len(samples))]


class Batches(Dataset[tuple[Tensor, ...]]):
    """The sample at place j of step s, changed: image (3, S, S) and label (S, S).

    Behind them come the prompts (coordinates and roles) that `ask` draws from the changed label.
    Each epoch runs through all samples in an order of its own; a batch may span two epochs.
    """

    def __init__(
        self,
        samples: Dataset,
        batch: int,
        augment: Callable[[Sample, int], Sample],
        seed: int,
        ask: Callable[[np.ndarray, int], Prompts] | None = None,
    ):
        self.samples, self.batch, self.augment, self.seed = samples, batch, augment, seed
        self.ask = ask

    def __getitem__(self, step_and_place: tuple[int, int]) -> tuple[Tensor, ...]:
        step, place = step_and_place
        count = len(self.samples)  # type: ignore[arg-type]
        epoch, position = divmod(step * self.batch + place, count)
        order = np.random.default_rng([self.seed, epoch]).permutation(count)
        random = int(np.random.SeedSequence([self.seed, step, place]).generate_state(1)[0])
        sample = self.augment(self.samples[int(order[position])], random)
        prompts = () if self.ask is None else self.ask(sample["label"].numpy(), random)
        return sample["image"], sample["label"], *prompts


def passes(
    batches: Batches, steps: range, accelerator: Any, accumulate: int
) -> Iterator[tuple[Tensor, ...]]:
    """This process's share of every pass of `steps`, `accumulate` passes a step, on its device."""
    share = range(accelerator.process_index, batches.batch, accelerator.num_processes)
    parts = [list(share)[i::accumulate] for i in range(accumulate)]
    on_gpu = accelerator.device.type == "cuda"
    loader = DataLoader(
        batches,
        batch_sampler=[[(step, place) for place in part] for step in steps for part in parts],
        num_workers=GPU_WORKERS if on_gpu else 0,
        pin_memory=on_gpu,
        generator=torch.Generator(),  # or the loader draws from the global one
    )
    for tensors in loader:
        yield tuple(tensor.to(accelerator.device) for tensor in tensors)
