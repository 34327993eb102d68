"""The base class of all adaptations of an image encoder."""

from typing import Any

import torch
from segment_anything.modeling import ImageEncoderViT
from torch import nn

from medsaga_lib.errors import UserError
from medsaga_lib.models.tinyvit import TinyViT
from medsaga_lib.optim.fused_backward import FusedGaLoreAdamW


class Adaptation:
    """The trainable parameters of an image encoder, and how they are trained.

    A subclass is a frozen dataclass of its settings. An adaptation that changes the network
    overrides `attach` and, if its parts can be merged into the weights, `merge`. An adaptation that
    changes the optimizer overrides `groups` and `build_optimizer`, as `recipes.encoder.GaLore`.
    """

    copies = 0  # of each image, whose embeddings are kept; 0: every step computes its own

    def attach(self, image_encoder: ImageEncoderViT | TinyViT) -> None:
        """Add the new parts to the encoder in place, and set `requires_grad` of its parameters."""

    def merge(self, image_encoder: ImageEncoderViT | TinyViT) -> None:
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
        return (FusedGaLoreAdamW if per_layer else torch.optim.AdamW)(groups, betas=betas)
