"""Short ways to runs for tests: no progress bar, few steps, and the content of their folders."""

from dataclasses import replace
from pathlib import Path

import torch

from medsaga_lib.data.dataset import DataSet
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.recipe import Recipe
from medsaga_lib.training import loop
from medsaga_lib.training.run_folder import Settings, read_checkpoint

# Settings of a run that takes a second: random weights, small pictures, no validation
SMALL = {"weights": "random", "size": 64, "validations": 0}


def train(recipe, dataset, shots, out: Path | None = None, stop_after=None, **settings):
    """`loop.train` without a progress bar."""
    given = Settings(shots=shots, **settings)
    return loop.train(recipe, dataset, given, out, progress=False, stop_after=stop_after)


def short(name: str, **changes) -> Recipe:
    """A recipe of six steps; "unet_sgd" is the U-Net with SGD.

    `medsaga` renews its bases every two steps, so that six steps cross several renewals.
    """
    changes = {"steps": 6, "batch": 3} | changes
    if name == "unet_sgd":
        name, changes = "unet", changes | {"optimizer": "sgd"}
    how = get_recipe(name).image_encoder
    if name == "medsaga":
        how = replace(how, refresh=2, bases=0)
    return replace(get_recipe(name), image_encoder=how, **changes)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """The weights in the checkpoint of a run's folder."""
    return read_checkpoint(folder).weights


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two state dicts have the same keys and equal tensors."""
    return first.keys() == second.keys() and all(first[k].equal(second[k]) for k in first)


def prompted_run(kind: str, dataset: DataSet, folder: Path) -> Path:
    """Train two steps of SAMed with points or boxes as prompts; returns the run's folder."""
    recipe = short("samed", steps=2, batch=2)
    train(recipe, dataset, 4, folder / kind, changes=[f"head={kind}"], **SMALL)
    return folder / kind
