"""Heads: what turns image embeddings into masks (class tokens; names, points or boxes as prompts).

`decode_masks` is segment_anything's `MaskDecoder.predict_masks` for batches. There, the image
embeddings are repeated once per prompt, so that B images with one prompt each become B x B.
"""

from typing import Literal

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam
from torch import nn

from medsaga_lib.backbones.sam import MASK_TOKENS, Attention, build_sam
from medsaga_lib.data.prompts import PAD, Kind
from medsaga_lib.errors import UserError

Start = Literal["copied", "random", "in_turn"]
Answer = Literal["single", "best"]
ABSENT = -100.0  # logit of a label that is not asked for: a probability of 0 that no loss overflows


def decode_masks(
    decoder: MaskDecoder,
    image_embeddings: torch.Tensor,
    image_pe: torch.Tensor,
    sparse: torch.Tensor,
    dense: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """All masks of a batch of (image, prompt) pairs.

    Args:
        decoder: of any number of mask tokens T.
        image_embeddings: (B, C, h, w), one row for each pair (index it to repeat an image).
        image_pe: (1, C, h, w), from `grid_positions`.
        sparse: (B or 1, N, C) prompt tokens; N may be 0.
        dense: (B or 1, C, h, w) mask prompts.

    Returns:
        logits (B, T, 4h, 4w) and predicted IoU (B, T), token 0 first.
    """
    batch, channels, height, width = image_embeddings.shape

    # The output tokens, then the prompt's
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
    """The encoding (1, C, h, w) of where each cell lies, computed in float32 even in autocast."""
    device = encoder.no_mask_embed.weight.device
    with torch.autocast(device.type, enabled=False):
        return encoder.get_dense_pe().to(dtype)


def embed_prompts(
    encoder: PromptEncoder, coordinates: torch.Tensor, roles: torch.Tensor
) -> torch.Tensor:
    """Prompt tokens (N, K, C) of points and box corners in any mixture.

    The same as `PromptEncoder`, which cannot mix prompts of several kinds in one batch.

    Args:
        coordinates: (N, K, 2) x, y in input pixels.
        roles: (N, K) PAD, NEGATIVE, POSITIVE, CORNER or OPPOSITE_CORNER.
    """
    centres = coordinates + 0.5
    with torch.autocast(centres.device.type, enabled=False):  # as `grid_positions`
        position = encoder.pe_layer.forward_with_coords(centres, encoder.input_image_size)
    kinds = torch.cat([e.weight for e in (encoder.not_a_point_embed, *encoder.point_embeddings)])
    return torch.where(roles[..., None] == PAD, 0.0, position) + kinds[roles - PAD]


class ClassTokens(nn.Module):
    """A SAM without prompts, with one mask token for each class (SAMed, section 3.3; MedSAGa, 3.2).

    K foreground classes give K + 1 tokens; token 0 is the background.
    """

    def __init__(self, sam: Sam):
        super().__init__()
        self.sam = sam

    @property
    def size(self) -> int:
        """Pixels along one side of the input."""
        return self.sam.image_encoder.img_size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, K + 1, S/4, S/4) of images (B, 3, S, S) in [0, 1]."""
        return self.decode(self.embed(images))

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, C, S/16, S/16) of images (B, 3, S, S) in [0, 1]."""
        return _embed(self.sam, images)

    def decode(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Logits (B, K + 1, 4h, 4w) of embeddings (B, C, h, w)."""
        sam = self.sam
        sparse, dense = sam.prompt_encoder(points=None, boxes=None, masks=None)
        position = grid_positions(sam.prompt_encoder, embeddings.dtype)
        masks, _ = decode_masks(sam.mask_decoder, embeddings, position, sparse, dense)
        return masks


class LabelPrompts(nn.Module):
    """A SAM that is asked by the names of K labels, for one mask each (S-SAM, as its code does).

    texts: (K, W), the names as vectors (`backbones.text`). An affine layer makes one prompt token
    of each; its batch normalisation sees every pair of an image and a label as a sample.
    """

    texts: torch.Tensor

    def __init__(self, sam: Sam, texts: torch.Tensor):
        super().__init__()
        self.sam = sam
        self.register_buffer("texts", texts, persistent=False)
        channels = sam.prompt_encoder.embed_dim
        self.affine = nn.Sequential(
            nn.Linear(texts.shape[1], channels), nn.ReLU(), nn.BatchNorm1d(channels)
        )

    @property
    def size(self) -> int:
        """Pixels along one side of the input."""
        return self.sam.image_encoder.img_size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, K + 1, S/4, S/4) of images (B, 3, S, S) in [0, 1], one sigmoid each.

        Channel 0 is 0 everywhere, so that the largest channel is the background where no label is
        more likely than not.
        """
        return self.decode(self.embed(images))

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, C, S/16, S/16) of images (B, 3, S, S) in [0, 1]."""
        return _embed(self.sam, images)

    def decode(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Logits (B, K + 1, 4h, 4w) of embeddings (B, C, h, w)."""
        sam, batch, count = self.sam, len(embeddings), len(self.texts)
        if self.training and batch * count == 1:
            raise UserError("One label needs two images in a pass: raise --batch.")
        embeddings = embeddings.repeat_interleave(count, dim=0)  # (B x K, C, h, w)
        tokens = self.affine(self.texts.repeat(batch, 1))[:, None]  # (B x K, 1, C)
        _, dense = sam.prompt_encoder(points=None, boxes=None, masks=None)
        position = grid_positions(sam.prompt_encoder, embeddings.dtype)
        masks, _ = decode_masks(sam.mask_decoder, embeddings, position, tokens, dense)
        return _before_background(masks[:, 0].unflatten(0, (batch, count)))


