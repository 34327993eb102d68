"""Predict the memory of training a recipe, without the machine, the weights or the data."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from medsaga_lib.adapt.svd import SVDLayer
from medsaga_lib.errors import UserError
from medsaga_lib.memory.ledger import Ledger, fake, ledger, peak_bytes, state_bytes
from medsaga_lib.models.heads import FromPart, Promptable
from medsaga_lib.models.sam import Attention
from medsaga_lib.recipes.build import (
    Model,
    build_model,
    build_optimizer,
    checkpoint_blocks,
    model_size,
    require_per_layer,
    trainable,
    trained_part,
)
from medsaga_lib.recipes.recipe import Recipe
from medsaga_lib.training.losses import OBJECTIVES


@dataclass(frozen=True)
class Plan:
    """The settings of a training step that its memory depends on."""

    backbone: str
    batch: int  # images in one pass
    size: int  # side of the square input in pixels
    classes: int  # foreground classes
    checkpointing: bool = False  # recompute each block of the encoder in the backward pass
    per_layer: bool = False  # updates inside the backward pass
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: autocast; weights and states stay float32
    attention: Attention = "fused"  # as in `build_sam`
    state_bits: Literal[32, 8, 4] = 32  # of AdamW's states; 8 and 4 as in torchao, predicted only


def predict_ledger(recipe: Recipe, plan: Plan) -> Ledger:
    """Predict the ledger of a training step; nothing is computed, and no GPU is needed."""
    with faked(recipe, plan) as (model, groups, forward):
        return ledger(model, groups, forward, plan.per_layer)


def predict_peak(recipe: Recipe, plan: Plan) -> int:
    """Predict the peak of a step in bytes, temporaries included; see `ledger.peak_bytes`."""
    with faked(recipe, plan) as (model, groups, forward):
        return peak_bytes(model, groups, forward, plan.per_layer)


def largest_batch(recipe: Recipe, plan: Plan, limit: int) -> int:
    """Return the largest batch whose predicted peak is within `limit` bytes, or 0 if none is.

    The peak grows linearly with the batch, apart from a few changes of slope. Each guess follows
    the last slope, and the search ends between a batch that fits and the next, which does not.
    """

    def peak(batch: int) -> int:
        return predict_peak(recipe, replace(plan, batch=batch))

    least = 2 if recipe.head == "names" and plan.classes == 1 else 1  # see `LabelPrompts`
    fits, needed = least, peak(least)
    if needed > limit:
        return 0
    slope, too_many = peak(least + 1) - needed, None
    while too_many is None or too_many - fits > 1:
        guess = fits + max(1, (limit - needed) // max(1, slope))
        guess = guess if too_many is None else min(guess, too_many - 1)
        bytes_ = peak(guess)
        slope = (bytes_ - needed) // (guess - fits)
        if bytes_ <= limit:
            fits, needed = guess, bytes_
        else:
            too_many = guess
    return fits


def loss_of_a_step(
    recipe: Recipe, plan: Plan, model: Model, device: str = "cpu"
) -> Callable[[], Tensor]:
    """Return a function that computes the loss of a step of `plan` on random images and labels.

    With blank labels, the loss is near 0 after a few steps. Gradients are then denormal numbers,
    with which a step took up to 50 times as long (an Intel Xeon, torch 2.13).
    """
    network = trained_part(recipe, model)
    one = _one_input(network, plan, device)

    def forward() -> Tensor:
        inputs = [torch.rand(plan.batch, *one.shape[1:], dtype=one.dtype, device=device)]
        if isinstance(model, Promptable):  # a box, or a point and its padding, for each label
            corners = torch.zeros(plan.batch, plan.classes, 2, 2, device=device)
            inputs += [corners, torch.zeros(corners.shape[:3], dtype=torch.int64, device=device)]
        with torch.autocast(device, torch.bfloat16, enabled=plan.precision == "bf16"):
            logits = network(*inputs)
        size = plan.batch, *logits.shape[2:]
        labels = torch.randint(plan.classes + 1, size, device=device)
        return OBJECTIVES[recipe.objective](logits, labels).total

    return forward


def kept_bytes(recipe: Recipe, plan: Plan) -> int:
    """Return the bytes of one copy of an image whose frozen stages are kept; 0 if none are."""
    if not recipe.image_encoder.copies:
        return 0
    with faked(recipe, plan) as (model, _, _):
        return _one_input(trained_part(recipe, model), plan, "cpu").nbytes


@torch.no_grad()
def _one_input(network: Model | FromPart, plan: Plan, device: str) -> Tensor:
    """Return the network's input for one blank image: the image, or the kept output for it."""
    image = torch.zeros(1, 3, plan.size, plan.size, device=device)
    if not isinstance(network, FromPart):
        return image
    with torch.autocast(device, torch.bfloat16, enabled=plan.precision == "bf16"):
        return network.keep(image)


@contextmanager
def faked(recipe: Recipe, plan: Plan) -> Iterator[tuple[Model, list[dict], Callable[[], Tensor]]]:
    """Yield the recipe's network, its parameter groups and the loss of a step, without memory."""
    if plan.batch < 1:
        raise UserError(f"The batch is {plan.batch}; it must be at least 1.")
    if plan.per_layer:
        require_per_layer(recipe)
    model_size(recipe, plan.backbone, plan.size)
    with torch.device("meta"):  # peft cannot attach to tensors that are fake from the start
        model = build_model(
            recipe, plan.backbone, plan.size, plan.classes, "random", attention=plan.attention
        )
    with fake():
        _replace_tensors(model)
        if plan.checkpointing:
            checkpoint_blocks(model, plan.precision)
        forward = loss_of_a_step(recipe, plan, model)
        groups = build_optimizer(recipe, model).param_groups
        if plan.state_bits != 32:
            groups = [{**group, "bits": plan.state_bits} for group in groups]
        yield model, groups, forward


def _replace_tensors(model: nn.Module) -> None:
    """Replace all tensors by new ones on the CPU; inside `fake()` they take no memory."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            new = torch.empty(parameter.shape, dtype=parameter.dtype)
            setattr(module, name, nn.Parameter(new, parameter.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))


def _numbers(model: nn.Module) -> int:
    """Count the parameters of a network; a factored layer counts as the matrix it replaces."""
    factored = [layer for layer in model.modules() if isinstance(layer, SVDLayer)]
    matrices = sum(len(layer.left) * layer.right.shape[1] for layer in factored)
    return matrices + sum(p.numel() for p in model.parameters())


class Count(NamedTuple):
    """The counts of one recipe, for one backbone, size and number of classes."""

    name: str
    trainable: int  # parameters
    total: int
    state_bytes: int  # of the optimizer, in fp32, bases included
    source: str


def count(recipe: Recipe, backbone: str, size: int, classes: int) -> Count:
    """Count parameters and state bytes of a recipe without holding or computing any weight."""
    with torch.device("meta"):
        model = build_model(recipe, backbone, size, classes, weights="random")
    parts = trainable(model)
    return Count(
        recipe.name,
        sum(p.numel() for p in parts.values()),
        _numbers(model),
        sum(state_bytes(build_optimizer(recipe, model).param_groups)),
        recipe.source,
    )
