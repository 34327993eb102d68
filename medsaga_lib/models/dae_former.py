"""DAE-Former: a U-shaped transformer with a cost of attention linear in the number of pixels.

Azad et al. 2022, arXiv 2212.13504. All feature maps are (B, H, W, C), so a 1 x 1 convolution is a
linear layer, and a token is a position in the map. The published code builds layers that it never
calls; they are omitted here. They hold 18,382,864 of its 48,073,065 parameters: the bottom stage of
the decoder without its patch expanding, and 2 of the 3 norms in every feed-forward part.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (128, 320, 512)  # channels of the three stages
PATCHES = ((7, 4), (3, 2), (3, 2))  # kernel and stride of each stage, in cells of its input
BLOCKS = 2  # in each stage
RATIO = 4  # hidden width of a feed-forward part relative to its outer width
HEADS = 8  # of channel attention; efficient attention has 1


def efficient_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q) (softmax(k)^T v), with softmax over the channels of q and the tokens of k.

    The product in parentheses is a summary of the image: d x e numbers for any number of tokens N.
    Each token takes a weighted mean of it (Shen et al. 2018, arXiv 1812.01243). There is no scale.

    Args:
        q, k: (..., N, d).
        v: (..., N, e).

    Returns:
        (..., N, e).
    """
    summary = k.softmax(-2).mT @ v  # (..., d, e)
    return q.softmax(-1) @ summary


def channel_attention(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor) -> Tensor:
    """Attend between channels instead of tokens, with a d x d map.

    q and k are normalised to length 1 along the tokens, so the map holds cosines times
    `temperature` (El-Nouby et al. 2021, arXiv 2106.09681).

    Args:
        q, k, v: (..., N, d).
        temperature: broadcastable to (..., 1, 1).

    Returns:
        (..., N, d).
    """
    q, k = functional.normalize(q, dim=-2), functional.normalize(k, dim=-2)
    attention = (q.mT @ k * temperature).softmax(-1)  # (..., d, d)
    return v @ attention.mT


class EfficientAttention(nn.Module):
    """Self-attention of a feature map by `efficient_attention`, with 1 head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.queries = nn.Linear(width, width)
        # Its bias has no effect: it shifts a channel of k equally at all tokens, and the softmax
        # over the tokens cancels the shift. It is here because published weights have it.
        self.keys = nn.Linear(width, width)
        self.values = nn.Linear(width, width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to the same shape."""
        tokens = x.flatten(1, 2)  # (B, H W, C)
        q, k, v = self.queries(tokens), self.keys(tokens), self.values(tokens)
        return self.project(efficient_attention(q, k, v)).view_as(x)


class ChannelAttention(nn.Module):
    """Self-attention of a feature map by `channel_attention`, with 8 heads and temperatures."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(HEADS, 1, 1))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to the same shape."""
        qkv = self.qkv(x).flatten(1, 2).unflatten(-1, (3, HEADS, -1))  # (B, H W, 3, heads, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, H W, d)
        out = channel_attention(q, k, v, self.temperature)
        return self.project(out.transpose(1, 2).reshape(x.shape))


class MixFFN(nn.Module):
    """Feed-forward part with a depthwise 3 x 3 convolution that mixes neighbouring tokens."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.widen = nn.Linear(width, hidden)
        self.mix = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.norm = nn.LayerNorm(hidden)
        self.narrow = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to the same shape."""
        x = self.widen(x)
        mixed = self.mix(x.movedim(-1, 1)).movedim(1, -1)
        return self.narrow(functional.gelu(self.norm(mixed + x)))


class DualBlock(nn.Module):
    """Efficient attention, then channel attention, each followed by a feed-forward part."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.parts = nn.ModuleList(
            [
                EfficientAttention(width),
                MixFFN(width, RATIO * width),
                ChannelAttention(width),
                MixFFN(width, RATIO * width),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to the same shape."""
        for norm, part in zip(self.norms, self.parts, strict=True):
            x = x + part(norm(x))
        return x


