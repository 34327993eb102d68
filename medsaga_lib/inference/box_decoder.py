"""A fast mask decoder of SAM for many boxes on one image.

segment_anything's decoder, called once per box, gives the same logits up to rounding, but is slower
on a CPU. This decoder saves time in four places:

1. In the first two-way layer, the image tokens are the same for every box, so they are projected
   once.
2. In later layers, the few tokens are projected instead of the many image tokens:
   q . (x W_k) = (q W_k^T) . x, and sum_n p_n (x_n W_v) = (sum_n p_n x_n) W_v. In the same way, the
   output projection of image-to-token attention is applied to the values of the tokens.
3. Only the requested mask is computed (the transposed convolutions, 2 x 2 with stride 2, are matrix
   products there, on as many image tokens at a time as fit the processor's cache), and only its
   part with positive logits is resized to the image.
4. For overlapping masks, the running maximum is kept, never all masks.

torch.compile and ONNX Runtime on the published decoder are not used, because they are much slower;
bfloat16 is not used, because it changes the masks. `python -m tools.boxes` times all of them, and
chapter 8 of the book shows the numbers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import MaskDecoder, Sam
from segment_anything.modeling.transformer import Attention
from torch import Tensor, nn
from torch.nn import functional

from medsaga_lib.models.evaluated import in_pieces
from medsaga_lib.models.frame import Frame

# Image tokens decoded at a time; our choice by measurement (`bench.boxes`): one box of a 64 x 64
# grid stays in the processor's cache; several together took longer than one after the other.
TOKENS_AT_ONCE = 4096
CELLS = 4  # logits along one side of an image token


@dataclass(frozen=True)
class Mask:
    """A mask cropped from an image: `pixels` (h, w) bool, with the first pixel at (top, left)."""

    top: int
    left: int
    pixels: NDArray[np.bool_]

    def whole(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Return the mask (H, W) in an image of this size."""
        mask = np.zeros(size, bool)
        height, width = self.pixels.shape
        mask[self.top : self.top + height, self.left : self.left + width] = self.pixels
        return mask


class Segmentation(NamedTuple):
    """A label map (H, W) int64, 0 where no box has a positive logit, and the mask of each box."""

    labels: NDArray[np.int64]
    masks: list[Mask]


@torch.inference_mode()
def segment_boxes(
    sam: Sam,
    embedding: Tensor,
    boxes: Tensor,
    size: tuple[int, int],
    values: Sequence[int] | None = None,
    frame: Frame | None = None,
) -> Segmentation:
    """Segment the object in each box; where masks overlap, the box with the larger logit wins.

    Args:
        sam: any model with segment_anything's prompt encoder and mask decoder.
        embedding: image embedding (1, C, h, w).
        boxes: (N, 4) x0, y0, x1, y1 in pixels of the image.
        size: (H, W) of the image.
        values: label of each box; default 1 ... N. LiteMedSAM's code renames labels one after the
            other, which turns 2, 3, 5 into 5, 5, 5; here each box keeps its own label.
        frame: position of the image in the network's input; default: as in segment_anything.
    """
    frame = frame or Frame(size, sam.prompt_encoder.input_image_size[0])
    best, labels = torch.zeros(size), torch.zeros(size, dtype=torch.int64)
    values = range(1, len(boxes) + 1) if values is None else [int(value) for value in values]
    inside = frame.boxes(boxes)
    masks = [*paint_boxes(sam, embedding, inside, frame, values, best, labels)]
    return Segmentation(labels.numpy(), masks)


def paint_boxes(
    sam: Sam,
    embedding: Tensor,
    boxes: Tensor,
    frame: Frame,
    values: Sequence[int],
    best: Tensor,
    labels: Tensor,
) -> Iterator[Mask]:
    """Yield each box's mask, and write its label where its logit is the largest so far.

    Args:
        sam, embedding, values: as in `segment_boxes`.
        boxes: (N, 4) x0, y0, x1, y1 in pixels of the input.
        frame: position of the image in the network's input.
        best, labels: (H, W) the largest logit so far, 0 at first, and the label of its box; both
            are changed in place.
    """
    down, across = (frame.enlarging(a, CELLS * embedding.shape[2 + a]) for a in (0, 1))
    for value, logits in zip(values, decode_boxes(sam, embedding, boxes), strict=True):
        logits = logits.cpu()
        # A pixel can be positive only if one of the logits around it is
        rows = _touched(down, (logits > 0).any(1))
        columns = _touched(across, (logits > 0).any(0))
        large = down[rows] @ logits @ across[columns].T
        highest, here = best[rows, columns], labels[rows, columns]
        here[large > highest] = value
        torch.maximum(highest, large, out=highest)
        yield Mask(rows.start, columns.start, (large > 0).numpy())


