"""The attention of segment_anything's image encoder, without its N x N map for the backward pass.

For N tokens, the original stores softmax(q k^T + bias) for each head, which is N x N numbers. A
fused kernel does not store this map, but the bias would be another one. In SAM, the bias of the
relative positions depends on the query, and on the row and the column of the key (MViTv2, Li et al.
2021, arXiv 2112.01526, section 4.1):

    bias[q, k] = rows[q, row of k] + columns[q, column of k]

This is a product of `rows` and `columns` of q with the one-hot row and column of k. On a GPU, they
are therefore additional channels of q and k:

    [scale q, rows, columns] . [k, onehot row, onehot column] = scale q.k + bias

On a CPU, they are added to the map, which is computed piece by piece; see `attention_on_cpu`. The
backward pass needs q, k, v, the output, which the next layer keeps anyway, and, on a CPU, one
number for each token and head.

For blocks with windows, segment_anything pads the grid with zeros to a multiple of the window, for
example 32 x 32 tokens to 42 x 42. It computes q, k, v and the projection for the padding too, and
then removes the result. Here only the attention itself pads the grid, so that the other layers and
the memory hold the tokens of the grid alone. The tokens attend to the padding, whose q, k and v are
those of a zero token: the bias of the layer.

The mask decoder keeps the original attention: its maps have about 12 rows. Fused attention would
save less than 0.4 % of the stored bytes there, and for S-SAM it would store more.
"""

from typing import Any, NamedTuple

import torch
from segment_anything.modeling.image_encoder import (
    Attention,
    ImageEncoderViT,
    get_rel_pos,
    window_partition,
    window_unpartition,
)
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional

from medsaga_lib.models.attention_on_cpu import attention, attention_backward

MULTIPLE = 8  # channels; the fused CUDA kernels accept only multiples of this width


class Layout(NamedTuple):
    """The division of channels into heads and of the grid into windows; window 0: no windows."""

    heads: int
    window: int  # tokens along one side
    scale: float  # factor of q


class FusedAttention(Attention):
    """segment_anything's `Attention`, with the same parameters and the same result."""

    window = 0  # tokens along one side of a window; 0: no windows

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to the same shape."""
        qkv = self.qkv(x)  # (B, H, W, 3C)
        filling = self.qkv.bias.to(qkv.dtype).expand(1, 1, 1, -1)
        height, width = (self.window or side for side in x.shape[1:3])
        rows = relative_positions(self.rel_pos_h, height).to(qkv.dtype)
        columns = relative_positions(self.rel_pos_w, width).to(qkv.dtype)
        layout = Layout(self.num_heads, self.window, self.scale)
        return self.proj(_Attend.apply(qkv, filling, rows, columns, layout))


def relative_positions(table: Tensor, side: int) -> Tensor:
    """Return the row of the table (2 side - 1, c) for each distance: (side of q, side of k, c).

    A table of another length is interpolated first, as in segment_anything.
    """
    if len(table) != 2 * side - 1:
        return get_rel_pos(side, side, table)
    return table.unfold(0, side, 1).flip(2).transpose(1, 2)  # row q - k + side - 1


def fuse_attention(image_encoder: ImageEncoderViT) -> None:
    """Turn the attention of every block into `FusedAttention`, with the same weight tensors."""
    for block in image_encoder.blocks:
        block.attn.__class__ = FusedAttention
        block.attn.window, block.window_size = block.window_size, 0


def split_attention(image_encoder: ImageEncoderViT) -> None:
    """Undo `fuse_attention`: the export to ONNX needs segment_anything's own attention."""
    for block in image_encoder.blocks:
        if isinstance(block.attn, FusedAttention):
            block.window_size = block.attn.window
            block.attn.__class__ = Attention


