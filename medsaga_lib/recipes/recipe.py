"""A method is a recipe: the answers to the five questions that every method answers.

Backbone and data come with the run; head, what trains and how, objective and schedule stand here.
An ablation is `dataclasses.replace(recipe, ...)`.
"""

from dataclasses import dataclass
from typing import Literal

from medsaga_lib.adapt.lora import LoRA
from medsaga_lib.data.transforms import Kind as Augmentation
from medsaga_lib.heads import Start


@dataclass(frozen=True)
class Full:
    """Every tensor of the image encoder trains, dense."""


@dataclass(frozen=True)
class GaLore:
    """Every tensor of the image encoder trains; where it saves memory, in a low-rank subspace."""

    lr: float
    rank: int | None = None  # None: width of the encoder / 12
    refresh: int = 200  # T
    scale: float = 0.25  # alpha
    moments: Literal["rotate", "keep"] = "rotate"
    subspace: Literal["randomized", "exact"] = "randomized"
    stagger: bool = False  # spread the refreshes over the T steps
    optimizer: Literal["galore", "fira", "apollo"] = "galore"  # or one of its successors


Adaptation = Full | GaLore | LoRA


@dataclass(frozen=True)
class Recipe:
    """One method. Every value is from its source, or a comment says "our choice"."""

    name: str
    title: str
    source: str  # paper and section
    image_encoder: Adaptation
    start: Start  # of the class tokens
    lr: float  # of everything that GaLore does not project; reached after the warm-up
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
