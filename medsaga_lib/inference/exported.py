"""SAM with box prompts as two modules for ONNX: one runs once per image, one once per box.

The split is that of `box_decoder`: what does not depend on a box is computed with the image. The
site runs both modules in the reader's browser (`python -m tools.live`).
"""

from copy import deepcopy
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from torch import Tensor, nn

from medsaga_lib.inference.box_decoder import (
    ImageTokens,
    Shared,
    box_tokens,
    enlarged,
    first_queries,
    share,
    two_way,
)
from medsaga_lib.models.heads import embed_images
from medsaga_lib.models.tinyvit import ConvNorm

LARGEST = 2**15 - 1  # of int16


class Parts(NamedTuple):
    """The two modules."""

    image: "ImageSide"
    box: "BoxSide"


class ImageSide(nn.Module):
    """Maps an input (1, 3, S, S) in [0, 1] to the tensors of `box_decoder.Shared`."""

    def __init__(self, sam: Sam):
        super().__init__()
        self.sam = sam

    def forward(self, image: Tensor) -> Shared:
        return share(self.sam, embed_images(self.sam, image))


class BoxSide(nn.Module):
    """Maps a box (1, 4) x0, y0, x1, y1 in pixels of the input, and `Shared`, to a mask.

    A box without a size is a point on the object. Both kinds of prompts have two tokens in SAM: two
    corners, or a point and the token for "no further point". It returns the logits (4h, 4w) of
    SAM's single mask, and its predicted IoU (1,).
    """

    def __init__(self, sam: Sam):
        super().__init__()
        self.sam = sam
        self.grid = torch.Size(sam.prompt_encoder.image_embedding_size)

    def forward(self, box: Tensor, *shared: Tensor) -> tuple[Tensor, Tensor]:
        decoder, common = self.sam.mask_decoder, Shared(*shared)
        tokens = self.tokens(box)
        queries = first_queries(decoder, common, tokens)
        hidden, images = two_way(decoder, common, queries, tokens)
        classifier = decoder.output_hypernetworks_mlps[0](hidden[:, 1])[0]  # (C/8,)
        image = ImageTokens(*(part[0] for part in images))
        logits = enlarged(decoder, common, image, classifier, self.grid)
        return logits, decoder.iou_prediction_head(hidden[:, 0])[:, 0]

    def tokens(self, box: Tensor) -> Tensor:
        """Return the tokens (1, T, C) of the output and of the box or the point.

        The token of a point is made here, because ONNX has no masked assignment as in
        `PromptEncoder._embed_points`, which shifts a point to the middle of its pixel.
        """
        of_box, encoder = box_tokens(self.sam, box), self.sam.prompt_encoder
        middle = box[:, None, :2] + 0.5
        place = encoder.pe_layer.forward_with_coords(middle, encoder.input_image_size)
        point = place + encoder.point_embeddings[1].weight
        of_point = torch.cat([of_box[:, :-2], point, encoder.not_a_point_embed.weight[None]], dim=1)
        return torch.where((box[:, :2] == box[:, 2:]).all(), of_point, of_box)


def parts_of(sam: Sam) -> Parts:
    """Return the two modules of a SAM in evaluation mode; they share a copy of its weights.

    In TinyViT, the scale of each batch normalisation becomes part of the convolution before it.
    """
    sam = deepcopy(sam).eval()
    for module in sam.modules():
        if isinstance(module, ConvNorm):
            _fold(module)
    return Parts(ImageSide(sam), BoxSide(sam))


@torch.no_grad()
def _fold(module: ConvNorm) -> None:
    """Move the scale of a normalisation into the convolution, so that it only adds a bias."""
    norm = module.bn
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    scale = norm.weight / torch.sqrt(variance + norm.eps)
    module.c.weight.mul_(scale[:, None, None, None])
    norm.bias.sub_(mean * scale)
    norm.weight.fill_(1)
    mean.zero_()
    variance.fill_(1 - norm.eps)


def to_16_bits(values: NDArray[np.float32]) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """Return integers, and the scales that turn them into the values again by a product.

    There is one scale for each index of the first or of the last axis, whichever gives the smaller
    error. In float16 the error is several times larger, because 5 of its bits are an exponent.
    """

    def along(axis: int) -> tuple[float, NDArray[np.int16], NDArray[np.float32]]:
        others = tuple(k for k in range(values.ndim) if k != axis % values.ndim)
        largest = abs(values).max(axis=others, keepdims=True)
        scales = (np.where(largest > 0, largest, 1) / LARGEST).astype(np.float32)
        whole = np.rint(values / scales).astype(np.int16)
        return float(((whole * scales - values) ** 2).sum()), whole, scales

    _, whole, scales = min(along(0), along(-1), key=lambda found: found[0])
    return whole, scales


@torch.no_grad()
def rounded(parts: Parts) -> Parts:
    """Return copies whose matrices and kernels went through `to_16_bits`; they compute in float32.

    Vectors stay as they are; an export stores them in float32.
    """
    parts = deepcopy(parts)
    for tensor in parts.image.sam.parameters():  # the box side has the same tensors
        if tensor.ndim > 1:
            whole, scales = to_16_bits(tensor.numpy())
            tensor.copy_(torch.from_numpy(whole * scales))
    return parts
