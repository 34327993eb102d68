"""Three adaptations without new parts: full fine-tuning, a frozen encoder, and GaLore.

The adaptations in `adapt.lora`, `adapt.svd`, `adapt.biases` and `adapt.bottleneck` add parts, split
layers or train a few tensors.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import nn

from medsaga_lib.adapt.adaptation import Adaptation
from medsaga_lib.errors import UserError
from medsaga_lib.models.stages import ImageEncoder, stages
from medsaga_lib.optim.apollo import ApolloAdamW
from medsaga_lib.optim.fira import FiraAdamW
from medsaga_lib.optim.fused_backward import FusedGaLoreAdamW
from medsaga_lib.optim.galore import GaLoreAdamW, GaLoreConfig, param_groups
from medsaga_lib.optim.galore_published import PublishedGaLoreAdamW

ATTENTION = "*blocks.*.attn.*"  # names of the attention tensors in the image encoder
WIDTH_PER_RANK = 12  # our choice: r = 64 on ViT-B, 16 on the pocket SAM
OPTIMIZERS = {"galore": GaLoreAdamW, "fira": FiraAdamW, "apollo": ApolloAdamW}


@dataclass(frozen=True)
class Full(Adaptation):
    """Train every tensor of the image encoder, or of a network that has no image encoder."""

    lr: float | None = None  # of the image encoder; None: the recipe's learning rate

    def groups(
        self, encoder: nn.Module, lr: float, weight_decay: float, seed: int, steps: int
    ) -> list[dict[str, Any]]:
        """Return the groups as in `Adaptation`, with `self.lr` unless it is None."""
        own = lr if self.lr is None else self.lr
        return super().groups(encoder, own, weight_decay, seed, steps)


@dataclass(frozen=True)
class Frozen(Adaptation):
    """Train nothing in the image encoder; with `copies`, image embeddings are kept."""

    def kept_part(self, image_encoder: ImageEncoder) -> int:
        """Return the part after the neck."""
        return len(stages(image_encoder)) + 1

    def attach(self, image_encoder: ImageEncoder) -> None:
        """Freeze the encoder."""
        image_encoder.requires_grad_(False)


@dataclass(frozen=True)
class GaLore(Adaptation):
    """Train the image encoder, in a low-rank subspace where this saves memory (`optim.galore`)."""

    lr: float
    rank: int | None = None  # our choice: None is the width of the encoder / 12
    refresh: int = 200  # T, steps between two refreshes of the basis; GaLore's reference
    # our choice: a run has at least this number of bases, so T is smaller in a short run; 0 keeps T
    bases: int = 10
    scale: float = 0.25  # alpha; GaLore's reference
    moments: Literal["rotate", "keep"] = "rotate"  # our choice; GaLore's reference keeps them
    # our choice; GaLore's reference takes "exact"
    subspace: Literal["randomized", "exact"] = "randomized"
    # MedSAGa, section 3.2; others: successors of GaLore, or "published" for galore-torch 1.0
    optimizer: Literal["galore", "fira", "apollo", "published"] = "galore"
    # MedSAGa, section 3.2: how the tensors outside the attention are trained
    others: Literal["projected", "dense", "frozen"] = "projected"

    def __post_init__(self) -> None:
        if self.optimizer == "published" and (self.moments, self.subspace) != (
            "rotate",
            "randomized",
        ):
            raise UserError("galore-torch has no options moments and subspace; omit both.")

    def attach(self, image_encoder: ImageEncoder) -> None:
        """Freeze early stages, and the tensors outside the attention if `others` is "frozen"."""
        if self.others == "frozen":
            for name, parameter in image_encoder.named_parameters():
                parameter.requires_grad_(fnmatchcase(name, ATTENTION))
        super().attach(image_encoder)

    def config(self, image_encoder: nn.Module, seed: int = 0, steps: int = 0) -> GaLoreConfig:
        """Return the optimizer's settings; the default rank follows from the encoder's width.

        steps: of the run; in a short run the basis is refreshed more often (`bases`).
        """
        neck: nn.Conv2d = image_encoder.get_submodule("neck.0")  # type: ignore[assignment]
        longest = max(1, steps // self.bases) if steps and self.bases else self.refresh
        return GaLoreConfig(
            rank=neck.in_channels // WIDTH_PER_RANK if self.rank is None else self.rank,
            refresh=min(self.refresh, longest),
            scale=self.scale,
            moments=self.moments,
            subspace=self.subspace,
            seed=seed,
            projected=("*",) if self.others == "projected" else (ATTENTION,),
        )

    def groups(
        self, encoder: nn.Module, lr: float, weight_decay: float, seed: int, steps: int
    ) -> list[dict[str, Any]]:
        """Return the projected and the dense tensors, both with GaLore's own learning rate."""
        config = self.config(encoder, seed, steps)
        return param_groups(encoder, config, lr=self.lr, weight_decay=weight_decay)

    def build_optimizer(
        self, groups: list[dict[str, Any]], betas: tuple[float, float], per_layer: bool
    ) -> torch.optim.Optimizer:
        """Build the optimizer that `self.optimizer` names."""
        if self.optimizer == "published":
            return PublishedGaLoreAdamW(matrices_projected(groups), betas=betas)
        return (FusedGaLoreAdamW if per_layer else OPTIMIZERS[self.optimizer])(groups, betas=betas)


def matrices_projected(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Split the groups so that only matrices are projected, as galore-torch 1.0 requires.

    Kernels and positions become dense.
    """
    split: list[dict[str, Any]] = []
    for group in groups:
        plain = {key: group[key] for key in ("lr", "weight_decay")}
        rank: dict[str, Any] = {k: group[k] for k in ("rank", "refresh", "scale") if k in group}
        matrices = [p for p in group["params"] if p.ndim == 2]
        others = [p for p in group["params"] if p.ndim != 2]
        split += [{"params": matrices, **plain, **rank}, {"params": others, **plain}]
    return split
