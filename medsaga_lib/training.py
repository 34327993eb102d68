"""One loop that trains any recipe.

Everything random is a function of (seed, step, sample): which samples make up a batch, how each is
changed, and GaLore's subspaces. So a run that was killed goes on from its last checkpoint, on a CPU
to the very weights that it would have had. accelerate sees to device, accumulation and several
GPUs, and to nothing else; its precision is fixed for the life of a process, so that is torch's
autocast here.
"""

import csv
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset, default_collate

from medsaga_lib.backbones.weights import file_of
from medsaga_lib.data.batches import Batches, choose_shots, passes, sample_names
from medsaga_lib.data.embedded import Embedded
from medsaga_lib.data.folder import DataSet
from medsaga_lib.data.prompts import draw_prompts
from medsaga_lib.data.samples import Samples
from medsaga_lib.data.synthesis import Pasting, backgrounds
from medsaga_lib.data.transforms import Augment
from medsaga_lib.errors import UserError
from medsaga_lib.files import file_hash, replacing
from medsaga_lib.heads import FromEmbeddings, Promptable
from medsaga_lib.losses import OBJECTIVES
from medsaga_lib.optim.schedule import scaled_warmup, warmup_polynomial
from medsaga_lib.recipes.build import (
    Model,
    build_model,
    build_optimizer,
    checkpoint_blocks,
    kept_copies,
    learned,
    model_size,
    trainable,
    trained_part,
)
from medsaga_lib.recipes.recipe import Recipe, Scratch, changed
from medsaga_lib.runs import (
    LOG_FILE,
    Checkpoint,
    Settings,
    flatten_states,
    load_states,
    read_checkpoint,
    save_checkpoint,
    write_run,
)

SAVE_EVERY = 50  # steps; our choice
LOG_COLUMNS = ("step", "lr", "loss", "cross_entropy", "dice_loss", "val_dice", "seconds")


@dataclass(frozen=True)
class Result:
    """What a training run gives back."""

    model: Model  # on the CPU, in evaluation mode
    log: list[dict[str, float]]  # one row for each step, with LOG_COLUMNS


