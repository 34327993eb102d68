"""Embeds label names as text prompts: by CLIP's text encoder, or by the spelling alone.

S-SAM prompts the mask decoder with the name of the label (arXiv 2408.06447). Its code embeds the
name by CLIP ViT-B/32, which stays frozen.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from medsaga_lib.errors import UserError

CLIP = "openai/clip-vit-base-patch32"  # S-SAM's code
WIDTH = 512  # channels of CLIP ViT-B/32's text embedding
_PIECE = 3  # letters in a piece; our choice
_FILES = ["*.json", "merges.txt", "*.safetensors"]  # other files hold the same weights again


class TextEncoder(Protocol):
    """A function that embeds label names."""

    def __call__(self, labels: Sequence[str]) -> Tensor:
        """Return the embeddings (n, WIDTH), float32, of n label names, without gradient."""


class Spelling:
    """Deterministic embeddings of unit length that depend only on the spelling of a name.

    Every piece of 3 letters, including the spaces around words, has a direction that is fixed by
    its hash. A name is the sum of its pieces. Therefore "left lung" is close to "right lung", but
    "kidney" is as far from "renal" as from any other word: the meaning must come from training.
    Nothing is downloaded.
    """

    def __call__(self, labels: Sequence[str]) -> Tensor:
        _require_names(labels)
        vectors = np.stack([sum(_direction(p) for p in _pieces(name)) for name in labels])
        return torch.from_numpy(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).float()


class ClipText:
    """The frozen text encoder of CLIP (Radford et al., arXiv 2103.00020), from transformers.

    Args:
        checkpoint: a folder, or a name on the Hugging Face Hub, which is downloaded once.

    Raises:
        UserError: transformers is not installed, or the checkpoint cannot be loaded.
    """

    def __init__(self, checkpoint: str = CLIP):
        try:
            from huggingface_hub import snapshot_download
            from transformers import CLIPTextModelWithProjection, CLIPTokenizer
        except ImportError as error:
            raise UserError(
                'CLIP needs transformers; install it with pip install "medsaga-lib[text]".'
            ) from error
        try:
            folder = checkpoint
            if not Path(checkpoint).is_dir():
                folder = snapshot_download(checkpoint, allow_patterns=_FILES)
            self.tokenizer = CLIPTokenizer.from_pretrained(folder)
            self.model = CLIPTextModelWithProjection.from_pretrained(folder).eval()
        except (OSError, ValueError) as error:
            raise UserError(
                f"The checkpoint {checkpoint} cannot be loaded ({type(error).__name__}); connect "
                "to the network once, name a folder that holds it, or set text=spelling."
            ) from error
        self.model.requires_grad_(False)

    @torch.no_grad()
    def __call__(self, labels: Sequence[str]) -> Tensor:
        _require_names(labels)
        tokens = self.tokenizer(list(labels), padding=True, truncation=True, return_tensors="pt")
        return self.model(**tokens.to(self.model.device)).text_embeds.float()


def _require_names(labels: Sequence[str]) -> None:
    empty = [i for i, name in enumerate(labels) if not name.strip()]
    if not labels or empty:
        where = f"name {empty[0]} is empty" if empty else "there are none"
        raise UserError(f"Label names are needed as prompts, but {where}; name every label.")


def _pieces(name: str) -> list[str]:
    words = f" {' '.join(name.lower().split())} "
    return [words[i : i + _PIECE] for i in range(len(words) - _PIECE + 1)]


@cache
def _direction(piece: str) -> np.ndarray:
    """Draw a random direction (WIDTH,) that depends only on the piece, on every machine."""
    seed = int.from_bytes(hashlib.sha256(piece.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(WIDTH)
