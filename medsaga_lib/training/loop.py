"""One training loop for all recipes.

Everything random is a function of (seed, step, sample): the samples of a batch, their augmentation
and GaLore's subspaces. Therefore a killed run continues from its last checkpoint, on a CPU to
exactly the weights of an uninterrupted run. accelerate handles device, accumulation and several
GPUs, and nothing else. Its precision is fixed for the life of a process, so this loop uses torch's
autocast instead.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from medsaga_lib.data.dataset import DataSet
from medsaga_lib.data.domain import Domain
from medsaga_lib.errors import UserError
from medsaga_lib.models.heads import Promptable, head_of
from medsaga_lib.optim.schedule import scaled_warmup, warmup_polynomial
from medsaga_lib.recipes.build import Model
from medsaga_lib.recipes.recipe import Recipe
from medsaga_lib.training.collapse import Collapse, find_collapse
from medsaga_lib.training.losses import OBJECTIVES, reduce_labels
from medsaga_lib.training.run_folder import LOG_COLUMNS, Settings
from medsaga_lib.training.run_samples import prompts_of
from medsaga_lib.training.setup import Run, set_up

SAVE_EVERY = 50  # steps; our choice


@dataclass(frozen=True)
class Result:
    """The result of a training run."""

    model: Model  # on the CPU, in evaluation mode
    log: list[dict[str, float]]  # one row for each step, with LOG_COLUMNS
    collapsed: Collapse | None = None  # None also if the run is not finished or too short to judge
    absent: tuple[str, ...] = ()  # labels that no training image shows
    domain: Domain | None = None  # what the training images are like


def train(
    recipe: Recipe,
    dataset: DataSet,
    settings: Settings,
    out: Path | None = None,
    *,
    progress: bool = True,
    stop_after: int | None = None,
) -> Result:
    """Train a recipe on a few labelled images.

    Args:
        recipe: the method; its batch and steps may have been replaced.
        dataset: its split "train" is for training, and its split "val", if any, for validation.
        settings: everything else that decides the result.
        out: the run's folder; a run in it is continued. None: nothing is written.
        progress: show a progress bar.
        stop_after: stop early at this step, as if killed; this can show that resuming is exact.

    Raises:
        UserError: the data, the checkpoint or the folder cannot be used, or the loss is NaN or
            infinite.
    """
    run = set_up(recipe, dataset, settings, out, progress)
    recipe = run.recipe
    end = recipe.steps if stop_after is None else min(stop_after, recipe.steps)
    if run.start >= end:
        return _result(run, dataset)
    passes = run.passes(end)
    for step in _bar(run, end, progress):
        began = run.began if step == run.start else time.perf_counter()
        rate = learning_rate_factor(recipe, step)
        losses = take_step(run, passes, step, rate)
        val_dice = validate(run, step)
        row = (step, recipe.lr * rate, *losses, val_dice, time.perf_counter() - began)
        run.log.append(dict(zip(LOG_COLUMNS, row, strict=True)))
        if step + 1 == recipe.steps or (step + 1) % SAVE_EVERY == 0:
            run.save(step + 1)
    return _result(run, dataset)


def _result(run: Run, dataset: DataSet) -> Result:
    """Return the result of a run, judged if all its steps are done."""
    finished = len(run.log) == run.recipe.steps
    collapsed = find_collapse(run, dataset) if finished else None
    return Result(run.model.cpu().eval(), run.log, collapsed, run.absent, run.domain)


def take_step(
    run: Run, passes: Iterator[tuple[Tensor, ...]], step: int, rate: float
) -> tuple[float, float, float]:
    """Update the network once, with its learning rates multiplied by `rate`.

    Returns:
        the loss, its cross-entropy part and its Dice part, as means over passes and processes.

    Raises:
        UserError: the loss is NaN or infinite.
    """
    network, optimizer, recipe = run.network, run.optimizer, run.recipe
    assert network is not None
    assert optimizer is not None
    network.train()
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("base_lr", group["lr"]) * rate
    parts = []
    for _ in range(run.settings.accumulate):
        with run.accelerator.accumulate(network):
            images, target, *prompts = next(passes)
            with run.autocast():
                logits = network(images, *prompts)
            labels = reduce_labels(target, logits)
            weights = recipe.ce_weight, recipe.dice_weight
            loss = OBJECTIVES[recipe.objective](logits, labels, *weights)
            run.accelerator.backward(loss.total)
            if recipe.clip_norm is not None and run.accelerator.sync_gradients:
                tensors = (W for group in optimizer.param_groups for W in group["params"])
                run.accelerator.clip_grad_norm_(tensors, recipe.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            parts.append(torch.stack([part.detach() for part in loss]))
    mean = run.accelerator.reduce(torch.stack(parts).mean(0), "mean")
    total, cross_entropy, dice = mean.tolist()
    if not math.isfinite(total):
        raise UserError(
            f"The loss is {total} at step {step}; lower the learning rate, or train in fp32."
        )
    return total, cross_entropy, dice


def validate(run: Run, step: int) -> float:
    """Return the validation Dice after `step` if a validation is due, otherwise NaN."""
    count, steps = run.settings.validations, run.recipe.steps
    taken, due = (done * count // steps for done in (step, step + 1))
    if run.validation is None or due == taken:
        return math.nan
    assert run.trained is not None
    return validation_dice(run.trained, run.validation)


def learning_rate_factor(recipe: Recipe, step: int) -> float:
    """Return the factor by which step `step` multiplies the base learning rate."""
    warmup = scaled_warmup(recipe.steps, recipe.warmup) if recipe.warmup else 0
    return warmup_polynomial(step, 1.0, warmup, recipe.steps, recipe.decay_power)


@torch.no_grad()
def validation_dice(model: nn.Module, samples: Dataset, batch: int = 8) -> float:
    """Compute the mean Dice over foreground classes, for all pixels together, at logit resolution.

    A model that takes points or boxes is prompted with those of the ground truth.
    """
    model.eval()
    device = next(model.parameters()).device
    overlap = sizes = torch.zeros(())
    for number, sample in enumerate(DataLoader(samples, batch_size=batch)):
        prompts: tuple[Tensor, ...] = ()
        if isinstance(head := head_of(model), Promptable):
            prompts = prompts_of(sample["label"], head, number * batch)
        logits = model(sample["image"].to(device), *(part.to(device) for part in prompts))
        classes = logits.shape[1]
        prediction = F.one_hot(logits.argmax(1), classes).flatten(0, 2).cpu()
        truth = reduce_labels(sample["label"], logits)
        truth = F.one_hot(truth, classes).flatten(0, 2)
        overlap = overlap + (prediction * truth).sum(0)
        sizes = sizes + prediction.sum(0) + truth.sum(0)
    return (2 * overlap / sizes)[1:].nanmean().item()


def _bar(run: Run, end: int, progress: bool) -> Any:
    from tqdm import tqdm

    show = progress and run.accelerator.is_main_process
    steps = range(run.start, end)
    hidden = {} if show else {"disable": True}  # if shown, $TQDM_DISABLE is obeyed
    return tqdm(steps, run.recipe.name, initial=run.start, total=end, unit="step", **hidden)
