"""APOLLO: the gradient, scaled as Adam scales it in a random subspace (arXiv 2412.05270).

    R_t = P^T G_t,   P random      N_t = Adam(R_t)      W_t = W_{t-1} - eta alpha G_t diag(s_t)
    s_t[j] = |N_t[:, j]| / |R_t[:, j]|                                       (algorithm 1)

The subspace determines only the length of each column's step, and random directions preserve
lengths approximately. So there is no SVD, and the basis is not stored but drawn again from its seed
in every step.
"""

from typing import Any

import torch
from torch import Tensor

from medsaga_lib.optim.fira import column_scale
from medsaga_lib.optim.galore import GaLoreAdamW, Step, new_moments
from medsaga_lib.optim.limiter import limited
from medsaga_lib.optim.subspace import refresh_seed


class ApolloAdamW(GaLoreAdamW):
    """APOLLO with AdamW.

    Arguments are those of GaLoreAdamW; `subspace`, `moments` and `stagger` have no effect. The
    states of a projected tensor are 2 moments (r, n) and a scalar length. The basis changes every
    `refresh` steps, and the moments then keep their values, as in the paper's code.
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
