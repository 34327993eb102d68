"""Builds SAMs of any input size from the modules of segment_anything and from TinyViT."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torch import nn
from torch.utils.checkpoint import checkpoint

from medsaga_lib.errors import UserError
from medsaga_lib.models.attention import fuse_attention
from medsaga_lib.models.linear import with_fast_layers
from medsaga_lib.models.tinyvit import BatchNorm, TinyViT

Attention = Literal["fused", "original"]
MASK_TOKENS = 3  # SAM's masks for an ambiguous prompt, besides the single mask


@dataclass(frozen=True)
class Shape:
    """The architecture of a SAM, for any kind of image encoder."""

    size: int  # pixels along one side of the input of its checkpoint
    patch: int = 16  # pixels along one side of a token of the image embedding
    embedding: int = 256  # channels of the image embedding and of the mask decoder
    decoder_heads: int = 8
    decoder_mlp: int = 2048
    mask_prompt_channels: int = 16
    iou_hidden: int = 256
    raw: bool = False  # trained on images in [0, 1], without SAM's normalisation


@dataclass(frozen=True, kw_only=True)
class ViTShape(Shape):
    """The architecture of a SAM with segment_anything's image encoder."""

    width: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]  # the other blocks attend within windows
    window: int  # tokens along one side of a window


# ViT-B: segment_anything/build_sam.py. MedSAM is a ViT-B with other weights, on images in [0, 1].
VIT_B = ViTShape(1024, width=768, depth=12, heads=12, global_blocks=(2, 5, 8, 11), window=14)
# Our choice: 2 cores train it at about 20 images per second. A grid of 16 x 16 tokens is so small
# that every block attends to the whole grid.
POCKET = ViTShape(
    256,
    width=192,
    depth=6,
    heads=6,
    global_blocks=tuple(range(6)),
    window=0,
    embedding=128,
    decoder_heads=4,
    decoder_mlp=512,
    iou_hidden=128,
)
# SAMs with a TinyViT; `models.tinyvit` has the architecture of this image encoder
MOBILE_SAM = Shape(1024)  # arXiv 2306.14289
LITE_MEDSAM = Shape(256, patch=4, raw=True)  # bowang-lab/MedSAM, branch LiteMedSAM
SHAPES: dict[str, Shape] = {
    "pocket": POCKET,
    "vit_b": VIT_B,
    "medsam": replace(VIT_B, raw=True),
    "mobile_sam": MOBILE_SAM,
    "lite_medsam": LITE_MEDSAM,
}


def build_sam(
    name: str | Shape,
    size: int | None = None,
    mask_tokens: int = MASK_TOKENS,
    attention: Attention = "fused",
) -> Sam:
    """Build a SAM with random weights.

    Args:
        name: pocket, vit_b, medsam, mobile_sam, lite_medsam, or another `Shape`.
        size: pixels along one side of the square input, a multiple of 16, or of 4 for lite_medsam;
            default: that of the checkpoint, 256 for pocket and lite_medsam, 1024 for the others.
        mask_tokens: number of masks besides token 0; K for a head with K foreground classes.
        attention: the attention of the image encoder. "original" is that of segment_anything, which
            stores every attention map for the backward pass; "fused" gives the same result without
            the maps. It does not change TinyViT.

    Returns:
        segment_anything's `Sam`, in training mode, float32.

    Raises:
        UserError: the name is unknown, or the size is not a positive multiple of the patch size.
    """
    shape = shape_of(name)
    size = input_size(name, size)
    grid = size // shape.patch
    sam = Sam(
        image_encoder=_image_encoder(shape, size, attention),  # type: ignore[arg-type]
        prompt_encoder=PromptEncoder(
            embed_dim=shape.embedding,
            image_embedding_size=(grid, grid),
            input_image_size=(size, size),
            mask_in_chans=shape.mask_prompt_channels,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=mask_tokens,
            transformer=TwoWayTransformer(
                depth=2,
                embedding_dim=shape.embedding,
                mlp_dim=shape.decoder_mlp,
                num_heads=shape.decoder_heads,
            ),
            transformer_dim=shape.embedding,
            iou_head_depth=3,
            iou_head_hidden_dim=shape.iou_hidden,
        ),
    )
    with_fast_layers(sam)
    if shape.raw:
        sam.pixel_mean.zero_()  # (255 x - 0) / 255 = x
        sam.pixel_std.fill_(255)
    return sam


