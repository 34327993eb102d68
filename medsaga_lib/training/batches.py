"""Batches of augmented samples, determined by (seed, step, place) alone."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from medsaga_lib.data.prompts import Prompts
from medsaga_lib.data.transforms import Sample

GPU_WORKERS = 4  # our choice; on a CPU the cores are busy with the network


class Batches(Dataset[tuple[Tensor, ...]]):
    """The augmented samples of all steps: item (s, j) is the sample at place j of step s.

    An item is an image (3, S, S) and a label (S, S), followed by the prompts (coordinates and
    roles) that `ask` draws from the augmented label. Each epoch visits all samples in an order of
    its own; a batch may span two epochs.
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
    """Yield this process's share of every pass, `accumulate` passes per step, on its device."""
    share = range(accelerator.process_index, batches.batch, accelerator.num_processes)
    parts = [list(share)[i::accumulate] for i in range(accumulate)]
    on_gpu = accelerator.device.type == "cuda"
    loader = DataLoader(
        batches,
        batch_sampler=[[(step, place) for place in part] for step in steps for part in parts],
        num_workers=GPU_WORKERS if on_gpu else 0,
        pin_memory=on_gpu,
        generator=torch.Generator(),  # otherwise the loader draws from the global one
    )
    for tensors in loader:
        yield tuple(tensor.to(accelerator.device) for tensor in tensors)
