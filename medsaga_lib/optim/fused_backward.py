"""Per-layer updates: a tensor is updated inside the backward pass, once its gradient is there.

GaLore, Zhao et al. 2024 (arXiv 2403.03507), section 5.2, after Lv et al. 2023 (LOMO, arXiv
2306.09782). No two gradients need to exist at the same time, so their memory shrinks to that of the
largest tensor. What needs all gradients at once (accumulation over micro-batches, clipping by the
global norm, a gradient scaler, averaging over several GPUs) cannot work, and is refused.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from medsaga_lib.errors import UserError
from medsaga_lib.optim.galore import GaLoreAdamW


class SpentGradient(Tensor):
    """Stands in `W.grad` for a gradient that is gone: no memory, and every operation is refused."""

    @staticmethod
    def __new__(cls, gradient: Tensor) -> "SpentGradient":
        return Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, gradient.shape, dtype=gradient.dtype, device=gradient.device
        )

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"SpentGradient({tuple(self.shape)})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.detach.default:  # torch's own bookkeeping
            return args[0]
        raise UserError(
            "Per-layer updates have used and freed this gradient. Gradient accumulation, clipping "
            "by norm and gradient scalers need all gradients at once: use GaLoreAdamW without "
            "per-layer updates. In a plain loop, call optimizer.zero_grad() after each backward()."
        )


class FusedGaLoreAdamW(GaLoreAdamW):
    """GaLoreAdamW that updates during `loss.backward()`; the results are the same, bit for bit.

    The usual loop stays as it is: `backward()`, `step()`, `zero_grad()`; `step()` has nothing left
    to do. A non-finite gradient raises NonFiniteGradientError out of `backward()`: the tensors that
    came before it in the backward pass are then already updated.
    Raises UserError where several processes train together: they would drift apart silently.
    """

    def __init__(self, params: Any, **options: Any) -> None:
        if options.get("nonfinite", "raise") != "raise":
            raise UserError("Per-layer updates cannot skip a step whose first layers are updated.")
        self._hooks: list[RemovableHandle] = []
        super().__init__(params, **options)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in GaLoreAdamW."""
        index = sum(1 for _ in self._tensors())
        super().add_param_group(param_group)
        group_number = len(self.param_groups) - 1
        for i, W in enumerate(self.param_groups[-1]["params"], start=index):
            hook = W.register_post_accumulate_grad_hook(self._hook(i, group_number))
            self._hooks.append(hook)

    def detach(self) -> None:
        """Ends the updates: `backward()` leaves its gradients again, for another optimizer."""
        for hook in self._hooks:
            hook.remove()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Returns the closure's loss, if any; the update itself happens in `backward()`."""
        return None if closure is None else closure()

    def _hook(self, index: int, group_number: int) -> Callable[[Tensor], None]:
        @torch.no_grad()
        def update(W: Tensor) -> None:
            _refuse_several_processes()
            assert W.grad is not None  # torch calls this hook when it has just accumulated it
            # looked up here, because loading a state replaces the groups
            self._update([(index, self.param_groups[group_number], W)])
            W.grad = SpentGradient(W.grad)

        return update


def _refuse_several_processes() -> None:
    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    if ready and torch.distributed.get_world_size() > 1:
        raise UserError(
            "Per-layer updates happen before gradients are averaged over processes, so the copies "
            "would drift apart; train on one GPU, or without per-layer updates."
        )