class Promptable(nn.Module):
    """A SAM that is asked for each of K labels by a point in it or a box around it, for one mask.

    kind: what it is asked by; whoever feeds it draws the prompts (`data.prompts`).
    answer: "single" is token 0's mask; "best" is that of the others which the IoU head likes best,
        as segment_anything advises for a single point, which may mean a thing or its part.
    """

    def __init__(self, sam: Sam, kind: Kind, classes: int, answer: Answer = "single"):
        super().__init__()
        self.sam, self.kind, self.classes, self.answer = sam, kind, classes, answer

    @property
    def size(self) -> int:
        """Pixels along one side of the input."""
        return self.sam.image_encoder.img_size

    def forward(
        self, images: torch.Tensor, coordinates: torch.Tensor, roles: torch.Tensor
    ) -> torch.Tensor:
        """Logits (B, K + 1, S/4, S/4), one sigmoid each; channel 0 is 0 everywhere.

        Args:
            images: (B, 3, S, S) in [0, 1].
            coordinates: (B, K, N, 2) x, y in input pixels.
            roles: (B, K, N) as in `embed_prompts`; a label with nothing but PAD is `ABSENT`.
        """
        sam, pairs = self.sam, roles.shape[:2]
        embeddings = _embed(sam, images).repeat_interleave(pairs[1], dim=0)
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
    """Logits (B, K, h, w) behind a channel of zeros: the background, where all are negative."""
    return torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1)


class FromEmbeddings(nn.Module):
    """A model that is fed embeddings instead of images; the weights are the model's own."""

    def __init__(self, model: ClassTokens | LabelPrompts):
        super().__init__()
        self.model = model

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an embedding: (C, h, w)."""
        prompts = self.model.sam.prompt_encoder
        return prompts.embed_dim, *prompts.image_embedding_size

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Logits (B, K + 1, 4h, 4w) of embeddings (B, C, h, w)."""
        return self.model.decode(embeddings)


def _embed(sam: Sam, images: torch.Tensor) -> torch.Tensor:
    """Image embeddings (B, C, h, w) of images (B, 3, S, S) in [0, 1]."""
    # SAM's own normalisation, which its weights know; SAMed's code feeds [0, 1] as it is.
    return sam.image_encoder((images * 255 - sam.pixel_mean) / sam.pixel_std)


def class_tokens(
    name: str,
    state: dict | None,
    size: int,
    classes: int,
    start: Start,
    attention: Attention = "fused",
) -> ClassTokens:
    """Builds the head on a backbone.

    Args:
        name: the backbone.
        state: its weights at this size (see `backbones.weights.load_state`), or None for random.
        size: pixels along one side of the input.
        classes: foreground classes K.
        start: "copied" gives every class a copy of SAM's single-mask token and hypernetwork;
            "in_turn" gives class k those of SAM's token k mod 4, so that up to four classes differ;
            "random" leaves tokens, hypernetworks and IoU head as they were drawn (SAMed's code).
        attention: as in `build_sam`.

    Everything random is drawn from torch's global generator: seed it, or fork it, around the call.
    """
    sam = build_sam(name, size, classes, attention)
    if state is not None:
        own = sam.state_dict()
        pretrained = {k: v for k, v in state.items() if not k.startswith(_PER_CLASS)}
        if start != "random":
            pretrained |= _copies(state, own, 1 if start == "copied" else MASK_TOKENS + 1)
        sam.load_state_dict(own | pretrained)
    return ClassTokens(sam)


_TOKENS = "mask_decoder.mask_tokens."
_HYPERNETWORKS = "mask_decoder.output_hypernetworks_mlps."
_PER_CLASS = (_TOKENS, _HYPERNETWORKS, "mask_decoder.iou_prediction_head.")


def _copies(state: dict, own: dict, of: int) -> dict:
    """SAM's first `of` tokens and their hypernetworks, in turn, one for each class.

    Token 0 is the single mask, tokens 1 to 3 are those for an ambiguous prompt.
    """
    copies = {}
    for key, tensor in own.items():
        if key.startswith(_TOKENS):
            copies[key] = state[key][torch.arange(len(tensor)) % of]
        elif key.startswith(_HYPERNETWORKS):
            number, layer = key.removeprefix(_HYPERNETWORKS).split(".", 1)
            copies[key] = state[f"{_HYPERNETWORKS}{int(number) % of}.{layer}"]
    return copies
