"""Samples as outputs of the frozen stages of an image encoder, each computed once."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from medsaga_lib.data.transforms import Augment


class Embedded(Dataset[dict[str, Tensor]]):
    """The kept outputs and labels of `copies` copies of each sample.

    An item is {"image": output of the frozen stages, "label": int16 (S, S)}. Copy 0 is the sample
    itself; the others are augmented by `augment`, each with its own seed. Without augmentation
    there is one copy. Item i is copy i // n of sample i % n, for n samples. Everything is computed
    here and kept in memory (`memory.plan.kept_bytes`).

    keep: maps an image (3, S, S) to the output of the frozen stages for it, without batch, on the
        CPU. It is called with one image at a time, so the result depends on nothing else and needs
        the least memory.
    progress: show a progress bar.
    """

    def __init__(
        self,
        samples: Dataset[dict[str, Tensor]],
        keep: Callable[[Tensor], Tensor],
        augment: Augment,
        copies: int = 1,
        seed: int = 0,
        progress: bool = False,
    ) -> None:
        copies = 1 if augment.kind == "none" else copies
        count = len(samples)  # type: ignore[arg-type]
        self._kept: list[dict[str, Tensor]] = []
        hidden = {} if progress else {"disable": True}  # if shown, $TQDM_DISABLE is obeyed
        for item in tqdm(range(copies * count), "kept", unit="image", **hidden):
            copy, index = divmod(item, count)
            sample = samples[index]
            if copy:
                random = np.random.SeedSequence([seed, copy, index]).generate_state(1)[0]
                sample = augment(sample, int(random))
            label = sample["label"].to(torch.int16)
            self._kept.append({"image": keep(sample["image"]), "label": label})

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self._kept[index]
