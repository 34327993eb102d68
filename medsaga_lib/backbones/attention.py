"""segment_anything's encoder attention without the N x N map that it keeps for the backward pass.

For N tokens in a head the original stores softmax(q k^T + bias), N x N numbers. A fused kernel
needs none of it, if the bias goes away: SAM's relative positions depend on the query, and on the
key only through its row and its column (Li et al., MViTv2, 2112.01526, section 4.1),

    bias[q, k] = rows[q, row of k] + columns[q, column of k],

which is a product of q's `rows` and `columns` with the one-hot row and column of k. So on a GPU
they ride along as further channels:

    [scale q, rows, columns] . [k, onehot row, onehot column] = scale q.k + bias

and on a CPU they are added to the map while it is made piece by piece (`attention_on_cpu`). Kept
are q, k, v, the output (which the layer behind keeps anyway) and one number a token and head.

Where a block looks through windows, segment_anything fills the grid up with zeros until they fit
(32 x 32 tokens become 42 x 42), computes q, k, v and the projection for those too, and throws the
result away. Here the attention itself cuts the windows, so that layers and memory see the grid's
own tokens; the filling, at which they do look, gets the q, k, v of a zero, which are the bias.

The mask decoder's attention stays the original's: its maps have some twelve rows, and to leave
them out changes the kept bytes by less than 0.4 %, for S-SAM upwards.
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

from medsaga_lib.backbones.attention_on_cpu import attention, attention_backward

MULTIPLE = 8  # channels; the fused CUDA kernels refuse other widths


class Layout(NamedTuple):
    """How the channels and the grid are divided; window: tokens along a side, 0 for the whole."""

    heads: int
    window: int
    scale: float  # of q


class FusedAttention(Attention):
    """segment_anything's `Attention`, with the same parameters and the same result."""

    window = 0  # tokens along a side of the windows that the grid is cut into; 0: not cut

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        qkv = self.qkv(x)  # (B, H, W, 3C)
        filling = self.qkv.bias.to(qkv.dtype).expand(1, 1, 1, -1)
        height, width = (self.window or side for side in x.shape[1:3])
        rows = relative_positions(self.rel_pos_h, height).to(qkv.dtype)
        columns = relative_positions(self.rel_pos_w, width).to(qkv.dtype)
        layout = Layout(self.num_heads, self.window, self.scale)
        return self.proj(_Attend.apply(qkv, filling, rows, columns, layout))


def relative_positions(table: Tensor, side: int) -> Tensor:
    """The row of the table (2 side - 1, c) for each distance: (side of q, side of k, c).

    A table of another length is interpolated first, as segment_anything does it.
    """
    if len(table) != 2 * side - 1:
        return get_rel_pos(side, side, table)
    return table.unfold(0, side, 1).flip(2).transpose(1, 2)  # row q - k + side - 1


def fuse_attention(image_encoder: ImageEncoderViT) -> None:
    """Makes every block's attention a `FusedAttention`; the weights stay the same objects."""
    for block in image_encoder.blocks:
        block.attn.__class__ = FusedAttention
        block.attn.window, block.window_size = block.window_size, 0


class _Attend(torch.autograd.Function):
    """softmax(scale q k^T + bias) v, in each window, with the heads side by side: (B, H, W, C).

    qkv (B, H, W, 3C); filling (1, 1, 1, 3C), unused without windows; rows (h, h, c), columns
    (w, w, c): the relative position of each pair of rows, of columns.
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
        if logarithms is None:  # the forward pass once more
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
    """Whether `attention_on_cpu` computes it; predictions (`memory.fake`) are made for a GPU."""
    return tensor.device.type == "cpu" and not isinstance(tensor, FakeTensor)


def attend(qkv: Tensor, filling: Tensor, rows: Tensor, columns: Tensor, layout: Layout) -> Tensor:
    """What `_Attend` computes, by torch's public function, on any device."""
    q, k, v = _apart(qkv, filling, layout, 3)
    wide = widened(q, k, v, rows, columns, layout.scale)
    out = functional.scaled_dot_product_attention(*wide, scale=1.0)
    return _together(out[..., : v.shape[-1]], qkv, layout)


def _apart(tokens: Tensor, filling: Tensor, layout: Layout, parts: int) -> tuple[Tensor, ...]:
    """(B, H, W, parts x heads x c) to parts of (B, heads, N, c); B then counts windows, if any."""
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
    """The way back, (B, heads, N, c) to (B, H, W, heads x c), without the filling."""
    (_, height, width, _), window = grid.shape, layout.window
    tokens = out.transpose(1, 2).flatten(2)
    if not window:
        return tokens.unflatten(1, (height, width))
    filled = height + -height % window, width + -width % window
    return window_unpartition(tokens, window, filled, (height, width))


def widened(
    q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v with the channels that carry the relative positions; v is padded with zeros.

    All three get the same width, because kernels without a stored map ask for it.
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
    """What each query adds for a key's row and column: (B, heads, N, h) and (B, heads, N, w)."""
    grid = q.unflatten(2, (len(rows), len(columns)))
    return (
        torch.einsum("bnhwc,hkc->bnhwk", grid, rows).flatten(2, 3),
        torch.einsum("bnhwc,wkc->bnhwk", grid, columns).flatten(2, 3),
    )
