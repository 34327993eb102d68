"""The samples of a run: its training batches and its validation samples."""

import math
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, default_collate

from medsaga_lib.data.dataset import DataSet
from medsaga_lib.data.prompts import draw_prompts
from medsaga_lib.data.samples import Place, Samples
from medsaga_lib.data.synthesis import Pasting, backgrounds
from medsaga_lib.data.transforms import Augment
from medsaga_lib.models.heads import FromPart, Promptable, head_of
from medsaga_lib.recipes.build import Model
from medsaga_lib.recipes.recipe import Recipe
from medsaga_lib.training.batches import Batches
from medsaga_lib.training.embedded import Embedded


def training_batches(
    recipe: Recipe,
    dataset: DataSet,
    samples: Samples | Subset,
    trained: Model | FromPart,
    precision: str,
    seed: int,
    progress: bool = False,
) -> Batches:
    """Return the samples of every step, augmented and prompted as the recipe says.

    progress: show a progress bar while outputs of frozen stages are computed.
    """
    augment = Augment(recipe.augmentation)
    ask = None
    if isinstance(head := head_of(trained), Promptable):
        ask = partial(draw_prompts, head.kind, range(1, head.classes + 1), jitter=True)
    if isinstance(trained, FromPart):
        drawn = math.ceil(recipe.steps * recipe.batch / len(samples))  # copies that the steps use
        copies = min(recipe.image_encoder.copies, drawn)
        kept_of = partial(keep, trained, precision)
        kept = Embedded(samples, kept_of, augment, copies, seed, progress)
        return Batches(kept, recipe.batch, Augment("none"), seed, ask)  # already augmented
    change: Augment | Pasting = augment
    if recipe.synthesis is not None and recipe.synthesis.share:
        grounds = backgrounds(samples, dataset)
        change = Pasting(recipe.synthesis, grounds, len(dataset.labels), augment)
    return Batches(samples, recipe.batch, change, seed, ask)


def validation_samples(
    dataset: DataSet,
    size: int,
    place: Place,
    trained: Model | FromPart,
    progress: bool = False,
) -> Dataset | None:
    """Return the labelled cases of the validation split as `trained` takes them; None if empty.

    Validation computes in fp32, as the evaluation does, also in a run in bf16.
    """
    cases = [case for case in dataset.split("val") if case.mask is not None]
    if not cases:
        return None
    samples = Samples(dataset, cases, size, place)
    if isinstance(trained, FromPart):
        kept_of = partial(keep, trained, "fp32")
        return Embedded(samples, kept_of, Augment("none"), progress=progress)
    return samples


def absent_labels(samples: Samples | Subset, names: list[str]) -> tuple[str, ...]:
    """Return the names of the labels 1 ... K that no sample shows; stop reading when all do."""
    missing = dict(enumerate(names, start=1))
    for index in range(len(samples)):
        for value in samples[index]["label"].unique().tolist():
            missing.pop(value, None)
        if not missing:
            break
    return tuple(missing.values())


@torch.no_grad()
def keep(trained: FromPart, precision: str, image: Tensor) -> Tensor:
    """Return the output of the frozen parts for an image (3, S, S), without batch, on the CPU."""
    trained.eval()
    device = next(trained.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, precision == "bf16"):
        return trained.keep(image[None].to(device))[0].cpu()


def prompts_of(labels: Tensor, model: Promptable, first: int) -> tuple[Tensor, ...]:
    """Draw coordinates (B, K, 2, 2) and roles (B, K, 2) from label maps (B, S, S).

    first: the seed of the first label map; each next map has the next seed.
    """
    draw = partial(draw_prompts, model.kind, range(1, model.classes + 1))
    return default_collate([draw(one, first + i) for i, one in enumerate(labels.numpy())])
