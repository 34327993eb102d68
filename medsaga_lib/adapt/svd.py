"""SVD affine tuning: train the singular values of a layer and freeze its singular vectors.

S-SAM (arXiv 2408.06447): W' = U diag(relu(a s + b)) V^T, where W = U diag(s) V^T. At the start, a
is 1 and b is 0, so the network computes the same as before. SVF (Sun et al. 2022,
arXiv 2206.06122) is the same without b.

The reference code keeps U, s and V^T beside W and computes W' in every pass. Here the factors
replace W and are applied one after the other. Nothing of the size of W is computed, and the
backward pass needs the k numbers of each token between the factors instead of W's gradient. On
ViT-B's encoder, the factors take 109 MiB more than W alone. The reference code takes 436 MiB more,
432 of them in the blocks.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from medsaga_lib.adapt.adaptation import Adaptation
from medsaga_lib.models.linear import linear
from medsaga_lib.models.stages import ImageEncoder
from medsaga_lib.models.tinyvit import TinyViT


@dataclass(frozen=True)
class SVDAffine(Adaptation):
    """The trainable parameters of the image encoder besides the scales a."""

    shift: bool = True  # b; without it the method is SVF
    norms: bool = True  # the LayerNorms of the blocks, but not of the neck; S-SAM's code
    positions: bool = True  # pos_embed

    def attach(self, image_encoder: ImageEncoder) -> None:
        """Freeze the encoder, factor its layers and make the chosen parameters trainable.

        As in S-SAM's code, the factored layers are qkv, proj, lin1 and lin2 of every block and both
        convolutions of the neck, but not patch_embed and the relative positions. On TinyViT, which
        S-SAM does not use, they are the same layers of stages 1 to 3 (our choice); TinyViT has no
        positions. The factors are computed from the weights each time. On another machine, the
        vectors of nearly equal singular values may differ; the trained scales then act on other
        vectors than in training.
        """
        image_encoder.requires_grad_(False)
        for module, name in self._places(image_encoder):
            setattr(module, name, SVDLayer(getattr(module, name), self.shift))
        for block in self.blocks(image_encoder):
            tiny = isinstance(image_encoder, TinyViT)
            for norm in (block.attn.norm, block.mlp.norm) if tiny else (block.norm1, block.norm2):
                norm.requires_grad_(self.norms)
        if not isinstance(image_encoder, TinyViT):
            image_encoder.pos_embed.requires_grad_(self.positions)
        super().attach(image_encoder)

    def merge(self, image_encoder: ImageEncoder) -> None:
        """Multiply the factors: the encoder is plain again."""
        for module, name in self._places(image_encoder):
            if isinstance(layer := getattr(module, name), SVDLayer):
                setattr(module, name, layer.merged())

    def _places(self, image_encoder: ImageEncoder) -> list[tuple[nn.Module, str]]:
        """Return the layers to factor, each as the module that holds it and its name there."""
        of_mlp = ("fc1", "fc2") if isinstance(image_encoder, TinyViT) else ("lin1", "lin2")
        places: list[tuple[nn.Module, str]] = []
        for block in self.blocks(image_encoder):
            places += [(block.attn, "qkv"), (block.attn, "proj")]
            places += [(block.mlp, name) for name in of_mlp]
        return [*places, (image_encoder.neck, "0"), (image_encoder.neck, "2")]


class SVDLayer(nn.Module):
    """A linear layer or convolution as V^T, singular values and U; vectors and bias are frozen."""

    left: Tensor
    right: Tensor
    singular: Tensor

    def __init__(self, layer: nn.Linear | nn.Conv2d, shift: bool = True):
        super().__init__()
        weight = layer.weight.detach()
        U, s, Vh = torch.linalg.svd(weight.flatten(1).float(), full_matrices=False)
        self.register_buffer("left", U.contiguous(), persistent=False)  # (out, k)
        self.register_buffer("right", Vh.contiguous(), persistent=False)  # (k, in x h x w)
        self.register_buffer("singular", s, persistent=False)  # (k,)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach(), False)
        self.scale = nn.Parameter(torch.ones_like(s))
        self.shift = nn.Parameter(torch.zeros_like(s)) if shift else None
        self.kernel = tuple(weight.shape[1:])
        self.how: dict = {}
        if isinstance(layer, nn.Conv2d):
            self.how = {k: getattr(layer, k) for k in ("stride", "padding", "dilation")}

    def values(self) -> Tensor:
        """Return the current singular values (k,)."""
        moved = self.scale * self.singular
        return functional.relu(moved if self.shift is None else moved + self.shift)

    def forward(self, x: Tensor) -> Tensor:
        if not self.how:
            between = linear(x, self.right) * self.values()
            return linear(between, self.left, self.bias)
        right, left = self.right.unflatten(1, self.kernel), self.left[..., None, None]
        between = functional.conv2d(x, right, **self.how) * self.values()[:, None, None]
        return functional.conv2d(between, left, self.bias)

    def merged(self) -> nn.Linear | nn.Conv2d:
        """Return the plain layer that computes the same."""
        weight = ((self.left * self.values()) @ self.right).detach().unflatten(1, self.kernel)
        layer: nn.Linear | nn.Conv2d
        if not self.how:
            layer = nn.Linear(weight.shape[1], weight.shape[0], self.bias is not None, "meta")
        else:
            out, inputs, *kernel = weight.shape
            layer = nn.Conv2d(
                inputs, out, kernel, bias=self.bias is not None, device="meta", **self.how
            )
        layer.weight = nn.Parameter(weight)
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias.detach().clone())
        return layer
