"""Bottleneck adapters: two small networks in every block of the image encoder learn.

Houlsby et al. 2019 (arXiv 1902.00751); placed as in Medical SAM Adapter (Wu et al. 2023, arXiv
2304.12620), one after the attention and one beside the MLP:

    a = attention(norm1(x));  x <- x + a + adapter(a)
    n = norm2(x);             x <- x + mlp(n) + scale adapter(n)

An adapter bends (GELU), so no weight of the network can take it in: there is no `merge`, and what
is exported is the network with its adapters.
"""

from dataclasses import dataclass
from typing import Any

from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn

from medsaga_lib.backbones.tinyvit import TinyViT


@dataclass(frozen=True)
class Bottleneck:
    """How narrow the adapters are, and how much the ones beside the MLPs count."""

    ratio: float = 0.25  # of the encoder's width; our choice, as code that follows the paper has it
    scale: float = 0.5  # our choice, likewise


class Adapter(nn.Module):
    """Down, GELU, up: (..., C) to (..., C), zero before training."""

    def __init__(self, width: int, narrow: int, scale: float = 1.0):
        super().__init__()
        self.down, self.up, self.scale = nn.Linear(width, narrow), nn.Linear(narrow, width), scale
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.up(nn.functional.gelu(self.down(x)))


def attach(image_encoder: ImageEncoderViT | TinyViT, config: Bottleneck) -> None:
    """Freezes the encoder and gives every block two trainable adapters, `adapter` in attn and mlp.

    `down` is drawn from torch's global generator, `up` is zero, so that the network computes what
    it did before. All other names and weights stay as they are. TinyViT's MLP begins with its norm,
    so there the adapter beside it sees what comes before the norm (our choice).
    """
    image_encoder.requires_grad_(False)
    first = "fc1" if isinstance(image_encoder, TinyViT) else "lin1"
    block: Any
    for block in image_encoder.blocks:
        width = getattr(block.mlp, first).in_features
        narrow = max(1, round(config.ratio * width))
        block.attn.adapter = Adapter(width, narrow)
        block.attn.register_forward_hook(_behind)
        block.mlp.adapter = Adapter(width, narrow, config.scale)
        block.mlp.register_forward_hook(_beside)


def _behind(module: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return output + module.adapter(output)


def _beside(module: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return output + module.adapter(inputs[0])
