"""LoRA on SAM's attention and MLPs, through peft (Hu et al. 2021; SAMed, section 3.2).

segment_anything computes q, k and v in one fused linear layer, which peft can adapt only as a
whole. `LoRA.attach` splits it into three layers, so that q and v can be adapted alone.
`LoRA.merge` adds the adapters to the weights and fuses the three layers again, so the exported
network is a plain SAM. TinyViT fuses q, k and v head by head: the first third of the rows is not q,
but the q, k and v of the first heads. The mask decoder has separate layers for q, k and v; SAMed_s
adapts them with `attach_decoder` and `merge_decoder`.
"""

from dataclasses import dataclass
from typing import Literal, cast

import torch
from segment_anything.modeling import MaskDecoder
from torch import nn

from medsaga_lib.adapt.adaptation import Adaptation
from medsaga_lib.models.stages import ImageEncoder
from medsaga_lib.models.tinyvit import TinyViT

Target = Literal["q", "k", "v", "lin1", "lin2"]
# Layer names in ViT, TinyViT and the mask decoder; lin1 and lin2 are the two layers of an MLP
LAYERS: dict[Target, str] = {
    "q": r"attn.*\.(q|q_proj)",
    "k": r"attn.*\.(k|k_proj)",
    "v": r"attn.*\.(v|v_proj)",
    "lin1": r"mlp\.(lin1|fc1)",
    "lin2": r"mlp\.(lin2|fc2)",
}


@dataclass(frozen=True)
class LoRA(Adaptation):
    """W' = W + alpha/r B A on the target layers of every adapted block with attention."""

    rank: int = 4  # SAMed, section 4.1
    alpha: int | None = None  # None: alpha = rank, so the factor is 1 (SAMed's code)
    targets: tuple[Target, ...] = ("q", "v")  # SAMed, section 3.2

    def attach(self, image_encoder: ImageEncoder) -> None:
        """Freeze the encoder, split its qkv layers and put trainable adapters on the targets.

        A starts from torch's global generator (Kaiming uniform, a = sqrt 5) and B from zero, so the
        network computes the same as before.
        """
        image_encoder.requires_grad_(False)
        for block in self.blocks(image_encoder):
            runs = block.attn.heads if isinstance(image_encoder, TinyViT) else 1
            block.attn.qkv = SplitQKV(block.attn.qkv, runs)
            _inject(block, self)
        super().attach(image_encoder)

    def merge(self, image_encoder: ImageEncoder) -> None:
        """Add the adapters to the weights and fuse q, k and v: the encoder is plain again."""
        _fold(image_encoder)
        for block in self.blocks(image_encoder):
            block.attn.qkv = cast(SplitQKV, block.attn.qkv).fuse()

    def attach_decoder(self, mask_decoder: MaskDecoder) -> None:
        """Freeze the decoder's transformer and put adapters on the targets of its 7 attentions.

        Each of its two layers has 3 attentions (self, token to image, image to token); the last one
        is the final attention from tokens to image. lin1 and lin2 belong to the MLPs of the two
        layers. The heads after the transformer stay as they are. A and B start as in `attach`.
        """
        mask_decoder.transformer.requires_grad_(False)
        _inject(mask_decoder.transformer, self)

    def merge_decoder(self, mask_decoder: MaskDecoder) -> None:
        """Add the adapters to the weights: the decoder is plain again."""
        _fold(mask_decoder.transformer)


class SplitQKV(nn.Module):
    """The fused projection as three layers with the same output: (..., C) -> (..., 3C).

    runs: how often the sequence q, k, v repeats in the fused rows: once in segment_anything's ViT,
        once per head in TinyViT.
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
        """The three biases as one (3C), in the order of the output; LoRA does not change it."""
        parts = [layer.bias.unflatten(0, (self.runs, -1)) for layer in (self.q, self.k, self.v)]
        return torch.stack(parts, dim=1).flatten()

    def fuse(self) -> nn.Linear:
        """Return the three layers as one linear layer; merge their adapters first."""
        layers = [self.q, self.k, self.v]
        weights = [n.weight.detach().unflatten(0, (self.runs, -1)) for n in layers]
        return _linear(torch.stack(weights, 1).flatten(0, 2), self.bias.detach())


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer


def _inject(module: nn.Module, config: LoRA) -> None:
    """Put adapters on the layers that `config.targets` names."""
    from peft import LoraConfig, inject_adapter_in_model

    alpha = config.rank if config.alpha is None else config.alpha
    layers = rf".*({'|'.join(LAYERS[target] for target in config.targets)})"
    inject_adapter_in_model(
        LoraConfig(r=config.rank, lora_alpha=alpha, target_modules=layers), module
    )


def _fold(module: nn.Module) -> None:
    """Replace every adapted layer by its base layer, with the adapter added to the weight."""
    from peft.tuners.lora import LoraLayer

    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, LoraLayer):
                layer.merge()
                setattr(parent, name, layer.get_base_layer())