def _image_encoder(shape: Shape, size: int, attention: Attention) -> ImageEncoderViT | TinyViT:
    if not isinstance(shape, ViTShape):
        return TinyViT(size, shrinks=shape.patch == 16, channels=shape.embedding)
    encoder = ImageEncoderViT(
        img_size=size,
        patch_size=shape.patch,
        embed_dim=shape.width,
        depth=shape.depth,
        num_heads=shape.heads,
        mlp_ratio=4,
        out_chans=shape.embedding,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        global_attn_indexes=shape.global_blocks,
        window_size=shape.window,
    )
    if attention == "fused":
        fuse_attention(encoder)
    return encoder


def shape_of(name: str | Shape) -> Shape:
    """Return the architecture of a backbone; raise UserError if the name is unknown."""
    if isinstance(name, Shape):
        return name
    if name not in SHAPES:
        raise UserError(f"There is no backbone {name!r}; choose one of {', '.join(SHAPES)}.")
    return SHAPES[name]


def input_size(name: str | Shape, size: int | None) -> int:
    """Return `size`, default the checkpoint's; raise UserError if patches do not fit into it."""
    shape = shape_of(name)
    size, patch = shape.size if size is None else size, shape.patch
    if size <= 0 or size % patch:
        raise UserError(
            f"Input size {size} does not fit patches of {patch} pixels; "
            f"choose a multiple of {patch}, for example {max(patch, round(size / patch) * patch)}."
        )
    return size


def resize_positions(state: dict, shape: Shape, size: int) -> dict:
    """Resize the positions in a state dict of `Sam` to another input size, as SAMed does.

    `pos_embed` (1, g, g, C) and the relative positions (2g - 1, c) of the global blocks are resized
    as images, by bilinear interpolation. Blocks with windows do not depend on the input size.
    Source: `load_from` in SAMed's builder of `sam_lora_image_encoder`. TinyViT has no such
    positions, and its state dict does not change.

    Args:
        state: a state dict of `Sam` for the input size `shape.size`.
        shape: the architecture of the SAM.
        size: the new input size, in pixels.

    Returns:
        a new dict; tensors that already fit are the same objects.
    """
    resized = dict(state)
    if not isinstance(shape, ViTShape):
        return resized
    grid = size // shape.patch
    position = state["image_encoder.pos_embed"]
    if position.shape[1] != grid:
        channels_first = position.permute(0, 3, 1, 2)
        resized["image_encoder.pos_embed"] = _bilinear(channels_first, (grid, grid)).permute(
            0, 2, 3, 1
        )
    for block in shape.global_blocks:
        for axis in "hw":
            key = f"image_encoder.blocks.{block}.attn.rel_pos_{axis}"
            rows, channels = state[key].shape
            if rows != 2 * grid - 1:
                resized[key] = _bilinear(state[key][None, None], (2 * grid - 1, channels))[0, 0]
    return resized


def recompute_blocks(
    image_encoder: ImageEncoderViT | TinyViT, keep: torch.dtype = torch.float32
) -> None:
    """Store only the input of each block, and compute the block again in the backward pass.

    keep: the dtype of the stored inputs; bfloat16 halves their memory. If gradients are enabled,
        the input is rounded before the block, so that forward and backward pass agree.
    """
    tiny = isinstance(image_encoder, TinyViT)
    for block in image_encoder.all_blocks if tiny else image_encoder.blocks:
        block.forward = partial(_recomputed, block, block.forward, keep)


def _recomputed(
    block: nn.Module,
    forward: Callable[[torch.Tensor], torch.Tensor],
    keep: torch.dtype,
    x: torch.Tensor,
) -> torch.Tensor:
    if not torch.is_grad_enabled():
        return forward(x)
    dtype = x.dtype
    return checkpoint(
        lambda kept: forward(kept.to(dtype)),
        x.to(keep),
        use_reentrant=False,
        context_fn=partial(_first_and_second, block),
    )


def _first_and_second(block: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """Return contexts for the forward pass and its repetition, which updates no statistics."""
    return nullcontext(), _statistics_left(block)


@contextmanager
def _statistics_left(block: nn.Module) -> Iterator[None]:
    norms = [module for module in block.modules() if isinstance(module, BatchNorm)]
    for norm in norms:
        norm.counts = False
    try:
        yield
    finally:
        for norm in norms:
            norm.counts = True


def _bilinear(picture: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(picture.float(), size, mode="bilinear", align_corners=False)
