"""TinyViT as SAM's image encoder (Wu et al. 2022, arXiv 2207.10666), for MobileSAM and LiteMedSAM.

Stage 0 has convolutions, and stages 1 to 3 have transformer blocks with windows. The last merge
keeps the grid, so that SAM's neck gets 64 x 64 tokens. The two SAMs differ only in the patch
embedding: MobileSAM's reduces 1024 px to 256 (arXiv 2306.14289), and LiteMedSAM's keeps 256 px, as
in its code; the LiteMedSAM + LoRA paper describes that of MobileSAM. The parameters have the names
of both checkpoints.
"""

from collections.abc import Callable

import torch
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.image_encoder import window_partition, window_unpartition
from torch import Tensor, nn
from torch.nn import functional

from medsaga_lib.models.evaluated import by_rows, depthwise, folded, in_pieces, is_evaluated
from medsaga_lib.models.linear import linear

# The 4 stages of TinyViT-5M, with the windows of MobileSAM
WIDTHS = (64, 128, 160, 320)
DEPTHS = (2, 2, 6, 2)
HEADS = (2, 4, 5, 10)  # unused in stage 0, which has no attention
WINDOWS = (7, 7, 14, 7)  # tokens along one side
STRIDES = (2, 2, 1)  # of the merges after stages 0 to 2
EXPANSION = 4  # hidden channels of an MBConv and of an MLP, relative to the width
MOMENTUM = 0.1  # of the running statistics; torch's default


class TinyViT(nn.Module):
    """The image encoder TinyViT: image embeddings (B, channels, g, g) of images (B, 3, S, S).

    It has no positions that depend on S. If the windows do not divide the grid, zeros fill up the
    last windows and take part in the attention, as in the reference.

    size: S, which the heads read; the weights do not depend on it.
    shrinks: the patch embedding has 2 convolutions 3 x 3 with stride 2 (g = S / 16) or, if false,
        1 x 1 with stride 1 (g = S / 4).
    channels: channels of the image embedding.
    """

    def __init__(self, size: int, shrinks: bool, channels: int = 256):
        super().__init__()
        self.img_size = size
        self.patch_embed = PatchEmbedding(WIDTHS[0], shrinks)
        self.layers = nn.ModuleList(Stage(number) for number in range(len(WIDTHS)))
        self.neck = nn.Sequential(
            nn.Conv2d(WIDTHS[-1], channels, 1, bias=False),
            LayerNorm2d(channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            LayerNorm2d(channels),
        )

    @property
    def blocks(self) -> list["Block"]:
        """The blocks with attention, in stages 1 to 3."""
        return [module for module in self.modules() if isinstance(module, Block)]

    @property
    def all_blocks(self) -> list[nn.Module]:
        """All blocks: the convolutions of stage 0 and the blocks with attention."""
        return [module for module in self.modules() if isinstance(module, MBConv | Block)]

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)  # (B, 64, 4g, 4g)
        for stage in self.layers:
            x = stage(x)
        return self.neck(x)  # (B, channels, g, g)


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that uses and updates the batch statistics only if its weight trains.

    If its weight is frozen, it uses its running statistics. Therefore a frozen encoder gives the
    same result in training and in evaluation, and its statistics stay the same.
    """

    counts = True  # whether a batch updates the statistics; false when a forward pass is repeated

    def forward(self, x: Tensor) -> Tensor:
        by_batch = self.training and self.weight.requires_grad
        momentum = MOMENTUM if self.counts else 0.0
        statistics, affine = (self.running_mean, self.running_var), (self.weight, self.bias)
        return functional.batch_norm(x, *statistics, *affine, by_batch, momentum, self.eps)


class ConvNorm(nn.Module):
    """A convolution without bias, followed by batch normalisation."""

    def __init__(self, inputs: int, out: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__()
        self.c = nn.Conv2d(inputs, out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = BatchNorm(out)

    def forward(self, x: Tensor) -> Tensor:
        if not self.is_fixed(x):
            return self.bn(self.c(x))
        weight, bias = folded(self.c, self.bn)
        c = self.c
        return functional.conv2d(x, weight, bias, c.stride, c.padding, groups=c.groups)

    def is_fixed(self, x: Tensor) -> bool:
        """Return whether no backward pass goes through and the statistics are not the batch's."""
        if not isinstance(self.bn, BatchNorm):  # it is part of the convolution, in an export
            return False
        by_batch = self.bn.training and self.bn.weight.requires_grad
        return not by_batch and is_evaluated(self, x)


