"""Embeds label names as text prompts: by CLIP, by a sentence encoder, or by the spelling alone.

S-SAM prompts the mask decoder with the name of the label (arXiv 2408.06447). Its code embeds the
name by CLIP ViT-B/32, which stays frozen.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from medsaga_lib.errors import UserError
from medsaga_lib.models.weights import MINILM

CLIP = "openai/clip-vit-base-patch32"  # S-SAM's code
WIDTH = 512  # channels of CLIP ViT-B/32's text embedding
_PIECE = 3  # letters in a piece; our choice
_COMPUTED = {"embeddings.position_ids"}  # some versions store them, others compute them
_FILES = ["*.json", "merges.txt", "*.safetensors"]  # other files hold the same weights again


class TextEncoder(Protocol):
    """A function that embeds label names."""

    width: int  # channels of an embedding

    def __call__(self, labels: Sequence[str]) -> Tensor:
        """Return the embeddings (n, width), float32, of n label names, without gradient."""


class Spelling:
    """Deterministic embeddings of unit length that depend only on the spelling of a name.

    Every piece of 3 letters, including the spaces around words, has a direction that is fixed by
    its hash. A name is the sum of its pieces. Therefore "left lung" is close to "right lung", but
    "kidney" is as far from "renal" as from any other word: the meaning must come from training.
    Nothing is downloaded.
    """

    width = WIDTH

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

    width = WIDTH

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


class MiniLMText:
    """The sentence encoder all-MiniLM-L6-v2, frozen (Reimers & Gurevych 2019, arXiv 1908.10084).

    A name is the mean of its tokens, of unit length. It knows that "kidney" is close to "renal",
    but not that "left" and "right" are far from each other. Nothing is downloaded.

    Raises:
        UserError: transformers or the package with the weights is not installed, the weights are
            not the pinned ones, or they do not fit the network exactly.
    """

    width = 384

    def __init__(self) -> None:
        folder = MINILM.require().parent
        try:
            from transformers import AutoModel, AutoTokenizer
            from transformers.utils import logging
        except ImportError as error:
            raise UserError(
                "MiniLM needs the package transformers; install it with "
                'pip install "medsaga-lib[text]".'
            ) from error
        shows_bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder)
            model, loaded = AutoModel.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True
            )
        finally:
            if shows_bars:
                logging.enable_progress_bar()
        _require_exact(loaded)
        self.model = model.eval()
        self.model.requires_grad_(False)

    @torch.no_grad()
    def __call__(self, labels: Sequence[str]) -> Tensor:
        _require_names(labels)
        tokens = self.tokenizer(list(labels), padding=True, truncation=True, return_tensors="pt")
        hidden = self.model(**tokens).last_hidden_state  # (n, tokens, width)
        mask = tokens["attention_mask"][..., None].to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(mean).float()


def _require_exact(loaded: dict[str, Any]) -> None:
    """Refuse what transformers accepts with a warning: it fills missing tensors at random."""
    for kind in ("missing", "unexpected"):
        if keys := sorted({str(key) for key in loaded.get(f"{kind}_keys", ())} - _COMPUTED):
            raise UserError(
                f"The weights of MiniLM do not fit transformers' network ({kind}: {keys[0]}); "
                "install another version of transformers."
            )


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
