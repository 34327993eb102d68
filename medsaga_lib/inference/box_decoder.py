"""A fast mask decoder of SAM for many boxes on one image.

segment_anything's decoder, called once per box, gives the same logits up to rounding, but is slower
on a CPU. This decoder saves time in four places:

1. In the first two-way layer, the image tokens are the same for every box, so they are projected
   once.
2. Later, the image tokens (N, C) of a box are never computed. A box adds few rows to the tokens x
   that all boxes share, one for each of its 7 tokens and 8 heads of an attention:
   scale x + weights^T rows. Projections of this sum need the projection of x, which is computed
   once, and the projections of the rows. Normalisation keeps this form, because the variance of a
   token follows from products of x and the rows.
3. Only the requested mask is computed (the transposed convolutions, 2 x 2 with stride 2, are matrix
   products there, on as many image tokens at a time as fit the processor's cache), and only its
   part with positive logits is resized to the image.
4. For overlapping masks, the running maximum is kept, never all masks.

torch.compile on the published decoder is not used, because it gains nothing, and bfloat16, because
it changes the masks: `python -m tools.boxes` times both, and chapter 8 of the book has the numbers.
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

from medsaga_lib.models.evaluated import pieces
from medsaga_lib.models.frame import Frame
from medsaga_lib.models.linear import linear

# Image tokens decoded at a time; our choice by measurement (`bench.boxes`): one box of a 64 x 64
# grid stays in the processor's cache; several together took longer than one after the other.
TOKENS_AT_ONCE = 4096
CELLS = 4  # logits along one side of an image token
FAR = 4.0  # below -FAR (a probability of 0.02) there is no mask near; our choice, see `enlarged`


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
    queries = first_queries(decoder, shared, tokens)
    at_once = max(1, TOKENS_AT_ONCE // grid.numel())
    for some in zip(queries.split(at_once), tokens.split(at_once), strict=True):
        hidden, images = two_way(decoder, shared, *some)
        classifiers = decoder.output_hypernetworks_mlps[0](hidden[:, 1])  # (b, C/8)
        for number, classifier in enumerate(classifiers):
            image = ImageTokens(*(part[number] for part in images))
            yield enlarged(decoder, shared, image, classifier, grid)


class Shared(NamedTuple):
    """Projections of the image tokens that all boxes share.

    x0 (N, C) are the image tokens before the first layer. x1 and x2 are those after layers 1 and 2
    as if no token had been attended to, without the scales and shifts of their normalisation: x1
    is the centred x0, times the weight of layer 1's `norm4`, and x2 is made from x1 in this way.
    The positions of layer 2 and of the last attention include the shift of the last `norm4`.
    """

    k0: Tensor  # (1, heads, N, c): keys and values of x0 for the tokens of layer 1
    v0: Tensor
    q0: Tensor  # (heads, c, N): queries of x0 with the positions
    k1: Tensor  # (heads, c, N), and so are the following ones: x1 in layer 2
    v1: Tensor
    q1: Tensor
    k2: Tensor  # x2 in the last attention
    v2: Tensor
    values0: Tensor  # (heads, c + 1, N): products of the centred x0 and layer 1's `_outputs`
    old_values1: Tensor  # the same rows after layer 1's `norm4`, and the centred x1
    values1: Tensor  # layer 2's `_outputs`, and the centred x1
    shift1: Tensor  # (1, N): the shift of layer 1's `norm4`, and the centred x1
    k1_position: Tensor  # (heads, c, N): the positions
    q1_position: Tensor
    k2_position: Tensor
    square0: Tensor  # (1, N): squares of the centred x0 and x1, summed over channels
    square1: Tensor
    enlarged2: Tensor  # (N, 4 C/4): x2 after the first transposed convolution, without its bias


class ImageTokens(NamedTuple):
    """The image tokens of b boxes as scale (x + weights^T rows) + shift of the last `norm4`.

    x (N, C) is the same for all boxes.

    scale: (b, 1, N). weights: (b, R, N). rows: (b, R, C).
    """

    scale: Tensor
    weights: Tensor
    rows: Tensor


def share(sam: Sam, embedding: Tensor) -> Shared:
    """Compute what does not depend on a box from the image embedding (1, C, h, w)."""
    transformer = sam.mask_decoder.transformer
    first, second = transformer.layers
    found0, found1 = first.cross_attn_token_to_image, second.cross_attn_token_to_image
    found2 = transformer.final_attn_token_to_image
    answer0, answer1 = first.cross_attn_image_to_token, second.cross_attn_image_to_token
    heads, (norm1, norm2) = found0.num_heads, (first.norm4, second.norm4)
    _, dense = sam.prompt_encoder(None, None, None)
    x0 = (embedding + dense).flatten(2).transpose(1, 2).contiguous()  # (1, N, C)
    position = sam.prompt_encoder.get_dense_pe().flatten(2)[0]  # (C, N)
    placed = x0 + position.T
    centred = _centred(x0[0])
    x1 = centred * norm1.weight

    # Every row (C) becomes the row with which the centred x0 has the same products
    def of_x1(rows: Tensor) -> Tensor:
        return rows * norm1.weight

    def of_x2(rows: Tensor) -> Tensor:
        return of_x1(_centred(rows * norm2.weight))

    outputs0, outputs1 = (_outputs(answer).flatten(0, 1) for answer in (answer0, answer1))
    wide = [
        of_x1(found1.k_proj.weight),
        of_x1(found1.v_proj.weight),
        of_x1(answer1.q_proj.weight),
        of_x2(found2.k_proj.weight),
        of_x2(found2.v_proj.weight),
        _centred(outputs0),
        of_x1(_centred(_centred(outputs0) * norm1.weight)),
        of_x1(_centred(outputs1)),
        of_x1(_centred(norm1.bias[None])),
    ]
    *products, shift1 = (torch.cat(wide) @ centred.T).split([len(rows) for rows in wide])
    with_shift = [
        _placed(found1.k_proj, position, norm1.bias),
        _placed(answer1.q_proj, position, norm1.bias) + answer1.q_proj.bias[:, None],
        _placed(found2.k_proj, position, norm2.bias),
    ]
    parts = [
        _by_head(found0, found0.k_proj(placed)),
        _by_head(found0, found0.v_proj(x0)),
        _by_head(answer0, answer0.q_proj(placed))[0].transpose(1, 2).contiguous(),
        *(product.unflatten(0, (heads, -1)) for product in products),
        shift1,
        *(product.unflatten(0, (heads, -1)) for product in with_shift),
        centred.square().sum(1)[None],
        _centred(x1).square().sum(1)[None],
        centred @ of_x2(_doubling(sam.mask_decoder.output_upscaling[0])).T,
    ]
    return Shared(*parts)


def _placed(layer: nn.Linear, position: Tensor, shift: Tensor) -> Tensor:
    """Return the projection (heads x c, N) of positions (C, N) plus a shift (C), without bias."""
    return torch.addmm((layer.weight @ shift)[:, None], layer.weight, position)


def box_tokens(sam: Sam, boxes: Tensor) -> Tensor:
    """Return the tokens (N, 1 + T + 2, C) of boxes (N, 4): predicted IoU, masks, two corners."""
    sparse, _ = sam.prompt_encoder(None, boxes, None)
    output = torch.cat([sam.mask_decoder.iou_token.weight, sam.mask_decoder.mask_tokens.weight])
    return torch.cat([output.expand(len(boxes), -1, -1), sparse], dim=1)


def first_queries(decoder: MaskDecoder, shared: Shared, tokens: Tensor) -> Tensor:
    """Run layer 1 for the tokens (b, T, C), whose boxes share the image tokens in it."""
    layer = decoder.transformer.layers[0]
    queries = layer.norm1(layer.self_attn(tokens, tokens, tokens))
    attention = layer.cross_attn_token_to_image
    queries = layer.norm2(queries + _found_in_shared(attention, shared, queries + tokens))
    return layer.norm3(queries + layer.mlp(queries))


def two_way(
    decoder: MaskDecoder, shared: Shared, queries: Tensor, tokens: Tensor
) -> tuple[Tensor, ImageTokens]:
    """Run the rest of the two-way transformer for b boxes.

    Args:
        decoder, shared: of the model and the image.
        queries: (b, T, C) from `first_queries`.
        tokens: (b, T, C) from `box_tokens`.

    Returns:
        tokens (b, 2, C) of the predicted IoU and of the first mask, and the image tokens with x2.
    """
    transformer = decoder.transformer
    first, second = transformer.layers

    # First layer: the image attends to the tokens
    attention = first.cross_attn_image_to_token
    k = _scaled(attention, attention.k_proj(queries + tokens))
    old, rows = _values(attention, queries)
    weights = _over_tokens(attention, _head_product(k, shared.q0))
    image = ImageTokens(torch.ones_like(weights[:, :1]), weights, rows)
    image = _normed(first.norm4, image, shared.square0, _head_product(old, shared.values0))

    # Second layer
    asking = queries + tokens
    queries = second.norm1(queries + second.self_attn(asking, asking, queries))
    seen = _found(
        second.cross_attn_token_to_image, queries + tokens, image, first.norm4.bias,
        shared.k1, shared.k1_position, shared.v1,
    )  # fmt: skip
    queries = second.norm2(queries + seen)
    queries = second.norm3(queries + second.mlp(queries))
    attention = second.cross_attn_image_to_token
    k = _scaled(attention, attention.k_proj(queries + tokens))
    logits = _logits(attention.q_proj, k, image, shared.q1, shared.q1_position)
    new, rows = _values(attention, queries)
    inverse = image.scale.reciprocal()
    image = ImageTokens(
        image.scale,
        torch.cat([image.weights, inverse, _over_tokens(attention, logits) * inverse], 1),
        torch.cat([image.rows, first.norm4.bias.expand(len(rows), 1, -1), rows], 1),
    )
    of_shift = shared.shift1.expand(len(rows), 1, -1)
    of_old, of_new = _head_product(old, shared.old_values1), _head_product(new, shared.values1)
    image = _normed(second.norm4, image, shared.square1, torch.cat([of_old, of_shift, of_new], 1))

    # The last attention, of the two tokens that are used
    attention, used = transformer.final_attn_token_to_image, queries[:, :2]
    seen = _found(
        attention, used + tokens[:, :2], image, second.norm4.bias,
        shared.k2, shared.k2_position, shared.v2,
    )  # fmt: skip
    return transformer.norm_final_attn(used + seen), image


def _found_in_shared(attention: Attention, shared: Shared, asking: Tensor) -> Tensor:
    """Attend from tokens (b, T, C) to the image tokens that all boxes share."""
    q = _by_head(attention, attention.q_proj(asking).flatten(0, 1)[None])  # (1, heads, b x T, c)
    seen = functional.scaled_dot_product_attention(q, shared.k0, shared.v0)
    return attention.out_proj(seen.transpose(1, 2).flatten(2)).view_as(asking)


def _found(
    attention: Attention,
    asking: Tensor,
    image: ImageTokens,
    shift: Tensor,
    k: Tensor,
    position: Tensor,
    v: Tensor,
) -> Tensor:
    """Attend from tokens (b, T, C) to the image tokens of their own box.

    shift: (C,) of the image tokens.
    k, position, v: (heads, c, N) the keys of x and of the positions, and the values of x.
    """
    q = _scaled(attention, attention.q_proj(asking))
    # The bias of k adds the same number to all logits of a token; the softmax does not change
    logits = _logits(attention.k_proj, q, image, k, position)
    weights = torch.softmax(logits, dim=-1) * image.scale  # (b, heads x T, N)
    heads = attention.num_heads, -1
    seen = weights.unflatten(1, heads) @ v.transpose(1, 2)  # (b, heads, T, c)
    of_rows = (weights @ image.weights.transpose(1, 2)).unflatten(1, heads)  # (b, heads, T, R)
    rows = linear(image.rows, attention.v_proj.weight)
    seen = seen + of_rows @ _by_head(attention, rows)
    # The softmax sums to 1, so the value of the shift is added unchanged
    same = linear(shift, attention.v_proj.weight, attention.v_proj.bias)
    return attention.out_proj(seen.transpose(1, 2).flatten(2) + same)


def _logits(
    layer: nn.Linear, asking: Tensor, image: ImageTokens, x: Tensor, position: Tensor
) -> Tensor:
    """Return products (b, heads x T, N) of tokens and projected image tokens with positions.

    Args:
        layer: the projection of image tokens; its bias is part of `position`, or left out.
        asking: (b, heads, T, c).
        image: the image tokens.
        x, position: (heads, c, N) the projections of x and of the positions.
    """
    rows = linear(image.rows, layer.weight).unflatten(2, (asking.shape[1], -1))
    of_rows = (asking @ rows.permute(0, 2, 3, 1)).flatten(1, 2)  # (b, heads x T, R)
    inner = torch.baddbmm(_head_product(asking, x), of_rows, image.weights)
    return torch.addcmul(_head_product(asking, position), inner, image.scale)


def _head_product(tokens: Tensor, x: Tensor) -> Tensor:
    """Return products (b, heads x T, N) of tokens (b, heads, T, c) and x (heads, c, N)."""
    return (tokens @ x).flatten(1, 2)


def _over_tokens(attention: Attention, logits: Tensor) -> Tensor:
    """Return the weights (b, heads x T, N) of tokens, which sum to 1 for each head."""
    by_head = logits.unflatten(1, (attention.num_heads, -1))
    return torch.softmax(by_head, dim=2).flatten(1, 2)


def _values(attention: Attention, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return values (b, heads, T, c + 1) of tokens (b, T, C), and as rows (b, heads x T, C)."""
    v = _by_head(attention, attention.v_proj(tokens))
    v = functional.pad(v, (0, 1), value=1.0)
    return v, (v @ _outputs(attention)).flatten(1, 2)


