"""An image encoder in two halves: frozen early stages, whose output can be kept, and the rest.

The parts of an encoder are its stages 0 ... n - 1 and, as part n, the neck. A stage is one of
TinyViT's 4 stages or one block of segment_anything's ViT. Before part 0 comes the entrance: the
patch embedding and, in a ViT, the positions. `early` and `late` are the encoder's own forward
pass, cut before a part.
"""

from typing import Any, TypeAlias

import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn

from medsaga_lib.errors import UserError
from medsaga_lib.models.tinyvit import TinyViT

ImageEncoder: TypeAlias = ImageEncoderViT | TinyViT


def stages(image_encoder: ImageEncoder) -> list[nn.Module]:
    """Return the stages of an image encoder, without the neck."""
    tiny = isinstance(image_encoder, TinyViT)
    return list(image_encoder.layers if tiny else image_encoder.blocks)


def early(image_encoder: ImageEncoder, images: Tensor, part: int) -> Tensor:
    """Return the input (B, C, h, w) of a part for images (B, 3, S, S); the images for part 0.

    After the last part, n + 1, it is the image embedding.
    """
    if part == 0:
        return images
    x = image_encoder.patch_embed(images)
    if isinstance(image_encoder, TinyViT):
        return _run(image_encoder, x, 0, part)
    x = x if image_encoder.pos_embed is None else x + image_encoder.pos_embed
    # A ViT has its channels last, but the memory keeps the order of the patch embedding, which has
    # them first. If x is stored in this order, later sums have the same rounding errors.
    x = _run(image_encoder, x, 0, part)
    return x if part > len(stages(image_encoder)) else x.permute(0, 3, 1, 2)


def late(image_encoder: ImageEncoder, x: Tensor, part: int) -> Tensor:
    """Return the image embeddings (B, C, h, w) of `early(image_encoder, images, part)`."""
    last = len(stages(image_encoder))
    if part == 0:
        return image_encoder(x)
    if isinstance(image_encoder, TinyViT):
        x = x.contiguous(memory_format=torch.channels_last)  # the order of the stages before
    elif part <= last:
        x = x.permute(0, 2, 3, 1)
    return _run(image_encoder, x, part, last + 1)


def freeze_early(image_encoder: ImageEncoder, part: int) -> None:
    """Freeze everything before a part; nothing if it is part 0.

    Raises:
        UserError: the encoder has no such part.
    """
    own = stages(image_encoder)
    if part > len(own):
        raise UserError(
            f"from_stage is {part}, but this image encoder has {len(own)} stages; choose 0 (train "
            f"all of them) to {len(own)} (the neck alone)."
        )
    if part:
        image_encoder.patch_embed.requires_grad_(False)
        if not isinstance(image_encoder, TinyViT) and image_encoder.pos_embed is not None:
            image_encoder.pos_embed.requires_grad_(False)
    for stage in own[:part]:
        stage.requires_grad_(False)


def late_blocks(image_encoder: ImageEncoder, part: int) -> list[Any]:
    """Return the blocks with attention from a part on; a stage of TinyViT has several or none."""
    ours = {id(module) for stage in stages(image_encoder)[part:] for module in stage.modules()}
    return [block for block in image_encoder.blocks if id(block) in ours]


def _run(image_encoder: ImageEncoder, x: Tensor, first: int, end: int) -> Tensor:
    """Run the parts from `first` to before `end`."""
    own = stages(image_encoder)
    for stage in own[first:end]:
        x = stage(x)
    if not first <= len(own) < end:
        return x
    return image_encoder.neck(x if isinstance(image_encoder, TinyViT) else x.permute(0, 3, 1, 2))
