"""A SAM asked by boxes, without training or after it: pictures, and volumes slice by slice."""

from dataclasses import dataclass

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional

from medsaga_lib.data.longest_side import Frame


@torch.inference_mode()
def embed(sam: Sam, pixels: np.ndarray) -> Tensor:
    """Image embedding (1, C, h, w) of a picture (H, W) or (H, W, 3) in [0, 1].

    As segment_anything's `SamPredictor`: antialiased bilinear, proportions kept, SAM's
    normalisation, then zeros to the right and below.
    """
    channels = torch.from_numpy(np.ascontiguousarray(pixels, np.float32))
    channels = (channels if channels.ndim == 3 else channels[..., None]).movedim(-1, 0)[None]
    frame = Frame(pixels.shape[:2], sam.image_encoder.img_size)
    small = functional.interpolate(
        channels, frame.inner, mode="bilinear", align_corners=False, antialias=True
    )
    return sam.image_encoder(sam.preprocess(255 * small.expand(-1, 3, -1, -1).to(sam.device)))