def _outputs(attention: Attention) -> Tensor:
    """Return the output projection (heads, c + 1, C), the last row of a head for its bias."""
    weight = attention.out_proj.weight.T.unflatten(0, (attention.num_heads, -1))
    bias = attention.out_proj.bias / attention.num_heads  # every head adds its share
    return torch.cat([weight, bias.expand(len(weight), 1, -1)], 1)


def _normed(
    norm: nn.LayerNorm, image: ImageTokens, square: Tensor, products: Tensor
) -> ImageTokens:
    """Apply a normalisation over channels to image tokens without computing them.

    The variance of a token follows from the products of x and of the rows, all centred.

    Args:
        norm: the normalisation.
        image: the image tokens; their shift is one of the rows.
        square: (1, N) the squares of the centred x, summed over channels.
        products: (b, R, N) products of the centred x and the centred rows.
    """
    scale, weights, rows = image
    rows = _centred(rows)
    mixed = torch.baddbmm(products, rows @ rows.transpose(1, 2), weights, beta=2)
    squares = square + (mixed * weights).sum(1, keepdim=True)
    inverse = torch.rsqrt(scale.square() * squares / rows.shape[2] + norm.eps)
    return ImageTokens(scale * inverse, weights, rows * norm.weight)


def _centred(x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True)


