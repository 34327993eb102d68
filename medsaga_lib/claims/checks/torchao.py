"""Checks of the memory that torchao's README gives for fine-tuning timm's ViT-H."""

from math import prod

import torch

from medsaga_lib.claims.arithmetic import percent_less
from medsaga_lib.claims.claim import Claim, Found, check, reproduced_if
from medsaga_lib.claims.tables import figure
from medsaga_lib.memory.ledger import state_bytes

# timm's vit_huge_patch14_224: patches of 14 px, images of 224 px; the README's data have 45 classes
WIDTH, MLP, BLOCKS, PATCH, TOKENS, CLASSES = 1280, 5120, 32, 14, 16 * 16 + 1, 45
GB = 1e9  # bytes; the benchmark's script divides by it


def vit_h() -> list[tuple[int, ...]]:
    """Return the shapes of ViT-H's tensors."""
    norm = [(WIDTH,), (WIDTH,)]
    linear = {"qkv": (3 * WIDTH, WIDTH), "proj": (WIDTH, WIDTH), "up": (MLP, WIDTH)}
    linear |= {"down": (WIDTH, MLP)}
    block = [*norm, *norm, *(shape for one in linear.values() for shape in (one, one[:1]))]
    stem = [(WIDTH,), (TOKENS, WIDTH), (WIDTH, 3, PATCH, PATCH), (WIDTH,)]
    return [*stem, *(BLOCKS * block), *norm, (CLASSES, WIDTH), (CLASSES,)]


def _saved(claim: Claim, bits: int) -> Found:
    """Compare the difference of the states with the difference of the published peaks."""
    params = [torch.empty(shape, device="meta") for shape in vit_h()]
    groups: list[dict] = [{"params": params}, {"params": params, "bits": bits}]
    states = [sum(state_bytes([group])) for group in groups]
    here = (states[0] - states[1]) / GB
    fused, few = (
        figure("torchao_text", f"Benchmarks peak with {name}")
        for name in ("PyTorch's fused AdamW", f"{bits}-bit AdamW")
    )
    apart = abs(percent_less(here, fused - few))
    reason = (
        f"states of {states[0] / GB:.2f} and {states[1] / GB:.2f} GB for "
        f"{sum(map(prod, vit_h())) / 1e6:.0f} million parameters; {apart:.0f} % from "
        f"the published {fused - few:.2f} GB"
    )
    return reproduced_if(apart <= claim.tolerance, f"{here:.2f} GB less", reason)


@check
def torchao_8bit_saves(claim: Claim) -> Found:
    return _saved(claim, 8)


@check
def torchao_4bit_saves(claim: Claim) -> Found:
    return _saved(claim, 4)
