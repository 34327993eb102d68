"""Fira: GaLore that also uses what the subspace leaves out of the gradient (arXiv 2410.01623).

    W_t = W_{t-1} - eta alpha (P N_t + phi (G_t - P R_t)),    phi_j = |N_t[:, j]| / |R_t[:, j]|

The rest G - P R has no moments. Each of its columns is scaled as Adam scaled the same column inside
the subspace (section 4.2), and a limiter keeps it from growing suddenly (section 4.3).
"""

import torch
from torch import Tensor

from medsaga_lib.optim.galore import GaLoreAdamW, Step
from medsaga_lib.optim.limiter import limited

TINY = 1e-8  # beside a norm in a denominator; Fira's code


class FiraAdamW(GaLoreAdamW):
    """GaLoreAdamW's arguments and states, and one number more for each projected tensor."""

    def _move(self, W: Tensor, step: Step) -> None:
        rest = (step.G - step.P @ step.R) * column_scale(step.N, step.R)
        super()._move(W, step)
        W.add_(limited(rest, step.state), alpha=-step.rate)


def column_scale(N: Tensor, R: Tensor) -> Tensor:
    """|N[:, j]| / |R[:, j]| of each column j, (n,): how Adam scaled that column of R (r, n)."""
    return torch.linalg.vector_norm(N, dim=0) / (torch.linalg.vector_norm(R, dim=0) + TINY)
