"""Counts, ledgers and operations of the networks that several checks need; each is built once."""

from functools import cache
from typing import Any

import torch
from segment_anything.modeling import Sam
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from medsaga_lib.memory.ledger import Ledger, ledger
from medsaga_lib.memory.plan import (
    Count,
    Plan,
    count,
    faked,
    predict_ledger,
    predict_peak,
)
from medsaga_lib.models.sam import Attention, build_sam
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.build import build_model, trainable
from medsaga_lib.recipes.recipe import Recipe, changed

MIB = 2**20
GIB = 2**30


def recipe_of(name: str) -> Recipe:
    """Return a recipe; a name may end with changes, as in "medsaga image_encoder.rank=32"."""
    head, *changes = name.split()
    return changed(get_recipe(head), changes)


@cache
def counted(name: str, backbone: str = "vit_b", size: int = 512, classes: int = 8) -> Count:
    """Return the counts of a recipe."""
    return count(recipe_of(name), backbone, size, classes)


@cache
def ledger_of(
    name: str,
    batch: int = 12,
    size: int = 512,
    classes: int = 8,
    backbone: str = "vit_b",
    attention: Attention = "fused",
) -> Ledger:
    """Return the ledger of a training step in float32; the defaults are SAMed's and MedSAGa's."""
    plan = Plan(backbone, batch, size, classes, attention=attention)
    return predict_ledger(recipe_of(name), plan)


@cache
def of_model(
    name: str, size: int = 512, classes: int = 8, backbone: str = "vit_b", per_layer: bool = False
) -> Ledger:
    """Return the ledger without activations: what does not depend on the data."""
    with faked(recipe_of(name), Plan(backbone, 1, size, classes)) as (model, groups, _):
        return ledger(model, groups, per_layer=per_layer)


@cache
def peak_of(
    name: str,
    batch: int = 12,
    size: int = 512,
    classes: int = 8,
    backbone: str = "vit_b",
    attention: Attention = "fused",
) -> int:
    """Return the predicted peak of a training step in bytes."""
    return predict_peak(recipe_of(name), Plan(backbone, batch, size, classes, attention=attention))


@cache
def sam_without_memory(
    backbone: str = "vit_b", size: int | None = None, attention: Attention = "fused"
) -> Sam:
    """Return a SAM on the meta device, which has shapes and no values."""
    with torch.device("meta"):
        return build_sam(backbone, size, attention=attention)


def parameters(module: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(p.numel() for p in module.parameters())


@cache
def operations_of_a_step(name: str, size: int = 512) -> int:
    """Return the operations of a forward and backward pass of one image, additions included."""
    plan = Plan("vit_b", 1, size, 8, attention="original")  # its products are all counted
    with faked(recipe_of(name), plan) as (_, _, forward), FlopCounterMode(display=False) as counter:
        forward().backward()
    return counter.get_total_flops()


@cache
def built(name: str, classes: int) -> Any:
    """Return the network of a recipe on the pocket SAM at 64 px, with random weights."""
    return build_model(recipe_of(name), "pocket", 64, classes, "random")


@cache
def with_a_gradient(name: str) -> dict[str, int]:
    """Return the sizes of the tensors of `built` that a loss gives a gradient, by name."""
    model = build_model(recipe_of(name), "pocket", 64, 3, "random")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    model(images).square().mean().backward()
    return {
        name: p.numel()
        for name, p in trainable(model).items()
        if p.grad is not None and p.grad.abs().max() > 0
    }
