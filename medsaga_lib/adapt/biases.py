"""AdaptiveSAM: train the biases, norms and positions of the image encoder, but no matrix.

Paranjape et al. 2023, arXiv 2308.03726, as S-SAM's paper describes it. The network gets no new
part, so there is nothing to merge.
"""

from dataclasses import dataclass

from segment_anything.modeling.common import LayerNorm2d
from torch import nn

from medsaga_lib.adapt.adaptation import Adaptation
from medsaga_lib.models.stages import ImageEncoder
from medsaga_lib.models.tinyvit import TinyViT


@dataclass(frozen=True)
class Biases(Adaptation):
    """Train all biases of the image encoder, and the parameters chosen here."""

    norms: bool = True  # the scales of all LayerNorms, those of the neck included
    positions: bool = True  # pos_embed; the relative positions stay frozen

    def attach(self, image_encoder: ImageEncoder) -> None:
        """Freeze the encoder except for the chosen parameters; TinyViT has no positions."""
        image_encoder.requires_grad_(False)
        for module in image_encoder.modules():
            if getattr(module, "bias", None) is not None:
                module.bias.requires_grad_(True)
            if isinstance(module, nn.LayerNorm | LayerNorm2d):
                module.weight.requires_grad_(self.norms)
        if not isinstance(image_encoder, TinyViT):
            image_encoder.pos_embed.requires_grad_(self.positions)
        super().attach(image_encoder)
