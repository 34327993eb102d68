"""TinyViT as SAM's image encoder (Wu et al. 2022, arXiv 2207.10666), for MobileSAM and LiteMedSAM.

Stage 0 is convolutions, stages 1 to 3 are transformers within windows, and the last merge keeps the
grid, so that SAM's neck finds 64 x 64 tokens. The two differ in the patch embedding alone, which
shrinks MobileSAM's 1024 px to 256 (arXiv 2306.14289) and leaves LiteMedSAM's 256 px as they are
(its code; the LiteMedSAM + LoRA paper describes MobileSAM's). Tensors are called as in both
checkpoints.
"""

import torch
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.image_encoder import window_partition, window_unpartition
from torch import Tensor, nn
from torch.nn import functional

# Of the four stages (METHODS: TinyViT-5M, with MobileSAM's windows)
WIDTHS = (64, 128, 160, 320)
DEPTHS = (2, 2, 6, 2)
HEADS = (2, 4, 5, 10)  # stage 0 has none of them
WINDOWS = (7, 7, 14, 7)  # tokens along one side
STRIDES = (2, 2, 1)  # of the merges behind stages 0 to 2
EXPANSION = 4  # hidden channels of an MBConv and of an MLP, in widths
MOMENTUM = 0.1  # of the batch's statistics, torch's own


class TinyViT(nn.Module):
    """Image embeddings (B, channels, g, g) of images (B, 3, S, S).

    There are no positions to resize: any S works. In a grid that windows do not divide, zeros fill
    the last ones and take part in the attention, as in the reference.

    size: S, which heads ask for; the weights do not depend on it.
    shrinks: the patch embedding, 3 x 3 twice with stride 2 (g = S / 16), or 1 x 1 (g = S / 4).
    channels: of the embedding.
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
        """The blocks that attend, those of stages 1 to 3."""
        return [module for module in self.modules() if isinstance(module, Block)]

    @property
    def all_blocks(self) -> list[nn.Module]:
        """Those of stage 0, which do not, and the others."""
        return [module for module in self.modules() if isinstance(module, MBConv | Block)]

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)  # (B, 64, 4g, 4g)
        for stage in self.layers:
            x = stage(x)
        return self.neck(x)  # (B, channels, g, g)


class BatchNorm(nn.BatchNorm2d):
    """Normalises by the batch only where it learns itself; frozen, by the statistics it came with.

    So a frozen encoder computes the same in training as after it, and its statistics stay.
    """

    counts = True  # whether a batch moves the statistics; not when it is seen a second time

    def forward(self, x: Tensor) -> Tensor:
        by_batch = self.training and self.weight.requires_grad
        momentum = MOMENTUM if self.counts else 0.0
        statistics, affine = (self.running_mean, self.running_var), (self.weight, self.bias)
        return functional.batch_norm(x, *statistics, *affine, by_batch, momentum, self.eps)


class ConvNorm(nn.Module):
    """A convolution without bias and its batch normalisation."""

    def __init__(self, inputs: int, out: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__()
        self.c = nn.Conv2d(inputs, out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = BatchNorm(out)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.c(x))


class PatchEmbedding(nn.Module):
    """(B, 3, S, S) to (B, width, S/4, S/4), or to (B, width, S, S) where it does not shrink."""

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
    """Between stages: 1 x 1, 3 x 3 of each channel with the stride, 1 x 1."""

    def __init__(self, inputs: int, hidden: int, out: int, stride: int):
        super().__init__()
        self.conv1 = ConvNorm(inputs, hidden, 1)
        self.conv2 = ConvNorm(hidden, hidden, 3, stride, groups=hidden)
        self.conv3 = ConvNorm(hidden, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.gelu(self.conv1(x))
        x = functional.gelu(self.conv2(x))
        return self.conv3(x)


class MBConv(Merge):
    """The same, wider inside and around a shortcut: a block of stage 0."""

    def __init__(self, width: int):
        super().__init__(width, EXPANSION * width, width, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(x + super().forward(x))


class Attention(nn.Module):
    """Attention within a window, with a bias for each head and distance of rows and of columns."""

    def __init__(self, width: int, heads: int, window: int):
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(width)
        # Row by row: for each head its q, its k, its v. Not all q, then all k, as in SAM's ViT.
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window**2))

    def biases(self) -> Tensor:
        """(heads, N, N) for the N = window^2 tokens, from the table as it is now.

        The reference keeps this from the last `eval()`, so that weights loaded later do not count.
        """
        place = torch.arange(self.window, device=self.attention_biases.device)
        apart = (place[:, None] - place).abs()  # (window, window)
        table = self.attention_biases.unflatten(1, (self.window, self.window))
        return table[:, apart[:, None, :, None], apart[:, None]].flatten(3, 4).flatten(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, window, window, C) to the same shape; B counts windows."""
        qkv = self.qkv(self.norm(x)).flatten(1, 2).unflatten(2, (self.heads, 3, -1))
        q, k, v = qkv.permute(3, 0, 2, 1, 4)  # each (B, heads, N, c)
        biases = self.biases().to(q.dtype)[None]
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=biases)
        return self.proj(out.transpose(1, 2).flatten(2)).view(x.shape)


class MLP(nn.Module):
    """LayerNorm, one hidden layer, over the last dimension."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, EXPANSION * width)
        self.fc2 = nn.Linear(EXPANSION * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(self.norm(x))))


class Block(nn.Module):
    """A block of stages 1 to 3: attention within windows, 3 x 3 of each channel, MLP."""

    def __init__(self, width: int, heads: int, window: int):
        super().__init__()
        self.attn = Attention(width, heads, window)
        self.local_conv = ConvNorm(width, width, 3, groups=width)
        self.mlp = MLP(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        tokens = x.movedim(1, -1)  # (B, H, W, C)
        windows, padded = window_partition(tokens, self.attn.window)
        back = window_unpartition(self.attn(windows), self.attn.window, padded, tokens.shape[1:3])
        tokens = self.local_conv((tokens + back).movedim(-1, 1)).movedim(1, -1)
        return (tokens + self.mlp(tokens)).movedim(-1, 1)


class Stage(nn.Module):
    """Blocks of one width, and the merge to the next."""

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
        """(B, C, H, W) to (B, C', H', W'), the next stage's."""
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)
