"""Per-layer updates: each tensor is updated in the backward pass as soon as its gradient is known.

GaLore, Zhao et al. 2024 (arXiv 2403.03507), section 5.2, after Lv et al. 2023 (LOMO, arXiv
2306.09782). Only one gradient exists at a time, so the memory for gradients shrinks to that of the
largest tensor. Methods that need all gradients at once cannot work and raise an error: gradient
accumulation, clipping by the global norm, gradient scalers, and averaging over several GPUs.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from medsaga_lib.errors import UserError
from medsaga_lib.optim.galore import GaLoreAdamW


class SpentGradient(Tensor):
    """Placeholder in `W.grad` for a freed gradient; it has no memory, every operation fails."""

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
            "Per-layer updates have used and freed this gradient. Call optimizer.zero_grad() after "
            "each backward(). Gradient accumulation, clipping by norm and gradient scalers need "
            "all gradients at once: for them use GaLoreAdamW without per-layer updates."
        )


class FusedGaLoreAdamW(GaLoreAdamW):
    """GaLoreAdamW that updates during `loss.backward()`; the results are equal, bit for bit.

    The training loop is the usual one: `backward()`, `step()`, `zero_grad()`; `step()` only calls
    the closure. `backward()` raises NonFiniteGradientError at a non-finite gradient; tensors that
    precede it in the backward pass are then already updated. `backward()` raises UserError if
    several processes train together, because their copies of the weights would diverge. It cannot
    skip a whole step, so nonfinite="skip" is refused.
    """

    def __init__(self, params: Iterable[Any], **options: Any) -> None:
        if options.get("nonfinite", "raise") != "raise":
            raise UserError(
                "Per-layer updates cannot skip a step, because they have updated some tensors "
                "before; use GaLoreAdamW without them, or nonfinite='raise'."
            )
        super().__init__(params, **options)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group as in GaLoreAdamW, and register the updates of its tensors."""
        index = sum(1 for _ in self._tensors())
        super().add_param_group(param_group)
        group_number = len(self.param_groups) - 1
        for i, W in enumerate(self.param_groups[-1]["params"], start=index):
            W.register_post_accumulate_grad_hook(self._hook(i, group_number))

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Return the closure's loss, if any; `backward()` has already updated the tensors."""
        return None if closure is None else closure()

    def _hook(self, index: int, group_number: int) -> Callable[[Tensor], None]:
        @torch.no_grad()
        def update(W: Tensor) -> None:
            _refuse_several_processes()
            assert W.grad is not None  # torch calls this hook after accumulating it
            # looked up in each call, because loading a state replaces the groups
            self._update([(index, self.param_groups[group_number], W)])
            W.grad = SpentGradient(W.grad)

        return update


def _refuse_several_processes() -> None:
    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    if ready and torch.distributed.get_world_size() > 1:
        raise UserError(
            "Per-layer updates happen before gradients are averaged over processes, so the "
            "processes would diverge; train on one GPU, or without per-layer updates."
        )