class SkipCrossAttention(nn.Module):
    """Cross-attention that fuses a decoder map with the encoder map of the skip connection.

    The skip gives the queries and keys, and the decoder map gives the values, without projections.
    The only parameters of the attention are the norm that both maps share and the projection to
    twice the width. The result is added to the concatenation of both maps.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_inputs = nn.LayerNorm(width)
        self.project = nn.Linear(width, 2 * width)
        self.norm_attended = nn.LayerNorm(2 * width)
        self.norm = nn.LayerNorm(2 * width)
        self.ffn = MixFFN(2 * width, RATIO * width)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Join the decoder map and the skip, both (B, H, W, C), to (B, H, W, 2 C)."""
        values, keys = (self.norm_inputs(part).flatten(1, 2) for part in (x, skip))
        attended = efficient_attention(keys, keys, values).view_as(x)
        x = torch.cat([x, skip], -1) + self.norm_attended(self.project(attended))
        return x + self.ffn(self.norm(x))


class PatchEmbedding(nn.Module):
    """Embedding of overlapping patches as tokens of a coarser map."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Embed (B, H, W, C) as (B, H / stride, W / stride, width)."""
        return self.norm(self.embed(x.movedim(-1, 1)).movedim(1, -1))


class PatchExpanding(nn.Module):
    """Expansion of each token to factor x factor tokens (Cao et al. 2021, arXiv 2105.05537)."""

    def __init__(self, channels: int, width: int, factor: int) -> None:
        super().__init__()
        self.shape = factor, factor, width
        self.expand = nn.Linear(channels, factor**2 * width, bias=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Expand (B, H, W, C) to (B, factor H, factor W, width)."""
        x = self.expand(x).unflatten(-1, self.shape)  # (B, H, W, factor, factor, width)
        return self.norm(x.transpose(2, 3).flatten(1, 2).flatten(2, 3))


class EncoderStage(nn.Sequential):
    """Patch embedding, dual blocks and a norm: to (B, H / stride, W / stride, width)."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int) -> None:
        blocks = (DualBlock(width) for _ in range(BLOCKS))
        super().__init__(
            PatchEmbedding(channels, width, kernel, stride), *blocks, nn.LayerNorm(width)
        )


class DecoderStage(nn.Module):
    """Fusion of a coarser map with the skip, then dual blocks and patch expanding."""

    def __init__(self, channels: int, width: int, expand: PatchExpanding) -> None:
        super().__init__()
        self.enter = nn.Linear(channels, width)
        self.skip = SkipCrossAttention(width)
        self.merge = nn.Linear(2 * width, width)
        self.blocks = nn.Sequential(*(DualBlock(width) for _ in range(BLOCKS)))
        self.expand = expand

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Turn a map (B, H, W, channels) and a skip (B, H, W, width) into a finer map."""
        return self.expand(self.blocks(self.merge(self.skip(self.enter(x), skip))))


class DAEFormer(nn.Module):
    """The DAE-Former network, from images to logits.

    The weights are initialised by the defaults of PyTorch's layers, our choice.

    Args:
        outputs: number of classes, including the background.
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        fine, middle, coarse = WIDTHS
        self.encoder = nn.ModuleList(
            EncoderStage(channels, width, *patch)
            for channels, width, patch in zip((3, *WIDTHS), WIDTHS, PATCHES, strict=False)
        )
        self.expand = PatchExpanding(coarse, coarse // 2, 2)
        self.decoder = nn.ModuleList(
            [
                DecoderStage(coarse // 2, middle, PatchExpanding(middle, middle // 2, 2)),
                DecoderStage(middle // 2, fine, PatchExpanding(fine, fine, 4)),
            ]
        )
        self.classify = nn.Linear(fine, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, outputs, H, W) of images (B, 3, H, W); 16 divides H and W."""
        x, skips = images.movedim(1, -1), []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)  # (B, H / 4, W / 4, 128), then / 8, 320 channels, and / 16, 512
        x = self.expand(skips.pop())
        for stage in self.decoder:
            x = stage(x, skips.pop())
        return self.classify(x).movedim(-1, 1)
