"""Heads that turn image embeddings into masks, by class tokens, label names, points or boxes.

`decode_masks` replaces segment_anything's `MaskDecoder.predict_masks` for batches: the original
repeats all image embeddings for each prompt, so that B images with 1 prompt each become B x B
pairs.
"""

from typing import Literal

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam
from torch import nn

from medsaga_lib.data.prompts import PAD, PromptKind
from medsaga_lib.errors import UserError
from medsaga_lib.models.lift import LiftName, PositionLift
from medsaga_lib.models.sam import MASK_TOKENS, Attention, build_sam
from medsaga_lib.models.stages import early, late

Start = Literal["copied", "random", "in_turn"]
Answer = Literal["single", "best"]
ABSENT = -100.0  # logit of a label without a prompt: probability 0, but a finite loss


def decode_masks(
    decoder: MaskDecoder,
    image_embeddings: torch.Tensor,
    image_pe: torch.Tensor,
    sparse: torch.Tensor,
    dense: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode all masks of a batch of (image, prompt) pairs.

    Args:
        decoder: a mask decoder with any number of mask tokens T.
        image_embeddings: (B, C, h, w), one row for each pair; repeat rows for several prompts.
        image_pe: (1, C, h, w), from `grid_positions`.
        sparse: (B or 1, N, C) prompt tokens; N may be 0.
        dense: (B or 1, C, h, w) mask prompts.

    Returns:
        logits (B, T, 4h, 4w) and predicted IoU (B, T), token 0 first.
    """
    batch, channels, height, width = image_embeddings.shape

    # The output tokens, then the prompt tokens
    output = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat(
        [output.expand(batch, -1, -1), sparse.expand(batch, -1, -1)], dim=1
    )  # (B, 1 + T + N, C)

    # Tokens attend to the image and the image to the tokens
    hidden, image = decoder.transformer(image_embeddings + dense, image_pe, tokens)
    iou_token = hidden[:, 0]
    mask_tokens = hidden[:, 1 : 1 + decoder.num_mask_tokens]  # (B, T, C)

    # Each mask token becomes a linear classifier of the enlarged image
    image = image.transpose(1, 2).reshape(batch, channels, height, width)
    upscaled = decoder.output_upscaling(image)  # (B, C/8, 4h, 4w)
    classifiers = torch.stack(
        [mlp(mask_tokens[:, t]) for t, mlp in enumerate(decoder.output_hypernetworks_mlps)], dim=1
    )  # (B, T, C/8)
    masks = (classifiers @ upscaled.flatten(2)).unflatten(2, upscaled.shape[2:])
    return masks, decoder.iou_prediction_head(iou_token)


def grid_positions(encoder: PromptEncoder, dtype: torch.dtype) -> torch.Tensor:
    """Return the position encoding (1, C, h, w), computed in float32 even in autocast."""
    device = encoder.no_mask_embed.weight.device
    with torch.autocast(device.type, enabled=False):
        return encoder.get_dense_pe().to(dtype)


def embed_prompts(
    encoder: PromptEncoder, coordinates: torch.Tensor, roles: torch.Tensor
) -> torch.Tensor:
    """Return the prompt tokens (N, K, C) of points and box corners in any mixture.

    The result is that of `PromptEncoder`, which cannot mix kinds of prompts in a batch.

    Args:
        coordinates: (N, K, 2) x, y in input pixels.
        roles: (N, K) PAD, NEGATIVE, POSITIVE, CORNER or OPPOSITE_CORNER.
    """
    centres = coordinates + 0.5
    with torch.autocast(centres.device.type, enabled=False):  # as `grid_positions`
        position = encoder.pe_layer.forward_with_coords(centres, encoder.input_image_size)
    kinds = torch.cat([e.weight for e in (encoder.not_a_point_embed, *encoder.point_embeddings)])
    return torch.where(roles[..., None] == PAD, 0.0, position) + kinds[roles - PAD]


class SamHead(nn.Module):
    """The base of the heads: a SAM that predicts logits of the background and K classes.

    lift: absolute positions in the dense prompt; see `models.lift`.
    """

    def __init__(self, sam: Sam, lift: LiftName = "none"):
        super().__init__()
        self.sam = sam
        channels = sam.prompt_encoder.embed_dim
        self.lift = None if lift == "none" else PositionLift(lift, channels)

    @property
    def size(self) -> int:
        """Pixels along one side of the input."""
        return self.sam.image_encoder.img_size

    def forward(self, images: torch.Tensor, *prompts: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, K + 1, S/4, S/4) of images (B, 3, S, S) in [0, 1]."""
        return self.decode(self.embed(images), *prompts)

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Return the image embeddings (B, C, h, w) of images (B, 3, S, S) in [0, 1]."""
        return embed_images(self.sam, images)

    def decode(self, embeddings: torch.Tensor, *prompts: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, K + 1, 4h, 4w) of image embeddings (B, C, h, w)."""
        raise NotImplementedError

    def lifted(self, dense: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """Return the mask prompt (1, C, h, w) with the lift of the grid's positions added."""
        return dense if self.lift is None else dense + self.lift(position)


class ClassTokens(SamHead):
    """A SAM without prompts, with one mask token for each class.

    Source: SAMed, section 3.3, and MedSAGa, section 3.2. K foreground classes give K + 1 tokens;
    token 0 is the background.
    """

    def decode(self, embeddings: torch.Tensor, *prompts: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, K + 1, 4h, 4w) of image embeddings (B, C, h, w)."""
        sam = self.sam
        sparse, dense = sam.prompt_encoder(points=None, boxes=None, masks=None)
        position = grid_positions(sam.prompt_encoder, embeddings.dtype)
        dense = self.lifted(dense, position)
        masks, _ = decode_masks(sam.mask_decoder, embeddings, position, sparse, dense)
        return masks


class LabelPrompts(SamHead):
    """A SAM that is prompted with the names of K labels and predicts one mask for each (S-SAM).

    As in S-SAM's code, an affine layer turns each name into one prompt token. Its batch
    normalisation counts every pair of an image and a label as a sample.

    texts: (K, W), the embeddings of the names, from `models.text`.
    """

    texts: torch.Tensor

    def __init__(self, sam: Sam, texts: torch.Tensor, lift: LiftName = "none"):
        super().__init__(sam, lift)
        self.register_buffer("texts", texts, persistent=False)
        channels = sam.prompt_encoder.embed_dim
        self.affine = nn.Sequential(
            nn.Linear(texts.shape[1], channels), nn.ReLU(), nn.BatchNorm1d(channels)
        )

    def decode(self, embeddings: torch.Tensor, *prompts: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, K + 1, 4h, 4w) of image embeddings (B, C, h, w).

        Each label has its own sigmoid. Channel 0 is 0 everywhere, so that the largest channel is
        the background where no label has a probability above 0.5.
        """
        sam, batch, count = self.sam, len(embeddings), len(self.texts)
        if self.training and batch * count == 1:
            raise UserError("A batch of 1 image and 1 label cannot be normalised; raise --batch.")
        embeddings = embeddings.repeat_interleave(count, dim=0)  # (B x K, C, h, w)
        tokens = self.affine(self.texts.repeat(batch, 1))[:, None]  # (B x K, 1, C)
        _, dense = sam.prompt_encoder(points=None, boxes=None, masks=None)
        position = grid_positions(sam.prompt_encoder, embeddings.dtype)
        dense = self.lifted(dense, position)
        masks, _ = decode_masks(sam.mask_decoder, embeddings, position, tokens, dense)
        return _before_background(masks[:, 0].unflatten(0, (batch, count)))


class Promptable(SamHead):
    """A SAM that is prompted with a point or a box for each of K labels, for one mask each.

    kind: the kind of the prompts, which the caller draws with `data.prompts`.
    answer: "single" is the mask of token 0. "best" is the mask with the highest predicted IoU among
        the other tokens; segment_anything recommends it for a single point, because a point may
        mean an object or a part of it.
    """

    def __init__(self, sam: Sam, kind: PromptKind, classes: int, answer: Answer = "single"):
        super().__init__(sam)
        self.kind, self.classes, self.answer = kind, classes, answer

    def decode(self, embeddings: torch.Tensor, *prompts: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, K + 1, 4h, 4w), one sigmoid for each; channel 0 is 0 everywhere.

        Args:
            embeddings: (B, C, h, w).
            prompts: coordinates (B, K, N, 2), x, y in input pixels, and roles (B, K, N) as in
                `embed_prompts`; a label with only PAD tokens gets `ABSENT`.
        """
        coordinates, roles = prompts
        sam, pairs = self.sam, roles.shape[:2]
        embeddings = embeddings.repeat_interleave(pairs[1], dim=0)
        tokens = embed_prompts(sam.prompt_encoder, coordinates.flatten(0, 1), roles.flatten(0, 1))
        _, dense = sam.prompt_encoder(points=None, boxes=None, masks=None)
        position = grid_positions(sam.prompt_encoder, embeddings.dtype)
        masks, scores = decode_masks(sam.mask_decoder, embeddings, position, tokens, dense)
        chosen = masks[:, 0]  # (B x K, S/4, S/4)
        if self.answer == "best":
            chosen = masks[torch.arange(len(masks)), 1 + scores[:, 1:].argmax(1)]
        absent = (roles == PAD).all(dim=2)[..., None, None]
        return _before_background(chosen.unflatten(0, pairs).masked_fill(absent, ABSENT))


def _before_background(logits: torch.Tensor) -> torch.Tensor:
    """Put a channel of zeros, the background, before logits (B, K, h, w)."""
    return torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1)


class FromPart(nn.Module):
    """A model that starts at a part of the image encoder (`models.stages`); it shares the weights.

    Its inputs are the outputs of the frozen parts before it, which `keep` computes.
    """

    def __init__(self, model: SamHead, part: int):
        super().__init__()
        self.model, self.part = model, part

    def keep(self, images: torch.Tensor) -> torch.Tensor:
        """Return the inputs of `forward` for images (B, 3, S, S) in [0, 1]."""
        sam = self.model.sam
        return early(sam.image_encoder, normalise(sam, images), self.part)

    def forward(self, kept: torch.Tensor, *prompts: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, K + 1, S/4, S/4), as the whole model does for the images."""
        return self.model.decode(late(self.model.sam.image_encoder, kept, self.part), *prompts)


def head_of(network: nn.Module) -> nn.Module:
    """Return the whole model behind a network that starts at a part of it."""
    return network.model if isinstance(network, FromPart) else network


def embed_images(sam: Sam, images: torch.Tensor) -> torch.Tensor:
    """Return the image embeddings (B, C, h, w) of images (B, 3, S, S) in [0, 1]."""
    return sam.image_encoder(normalise(sam, images))


def normalise(sam: Sam, images: torch.Tensor) -> torch.Tensor:
    """Return images in [0, 1] as SAM was trained with them; SAMed's code feeds [0, 1] instead."""
    return (images * 255 - sam.pixel_mean) / sam.pixel_std


def class_tokens(
    name: str,
    state: dict | None,
    size: int,
    classes: int,
    start: Start,
    attention: Attention = "fused",
    lift: LiftName = "none",
) -> ClassTokens:
    """Build a `ClassTokens` head on a backbone.

    Args:
        name: the name of the backbone.
        state: its weights at this size, from `models.weights.load_state`, or None for random ones.
        size: pixels along one side of the input.
        classes: number of foreground classes K.
        start: "copied" gives every class a copy of SAM's single-mask token and its hypernetwork.
            "in_turn" gives class k a copy of SAM's token k mod 4 and its hypernetwork, so that up
            to 4 classes differ. "random" keeps the random initial values of tokens, hypernetworks
            and IoU head, as in SAMed's code.
        attention: as in `build_sam`.
        lift: as in `SamHead`.

    All random numbers come from torch's global generator: seed or fork it around the call.
    """
    sam = build_sam(name, size, classes, attention)
    if state is not None:
        own = sam.state_dict()
        pretrained = {k: v for k, v in state.items() if not k.startswith(_PER_CLASS)}
        if start != "random":
            pretrained |= _copies(state, own, 1 if start == "copied" else MASK_TOKENS + 1)
        sam.load_state_dict(own | pretrained)
    return ClassTokens(sam, lift)


_TOKENS = "mask_decoder.mask_tokens."
_HYPERNETWORKS = "mask_decoder.output_hypernetworks_mlps."
_PER_CLASS = (_TOKENS, _HYPERNETWORKS, "mask_decoder.iou_prediction_head.")


def _copies(state: dict, own: dict, of: int) -> dict:
    """Copy SAM's first `of` tokens and their hypernetworks in turn, one for each class.

    Token 0 is the single mask; tokens 1 to 3 are the masks for an ambiguous prompt.
    """
    copies = {}
    for key, tensor in own.items():
        if key.startswith(_TOKENS):
            copies[key] = state[key][torch.arange(len(tensor)) % of]
        elif key.startswith(_HYPERNETWORKS):
            number, layer = key.removeprefix(_HYPERNETWORKS).split(".", 1)
            copies[key] = state[f"{_HYPERNETWORKS}{int(number) % of}.{layer}"]
    return copies