def enlarged(
    decoder: MaskDecoder, shared: Shared, image: ImageTokens, classifier: Tensor, grid: torch.Size
) -> Tensor:
    """Return logits (4h, 4w) of one box, whose h x w image tokens have no dimension of boxes.

    On a CPU, the 16 logits of an image token are computed only near the mask: if one of 16, in the
    middle of a token or of one of its 8 neighbours, is above -FAR, and around positive ones.
    Elsewhere this one logit stands for all 16. A part of a mask that is smaller than a token and
    whose surroundings are all below -FAR is therefore missed, unless it is the whole mask: where
    nothing is found, all logits are computed. `bench.boxes` compares the masks.

    classifier: (C/8,) the weights of the channels.
    """
    enlarge = _Enlarging(decoder, shared, image, classifier)
    blocks = _everywhere(enlarge) if enlarge.is_whole else _near_the_mask(enlarge, grid)
    blocks = blocks.view(*grid, 2, 2, 2, 2)  # h, w; row, column; row, column
    return blocks.permute(0, 2, 4, 1, 3, 5).reshape(CELLS * grid[0], CELLS * grid[1])


class _Enlarging:
    """The two transposed convolutions and the classifier, for some of a box's image tokens."""

    def __init__(
        self, decoder: MaskDecoder, shared: Shared, image: ImageTokens, classifier: Tensor
    ):
        first, self.norm, self.activation, second, self.last = decoder.output_upscaling
        first_weight = _doubling(first)
        shift = decoder.transformer.layers[-1].norm4.bias
        self.rows = linear(image.rows, first_weight)  # (R, 4 C/4)
        self.bias = linear(shift, first_weight, first.bias.repeat(4))
        self.second, self.second_bias = _doubling(second), second.bias
        self.shared, self.image, self.classifier = shared.enlarged2, image, classifier
        self.is_whole = shared.enlarged2.device.type != "cpu" or torch.jit.is_tracing()

    def __call__(self, tokens: slice | Tensor) -> Tensor:
        """Return the logits (n, 4, 4) of image tokens: 4 children of 4 children."""
        return self._logits(tokens, slice(None), slice(None))

    def middles(self) -> Tensor:
        """Return one logit (N,) of each image token, in its middle: the last child's first."""
        width, second_width = len(self.bias) // 4, len(self.second_bias)
        last, first = slice(3 * width, None), slice(second_width)
        return self._logits(slice(None), last, first)[:, 0, 0]

    def _logits(self, tokens: slice | Tensor, children: slice, grandchildren: slice) -> Tensor:
        weights, rows = self.image.weights[:, tokens], self.rows[:, children]
        x = torch.addmm(self.shared[tokens, children], weights.T, rows)
        x = torch.addcmul(self.bias[children], x, self.image.scale[0, tokens, None])
        x = x.unflatten(1, (-1, len(self.norm.weight)))  # (n, 4 or 1, C/4)
        x = functional.layer_norm(x, x.shape[-1:], self.norm.weight, self.norm.bias, self.norm.eps)
        weight = self.second[grandchildren]
        bias = self.second_bias.repeat(len(weight) // len(self.second_bias))
        x = linear(self.activation(x), weight, bias)
        return self.last(x.unflatten(2, (-1, len(self.second_bias)))) @ self.classifier


def _everywhere(enlarge: _Enlarging) -> Tensor:
    """Return the logits (N, 4, 4) of all image tokens."""
    parts = pieces(enlarge.shared, 16 * len(enlarge.classifier))
    return torch.cat([enlarge(part) for part in parts])


def _near_the_mask(enlarge: _Enlarging, grid: torch.Size) -> Tensor:
    """Return logits (N, 4, 4) as described in `enlarged`."""
    middles = enlarge.middles()
    blocks = middles[:, None, None].repeat(1, 4, 4)
    done = torch.zeros(grid, dtype=torch.bool)
    near = middles.view(grid) > -FAR
    while True:
        around = functional.max_pool2d(near[None].float(), 3, stride=1, padding=1)[0] > 0
        new = (around & ~done).flatten().nonzero().flatten()
        if not len(new):
            return blocks if (blocks > 0).any() else _everywhere(enlarge)
        for some in pieces(new, 16 * len(enlarge.classifier)):
            blocks[new[some]] = enlarge(new[some])
        done |= around
        near = (blocks > 0).flatten(1).any(1).view(grid)


def _doubling(layer: nn.ConvTranspose2d) -> Tensor:
    """Return a transposed convolution, 2 x 2 with stride 2, as a matrix (4 K, C)."""
    return layer.weight.permute(2, 3, 1, 0).flatten(0, 2)


def _by_head(attention: Attention, x: Tensor) -> Tensor:
    """Reshape (b, T, heads x c) to (b, heads, T, c)."""
    return x.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)


def _scaled(attention: Attention, x: Tensor) -> Tensor:
    """Return queries or keys (b, heads, T, c) of (b, T, heads x c), divided by sqrt(c)."""
    return _by_head(attention, x) * (attention.internal_dim // attention.num_heads) ** -0.5
