"""DAE-Former: a U of transformer blocks whose attention is linear in the number of pixels.

Azad et al. 2022, arXiv 2212.13504. Feature maps are (B, H, W, C) from the first layer to the last,
so a 1 x 1 convolution is a linear layer and a "token" is a place in the map. What the published
code builds and never calls is left out: 18,382,864 of its 48,073,065 parameters, which are the
whole bottom stage of its decoder but for the patch expanding, and two of the three norms in every
feed-forward part.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (128, 320, 512)  # channels of the three stages
PATCHES = ((7, 4), (3, 2), (3, 2))  # kernel and stride, pixels
BLOCKS = 2  # in a stage
RATIO = 4  # hidden to outer width of a feed-forward part
HEADS = 8  # of channel attention; efficient attention has one


def efficient_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q) (softmax(k)^T v), the softmax over the channels of q and the tokens of k.

    The middle is a summary of the picture, d x e numbers however many tokens N there are, and each
    token reads its mixture of it (Shen et al. 2018, arXiv 1812.01243). No scale.

    Args:
        q, k: (..., N, d).
        v: (..., N, e).

    Returns:
        (..., N, e).
    """
    summary = k.softmax(-2).mT @ v  # (..., d, e)
    return q.softmax(-1) @ summary


def channel_attention(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor) -> Tensor:
    """Attention in which channels, not tokens, look at each other: a d x d map.

    q and k are made of length 1 along the tokens, so the map holds cosines times `temperature`
    (El-Nouby et al. 2021, arXiv 2106.09681).

    Args:
        q, k, v: (..., N, d).
        temperature: broadcasts to (..., 1, 1).

    Returns:
        (..., N, d).
    """
    q, k = functional.normalize(q, dim=-2), functional.normalize(k, dim=-2)
    attention = (q.mT @ k * temperature).softmax(-1)  # (..., d, d)
    return v @ attention.mT


class EfficientAttention(nn.Module):
    """`efficient_attention` of a map with itself, one head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.queries = nn.Linear(width, width)
        # Its bias does nothing: it shifts a channel of k at all tokens alike, which the softmax
        # over tokens cancels. It stays because published weights have it.
        self.keys = nn.Linear(width, width)
        self.values = nn.Linear(width, width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        tokens = x.flatten(1, 2)  # (B, H W, C)
        q, k, v = self.queries(tokens), self.keys(tokens), self.values(tokens)
        return self.project(efficient_attention(q, k, v)).view_as(x)


class ChannelAttention(nn.Module):
    """`channel_attention` of a map with itself, each of 8 heads with a temperature of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(HEADS, 1, 1))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        qkv = self.qkv(x).flatten(1, 2).unflatten(-1, (3, HEADS, -1))  # (B, H W, 3, heads, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, H W, d)
        out = channel_attention(q, k, v, self.temperature)
        return self.project(out.transpose(1, 2).reshape(x.shape))


class MixFFN(nn.Module):
    """Feed-forward part with a depthwise 3 x 3 convolution, by which neighbours mix."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.widen = nn.Linear(width, hidden)
        self.mix = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.norm = nn.LayerNorm(hidden)
        self.narrow = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        x = self.widen(x)
        mixed = self.mix(x.movedim(-1, 1)).movedim(1, -1)
        return self.narrow(functional.gelu(self.norm(mixed + x)))


class DualBlock(nn.Module):
    """Places look at the picture, then channels at channels, each with a feed-forward part."""

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
        """(B, H, W, C) to the same shape."""
        for norm, part in zip(self.norms, self.parts, strict=True):
            x = x + part(norm(x))
        return x


class SkipCrossAttention(nn.Module):
    """The encoder's map says where to look, the decoder's what is there; the two side by side.

    Queries and keys are the skip itself, values the decoder's map: there is nothing to learn but
    the norm that both share and the projection to twice the width.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_inputs = nn.LayerNorm(width)
        self.project = nn.Linear(width, 2 * width)
        self.norm_attended = nn.LayerNorm(2 * width)
        self.norm = nn.LayerNorm(2 * width)
        self.ffn = MixFFN(2 * width, RATIO * width)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Two (B, H, W, C), of decoder and encoder, to (B, H, W, 2 C)."""
        values, keys = (self.norm_inputs(part).flatten(1, 2) for part in (x, skip))
        attended = efficient_attention(keys, keys, values).view_as(x)
        x = torch.cat([x, skip], -1) + self.norm_attended(self.project(attended))
        return x + self.ffn(self.norm(x))


class PatchEmbedding(nn.Module):
    """A coarser map: overlapping patches, each a vector."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H / stride, W / stride, width)."""
        return self.norm(self.embed(x.movedim(-1, 1)).movedim(1, -1))


class PatchExpanding(nn.Module):
    """A finer map: each token becomes factor x factor ones (Cao et al. 2021, arXiv 2105.05537)."""

    def __init__(self, channels: int, width: int, factor: int) -> None:
        super().__init__()
        self.shape = factor, factor, width
        self.expand = nn.Linear(channels, factor**2 * width, bias=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, factor H, factor W, width)."""
        x = self.expand(x).unflatten(-1, self.shape)  # (B, H, W, factor, factor, width)
        return self.norm(x.transpose(2, 3).flatten(1, 2).flatten(2, 3))


class EncoderStage(nn.Sequential):
    """Patch embedding, dual blocks, a norm: (B, H, W, C) to (B, H / stride, W / stride, width)."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int) -> None:
        blocks = (DualBlock(width) for _ in range(BLOCKS))
        super().__init__(
            PatchEmbedding(channels, width, kernel, stride), *blocks, nn.LayerNorm(width)
        )


class DecoderStage(nn.Module):
    """What comes from below meets the skip, passes dual blocks, and becomes finer."""

    def __init__(self, channels: int, width: int, expand: PatchExpanding) -> None:
        super().__init__()
        self.enter = nn.Linear(channels, width)
        self.skip = SkipCrossAttention(width)
        self.merge = nn.Linear(2 * width, width)
        self.blocks = nn.Sequential(*(DualBlock(width) for _ in range(BLOCKS)))
        self.expand = expand

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, H, W, channels) and (B, H, W, width) to a finer map."""
        return self.expand(self.blocks(self.merge(self.skip(self.enter(x), skip))))


class DAEFormer(nn.Module):
    """Pictures to logits. Its weights start as PyTorch's layers draw them, our choice.

    Args:
        outputs: classes, background included.
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
        """Logits (B, outputs, H, W) of images (B, 3, H, W), H and W multiples of 16."""
        x, skips = images.movedim(1, -1), []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)  # (B, H / 4, W / 4, 128), then / 8, 320 channels, and / 16, 512
        x = self.expand(skips.pop())
        for stage in self.decoder:
            x = stage(x, skips.pop())
        return self.classify(x).movedim(-1, 1)