def _touched(matrix: Tensor, cells: Tensor) -> slice:
    """Return the range of pixels (rows of the matrix) that depend on the cells."""
    touched = matrix[:, cells].any(1).nonzero().flatten()
    return slice(int(touched[0]), int(touched[-1]) + 1) if len(touched) else slice(0, 0)


@torch.inference_mode()
def decode_boxes(sam: Sam, embedding: Tensor, boxes: Tensor) -> Iterator[Tensor]:
    """Yield SAM's single mask of each box as logits (4h, 4w), one after the other.

    Args:
        sam, embedding: as in `segment_boxes`.
        boxes: (N, 4) x0, y0, x1, y1 in pixels of the input.
    """
    if not len(boxes):
        return
    decoder, grid = sam.mask_decoder, embedding.shape[-2:]
    tokens, shared = box_tokens(sam, boxes.to(embedding.device)), share(sam, embedding)
    for some in tokens.split(max(1, TOKENS_AT_ONCE // grid.numel())):
        hidden, images = two_way(decoder, shared, some)
        classifiers = decoder.output_hypernetworks_mlps[0](hidden[:, 1])  # (b, C/8)
        for image, classifier in zip(images, classifiers, strict=True):
            yield enlarged(decoder, image, classifier, grid)


class Shared(NamedTuple):
    """The image tokens and their projections in the first layer, which all boxes share.

    image, position: (1, N, C). k, v, q: (1, heads, N, c).
    """

    image: Tensor
    position: Tensor
    k: Tensor
    v: Tensor
    q: Tensor


def share(sam: Sam, embedding: Tensor) -> Shared:
    """Compute what does not depend on a box from the image embedding (1, C, h, w)."""
    first = sam.mask_decoder.transformer.layers[0]
    asked, asking = first.cross_attn_token_to_image, first.cross_attn_image_to_token
    _, dense = sam.prompt_encoder(None, None, None)
    image = (embedding + dense).flatten(2).transpose(1, 2).contiguous()
    position = sam.prompt_encoder.get_dense_pe().flatten(2).transpose(1, 2).contiguous()
    placed = image + position
    k, v = _by_head(asked, asked.k_proj(placed)), _by_head(asked, asked.v_proj(image))
    return Shared(image, position, k, v, _by_head(asking, asking.q_proj(placed)))


def box_tokens(sam: Sam, boxes: Tensor) -> Tensor:
    """Return the tokens (N, 1 + T + 2, C) of boxes (N, 4): predicted IoU, masks, two corners."""
    sparse, _ = sam.prompt_encoder(None, boxes, None)
    output = torch.cat([sam.mask_decoder.iou_token.weight, sam.mask_decoder.mask_tokens.weight])
    return torch.cat([output.expand(len(boxes), -1, -1), sparse], dim=1)


def two_way(decoder: MaskDecoder, shared: Shared, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Run the two-way transformer for b boxes; return tokens (b, T, C), image tokens (b, N, C)."""
    transformer = decoder.transformer
    first, *later = transformer.layers

    # First layer: all boxes share the image tokens
    queries = first.norm1(first.self_attn(tokens, tokens, tokens))
    attention = first.cross_attn_token_to_image
    queries = first.norm2(queries + _found_in_shared(attention, shared, queries + tokens))
    queries = first.norm3(queries + first.mlp(queries))
    attention = first.cross_attn_image_to_token
    k = _by_head(attention, attention.k_proj(queries + tokens))
    image = _answered(attention, k @ shared.q.transpose(2, 3), queries, shared.image)
    image = first.norm4(image)

    # Later layers: each box has its own image tokens
    for layer in later:
        asking = queries + tokens
        queries = layer.norm1(queries + layer.self_attn(asking, asking, queries))
        placed = image + shared.position
        seen = _found(layer.cross_attn_token_to_image, queries + tokens, placed, image)
        queries = layer.norm2(queries + seen)
        queries = layer.norm3(queries + layer.mlp(queries))
        attention = layer.cross_attn_image_to_token
        logits = _asked(attention, queries + tokens, placed)
        image = layer.norm4(_answered(attention, logits, queries, image))

    attention = transformer.final_attn_token_to_image
    seen = _found(attention, queries + tokens, image + shared.position, image)
    return transformer.norm_final_attn(queries + seen), image


def _found_in_shared(attention: Attention, shared: Shared, asking: Tensor) -> Tensor:
    """Attend from tokens (b, T, C) to the image tokens that all boxes share."""
    q = _by_head(attention, attention.q_proj(asking).flatten(0, 1)[None])  # (1, heads, b x T, c)
    seen = functional.scaled_dot_product_attention(q, shared.k, shared.v)
    return attention.out_proj(seen.transpose(1, 2).flatten(2)).view_as(asking)


def _found(attention: Attention, asking: Tensor, placed: Tensor, image: Tensor) -> Tensor:
    """Attend from tokens (b, T, C) to the image tokens (b, N, C) of their own box."""
    q = _by_head(attention, attention.q_proj(asking))
    q = q @ _weight_by_head(attention, attention.k_proj)  # (b, heads, T, C)
    # The bias of k adds the same number to all logits of a token; the softmax does not change
    logits = q.flatten(1, 2) @ placed.transpose(1, 2)  # (b, heads x T, N)
    weights = torch.softmax(_scaled(attention, logits), dim=-1)
    seen = (weights @ image).unflatten(1, (attention.num_heads, -1))
    seen = seen @ _weight_by_head(attention, attention.v_proj).transpose(1, 2)
    # The weights sum to 1, so the bias of v is added unchanged
    return attention.out_proj(seen.transpose(1, 2).flatten(2) + attention.v_proj.bias)


def _asked(attention: Attention, asked: Tensor, placed: Tensor) -> Tensor:
    """Return attention logits (b, heads, T, N) of image tokens (b, N, C) for tokens (b, T, C)."""
    k = _by_head(attention, attention.k_proj(asked))
    bias = k @ attention.q_proj.bias.view(attention.num_heads, -1, 1)  # (b, heads, T, 1)
    k = k @ _weight_by_head(attention, attention.q_proj)  # (b, heads, T, C)
    return (k.flatten(1, 2) @ placed.transpose(1, 2)).view(*k.shape[:3], -1) + bias


def _answered(attention: Attention, logits: Tensor, tokens: Tensor, image: Tensor) -> Tensor:
    """Attend from image tokens (b or 1, N, C) to tokens (b, T, C); return the sum (b, N, C)."""
    weights = torch.softmax(_scaled(attention, logits), dim=2).flatten(1, 2)
    v = _by_head(attention, attention.v_proj(tokens))
    out = attention.out_proj.weight.unflatten(1, (attention.num_heads, -1)).permute(1, 2, 0)
    values = (v @ out).flatten(1, 2)  # (b, heads x T, C)
    values = values + attention.out_proj.bias / attention.num_heads  # every head adds its share
    return torch.baddbmm(image, weights.transpose(1, 2), values)


def enlarged(decoder: MaskDecoder, image: Tensor, classifier: Tensor, grid: torch.Size) -> Tensor:
    """Return logits (4h, 4w) of h x w image tokens (h w, C) for a classifier (C/8,)."""
    first, norm, activation, second, last = decoder.output_upscaling

    def enlarge(tokens: Tensor) -> Tensor:
        x = _doubled(tokens, first)  # (n, 4, C/4)
        x = functional.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)
        return last(_doubled(activation(x), second)) @ classifier  # (n, 4, 4)

    blocks = in_pieces(enlarge, image, 16 * len(classifier))
    blocks = blocks.view(*grid, 2, 2, 2, 2)  # h, w; row, column; row, column
    return blocks.permute(0, 2, 4, 1, 3, 5).reshape(CELLS * grid[0], CELLS * grid[1])


def _doubled(x: Tensor, layer: nn.ConvTranspose2d) -> Tensor:
    """Apply a transposed convolution, 2 x 2 with stride 2: (..., C) to 4 children (..., 4, K)."""
    weight = layer.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (4 K, C)
    bias = torch.cat([layer.bias] * 4)  # type: ignore[list-item]
    return functional.linear(x, weight, bias).unflatten(-1, (4, -1))


def _by_head(attention: Attention, x: Tensor) -> Tensor:
    """Reshape (b, T, heads x c) to (b, heads, T, c)."""
    return x.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)


def _weight_by_head(attention: Attention, layer: nn.Linear) -> Tensor:
    """Return a projection's weight as (heads, c, C)."""
    return layer.weight.unflatten(0, (attention.num_heads, -1))


def _scaled(attention: Attention, logits: Tensor) -> Tensor:
    return logits.mul_((attention.internal_dim // attention.num_heads) ** -0.5)
