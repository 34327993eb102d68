"""What galore-torch 1.0 computes, written anew for comparison: not the optimizer to train with.

Reference: the package galore-torch 1.0 (PyPI), whose updates it follows to rounding. It differs
from `GaLoreAdamW` in four ways: the moments keep their numbers when the basis changes, so that they
point elsewhere and an SVD's arbitrary signs matter; eps is added before the bias correction; weight
decay acts after the step, on weights that have moved; and rank >= min(m, n) is projected all the
same, which is not AdamW, because Adam depends on the coordinates it works in.
Unlike the package it needs nothing but torch, and its states are tensors of the size they show.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class PublishedGaLoreAdamW(torch.optim.Optimizer):
    """Groups with a `rank` (matrices only), `refresh` and `scale` are projected, others are dense.

    params, lr, betas, weight_decay: as in torch.optim.AdamW; eps is the package's 1e-6.
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
        """One update of every tensor that has a gradient; returns the closure's loss, if any."""
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
        M = state.setdefault("exp_avg", torch.zeros_like(R))
        V = state.setdefault("exp_avg_sq", torch.zeros_like(R))

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
    """Singular vectors of the shorter side, (side, rank): the right ones of a tall or square G.

    The SVD is of G as it lies: its transpose may give other signs, and here these count.
    """
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    return (Vh[:rank].T if G.shape[0] >= G.shape[1] else U[:, :rank]).clone()


def _project(G: Tensor, P: Tensor | None) -> Tensor:
    if P is None:
        return G
    return G @ P if G.shape[0] >= G.shape[1] else P.T @ G


def _project_back(N: Tensor, P: Tensor, shape: torch.Size) -> Tensor:
    return N @ P.T if shape[0] >= shape[1] else P @ N
