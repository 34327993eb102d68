"""Fira: GaLore that also uses the part of the gradient outside the subspace (arXiv 2410.01623).

    W_t = W_{t-1} - eta alpha (P N_t + phi (G_t - P R_t)),    phi_j = |N_t[:, j]| / |R_t[:, j]|

The remainder G - P R has no moments. Each of its columns is scaled as Adam scales the same column
inside the subspace (section 4.2), and a limiter prevents sudden growth (section 4.3).
"""

import torch
from torch import Tensor

from medsaga_lib.optim.galore import GaLoreAdamW, Step
from medsaga_lib.optim.limiter import limited

TINY = 1e-8  # added to a norm in a denominator; Fira's code


class FiraAdamW(GaLoreAdamW):
    """Fira with AdamW.

    Arguments and states are those of GaLoreAdamW, with one more scalar for each projected tensor.
    """

    def _move(self, W: Tensor, step: Step) -> None:
        remainder = (step.G - step.P @ step.R) * column_scale(step.N, step.R)
        super()._move(W, step)
        W.add_(limited(remainder, step.state), alpha=-step.rate)


def column_scale(N: Tensor, R: Tensor) -> Tensor:
    """Factor |N[:, j]| / |R[:, j]| by which Adam scales each column j of R (r, n), shape (n,)."""
    return torch.linalg.vector_norm(N, dim=0) / (torch.linalg.vector_norm(R, dim=0) + TINY)
