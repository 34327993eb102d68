"""LoRA on the attention of SAM, through peft (Hu et al. 2021; SAMed, section 3.2).

segment_anything holds q, k and v in one fused linear layer, which peft can only adapt as a whole.
`attach` takes it apart into three, so that q and v can be named; `merge` adds the adapters to the
weights and fuses the three again, so that what is exported is a plain SAM. The mask decoder's q, k
and v are layers of their own: `attach_decoder` and `merge_decoder` (SAMed_s).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder
from torch import nn

Target = Literal["q", "k", "v"]


@dataclass(frozen=True)
class LoRA:
    """W' = W + alpha/r B A on the named projections of every block."""

    rank: int = 4  # SAMed, section 4.1
    alpha: int | None = None  # None: alpha = rank, so that the factor is 1 (SAMed's code)
    targets: tuple[Target, ...] = ("q", "v")  # SAMed, section 3.2


class SplitQKV(nn.Module):
    """The fused projection as three: (..., C) -> (..., 3C), equal to the fused one."""

    q: nn.Linear
    k: nn.Linear
    v: nn.Linear

    def __init__(self, fused: nn.Linear):
        super().__init__()
        weights = fused.weight.detach().chunk(3)
        biases = fused.bias.detach().chunk(3)
        for name, weight, bias in zip("qkv", weights, biases, strict=True):
            layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
            layer.weight = nn.Parameter(weight.clone())
            layer.bias = nn.Parameter(bias.clone())
            setattr(self, name, layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.q(x), self.k(x), self.v(x)], dim=-1)

    def fuse(self) -> nn.Linear:
        """One plain linear layer again; every part must be plain by now."""
        layers = [self.q, self.k, self.v]
        fused = nn.Linear(self.q.in_features, sum(n.out_features for n in layers), device="meta")
        fused.weight = nn.Parameter(torch.cat([n.weight.detach() for n in layers]))
        fused.bias = nn.Parameter(torch.cat([n.bias.detach() for n in layers]))
        return fused


def attach(image_encoder: ImageEncoderViT, config: LoRA) -> None:
    """Freezes the encoder, takes its qkv apart and puts trainable adapters on `config.targets`.

    A is drawn from torch's global generator (kaiming uniform, a = sqrt 5), B is zero, so that the
    network computes what it did before.
    """
    image_encoder.requires_grad_(False)
    for block in image_encoder.blocks:
        block.attn.qkv = SplitQKV(block.attn.qkv)
    _inject(image_encoder, config, r".*attn\.qkv\.({})")


def merge(image_encoder: ImageEncoderViT) -> None:
    """Adds the adapters to the weights and fuses q, k, v: the encoder is a plain one again."""
    _fold(image_encoder)
    for block in image_encoder.blocks:
        block.attn.qkv = block.attn.qkv.fuse()


def attach_decoder(mask_decoder: MaskDecoder, config: LoRA) -> None:
    """Freezes the decoder's transformer and puts adapters on `config.targets` of its 7 attentions.

    Three in each of its two layers (self, token to image, image to token), and one that reads the
    image once more. The heads behind it stay as they are. A and B start as in `attach`.
    """
    mask_decoder.transformer.requires_grad_(False)
    _inject(mask_decoder.transformer, config, r".*attn.*\.({})_proj")


def merge_decoder(mask_decoder: MaskDecoder) -> None:
    """Adds the adapters to the weights: the decoder is a plain one again."""
    _fold(mask_decoder.transformer)


def _inject(module: nn.Module, config: LoRA, pattern: str) -> None:
    """Adapters on the layers whose names the pattern fits, with the targets in its braces."""
    from peft import LoraConfig, inject_adapter_in_model

    alpha = config.rank if config.alpha is None else config.alpha
    layers = pattern.format("|".join(config.targets))
    inject_adapter_in_model(
        LoraConfig(r=config.rank, lora_alpha=alpha, target_modules=layers), module
    )


def _fold(module: nn.Module) -> None:
    """Every adapted layer becomes its base layer with the adapter added."""
    from peft.tuners.lora import LoraLayer

    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, LoraLayer):
                layer.merge()
                setattr(parent, name, layer.get_base_layer())
