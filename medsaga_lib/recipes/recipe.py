"""A recipe: one method as the values of its head, its trainable parts, objective and schedule.

The backbone and the data belong to a run. An ablation is `dataclasses.replace(recipe, ...)`, or as
text `changed(recipe, ["lr=0.001"])`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from medsaga_lib.adapt.adaptation import Adaptation
from medsaga_lib.adapt.lora import LoRA
from medsaga_lib.data.synthesis import Synthesis
from medsaga_lib.data.transforms import Augmentation
from medsaga_lib.errors import UserError
from medsaga_lib.models.heads import Answer, Start
from medsaga_lib.models.lift import LiftName
from medsaga_lib.models.scratch import NetworkName
from medsaga_lib.recipes.encoder import Frozen, GaLore

# The smallest value allowed for each of these numbers
LEAST = {"lr": 0, "weight_decay": 0, "lift_decay": 0, "clip_norm": 0, "warmup": 0, "steps": 0,
         "batch": 1, "rank": 1, "copies": 0, "from_stage": 0, "refresh": 1, "bases": 0,
         "ce_weight": 0, "dice_weight": 0, "decay_power": 0, "share": 0}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """One method. Every value comes from its source, or a comment says "our choice"."""

    name: str
    title: str  # the method's name in tables, a colon, and what it trains
    source: str  # paper and section
    image_encoder: Adaptation  # its trainable parameters, and how they are trained
    start: Start  # start values of the class tokens
    # learning rate after the warm-up; an image encoder may have its own
    lr: float
    betas: tuple[float, float]
    weight_decay: float
    # steps in the published run; `optim.schedule.scaled_warmup` shortens it for short runs
    warmup: int
    decay_power: float
    ce_weight: float
    dice_weight: float
    batch: int
    steps: int
    augmentation: Augmentation
    # one mask per class token, or per label that is prompted with its name, a point or a box; grid:
    # without training, the mask of a grid of points that is nearest to the label
    head: Literal["classes", "names", "points", "boxes", "grid"] = "classes"
    answer: Answer = "single"  # mask for a point or box: that of token 0, or the best of the others
    text: Literal["spelling", "minilm", "clip"] = "spelling"  # encoder of the label names
    # trainable parts of mask decoder and prompt encoder: all; all but the transformer, which gets
    # the image encoder's LoRA; the LayerNorms of the decoder; or none
    decoder: Literal["whole", "lora", "norms", "frozen"] = "whole"
    objective: Literal["cross_entropy_dice", "focal_dice"] = "cross_entropy_dice"
    # the momentum of sgd is betas[0]; it does not use betas[1]
    optimizer: Literal["adamw", "sgd"] = "adamw"
    # gradients with a larger L2 norm, over all trained tensors together, are scaled down to it
    clip_norm: float | None = None
    lift: LiftName = "none"  # absolute positions for the heads classes and names
    lift_decay: float | None = None  # weight decay of the lift; None: that of the rest
    synthesis: Synthesis | None = None  # additional samples, synthesised from the labelled ones
    # a network from random weights instead of a SAM; the values for SAM are then not used
    network: NetworkName | None = None

    @property
    def method(self) -> str:
        """The name of the method as papers and tables write it, such as SAMed."""
        return self.title.partition(":")[0]

    def __post_init__(self) -> None:
        for record in (self, self.image_encoder, self.synthesis):
            if record is not None:
                _check_choices(record)
                _check_numbers(record)
        if self.decoder == "lora" and not isinstance(self.image_encoder, LoRA):
            raise UserError(
                "decoder='lora' takes rank and targets from the image encoder's LoRA, but there is "
                f"none in {self.name}; choose whole, norms or frozen."
            )
        if self.optimizer == "sgd" and isinstance(self.image_encoder, GaLore):
            raise UserError("GaLore works with adamw only, not with sgd; set optimizer=adamw.")
        if self.lift != "none" and self.head not in ("classes", "names"):
            raise UserError(f"A lift is for class tokens and names, not for {self.head}; omit it.")
        if self.lift_decay is not None and self.lift == "none":
            raise UserError(f"{self.name} has no lift; omit lift_decay, or set lift=cosines.")
        if self.clip_norm == 0:
            raise UserError("clip_norm is 0, so nothing would be learned; give a larger number.")
        if self.head == "grid" and self.steps:
            raise UserError("A grid of points trains nothing; set steps=0.")
        how = self.image_encoder
        if self.network is not None and (how.from_stage or how.copies):
            raise UserError(
                f"{self.name} has no image encoder; omit image_encoder.from_stage and "
                "image_encoder.copies."
            )
        if how.copies and self.synthesis is not None:
            raise UserError(
                f"{self.name} synthesises new images in every step, so nothing can be kept; set "
                "image_encoder.copies=0."
            )
        if how.from_stage and isinstance(how, Frozen):
            raise UserError(
                f"{self.name} trains no stage of the image encoder; omit image_encoder.from_stage."
            )
        if how.copies and not (how.from_stage or isinstance(how, Frozen)):
            raise UserError(
                f"{self.name} trains every stage of the image encoder, so nothing can be kept; set "
                "image_encoder.from_stage too, or image_encoder.copies=0."
            )


def _check_choices(record: Any) -> None:
    """Raise UserError if the value of a field is not one of its choices."""
    for name, kind in get_type_hints(type(record)).items():
        value = getattr(record, name)
        if get_origin(kind) is Literal and value not in get_args(kind):
            choices = ", ".join(get_args(kind))
            raise UserError(f"{name} is {value!r}; choose one of {choices}.")


def _check_numbers(record: Any) -> None:
    """Raise UserError if a number is out of its range."""
    for name, value in vars(record).items():
        least = LEAST.get(name, -math.inf)
        if isinstance(value, int | float) and not (math.isfinite(value) and value >= least):
            known = f"a number of at least {least}" if name in LEAST else "a number"
            raise UserError(f"{name} is {value}; it must be {known}.")
    if not all(0 <= beta < 1 for beta in getattr(record, "betas", ())):
        raise UserError(f"betas are {record.betas}; both must be at least 0 and below 1.")


def changed(recipe: Recipe, changes: Sequence[str]) -> Recipe:
    """Return the recipe with other values, as "lr=0.001" or "image_encoder.moments=keep".

    Raises:
        UserError: a change is not KEY=VALUE, or the recipe has no such key or value.
    """
    values: dict[str, Any] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise UserError(f"{change!r} has no '='; write KEY=VALUE, for example lr=0.001.")
        _put(values, recipe, key.split("."), text, change)
    return _replaced(recipe, values)


def with_rank(recipe: Recipe, rank: int) -> Recipe:
    """Return the recipe with another rank of GaLore or LoRA; raise UserError if it has no rank."""
    if not has_rank(recipe):
        raise UserError(f"{recipe.name} has no rank; omit --rank.")
    how: Any = recipe.image_encoder
    return replace(recipe, image_encoder=replace(how, rank=rank))


def has_rank(recipe: Recipe) -> bool:
    """Return whether the recipe has a rank: that of GaLore or LoRA."""
    return isinstance(recipe.image_encoder, GaLore | LoRA)


def _replaced(record: Any, values: dict[str, Any]) -> Any:
    """Return the record with all changes made at once, as one may be valid only with another."""
    for name, value in values.items():
        if isinstance(value, dict):
            values = values | {name: _replaced(getattr(record, name), value)}
    return replace(record, **values) if values else record


def _put(values: dict[str, Any], record: Any, path: list[str], text: str, change: str) -> None:
    """Add a change to `values`, which are nested like the record."""
    kinds = get_type_hints(type(record))
    fixed = ("name", "title", "source")  # they identify a recipe
    names = [field.name for field in fields(record) if field.name not in fixed]
    name, *rest = path
    if name not in names:
        raise UserError(f"{change!r}: there is no {name}; choose one of {', '.join(names)}.")
    value = getattr(record, name)
    if is_dataclass(value) != bool(rest):
        hint = "it has no parts to name"
        if not rest:
            hint = f"name one of its parts, for example {name}.{fields(value)[0].name}"
        raise UserError(f"{change!r}: {name} is {value!r}; {hint}.")
    if rest:
        _put(values.setdefault(name, {}), value, rest, text, change)
    else:
        values[name] = _parsed(kinds[name], text, change)


def _parsed(kind: Any, text: str, change: str) -> Any:
    """Convert a text to the value of a field of this type."""
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise UserError(f"{change!r}: choose one of {', '.join(get_args(kind))}.")
        return text
    if kind is bool:
        return _parsed(Literal["true", "false"], text, change) == "true"
    if kind is str:
        return text
    if get_origin(kind) is tuple:
        of, *others = get_args(kind)
        parts = text.split(",")
        if others != [...] and len(parts) != 1 + len(others):
            raise UserError(f"{change!r}: write {1 + len(others)} values, separated by commas.")
        return tuple(_parsed(of, part, change) for part in parts)
    for number in (int, float):  # also if the field may be None
        if kind is number or number in get_args(kind):
            try:
                return number(text)
            except ValueError as error:
                what = "a whole number" if number is int else "a number"
                raise UserError(f"{change!r}: {text!r} is not {what}; write one.") from error
    raise UserError(f"{change!r}: this key cannot be set as text; use dataclasses.replace.")
