"""segment_anything's encoder attention without the N x N map that it keeps for the backward pass.

For N tokens in a head the original stores softmax(q k^T + bias), N x N numbers. A fused kernel
needs none of it, if the bias goes away: SAM's relative positions depend on the query, and on the
key only through its row and its column (Li et al., MViTv2, 2112.01526, section 4.1),

    bias[q, k] = rows[q, row of k] + columns[q, column of k],

which is a product of q's `rows` and `columns` with the one-hot row and column of k. So they ride
along as further channels:

    [scale q, rows, columns] . [k, onehot row, onehot column] = scale q.k + bias

What is kept is q, k, v, the output (which the layer behind keeps anyway) and one number a token;
the further channels are made again in the backward pass.
"""

from typing import Any

import torch
from segment_anything.modeling.image_encoder import Attention, ImageEncoderViT, get_rel_pos
from torch import Tensor
from torch.nn import functional

MULTIPLE = 8  # channels; the fused CUDA kernels refuse other widths
# What the public function calls on a CPU, which does not give away the denominators
_forward_on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward_on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class FusedAttention(Attention):
    """segment_anything's `Attention`, with the same parameters and the same result."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape; B counts windows where the block has windows."""
        batch, height, width, _ = x.shape
        qkv = self.qkv(x).reshape(batch, height * width, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, c)
        rows = get_rel_pos(height, height, self.rel_pos_h).to(q.dtype)
        columns = get_rel_pos(width, width, self.rel_pos_w).to(q.dtype)
        out = _Attend.apply(q, k, v, rows, columns, self.scale)
        return self.proj(out.unflatten(1, (height, width)))


def fuse_attention(image_encoder: ImageEncoderViT) -> None:
    """Makes every block's attention a `FusedAttention`; the weights stay the same objects."""
    for block in image_encoder.blocks:
        block.attn.__class__ = FusedAttention


class _Attend(torch.autograd.Function):
    """softmax(scale q k^T + bias) v, with the heads side by side: (B, N, heads x c).

    q, k, v: (B, heads, N, c) with N = H x W; rows (H, H, c), columns (W, W, c): the relative
    position of each pair of rows, of columns.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor, scale: float
    ) -> Tensor:
        if q.device.type == "cpu":
            wide = widened(q, k, v, rows, columns, scale)
            out, of_rows = _forward_on_cpu(*wide, scale=1.0)
            out = _heads_together(out, v.shape[-1])
        else:
            out, of_rows = attend(q, k, v, rows, columns, scale), None
        ctx.scale = scale
        ctx.save_for_backward(q, k, v, rows, columns, out, of_rows)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        *inputs, out, of_rows = ctx.saved_tensors
        leaves = q, k, v, rows, columns = [x.detach().requires_grad_() for x in inputs]
        if of_rows is None:  # the forward pass once more
            with torch.enable_grad():
                again = attend(q, k, v, rows, columns, ctx.scale)
            return *torch.autograd.grad(again, leaves, gradient), None
        with torch.enable_grad():
            wide = widened(q, k, v, rows, columns, ctx.scale)
        wide_q, wide_k, wide_v = (tensor.detach() for tensor in wide)
        gradient, out = (_heads_apart(tensor, q, wide_q) for tensor in (gradient, out))
        of_wide = _backward_on_cpu(
            gradient, wide_q, wide_k, wide_v, out, of_rows, 0.0, False, scale=1.0
        )
        return *torch.autograd.grad(wide, leaves, of_wide), None


def attend(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor, scale: float) -> Tensor:
    """What `_Attend` computes, by torch's public function, on any device."""
    wide = widened(q, k, v, rows, columns, scale)
    out = functional.scaled_dot_product_attention(*wide, scale=1.0)
    return _heads_together(out, v.shape[-1])


def _heads_together(out: Tensor, channels: int) -> Tensor:
    """(B, heads, N, wide) to (B, N, heads x c), without the padding."""
    return out[..., :channels].transpose(1, 2).flatten(2)


def _heads_apart(out: Tensor, narrow: Tensor, wide: Tensor) -> Tensor:
    """The way back, (B, N, heads x c) to (B, heads, N, wide), with zeros for padding."""
    _, heads, _, channels = narrow.shape
    by_head = out.unflatten(2, (heads, channels)).transpose(1, 2)
    return functional.pad(by_head, (0, wide.shape[-1] - channels))


def widened(
    q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v with the channels that carry the relative positions; v is padded with zeros.

    All three get the same width, because torch's CPU kernel without a stored map asks for it.
    """
    height, width = len(rows), len(columns)
    grid = q.unflatten(2, (height, width))
    of_rows = torch.einsum("bnhwc,hkc->bnhwk", grid, rows).flatten(2, 3)  # (B, heads, N, H)
    of_columns = torch.einsum("bnhwc,wkc->bnhwk", grid, columns).flatten(2, 3)
    which = torch.arange(height * width, device=q.device)
    one_hot = torch.cat(
        [functional.one_hot(which // width, height), functional.one_hot(which % width, width)], 1
    ).to(k.dtype)
    one_hot = one_hot.expand(*k.shape[:2], -1, -1)
    channels = k.shape[-1] + height + width
    padding = -channels % MULTIPLE
    zeros = k.new_zeros(*k.shape[:3], padding)
    return (
        torch.cat([scale * q, of_rows, of_columns, zeros], dim=-1),
        torch.cat([k, one_hot, zeros], dim=-1),
        functional.pad(v, (0, channels + padding - v.shape[-1])),
    )
