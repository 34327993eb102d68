"""The updates of galore-torch 1.0, reimplemented for comparison only; train with `GaLoreAdamW`.

The updates equal those of the package galore-torch 1.0 (PyPI) up to rounding. They differ from
`GaLoreAdamW` in 4 ways:

- The moments keep their values when the basis changes. They then belong to other directions, and
  the arbitrary signs of an SVD matter.
- eps is added before the bias correction.
- Weight decay acts after the step, on the updated weights.
- Tensors are projected at rank >= min(m, n), too. This is not AdamW, because Adam depends on the
  coordinates.

Unlike the package, this module needs only torch, and no state keeps a larger tensor in memory.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class PublishedGaLoreAdamW(torch.optim.Optimizer):
    """AdamW that projects groups with a `rank` as galore-torch 1.0 does; other groups are dense.

    Projected groups may contain only matrices and may set `refresh` and `scale`. The other
    arguments are those of torch.optim.AdamW; eps is the package's 1e-6.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**options, "rank": None, "refresh": 200, "scale": 0.25})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Update every tensor that has a gradient; return the closure's loss, if any."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for W in group["params"]:
                if W.grad is not None:
                    self._update(group, W, W.grad)
        return loss

    def _update(self, group: dict[str, Any], W: Tensor, G: Tensor) -> None:
        state = self.state[W]
        eta, (beta_1, beta_2) = group["lr"], group["betas"]
        t = int(state.setdefault("step", torch.zeros(())))
        if group["rank"] is not None and t % group["refresh"] == 0:
            state["basis"] = _basis(G, group["rank"])
        R = _project(G, state.get("basis"))
        M = state.setdefault("exp_avg", torch.zeros_like(R).contiguous())
        V = state.setdefault("exp_avg_sq", torch.zeros_like(R).contiguous())

        state["step"] += 1
        t += 1
        M.mul_(beta_1).add_(R, alpha=1 - beta_1)
        V.mul_(beta_2).addcmul_(R, R, value=1 - beta_2)
        N = M / (V.sqrt() + group["eps"])
        step_size = eta * (1 - beta_2**t) ** 0.5 / (1 - beta_1**t)
        if "basis" in state:
            N = group["scale"] * _project_back(N, state["basis"], W.shape)
        W.add_(N, alpha=-step_size)
        W.add_(W, alpha=-eta * group["weight_decay"])


def _basis(G: Tensor, rank: int) -> Tensor:
    """Singular vectors of the shorter side, (side, rank): right ones for a tall or square G.

    G must not be transposed before the SVD, because that may change the signs, which matter here.
    """
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    return (Vh[:rank].T if G.shape[0] >= G.shape[1] else U[:, :rank]).clone()


def _project(G: Tensor, P: Tensor | None) -> Tensor:
    if P is None:
        return G
    return G @ P if G.shape[0] >= G.shape[1] else P.T @ G


def _project_back(N: Tensor, P: Tensor, shape: torch.Size) -> Tensor:
    return N @ P.T if shape[0] >= shape[1] else P @ N
