"""Biases, norms and positions learn, and no matrix does.

AdaptiveSAM (Paranjape et al. 2023, arXiv 2308.03726), as S-SAM's baseline. The network gets no new
part, so there is nothing to merge.
"""

from dataclasses import dataclass

from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.common import LayerNorm2d
from torch import nn

from medsaga_lib.backbones.tinyvit import TinyViT


@dataclass(frozen=True)
class Biases:
    """What of the image encoder learns besides every bias."""

    norms: bool = True  # the scales of all LayerNorms, the neck's too
    positions: bool = True  # pos_embed; the relative positions stay frozen


def attach(image_encoder: ImageEncoderViT | TinyViT, config: Biases) -> None:
    """Freezes the encoder but for its biases and what `config` names; TinyViT has no positions."""
    image_encoder.requires_grad_(False)
    for module in image_encoder.modules():
        if getattr(module, "bias", None) is not None:
            module.bias.requires_grad_(True)
        if isinstance(module, nn.LayerNorm | LayerNorm2d):
            module.weight.requires_grad_(config.norms)
    if not isinstance(image_encoder, TinyViT):
        image_encoder.pos_embed.requires_grad_(config.positions)