def train(
    recipe: Recipe,
    dataset: DataSet,
    shots: int,
    out: Path | None = None,
    *,
    backbone: str = "pocket",
    weights: str = "pretrained",
    size: int | None = None,
    seed: int = 0,
    changes: Sequence[str] = (),
    precision: str = "fp32",
    accumulate: int = 1,
    checkpointing: bool = False,
    per_layer: bool = False,
    validations: int = 4,
    progress: bool = True,
    stop_after: int | None = None,
) -> Result:
    """Trains a recipe on a few labelled images.

    Args:
        recipe: the method; its batch and steps may have been replaced.
        dataset: trains on its split "train", validates on "val" if there is one.
        shots: labelled images, or labelled slices of volumes; subsets are nested. Not used where
            the recipe has no steps.
        out: the run's folder; goes on with the run that is there. None: nothing is written.
        backbone: pocket, vit_b or medsam; a recipe from scratch has none.
        weights: of the backbone: pretrained, random, or a file of its layout.
        size: pixels along one side of the input; default: the backbone's own.
        seed: of everything random.
        changes: other values of the recipe, as `recipe.changed` reads them; the run keeps them.
        precision: fp32 or bf16 (autocast; weights and states stay fp32).
        accumulate: passes that make up a batch; Dice is then summed over each pass's images only.
        checkpointing: recompute each block in the backward pass: less memory, a third more time.
        per_layer: update each tensor inside the backward pass and free its gradient there.
        validations: how often the validation Dice is taken; it never changes the weights.
        progress: show a bar.
        stop_after: stop early at this step, as a kill would; for showing that resuming is exact.

    Raises:
        UserError: the data, the checkpoint or the folder cannot be used; or the loss is no number.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs

    recipe = changed(recipe, changes)
    if isinstance(recipe.image_encoder, Scratch):
        if weights not in ("pretrained", "random"):
            raise UserError(f"{recipe.name} has no backbone for {weights}; leave --weights.")
        backbone, weights = "none", "random"
    if weights not in ("pretrained", "random"):
        weights = str(Path(weights).absolute())  # the run is read from other folders, too
    if precision not in ("fp32", "bf16"):
        raise UserError(f"precision is {precision!r}; choose fp32 or bf16.")
    accelerator = Accelerator(
        mixed_precision="no",  # `precision` says it, not the environment
        gradient_accumulation_steps=accumulate,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    processes = accelerator.num_processes
    if recipe.batch % (accumulate * processes):
        where = f" in {processes} processes" if processes > 1 else ""
        raise UserError(
            f"A batch of {recipe.batch} cannot be made of {accumulate} equal passes{where}; "
            "choose an --accumulate that divides it."
        )
    if per_layer and accumulate > 1:
        raise UserError("Per-layer updates cannot wait for several passes; use --accumulate 1.")
    labels = dataset.require_labels()
    shots = shots if recipe.steps else 0
    settings = Settings(
        recipe=recipe.name,
        backbone=backbone,
        weights=weights,
        size=model_size(recipe, backbone, size),
        data=dataset.name,
        shots=shots,
        seed=seed,
        steps=recipe.steps,
        batch=recipe.batch,
        precision=precision,
        accumulate=accumulate,
        checkpointing=checkpointing,
        per_layer=per_layer,
        changes=list(changes),
        processes=processes,
    )
    model = build_model(
        recipe,
        backbone,
        settings.size,
        len(labels),
        weights,
        seed,
        names=[labels[value] for value in sorted(labels)],
    )
    if not recipe.steps:
        if out is not None:
            write_run(out, settings, _facts(recipe, dataset, backbone, weights, []))
            _save(out, Checkpoint(0, kept_weights(model, weights), {}), [])
        return Result(model.eval(), [])
    if not trainable(model):
        raise UserError(f"Nothing trains in {recipe.name}; leave --steps, so that it takes none.")
    train_set = choose_shots(dataset, shots, settings.size, seed)
    optimizer = build_optimizer(recipe, model, seed, per_layer)
    if checkpointing:
        checkpoint_blocks(model, precision)

    start, rows = 0, []
    if out is not None:
        names = sample_names(train_set)
        with accelerator.main_process_first():  # the others find its file
            write_run(out, settings, _facts(recipe, dataset, backbone, weights, names))
        if (saved := read_checkpoint(out)) is not None:
            start = saved.step
            load_weights(model, saved.weights)
            if start < recipe.steps:
                load_states(optimizer, saved.optimizer)
            rows = [row for row in _read_log(out) if row["step"] < start]
            if start == recipe.steps:
                return Result(model.eval(), rows)

    validation: Dataset | None = _validation_set(dataset, settings.size) if validations else None
    trained = trained_part(recipe, model)
    network, optimizer = accelerator.prepare(trained, optimizer)
    started = time.perf_counter()  # computing embeddings counts as part of the first step
    batches = _batches(recipe, dataset, train_set, trained, precision, seed)
    if isinstance(trained, FromEmbeddings) and validation is not None:
        validation = Embedded(validation, partial(_embedding, trained, precision), Augment("none"))
    objective = OBJECTIVES[recipe.objective]
    base_rates = [group["lr"] for group in optimizer.param_groups]
    end = recipe.steps if stop_after is None else min(stop_after, recipe.steps)
    feed = passes(batches, range(start, end), accelerator, accumulate)

    network.train()
    for step in _bar(
        range(start, end), start, end, recipe, progress and accelerator.is_main_process
    ):
        began = started if step == start else time.perf_counter()
        factor = learning_rate_factor(recipe, step)
        for group, base in zip(optimizer.param_groups, base_rates, strict=True):
            group["lr"] = base * factor
        parts = []
        for _ in range(accumulate):
            with accelerator.accumulate(network):
                images, target, *prompts = next(feed)
                with torch.autocast(accelerator.device.type, torch.bfloat16, precision == "bf16"):
                    logits = network(images, *prompts)
                loss = objective(
                    logits, reduce_labels(target, logits), recipe.ce_weight, recipe.dice_weight
                )
                accelerator.backward(loss.total)
                optimizer.step()
                optimizer.zero_grad()
                parts.append(torch.stack([part.detach() for part in loss]))
        mean = accelerator.reduce(torch.stack(parts).mean(0), "mean")  # of all processes
        total, cross_entropy, dice = mean.tolist()
        if not np.isfinite(total):
            raise UserError(
                f"The loss is {total} at step {step}; lower the learning rate, or train in fp32."
            )
        done = step + 1
        val_dice = float("nan")
        taken, due = (count * validations // recipe.steps for count in (step, done))
        if validation is not None and due > taken:
            val_dice = validation_dice(trained, validation)
            network.train()
        seconds = time.perf_counter() - began
        row = (step, recipe.lr * factor, total, cross_entropy, dice, val_dice, seconds)
        rows.append(dict(zip(LOG_COLUMNS, row, strict=True)))
        if out is not None and accelerator.is_main_process:
            if done == recipe.steps:
                _save(out, Checkpoint(done, kept_weights(model, weights), {}), rows)
            elif done % SAVE_EVERY == 0:
                states = flatten_states(optimizer)
                _save(out, Checkpoint(done, kept_weights(model, weights), states), rows)
    return Result(model.cpu().eval(), rows)


def learning_rate_factor(recipe: Recipe, step: int) -> float:
    """The share of the base learning rate that step `step` uses."""
    warmup = scaled_warmup(recipe.steps, recipe.warmup) if recipe.warmup else 0
    return warmup_polynomial(step, 1.0, warmup, recipe.steps, recipe.decay_power)


def reduce_labels(labels: Tensor, logits: Tensor) -> Tensor:
    """Labels (B, S, S) at the size of the logits (B, C, S/4, S/4), nearest (MedSAGa, eq. 4)."""
    small = F.interpolate(labels[:, None].float(), logits.shape[2:], mode="nearest-exact")
    return small[:, 0].long()


@torch.no_grad()
def validation_dice(model: nn.Module, samples: Dataset, batch: int = 8) -> float:
    """Mean Dice over foreground classes, of all pixels together, at the size of the logits.

    A model that answers to points or boxes is asked with those of the truth.
    """
    model.eval()
    device = next(model.parameters()).device
    overlap = sizes = torch.zeros(())
    for number, sample in enumerate(DataLoader(samples, batch_size=batch)):
        prompts: tuple[Tensor, ...] = ()
        if isinstance(model, Promptable):
            prompts = _prompts_of(sample["label"], model, number * batch)
        logits = model(sample["image"].to(device), *(part.to(device) for part in prompts))
        classes = logits.shape[1]
        prediction = F.one_hot(logits.argmax(1), classes).flatten(0, 2).cpu()
        truth = reduce_labels(sample["label"], logits)
        truth = F.one_hot(truth, classes).flatten(0, 2)
        overlap = overlap + (prediction * truth).sum(0)
        sizes = sizes + prediction.sum(0) + truth.sum(0)
    return (2 * overlap / sizes)[1:].nanmean().item()


@torch.no_grad()
def _embedding(trained: FromEmbeddings, precision: str, image: Tensor) -> Tensor:
    """What the frozen image encoder says of an image (3, S, S): (C, h, w) on the CPU."""
    model = trained.model.eval()
    device = next(model.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, precision == "bf16"):
        return model.embed(image[None].to(device))[0].float().cpu()


def _batches(
    recipe: Recipe,
    dataset: DataSet,
    train_set: Samples | Subset,
    trained: Model | FromEmbeddings,
    precision: str,
    seed: int,
) -> Batches:
    """The samples of every step, with what the recipe makes of them and asks for in them."""
    augment = Augment(recipe.augmentation)
    if isinstance(trained, FromEmbeddings):
        embed = partial(_embedding, trained, precision)
        kept = Embedded(train_set, embed, augment, kept_copies(recipe), seed)
        return Batches(kept, recipe.batch, Augment("none"), seed)  # the copies are changed already
    change: Augment | Pasting = augment
    if recipe.synthesis is not None and recipe.synthesis.share:
        grounds = backgrounds(train_set, dataset)
        change = Pasting(recipe.synthesis, grounds, len(dataset.labels), augment)
    ask = None
    if isinstance(trained, Promptable):
        ask = partial(draw_prompts, trained.kind, range(1, trained.classes + 1), jitter=True)
    return Batches(train_set, recipe.batch, change, seed, ask)


def _prompts_of(labels: Tensor, model: Promptable, first: int) -> tuple[Tensor, ...]:
    """Coordinates (B, K, 2, 2) and roles (B, K, 2) of label maps (B, S, S), seeded from `first`."""
    draw = partial(draw_prompts, model.kind, range(1, model.classes + 1))
    return default_collate([draw(one, first + i) for i, one in enumerate(labels.numpy())])


def kept_weights(model: Model, weights: str) -> dict[str, Tensor]:
    """What a checkpoint must hold: what is learned; everything if the backbone has no file."""
    return dict(model.state_dict()) if weights == "random" else learned(model)


def load_weights(model: Model, weights: dict[str, Tensor]) -> None:
    """Puts a checkpoint's weights into the model that the same recipe built.

    Raises:
        UserError: a tensor is missing, unknown, or of another shape.
    """
    own = model.state_dict()
    wrong = [k for k, v in weights.items() if k not in own or own[k].shape != v.shape]
    wrong += [k for k in learned(model) if k not in weights]
    if wrong:
        raise UserError(f"The checkpoint does not fit this recipe ({wrong[0]}); train again.")
    model.load_state_dict(weights, strict=False)


def _facts(recipe: Recipe, dataset: DataSet, backbone, weights, train_samples) -> dict:
    """What `run.json` says beside the settings."""
    import medsaga_lib

    return {
        "labels": dataset.labels,
        "modality": dataset.modality,
        "window": dataset.window,
        "recipe": asdict(recipe),
        "backbone_sha256": file_hash(file) if (file := file_of(backbone, weights)) else None,
        "train_samples": train_samples,
        "versions": {"medsaga_lib": medsaga_lib.__version__, "torch": torch.__version__},
    }


def _validation_set(dataset: DataSet, size: int) -> Samples | None:
    cases = [case for case in dataset.split("val") if case.mask is not None]
    return Samples(dataset, cases, size) if cases else None


def _bar(steps, start, end, recipe, show):
    from tqdm import tqdm

    return tqdm(steps, desc=recipe.name, initial=start, total=end, unit="step", disable=not show)


def _save(out: Path, checkpoint: Checkpoint, rows: list[dict]) -> None:
    with replacing(out / LOG_FILE) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, LOG_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    save_checkpoint(out, checkpoint)


def _read_log(out: Path) -> list[dict[str, float]]:
    path = out / LOG_FILE
    if not path.exists():
        return []
    try:
        with path.open(newline="") as file:
            table = csv.DictReader(file)
            return [{name: float(row[name]) for name in LOG_COLUMNS} for row in table]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged; delete {out} and train the run again.") from error
