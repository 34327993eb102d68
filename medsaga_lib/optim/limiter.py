"""Norm-growth limiter: an update grows by at most one per cent a step (Fira, 2410.01623, 4.3)."""

import torch
from torch import Tensor

GROWTH = 1.01  # gamma; Fira, section 4.3, and APOLLO's code


def limited(update: Tensor, state: dict[str, Tensor]) -> Tensor:
    """`update`, shortened where it is longer than `GROWTH` times the last one was.

    `state["length"]`, a number, remembers that; the first update passes as it is.
    """
    length = torch.linalg.vector_norm(update)
    if "length" in state:
        longest = GROWTH * state["length"].to(length.device)
        # a last update of zero says nothing about this one
        factor = torch.where((length > longest) & (longest > 0), longest / length, 1.0)
        update, length = update * factor, length * factor
    state["length"] = length
    return update
