"""What the masks of a scene become for the network, whose logits are a quarter of its size."""

import numpy as np

REDUCTION = 4  # input pixels along one side of a logit, a cell


def borders(labels: np.ndarray) -> np.ndarray:
    """(S, S) bool: pixels whose left or upper neighbour has another label."""
    differs = np.zeros(labels.shape, bool)
    differs[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    differs[1:] |= labels[1:] != labels[:-1]
    return differs


def coverage(mask: np.ndarray) -> np.ndarray:
    """(S/4, S/4) float32: which part of each cell of 4 x 4 pixels the mask (S, S) covers."""
    cells = len(mask) // REDUCTION
    return mask.reshape(cells, REDUCTION, cells, REDUCTION).mean(axis=(1, 3), dtype=np.float32)