class PatchEmbedding(nn.Module):
    """Embeds (B, 3, S, S) as (B, width, S/4, S/4) or, without `shrinks`, (B, width, S, S)."""

    def __init__(self, width: int, shrinks: bool):
        super().__init__()
        kernel, stride = (3, 2) if shrinks else (1, 1)
        self.seq = nn.Sequential(
            ConvNorm(3, width // 2, kernel, stride),
            nn.GELU(),
            ConvNorm(width // 2, width, kernel, stride),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.seq(x)


class Merge(nn.Module):
    """The layer between stages: convolutions 1 x 1, depthwise 3 x 3 with stride, 1 x 1."""

    def __init__(self, inputs: int, hidden: int, out: int, stride: int):
        super().__init__()
        self.conv1 = ConvNorm(inputs, hidden, 1)
        self.conv2 = ConvNorm(hidden, hidden, 3, stride, groups=hidden)
        self.conv3 = ConvNorm(hidden, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self._is_fixed(x):
            return self._by_rows(x, lambda out, _: out)
        x = functional.gelu(self.conv1(x))
        x = functional.gelu(self.conv2(x))
        return self.conv3(x)

    def _is_fixed(self, x: Tensor) -> bool:
        return all(layer.is_fixed(x) for layer in (self.conv1, self.conv2, self.conv3))

    def _by_rows(self, x: Tensor, finish: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Return finish(convolutions of x, x), as `forward` does where nothing is differentiated.

        `finish` maps tokens (1, h, W, C); if there is a stride, only the first argument is of use.
        """
        (first, bias), (second, shift), (third, last) = (
            folded(layer.c, layer.bn) for layer in (self.conv1, self.conv2, self.conv3)
        )
        stride = self.conv2.c.stride[0]

        def widen(tokens: Tensor) -> Tensor:
            return functional.gelu(linear(tokens, first.flatten(1), bias))

        def convolve(rows: Tensor) -> Tensor:
            return depthwise(rows, second, shift, stride, pad=(0, 1))

        def narrow(middle: Tensor, tokens: Tensor) -> Tensor:
            out = linear(functional.gelu(middle), third.flatten(1), last)
            return finish(out, tokens)

        tokens = x.permute(0, 2, 3, 1).contiguous()
        return by_rows(widen, convolve, narrow, tokens, len(bias), stride).permute(0, 3, 1, 2)


class MBConv(Merge):
    """A block of stage 0: a `Merge` with more hidden channels and a shortcut."""

    def __init__(self, width: int):
        super().__init__(width, EXPANSION * width, width, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        if self._is_fixed(x):
            return self._by_rows(x, lambda out, tokens: functional.gelu(out + tokens))
        return functional.gelu(x + super().forward(x))


class Attention(nn.Module):
    """Attention within a window, with a bias for each head and distance of rows and columns."""

    def __init__(self, width: int, heads: int, window: int):
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(width)
        # The rows are q, k, v of each head in turn; in SAM's ViT, q of all heads comes first.
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window**2))

    def biases(self) -> Tensor:
        """Return the biases (heads, N, N) of the N = window^2 tokens from the current table.

        The reference stores them at the last `eval()`, so that it ignores weights loaded later.
        """
        place = torch.arange(self.window, device=self.attention_biases.device)
        apart = (place[:, None] - place).abs()  # (window, window)
        table = self.attention_biases.unflatten(1, (self.window, self.window))
        return table[:, apart[:, None, :, None], apart[:, None]].flatten(3, 4).flatten(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, H, W, C) to the same shape."""
        if is_evaluated(self, x):
            return self.proj(self._unpadded(x))
        windows, padded = window_partition(x, self.window)
        out = self._within(self.qkv(self.norm(windows)))
        return window_unpartition(self.proj(out), self.window, padded, x.shape[1:3])

    def _unpadded(self, x: Tensor) -> Tensor:
        """Return the attention of tokens (B, H, W, C), without computing those of the padding.

        All zeros that fill up a window have the same key k and value v, and differ in their biases
        alone. Their part in the sums of the softmax is that of one token with k and v, whose bias
        is the logarithm of the sum of exp(bias) over them.
        """
        qkv = self.qkv(self.norm(x))
        zero = self.qkv(self.norm(x.new_zeros(1, 1, 1, x.shape[-1])))
        out = torch.empty_like(x, dtype=qkv.dtype)
        for rows in self._strips(x.shape[1]):
            for columns in self._strips(x.shape[2]):
                out[:, rows, columns] = self._within_part(qkv[:, rows, columns], zero)
        return out

    def _strips(self, side: int) -> list[slice]:
        """Divide a side of the grid into what whole windows cover and the rest."""
        whole = side - side % self.window
        return [part for part in (slice(0, whole), slice(whole, side)) if part.start < part.stop]

    def _within_part(self, qkv: Tensor, zero: Tensor) -> Tensor:
        """Return the attention (B, h, w, C) of a part of the grid that has windows of one size.

        qkv: (B, h, w, 3C).
        zero: (1, 1, 1, 3C), that of the padding.
        """
        height, width = (min(side, self.window) for side in qkv.shape[1:3])
        q, k, v = self._by_head(qkv, height, width)
        biases = self.biases().view(self.heads, *4 * [self.window])  # rows, columns of q and of k
        of_queries = biases[:, :height, :width].flatten(1, 2)  # (heads, n, window, window)
        bias = of_queries[..., :height, :width].flatten(2)
        if height < self.window or width < self.window:
            below, beside = of_queries[..., height:, :], of_queries[..., :height, width:]
            padding = torch.cat([below.flatten(2), beside.flatten(2)], -1)
            bias = torch.cat([bias, padding.logsumexp(-1, keepdim=True)], -1)
            _, key, value = self._by_head(zero, 1, 1).expand(-1, len(q), -1, -1, -1)
            k, v = torch.cat([k, key], 2), torch.cat([v, value], 2)
        mask = bias.to(q.dtype)[None]
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        batch, rows, columns, _ = qkv.shape
        shape = batch, rows // height, columns // width, self.heads, height, width, -1
        return out.reshape(shape).permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, rows, columns, -1)

    def _by_head(self, qkv: Tensor, height: int, width: int) -> Tensor:
        """Divide (B, h, w, 3C) into windows: q, k and v (3, windows, heads, height x width, c)."""
        batch, rows, columns, _ = qkv.shape
        shape = batch, rows // height, height, columns // width, width, self.heads, 3, -1
        parts = qkv.reshape(shape).permute(6, 0, 1, 3, 5, 2, 4, 7)
        return parts.flatten(1, 3).flatten(3, 4)

    def _within(self, qkv: Tensor) -> Tensor:
        """Return the attention (B, window, window, C) of whole windows qkv (B, window, window, 3C).

        Training takes this way, and so does the export for the browser, whose file it keeps small.
        """
        by_head = qkv.flatten(1, 2).unflatten(2, (self.heads, 3, -1))
        q, k, v = by_head.permute(3, 0, 2, 1, 4)  # each (B, heads, N, c)
        biases = self.biases().to(q.dtype)[None]
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=biases)
        return out.transpose(1, 2).flatten(2).unflatten(1, (self.window, self.window))


class MLP(nn.Module):
    """A LayerNorm and an MLP with one hidden layer, over the last dimension."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, EXPANSION * width)
        self.fc2 = nn.Linear(EXPANSION * width, width)

    def forward(self, x: Tensor) -> Tensor:
        if is_evaluated(self, x):
            tokens = x.flatten(0, -2)
            return in_pieces(self._layers, tokens, EXPANSION * x.shape[-1]).view(x.shape)
        return self._layers(x)

    def _layers(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(self.norm(x))))


class Block(nn.Module):
    """A block of stages 1 to 3: attention within windows, depthwise convolution 3 x 3, MLP."""

    def __init__(self, width: int, heads: int, window: int):
        super().__init__()
        self.attn = Attention(width, heads, window)
        self.local_conv = ConvNorm(width, width, 3, groups=width)
        self.mlp = MLP(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        # permute, because torch's ONNX exporter writes an invalid axis for movedim(-1, 1)
        tokens = x.permute(0, 2, 3, 1)  # (B, H, W, C)
        tokens = tokens + self.attn(tokens)
        tokens = self.local_conv(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return (tokens + self.mlp(tokens)).permute(0, 3, 1, 2)


class Stage(nn.Module):
    """A stage: blocks of one width and the merge to the next width."""

    def __init__(self, number: int):
        super().__init__()
        width, last = WIDTHS[number], number == len(WIDTHS) - 1
        self.blocks = nn.ModuleList(
            Block(width, HEADS[number], WINDOWS[number]) if number else MBConv(width)
            for _ in range(DEPTHS[number])
        )
        following = None if last else WIDTHS[number + 1]
        self.downsample = Merge(width, following, following, STRIDES[number]) if following else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W'), the shape of the next stage."""
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)
