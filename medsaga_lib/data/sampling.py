"""Which pictures are drawn when modalities are very unequal (LiteMedSAM + LoRA, section 2.1).

In its data 82 % of the pictures are CT and 13 % MR; the nine other modalities share the rest. Drawn
are CT with a probability of .40, MR with .10, and one of the others with .50.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from torch.utils.data import Sampler

from medsaga_lib.errors import UserError

SHARES = {"CT": 0.4, "MR": 0.1}  # section 2.1; what remains is for all others together


class ModalitySampler(Sampler[int]):
    """Indices of pictures, with replacement, drawn first by modality and then evenly within it.

    Seed and epoch decide which; call `set_epoch` before each epoch, as with torch's
    `DistributedSampler`.

    Example: `DataLoader(pictures, 16, sampler=ModalitySampler(modalities, 1600, seed=0))`.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        length: int,
        seed: int,
        shares: Mapping[str, float] = SHARES,
    ):
        """Args are those of `probabilities`, and `length`, the indices that make up an epoch.

        Raises:
            UserError: as `probabilities`; or the length is negative.
        """
        if length < 0:
            raise UserError(f"An epoch has {length} pictures; give a number of at least 0.")
        self.probabilities = probabilities(modalities, shares)
        self.length, self.seed, self.epoch = length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Of the next iteration."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng([self.seed, self.epoch])
        count = len(self.probabilities)
        yield from random.choice(count, self.length, p=self.probabilities).tolist()

    def __len__(self) -> int:
        return self.length


def probabilities(modalities: Sequence[str], shares: Mapping[str, float] = SHARES) -> np.ndarray:
    """With which each picture is drawn, (N,), summing to 1.

    The modalities without a share of their own divide what the shares leave evenly (our reading of
    "randomly choose from the other nine"), however many of them there are. Where a modality with a
    share is missing, or all others are, what is left is scaled up to 1: CT and MR alone are drawn
    with .80 and .20.

    Args:
        modalities: of each of the N pictures.
        shares: of some modalities, together at most 1.

    Raises:
        UserError: no pictures, impossible shares, or shares that leave nothing for what is there.
    """
    counts = Counter(modalities)
    rest = 1 - sum(shares.values())
    if min(shares.values(), default=0) < 0 or rest < -1e-9:
        raise UserError(f"The shares {dict(shares)} must be 0 or more and add up to at most 1.")
    others = [modality for modality in counts if modality not in shares]
    weights = {m: shares.get(m, max(rest, 0) / max(1, len(others))) for m in counts}
    total = sum(weights.values())
    if total == 0:
        present = ", ".join(sorted(counts)) or "no pictures"
        raise UserError(
            f"The shares {dict(shares)} leave nothing to draw of {present}; give one that is there."
        )
    return np.array([weights[m] / counts[m] / total for m in modalities])
