"""Sampling of images where modalities are very unequal (LiteMedSAM + LoRA, section 2.1).

In the paper's data 82 % of the images are CT and 13 % are MR; 9 other modalities share the rest.
The paper draws CT with a probability of 0.40, MR with 0.10, and one of the others with 0.50.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.utils.data import WeightedRandomSampler

from medsaga_lib.errors import UserError

SHARES = {"CT": 0.4, "MR": 0.1}  # section 2.1; the other modalities share what remains


class ModalitySampler(WeightedRandomSampler):
    """Indices of images, drawn with replacement: first the modality, then evenly within it.

    Each pass draws anew from a generator that the seed starts, so two samplers of one seed draw
    the same passes in the same order.

    Example: `DataLoader(images, 16, sampler=ModalitySampler(modalities, 1600, seed=0))`.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        length: int,
        seed: int,
        shares: Mapping[str, float] = SHARES,
    ):
        """Set up the sampler.

        Args:
            modalities, shares: as in `probabilities`.
            length: number of indices in one pass.
            seed: of the generator.

        Raises:
            UserError: as in `probabilities`, or the length is below 1.
        """
        if length < 1:
            raise UserError(f"A pass draws {length} images; give a number of at least 1.")
        weights = probabilities(modalities, shares).tolist()
        super().__init__(weights, length, generator=torch.Generator().manual_seed(seed))


def probabilities(modalities: Sequence[str], shares: Mapping[str, float] = SHARES) -> np.ndarray:
    """Probability of each image to be drawn, (N,), summing to 1.

    Modalities without a share of their own divide the remaining share evenly, however many they
    are (our reading of "randomly choose from the other nine"). If a modality with a share is
    absent, or all the others are, the rest is scaled up to 1: CT and MR alone are drawn with 0.80
    and 0.20.

    Args:
        modalities: the modality of each of the N images.
        shares: probabilities of some modalities, together at most 1.

    Raises:
        UserError: there are no images, a share is negative, the shares exceed 1, or no modality
            that is present has a share.
    """
    counts = Counter(modalities)
    if not counts:
        raise UserError("There are no images to sample from; give the modality of at least one.")
    rest = 1 - sum(shares.values())
    if min(shares.values(), default=0) < 0 or rest < -1e-9:
        raise UserError(f"The shares {dict(shares)} must be 0 or more and add up to at most 1.")
    others = [modality for modality in counts if modality not in shares]
    weights = {m: shares.get(m, max(rest, 0) / max(1, len(others))) for m in counts}
    total = sum(weights.values())
    if total == 0:
        raise UserError(
            f"The shares {dict(shares)} give {', '.join(sorted(counts))} a probability of 0; "
            "give a share to a modality that is present."
        )
    return np.array([weights[m] / counts[m] / total for m in modalities])
