"""A method is a recipe: the answers to the five questions that every method answers.

Backbone and data come with the run; head, what trains and how, objective and schedule stand here.
An ablation is `dataclasses.replace(recipe, ...)`, or `changed(recipe, ["lr=0.001"])` in words.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from medsaga_lib.adapt.adapter import Bottleneck
from medsaga_lib.adapt.biases import Biases
from medsaga_lib.adapt.lora import LoRA
from medsaga_lib.adapt.svd import SVDAffine
from medsaga_lib.data.synthesis import Synthesis
from medsaga_lib.data.transforms import Kind as Augmentation
from medsaga_lib.errors import UserError
from medsaga_lib.heads import Answer, Start

# The least that a number of this name may be
LEAST = {"lr": 0, "weight_decay": 0, "warmup": 0, "steps": 0, "batch": 1, "rank": 1, "copies": 0,
         "refresh": 1, "bases": 0, "ce_weight": 0, "dice_weight": 0, "decay_power": 0,
         "share": 0}  # fmt: skip


@dataclass(frozen=True)
class Full:
    """Every tensor of the image encoder trains, dense."""

    lr: float | None = None  # of the image encoder; None: the recipe's


@dataclass(frozen=True)
class Frozen:
    """Nothing in the image encoder trains.

    copies: of each picture, whose embeddings are computed once, before training: the picture as it
    is and copies - 1 augmented ones. 0: no embedding is kept, every step computes its own.
    """

    copies: int = 0


@dataclass(frozen=True)
class Scratch:
    """No SAM at all: a network of `networks`, from random weights."""

    network: Literal["unet", "segresnet", "dae_former"]


@dataclass(frozen=True)
class GaLore:
    """The image encoder trains; where it saves memory, in a low-rank subspace."""

    lr: float
    rank: int | None = None  # None: width of the encoder / 12
    refresh: int = 200  # T, the steps between two bases
    # The least number of bases in a run too short for T; 0: T as it stands. Our choice
    bases: int = 10
    scale: float = 0.25  # alpha
    moments: Literal["rotate", "keep"] = "rotate"
    subspace: Literal["randomized", "exact"] = "randomized"
    stagger: bool = False  # spread the refreshes over the T steps
    # or one of its successors, or what galore-torch 1.0 computes
    optimizer: Literal["galore", "fira", "apollo", "published"] = "galore"
    # What becomes of those tensors that are not the attentions'
    others: Literal["projected", "dense", "frozen"] = "projected"


Adaptation = Full | Frozen | GaLore | LoRA | SVDAffine | Biases | Bottleneck | Scratch


@dataclass(frozen=True)
class Recipe:
    """One method. Every value is from its source, or a comment says "our choice"."""

    name: str
    title: str
    source: str  # paper and section
    image_encoder: Adaptation
    start: Start  # of the class tokens
    # Reached after the warm-up; of everything but an image encoder that has its own
    lr: float
    betas: tuple[float, float]
    weight_decay: float
    warmup: (
        int  # steps in the published run; `optim.schedule.scaled_warmup` fits it to shorter ones
    )
    decay_power: float
    ce_weight: float
    dice_weight: float
    batch: int
    steps: int
    augmentation: Augmentation
    # A mask for each class token, or for each label's name, point or box as a prompt; or of a grid
    # of points, without training, the mask that is nearest to the label
    head: Literal["classes", "names", "points", "boxes", "grid"] = "classes"
    answer: Answer = "single"  # to a point or a box: token 0's mask, or the best of the others
    text: Literal["spelling", "clip"] = "spelling"  # what makes vectors of names
    # What trains in mask decoder and prompt encoder: all; all but the transformer, which gets the
    # image encoder's LoRA; the decoder's LayerNorms; or nothing
    decoder: Literal["whole", "lora", "norms", "frozen"] = "whole"
    objective: Literal["cross_entropy_dice", "focal_dice"] = "cross_entropy_dice"
    # betas[0] is sgd's momentum; it has no other
    optimizer: Literal["adamw", "sgd"] = "adamw"
    synthesis: Synthesis | None = None  # samples made of the labelled ones, beside them

    def __post_init__(self) -> None:
        for record in (self, self.image_encoder, self.synthesis):
            if record is not None:
                _check_choices(record)
                _check_numbers(record)
        if self.decoder == "lora" and not isinstance(self.image_encoder, LoRA):
            raise UserError(
                "decoder='lora' takes rank and targets from the image encoder's LoRA, and there is "
                f"none in {self.name}; choose whole, norms or frozen."
            )
        how = self.image_encoder
        ours = ("rotate", "randomized", False)
        if (
            isinstance(how, GaLore)
            and how.optimizer == "published"
            and (how.moments, how.subspace, how.stagger) != ours
        ):
            raise UserError("galore-torch has no moments, subspace or stagger; leave them.")
        if self.head == "grid" and self.steps:
            raise UserError("A grid asks for everything and trains nothing; set steps=0.")
        draws = self.head in ("points", "boxes") or self.synthesis is not None
        if draws and isinstance(self.image_encoder, Frozen) and self.image_encoder.copies:
            raise UserError(
                f"{self.name} draws points, boxes or new pictures in every step, so that no "
                "embedding can be kept; set image_encoder.copies=0."
            )


def _check_choices(record: Any) -> None:
    """UserError where a field that is one of a few words holds another."""
    for name, kind in get_type_hints(type(record)).items():
        value = getattr(record, name)
        if get_origin(kind) is Literal and value not in get_args(kind):
            choices = ", ".join(get_args(kind))
            raise UserError(f"{name} is {value!r}; choose one of {choices}.")


def _check_numbers(record: Any) -> None:
    """UserError where a number makes no sense."""
    for name, value in vars(record).items():
        least = LEAST.get(name, -math.inf)
        if isinstance(value, int | float) and not (math.isfinite(value) and value >= least):
            known = f"a number from {least}" if name in LEAST else "a number"
            raise UserError(f"{name} is {value}; it must be {known}.")
    if not all(0 <= beta < 1 for beta in getattr(record, "betas", ())):
        raise UserError(f"betas are {record.betas}; both must be at least 0 and below 1.")


def changed(recipe: Recipe, changes: Sequence[str]) -> Recipe:
    """The recipe with other values: "lr=0.001", "image_encoder.moments=keep".

    Raises:
        UserError: a change is not KEY=VALUE, or the recipe has no such key or value.
    """
    values: dict[str, Any] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise UserError(f"{change!r} changes nothing; write KEY=VALUE, as lr=0.001.")
        _put(values, recipe, key.split("."), text, change)
    return _replaced(recipe, values)


def with_rank(recipe: Recipe, rank: int) -> Recipe:
    """The recipe at another rank of GaLore or LoRA; UserError if it has neither."""
    how = recipe.image_encoder
    if not isinstance(how, GaLore | LoRA):
        raise UserError(f"{recipe.name} has no rank; leave --rank away.")
    return replace(recipe, image_encoder=replace(how, rank=rank))


def _replaced(record: Any, values: dict[str, Any]) -> Any:
    """All at once: what one change forbids, another of them may allow."""
    for name, value in values.items():
        if isinstance(value, dict):
            values = values | {name: _replaced(getattr(record, name), value)}
    return replace(record, **values) if values else record


def _put(values: dict[str, Any], record: Any, path: list[str], text: str, change: str) -> None:
    """Adds a change of a record to the values that it gets, nested as the record is."""
    kinds = get_type_hints(type(record))
    fixed = ("name", "title", "source")  # of a recipe; by these it is found again
    names = [field.name for field in fields(record) if field.name not in fixed]
    name, *rest = path
    if name not in names:
        raise UserError(f"{change!r}: there is no {name}; choose one of {', '.join(names)}.")
    value = getattr(record, name)
    if is_dataclass(value) != bool(rest):
        hint = f"; name one of its parts, as {name}.{fields(value)[0].name}" if not rest else ""
        raise UserError(f"{change!r}: {name} is {value!r}{hint}.")
    if rest:
        _put(values.setdefault(name, {}), value, rest, text, change)
    else:
        values[name] = _parsed(kinds[name], text, change)


def _parsed(kind: Any, text: str, change: str) -> Any:
    """The value that a text stands for where a field of that type is wanted."""
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
            raise UserError(f"{change!r}: write {1 + len(others)} values with a comma between.")
        return tuple(_parsed(of, part, change) for part in parts)
    for number in (int, float):  # also where None is another choice
        if kind is number or number in get_args(kind):
            try:
                return number(text)
            except ValueError as error:
                raise UserError(f"{change!r}: {text!r} is not a number.") from error
    raise UserError(f"{change!r}: this key cannot be changed in words; use dataclasses.replace.")
