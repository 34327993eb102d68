"""Bottleneck adapters: two small trainable networks in every block of the image encoder.

Houlsby et al. 2019 (arXiv 1902.00751). The places are those of Medical SAM Adapter (Wu et al. 2023,
arXiv 2304.12620), one after the attention and one beside the MLP:

    a = attention(norm1(x));  x <- x + a + adapter(a)
    n = norm2(x);             x <- x + mlp(n) + scale adapter(n)

An adapter is nonlinear (GELU), so it cannot be merged into the weights: there is no `merge`, and
the exported network contains its adapters.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from medsaga_lib.adapt.adaptation import Adaptation
from medsaga_lib.models.stages import ImageEncoder
from medsaga_lib.models.tinyvit import TinyViT


@dataclass(frozen=True)
class Bottleneck(Adaptation):
    """The width of the adapters, and the factor of those beside the MLPs."""

    ratio: float = 0.25  # of the encoder's width; our choice, as in code that follows the paper
    scale: float = 0.5  # our choice, as in code that follows the paper

    def attach(self, image_encoder: ImageEncoder) -> None:
        """Freeze the encoder and add two trainable adapters to every block, in attn and in mlp.

        `down` starts from torch's global generator and `up` from zero, so the network computes the
        same as before. All other names and weights stay as they are. TinyViT's MLP begins with its
        norm, so the adapter beside it takes the input of that norm (our choice).
        """
        image_encoder.requires_grad_(False)
        first = "fc1" if isinstance(image_encoder, TinyViT) else "lin1"
        for block in self.blocks(image_encoder):
            width = getattr(block.mlp, first).in_features
            narrow = max(1, round(self.ratio * width))
            block.attn.adapter = Adapter(width, narrow)
            block.attn.register_forward_hook(_behind)
            block.mlp.adapter = Adapter(width, narrow, self.scale)
            block.mlp.register_forward_hook(_beside)
        super().attach(image_encoder)


class Adapter(nn.Module):
    """Down projection, GELU, up projection: (..., C) to (..., C); the output starts at 0."""

    def __init__(self, width: int, narrow: int, scale: float = 1.0):
        super().__init__()
        self.down, self.up, self.scale = nn.Linear(width, narrow), nn.Linear(narrow, width), scale
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.up(nn.functional.gelu(self.down(x)))


def _behind(module: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return output + module.adapter(output)


def _beside(module: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return output + module.adapter(inputs[0])
