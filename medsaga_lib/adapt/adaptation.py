"""The base class of all adaptations of an image encoder."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from medsaga_lib.errors import UserError
from medsaga_lib.models.stages import ImageEncoder, freeze_early, late_blocks
from medsaga_lib.optim.fused_backward import FusedGaLoreAdamW
from medsaga_lib.optim.galore import GaLoreAdamW


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """The trainable parameters of an image encoder, and how they are trained.

    A subclass is a frozen dataclass of its settings. An adaptation that changes the network
    overrides `attach` and, if its parts can be merged into the weights, `merge`. An adaptation that
    changes the optimizer overrides `groups` and `build_optimizer`, as `recipes.encoder.GaLore`.

    from_stage: the first stage that is adapted (`models.stages`); everything before it is frozen.
        0: all stages and the patch embedding are adapted.
    copies: of each image, whose output of the frozen stages is computed once, before training: the
        image itself and copies - 1 augmented ones. 0: nothing is kept, and every step computes all
        stages.
    """

    from_stage: int = 0  # as in the papers, which adapt every stage
    copies: int = 0  # as in the papers, which augment anew in each step

    def kept_part(self, image_encoder: ImageEncoder) -> int:
        """Return the first part (`models.stages`) that a step on kept outputs computes."""
        return self.from_stage

    def blocks(self, image_encoder: ImageEncoder) -> list[Any]:
        """Return the blocks with attention that are adapted."""
        return late_blocks(image_encoder, self.from_stage)

    def attach(self, image_encoder: ImageEncoder) -> None:
        """Add the new parts to the encoder in place, and set `requires_grad` of its parameters.

        A subclass calls this at its end.

        Raises:
            UserError: the encoder has no stage `from_stage`, or nothing is adapted from there on.
        """
        freeze_early(image_encoder, self.from_stage)
        if not any(parameter.requires_grad for parameter in image_encoder.parameters()):
            raise UserError(
                f"{type(self).__name__} adapts nothing from stage {self.from_stage} on; choose a "
                "lower image_encoder.from_stage."
            )

    def merge(self, image_encoder: ImageEncoder) -> None:
        """Turn the encoder into a plain one that computes the same.

        Raises:
            UserError: the adaptation cannot be merged into the weights.
        """
        raise UserError(
            f"{type(self).__name__} cannot be merged into the weights; use the network as it is."
        )

    def groups(
        self, encoder: nn.Module, lr: float, weight_decay: float, seed: int, steps: int
    ) -> list[dict[str, Any]]:
        """Return the optimizer's groups of the trainable parameters in the encoder.

        Args:
            encoder: the image encoder, or a whole network without one.
            lr, weight_decay, steps: as in the recipe.
            seed: for the random numbers of the optimizer.
        """
        params = [p for p in encoder.parameters() if p.requires_grad]
        return [{"params": params, "lr": lr, "weight_decay": weight_decay}]

    def build_optimizer(
        self, groups: list[dict[str, Any]], betas: tuple[float, float], per_layer: bool
    ) -> torch.optim.Optimizer:
        """Build AdamW for these groups.

        per_layer: update each tensor inside the backward pass.
        """
        # Without a rank, FusedGaLoreAdamW equals AdamW bit for bit
        if per_layer:
            return FusedGaLoreAdamW(groups, betas=betas)
        on_cpu = all(W.device.type == "cpu" for group in groups for W in group["params"])
        # On a CPU, GaLoreAdamW updates tensors without a rank by torch's fused AdamW
        return (GaLoreAdamW if on_cpu else torch.optim.AdamW)(groups, betas=betas)
