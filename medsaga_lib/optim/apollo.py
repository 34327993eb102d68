"""APOLLO: the gradient itself, scaled as Adam would in a random subspace (arXiv 2412.05270).

    R_t = P^T G_t,   P random      N_t = Adam(R_t)      W_t = W_{t-1} - eta alpha G_t diag(s_t)
    s_t[j] = |N_t[:, j]| / |R_t[:, j]|                                       (algorithm 1)

The subspace serves only to learn how long each column's step should be, and for lengths random
directions will do. So there is no SVD, and the basis is drawn again from its seed in every step
instead of being kept.
"""

from typing import Any

import torch
from torch import Tensor

from medsaga_lib.optim.fira import column_scale
from medsaga_lib.optim.galore import GaLoreAdamW, Step, new_moments
from medsaga_lib.optim.limiter import limited
from medsaga_lib.optim.subspace import refresh_seed


class ApolloAdamW(GaLoreAdamW):
    """GaLoreAdamW's arguments; `subspace`, `moments` and `stagger` have no meaning here.

    States are two moments of (r, n) and a length; the moments keep their numbers when the basis is
    drawn anew after `refresh` steps, as in the paper's code.
    """

    keeps_basis = False

    def _project(
        self, index: int, group: dict[str, Any], W: Tensor, G: Tensor
    ) -> tuple[Tensor, Tensor]:
        state = self.state[W]
        period = int(state["step"]) // group["refresh"] if state else 0
        seed = refresh_seed(group["seed"], period, index)
        generator = torch.Generator().manual_seed(seed)
        P = torch.randn(G.shape[0], group["rank"], generator=generator).to(G) / group["rank"] ** 0.5
        R = P.T @ G
        if not state:
            state.update(new_moments(torch.zeros_like(R)))
        return P, R

    def _move(self, W: Tensor, step: Step) -> None:
        scaled = step.G * column_scale(step.N, step.R)
        W.mul_(step.keep).sub_(limited(scaled, step.state), alpha=step.rate)
