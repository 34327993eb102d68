"""SAM's answer to any prompt on one image: points, box corners and a mask, in any mixture."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from segment_anything.modeling import Sam
from torch import Tensor

from medsaga_lib.models.frame import Frame
from medsaga_lib.models.heads import decode_masks, embed_prompts, grid_positions


class Answer(NamedTuple):
    """The masks of T mask tokens: mask 0 is the single mask, the others are for ambiguous prompts.

    The logits of a mask are the mask prompt of a following call.
    """

    masks: NDArray[np.bool_]  # (T, H, W)
    predicted_iou: NDArray[np.float32]  # (T,)
    logits: Tensor  # (T, 4h, 4w)


@torch.inference_mode()
def answer(
    sam: Sam,
    embedding: Tensor,
    frame: Frame,
    coordinates: ArrayLike,
    roles: ArrayLike,
    mask: Tensor | None = None,
) -> Answer:
    """Return SAM's answer to one prompt.

    Args:
        sam: any model with segment_anything's prompt encoder and mask decoder.
        embedding: image embedding (1, C, h, w).
        frame: position of the image in the network's input.
        coordinates: (N, 2) x, y in pixels of the image.
        roles: (N,) NEGATIVE, POSITIVE, CORNER or OPPOSITE_CORNER, as in `data.prompts`.
            segment_anything adds a PAD token where there is no box.
        mask: (4h, 4w) logits, a mask prompt.
    """
    encoder = sam.prompt_encoder
    places = frame.coordinates(torch.as_tensor(np.asarray(coordinates, np.float32)))
    sparse = embed_prompts(encoder, places[None], torch.as_tensor(np.asarray(roles))[None])
    _, dense = encoder(None, None, None if mask is None else mask[None, None])
    position = grid_positions(encoder, embedding.dtype)
    logits, scores = decode_masks(sam.mask_decoder, embedding, position, sparse, dense)
    masks = (frame.enlarge(logits)[0] > 0).numpy()
    return Answer(masks, scores[0].numpy(), logits[0])