class _Attend(torch.autograd.Function):
    """softmax(scale q k^T + bias) v in each window, with the heads concatenated: (B, H, W, C).

    qkv: (B, H, W, 3C).
    filling: (1, 1, 1, 3C), the q, k, v of the padding; unused without windows.
    rows, columns: (h, h, c) and (w, w, c), the relative positions of rows and of columns.
    """

    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, filling: Tensor, rows: Tensor, columns: Tensor, layout: Layout
    ) -> Tensor:
        if _in_pieces(qkv):
            q, k, v = _apart(qkv, filling, layout, 3)
            out, logarithms = attention(q, k, v, *_of_positions(q, rows, columns), layout.scale)
            out = _together(out, qkv, layout)
        else:
            out, logarithms = attend(qkv, filling, rows, columns, layout), None
        ctx.layout = layout
        ctx.save_for_backward(qkv, filling, rows, columns, out, logarithms)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        *inputs, out, logarithms = ctx.saved_tensors
        layout = ctx.layout
        leaves = qkv, filling, rows, columns = [x.detach().requires_grad_() for x in inputs]
        if logarithms is None:  # repeat the forward pass
            with torch.enable_grad():
                again = attend(qkv, filling, rows, columns, layout)
            of_leaves = torch.autograd.grad(again, leaves, gradient, allow_unused=True)
            return *of_leaves, None
        with torch.enable_grad():
            q, k, v = _apart(qkv, filling, layout, 3)
            parts = q, k, v, *_of_positions(q, rows, columns)
        gradient, out = (
            _apart(x, x.new_zeros(1, 1, 1, x.shape[-1]), layout, 1)[0] for x in (gradient, out)
        )
        q, k, v, of_rows, of_columns = (x.detach() for x in parts)
        of_parts = attention_backward(
            gradient, q, k, v, of_rows, of_columns, out, logarithms, layout.scale
        )
        of_leaves = torch.autograd.grad(parts, leaves, of_parts, allow_unused=True)
        return *of_leaves, None


def _in_pieces(tensor: Tensor) -> bool:
    """Tell whether `attention_on_cpu` is used; fake tensors predict the memory of a GPU."""
    return tensor.device.type == "cpu" and not isinstance(tensor, FakeTensor)


def attend(qkv: Tensor, filling: Tensor, rows: Tensor, columns: Tensor, layout: Layout) -> Tensor:
    """Compute the result of `_Attend` with a public function of torch, on any device."""
    q, k, v = _apart(qkv, filling, layout, 3)
    wide = widened(q, k, v, rows, columns, layout.scale)
    out = functional.scaled_dot_product_attention(*wide, scale=1.0)
    return _together(out[..., : v.shape[-1]], qkv, layout)


def _apart(tokens: Tensor, filling: Tensor, layout: Layout, parts: int) -> tuple[Tensor, ...]:
    """Split (B, H, W, parts x heads x c) into parts (B, heads, N, c), where B counts windows."""
    if window := layout.window:
        batch, height, width, _ = tokens.shape
        below, beside = -height % window, -width % window
        right = filling.expand(batch, height, beside, -1)
        bottom = filling.expand(batch, below, width + beside, -1)
        tokens = torch.cat([torch.cat([tokens, right], dim=2), bottom], dim=1)
        tokens, _ = window_partition(tokens, window)
    by_head = tokens.flatten(1, 2).unflatten(2, (parts, layout.heads, -1))
    return by_head.permute(2, 0, 3, 1, 4).unbind()


def _together(out: Tensor, grid: Tensor, layout: Layout) -> Tensor:
    """Join (B, heads, N, c) to (B, H, W, heads x c), without the padding: undo `_apart`."""
    (_, height, width, _), window = grid.shape, layout.window
    tokens = out.transpose(1, 2).flatten(2)
    if not window:
        return tokens.unflatten(1, (height, width))
    filled = height + -height % window, width + -width % window
    return window_unpartition(tokens, window, filled, (height, width))


def widened(
    q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Add the channels of the relative positions to q and k, and zeros to v.

    All three get the same width, because fused kernels require it.
    """
    height, width = len(rows), len(columns)
    of_row = torch.eye(height, dtype=k.dtype, device=k.device)[:, None].expand(-1, width, -1)
    of_column = torch.eye(width, dtype=k.dtype, device=k.device).expand(height, -1, -1)
    one_hot = torch.cat([of_row, of_column], dim=-1).flatten(0, 1)  # (N, H + W)
    wide_q = torch.cat([scale * q, *_of_positions(q, rows, columns)], dim=-1)
    wide_k = torch.cat([k, one_hot.expand(*k.shape[:2], -1, -1)], dim=-1)
    if padding := -wide_k.shape[-1] % MULTIPLE:
        wide_q, wide_k = (functional.pad(x, (0, padding)) for x in (wide_q, wide_k))
    return wide_q, wide_k, functional.pad(v, (0, wide_k.shape[-1] - v.shape[-1]))


def _of_positions(q: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return each query's bias for the rows and columns: (B, heads, N, h), (B, heads, N, w)."""
    grid = q.unflatten(2, (len(rows), len(columns)))
    return (
        torch.einsum("bnhwc,hkc->bnhwk", grid, rows).flatten(2, 3),
        torch.einsum("bnhwc,wkc->bnhwk", grid, columns).flatten(2, 3),
    )
