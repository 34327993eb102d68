"""Build the network and the optimizer that a recipe describes."""

from collections.abc import Sequence

import torch
from torch import nn

from medsaga_lib.adapt.lora import LoRA
from medsaga_lib.errors import UserError
from medsaga_lib.models.heads import (
    ClassTokens,
    FromPart,
    LabelPrompts,
    Promptable,
    class_tokens,
)
from medsaga_lib.models.linear import with_fast_layers
from medsaga_lib.models.sam import Attention, build_sam, input_size, recompute_blocks
from medsaga_lib.models.scratch import FromScratch, network_size
from medsaga_lib.models.text import ClipText, MiniLMText, Spelling
from medsaga_lib.models.weights import file_of, load_state
from medsaga_lib.recipes.encoder import GaLore
from medsaga_lib.recipes.recipe import Recipe

KEPT = {"fp32": torch.float32, "bf16": torch.bfloat16}  # dtype of the inputs of recomputed blocks
TEXT_ENCODERS: dict[str, type[Spelling] | type[MiniLMText] | type[ClipText]] = {
    "spelling": Spelling,
    "minilm": MiniLMText,
    "clip": ClipText,
}
Model = ClassTokens | LabelPrompts | Promptable | FromScratch


def build_model(
    recipe: Recipe,
    backbone: str,
    size: int,
    classes: int,
    weights: str = "pretrained",
    seed: int = 0,
    attention: Attention = "fused",
    names: Sequence[str] | None = None,
) -> Model:
    """Build the recipe's network; its trainable parameters have `requires_grad`, others do not.

    Args:
        recipe: the method.
        backbone: a name in `models.sam.SHAPES`; a recipe that trains from scratch has none.
        size: side of the square input in pixels.
        classes: number of foreground classes.
        weights: of the backbone: pretrained, random, or a file with the same layout.
        seed: for all random numbers drawn here; torch's global generator is not changed.
        attention: as in `build_sam`; the weights do not depend on it.
        names: of the classes, for recipes that prompt with them; default: "label 1", "label 2", ...
    """
    if recipe.network is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return FromScratch(recipe.network, size, classes)
    file = file_of(backbone, weights)
    state = None if file is None else load_state(backbone, size, file=file)
    how = recipe.image_encoder
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: ClassTokens | LabelPrompts | Promptable
        if recipe.head == "classes":
            model = class_tokens(
                backbone, state, size, classes, recipe.start, attention, recipe.lift
            )
        else:
            sam = build_sam(backbone, size, attention=attention)
            if state is not None:
                sam.load_state_dict(state)
            if recipe.head == "names":
                called = names or [f"label {number}" for number in range(1, classes + 1)]
                model = LabelPrompts(sam, _vectors(recipe, called), recipe.lift)
            else:
                model = Promptable(sam, recipe.head, classes, recipe.answer)
        how.attach(model.sam.image_encoder)
        if recipe.decoder == "lora" and isinstance(how, LoRA):
            how.attach_decoder(model.sam.mask_decoder)
    if recipe.decoder in ("norms", "frozen"):
        model.sam.mask_decoder.requires_grad_(False)
    if recipe.decoder in ("norms", "frozen") or recipe.head == "names":
        model.sam.prompt_encoder.requires_grad_(False)  # label names replace its prompts
    if recipe.decoder == "norms":
        for module in model.sam.mask_decoder.modules():
            if isinstance(module, nn.LayerNorm):
                module.requires_grad_(True)
    with_fast_layers(model)  # those of LoRA too
    return model


def _vectors(recipe: Recipe, names: Sequence[str]) -> torch.Tensor:
    """Encode names as vectors (K, W); on the meta device, only the shape is computed."""
    if torch.get_default_device().type == "meta":
        return torch.empty(len(names), TEXT_ENCODERS[recipe.text].width)
    return TEXT_ENCODERS[recipe.text]()(names)


def trained_part(recipe: Recipe, model: Model) -> Model | FromPart:
    """Return the module that training runs.

    This is the model, or its part after the frozen stages if the recipe keeps their output.
    """
    if not recipe.image_encoder.copies or isinstance(model, FromScratch):
        return model
    return FromPart(model, recipe.image_encoder.kept_part(model.sam.image_encoder))


def model_size(recipe: Recipe, backbone: str, size: int | None) -> int:
    """Return the side of the input in pixels: `size`, or the default where it is None.

    Raises:
        UserError: the backbone is unknown, or the size does not fit the network.
    """
    if recipe.network is not None:
        return network_size(recipe.network, size)
    return input_size(backbone, size)


def checkpoint_blocks(model: Model, precision: str) -> None:
    """Recompute each block of the image encoder in the backward pass, which saves memory."""
    if isinstance(model, FromScratch):
        raise UserError("This network has no blocks to recompute; omit --checkpointing.")
    recompute_blocks(model.sam.image_encoder, KEPT[precision])


def require_per_layer(recipe: Recipe) -> None:
    """Raise UserError if the recipe's optimizer cannot update inside the backward pass."""
    how = recipe.image_encoder
    if recipe.optimizer == "sgd":
        raise UserError("Per-layer updates work with adamw only, not with sgd; omit --per-layer.")
    if isinstance(how, GaLore) and how.optimizer != "galore":
        raise UserError(
            f"There are no per-layer updates for {how.optimizer}; use galore or omit --per-layer."
        )


def build_optimizer(
    recipe: Recipe, model: Model, seed: int = 0, per_layer: bool = False
) -> torch.optim.Optimizer:
    """Build the recipe's optimizer for all trainable parameters of the model.

    per_layer: update each tensor inside the backward pass; the results are the same.

    Raises:
        UserError: the recipe's optimizer has no per-layer updates.
    """
    if per_layer:
        require_per_layer(recipe)
    how, dense = recipe.image_encoder, {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    if isinstance(model, FromScratch):
        encoder, rest = model, {}
    else:
        encoder = model.sam.image_encoder
        inside = {id(p) for p in encoder.parameters()}
        rest = {name: p for name, p in trainable(model).items() if id(p) not in inside}
    groups = how.groups(encoder, **dense, seed=seed, steps=recipe.steps)
    if recipe.lift_decay is not None:
        lift = {name: rest.pop(name) for name in [*rest] if name.startswith("lift.")}
        own = {**dense, "weight_decay": recipe.lift_decay}
        groups.append({"params": list(lift.values()), "names": list(lift), **own})
    groups.append({"params": list(rest.values()), "names": list(rest), **dense})
    groups = [group for group in groups if group["params"]] or groups[-1:]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=recipe.betas[0])
    return how.build_optimizer(groups, recipe.betas, per_layer)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable parameters by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def learned(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors that training changes, by name.

    These are the trainable parameters and the statistics of batch normalisation.
    """
    found: dict[str, torch.Tensor] = dict(trainable(model))
    for path, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            found |= {f"{path}.{name}": buffer for name, buffer in module.named_buffers()}
    return found
