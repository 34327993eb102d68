"""LoRA on SAM's attention and MLPs, through peft (Hu et al. 2021; SAMed, section 3.2).

segment_anything holds q, k and v in one fused linear layer, which peft can only adapt as a whole.
`attach` takes it apart into three, so that q and v can be named; `merge` adds the adapters to the
weights and fuses the three again, so that what is exported is a plain SAM. TinyViT fuses them head
by head: its first third is no q, but the q, k and v of the first heads. The mask decoder's q, k and
v are layers of their own: `attach_decoder` and `merge_decoder` (SAMed_s).
"""

from dataclasses import dataclass
from typing import Literal, cast

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder
from torch import nn

from medsaga_lib.backbones.tinyvit import TinyViT

Target = Literal["q", "k", "v", "lin1", "lin2"]
# What each is called in ViT, TinyViT and mask decoder; lin1 and lin2 are the two layers of an MLP
LAYERS: dict[Target, str] = {
    "q": r"attn.*\.(q|q_proj)",
    "k": r"attn.*\.(k|k_proj)",
    "v": r"attn.*\.(v|v_proj)",
    "lin1": r"mlp\.(lin1|fc1)",
    "lin2": r"mlp\.(lin2|fc2)",
}


@dataclass(frozen=True)
class LoRA:
    """W' = W + alpha/r B A on the named layers of every block that attends."""

    rank: int = 4  # SAMed, section 4.1
    alpha: int | None = None  # None: alpha = rank, so that the factor is 1 (SAMed's code)
    targets: tuple[Target, ...] = ("q", "v")  # SAMed, section 3.2


class SplitQKV(nn.Module):
    """The fused projection as three: (..., C) -> (..., 3C), equal to the fused one.

    runs: how often q, k and v follow one another in the fused rows: once in segment_anything's ViT,
        once for each head in TinyViT.
    """

    q: nn.Linear
    k: nn.Linear
    v: nn.Linear

    def __init__(self, fused: nn.Linear, runs: int = 1):
        super().__init__()
        self.runs = runs
        weights = fused.weight.detach().unflatten(0, (runs, 3, -1)).unbind(1)  # (runs, c, C) each
        biases = fused.bias.detach().unflatten(0, (runs, 3, -1)).unbind(1)
        for name, weight, bias in zip("qkv", weights, biases, strict=True):
            self.add_module(name, _linear(weight.flatten(0, 1).clone(), bias.flatten().clone()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [layer(x).unflatten(-1, (self.runs, -1)) for layer in (self.q, self.k, self.v)]
        return torch.stack(parts, dim=-2).flatten(-3)

    @property
    def bias(self) -> torch.Tensor:
        """Of the three together (3C), in the order of the output; LoRA adds nothing to it."""
        parts = [layer.bias.unflatten(0, (self.runs, -1)) for layer in (self.q, self.k, self.v)]
        return torch.stack(parts, dim=1).flatten()

    def fuse(self) -> nn.Linear:
        """One plain linear layer again; every part must be plain by now."""
        layers = [self.q, self.k, self.v]
        weights = [n.weight.detach().unflatten(0, (self.runs, -1)) for n in layers]
        return _linear(torch.stack(weights, 1).flatten(0, 2), self.bias.detach())


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer


def attach(image_encoder: ImageEncoderViT | TinyViT, config: LoRA) -> None:
    """Freezes the encoder, takes its qkv apart and puts trainable adapters on `config.targets`.

    A is drawn from torch's global generator (kaiming uniform, a = sqrt 5), B is zero, so that the
    network computes what it did before.
    """
    image_encoder.requires_grad_(False)
    for block in image_encoder.blocks:
        runs = block.attn.heads if isinstance(image_encoder, TinyViT) else 1
        block.attn.qkv = SplitQKV(block.attn.qkv, runs)
    _inject(image_encoder, config)


def merge(image_encoder: ImageEncoderViT | TinyViT) -> None:
    """Adds the adapters to the weights and fuses q, k, v: the encoder is a plain one again."""
    _fold(image_encoder)
    for block in image_encoder.blocks:
        block.attn.qkv = cast(SplitQKV, block.attn.qkv).fuse()


def attach_decoder(mask_decoder: MaskDecoder, config: LoRA) -> None:
    """Freezes the decoder's transformer and puts adapters on `config.targets` of its 7 attentions.

    Three in each of its two layers (self, token to image, image to token), and one that reads the
    image once more; lin1 and lin2 are those of the two layers' MLPs. The heads behind it stay as
    they are. A and B start as in `attach`.
    """
    mask_decoder.transformer.requires_grad_(False)
    _inject(mask_decoder.transformer, config)


def merge_decoder(mask_decoder: MaskDecoder) -> None:
    """Adds the adapters to the weights: the decoder is a plain one again."""
    _fold(mask_decoder.transformer)


def _inject(module: nn.Module, config: LoRA) -> None:
    """Adapters on the layers that `config.targets` names."""
    from peft import LoraConfig, inject_adapter_in_model

    alpha = config.rank if config.alpha is None else config.alpha
    layers = rf".*({'|'.join(LAYERS[target] for target in config.targets)})"
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
