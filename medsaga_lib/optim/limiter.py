"""Norm-growth limiter: an update grows by at most 1 % per step (Fira, arXiv 2410.01623, 4.3)."""

import torch
from torch import Tensor

GROWTH = 1.01  # gamma; Fira, section 4.3, and APOLLO's code


def limited(update: Tensor, state: dict[str, Tensor]) -> Tensor:
    """Shorten `update` to at most `GROWTH` times the norm of the previous update.

    `state["length"]`, a scalar, holds that norm; the first update is not changed.
    """
    length = torch.linalg.vector_norm(update)
    if "length" in state:
        longest = GROWTH * state["length"].to(length.device)
        # a previous update of zero sets no limit
        factor = torch.where((length > longest) & (longest > 0), longest / length, 1.0)
        update, length = update * factor, length * factor
    state["length"] = length
    return update
