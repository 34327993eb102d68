"""Set up a run before its first step: network, optimizer, batches and number of steps done."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from medsaga_lib.data.dataset import DataSet
from medsaga_lib.data.domain import Domain
from medsaga_lib.data.problems import listed
from medsaga_lib.data.shots import choose_shots, domain_of, sample_names
from medsaga_lib.errors import UserError
from medsaga_lib.models.feeding import FEED_OF, get_feed
from medsaga_lib.models.heads import FromPart
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.build import (
    Model,
    build_model,
    build_optimizer,
    checkpoint_blocks,
    model_size,
    trainable,
    trained_part,
)
from medsaga_lib.recipes.recipe import Recipe, changed
from medsaga_lib.training.batches import Batches, passes
from medsaga_lib.training.run_folder import (
    RUN_FILE,
    Checkpoint,
    RunSettings,
    Settings,
    flatten_states,
    kept_weights,
    load_states,
    load_weights,
    read_checkpoint,
    read_log,
    read_run,
    run_facts,
    save_checkpoint,
    write_run,
)
from medsaga_lib.training.run_samples import (
    absent_labels,
    training_batches,
    validation_samples,
)

# Fields of a recipe without which the weights of a run do not fit its network
SHAPING = "text", "decoder", "lift", "network"


@dataclass
class Run:
    """A run that is ready for its next step.

    In a finished run, and in a run without steps, the fields from `trained` on are not set.
    """

    recipe: Recipe
    settings: RunSettings
    accelerator: Any  # an accelerate.Accelerator
    out: Path | None
    model: Model
    start: int  # steps that are done
    log: list[dict[str, float]]
    trained: Model | FromPart | None = None  # the module that the steps run
    network: nn.Module | None = None  # the same, wrapped by accelerate for several processes
    optimizer: torch.optim.Optimizer | None = None
    batches: Batches | None = None
    validation: Dataset | None = None
    absent: tuple[str, ...] = ()  # labels that no training image shows
    domain: Domain | None = None  # what the training images are like
    began: float = 0.0  # time before the embeddings, which count as part of the first step

    def passes(self, end: int) -> Iterator[tuple[Tensor, ...]]:
        """Yield every pass of the steps from `start` to `end`, on this process's device."""
        assert self.batches is not None
        steps = range(self.start, end)
        return passes(self.batches, steps, self.accelerator, self.settings.accumulate)

    def autocast(self) -> AbstractContextManager:
        """Return the context for a forward pass in the run's precision."""
        bf16 = self.settings.precision == "bf16"
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, bf16)

    def save(self, done: int) -> None:
        """Save the checkpoint after `done` steps; all but the last have the optimizer's states."""
        if self.out is None or not self.accelerator.is_main_process:
            return
        states = {}
        if done < self.recipe.steps and self.optimizer is not None:
            states = flatten_states(self.optimizer)
        kept = kept_weights(self.model, self.settings.weights)
        save_checkpoint(self.out, Checkpoint(done, kept, states), self.log)


def set_up(
    recipe: Recipe,
    dataset: DataSet,
    settings: Settings,
    out: Path | None,
    progress: bool = False,
) -> Run:
    """Build a run, or continue the run in the folder `out`; arguments as in `loop.train`.

    Raises:
        UserError: the settings, the data, the checkpoint or the folder cannot be used.
    """
    accelerator = _accelerator(settings)
    if settings.feed is None and out is not None and (out / RUN_FILE).exists():
        settings = replace(settings, feed=read_run(out)["settings"]["feed"])  # as at its start
    if out is not None and (other := _other_parts(recipe)):
        raise UserError(
            f"The recipe {recipe.name} has another {listed(other)} than the one of this name, and "
            "the run in the folder could not be read again; give changed values as "
            'Settings(changes=("lift=cosines",)).'
        )
    recipe, chosen = resolve(recipe, dataset, settings, accelerator.num_processes)
    labels = dataset.require_labels()
    model = build_model(
        recipe,
        chosen.backbone,
        chosen.size,
        len(labels),
        chosen.weights,
        chosen.seed,
        names=[labels[value] for value in sorted(labels)],
    )
    run = Run(recipe, chosen, accelerator, out, model, start=0, log=[])
    if not recipe.steps:
        if out is not None:
            write_run(out, run_facts(recipe, dataset, chosen, []))
            run.save(0)
        return run
    if not trainable(model):
        raise UserError(f"{recipe.name} has no trainable parameters; omit --steps.")

    place = get_feed(chosen.feed).sample
    samples = choose_shots(dataset, chosen.shots, chosen.size, chosen.seed, place)
    run.domain = domain_of(samples)
    run.absent = absent_labels(samples, [labels[value] for value in sorted(labels)])
    optimizer = build_optimizer(recipe, model, chosen.seed, chosen.per_layer)
    if chosen.checkpointing:
        checkpoint_blocks(model, chosen.precision)
    if out is not None:
        with accelerator.main_process_first():  # the others find its file
            names = sample_names(samples)
            write_run(out, run_facts(recipe, dataset, chosen, names, run.domain))
        _take_up(run, out, optimizer)
        if run.start == recipe.steps:
            return run

    run.trained = trained_part(recipe, model)
    run.network, run.optimizer = accelerator.prepare(run.trained, optimizer)
    run.began = time.perf_counter()
    told = run.trained, chosen.precision, chosen.seed
    show = progress and accelerator.is_main_process
    run.batches = training_batches(recipe, dataset, samples, *told, show)
    if chosen.validations:
        run.validation = validation_samples(dataset, chosen.size, place, run.trained, show)
    return run


def resolve(
    recipe: Recipe, dataset: DataSet, settings: Settings, processes: int = 1
) -> tuple[Recipe, RunSettings]:
    """Return the recipe with its changes, and settings without open choices.

    Raises:
        UserError: a setting is invalid, or does not fit the recipe or another setting.
    """
    recipe = changed(recipe, settings.changes)
    backbone, weights = settings.backbone, settings.weights
    from_file = weights not in ("pretrained", "random")
    if recipe.network is not None:
        if from_file:
            raise UserError(f"{recipe.name} has no backbone for {weights}; omit --weights.")
        backbone, weights = "none", "random"
    elif from_file:
        weights = str(Path(weights).absolute())  # the run is also read from other folders
    if settings.precision not in ("fp32", "bf16"):
        raise UserError(f"precision is {settings.precision!r}; choose fp32 or bf16.")
    if recipe.batch % (settings.accumulate * processes):
        where = f" in {processes} processes" if processes > 1 else ""
        raise UserError(
            f"A batch of {recipe.batch} cannot be split into {settings.accumulate} equal passes"
            f"{where}; choose an --accumulate that divides it."
        )
    if settings.per_layer and settings.accumulate > 1:
        raise UserError("Per-layer updates need the batch in one pass; use --accumulate 1.")
    if settings.per_layer and recipe.clip_norm is not None:
        raise UserError(
            "Per-layer updates never have all gradients at once, whose norm clipping needs; omit "
            "--per-layer or clip_norm."
        )
    size = model_size(recipe, backbone, settings.size)  # before the feed: it checks the backbone
    feed = FEED_OF[backbone].name if settings.feed is None else get_feed(settings.feed).name
    given = asdict(settings) | {"backbone": backbone, "weights": weights, "size": size}
    given |= {"feed": feed, "shots": settings.shots if recipe.steps else 0}
    return recipe, RunSettings(
        recipe=recipe.name,
        data=dataset.name,
        steps=recipe.steps,
        batch=recipe.batch,
        processes=processes,
        **given,
    )


def _other_parts(recipe: Recipe) -> list[str]:
    """Return the fields that shape the network and differ from those of the recipe by this name.

    A run is read by the name of its recipe and by the changes of its settings.
    """
    named = get_recipe(recipe.name)
    return [name for name in SHAPING if getattr(recipe, name) != getattr(named, name)]


def _accelerator(settings: Settings) -> Any:
    from accelerate import Accelerator, DistributedDataParallelKwargs

    return Accelerator(
        mixed_precision="no",  # `Settings.precision` decides, not the environment
        gradient_accumulation_steps=settings.accumulate,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


def _take_up(run: Run, out: Path, optimizer: torch.optim.Optimizer) -> None:
    """Restore the run from its last checkpoint, if there is one."""
    if (saved := read_checkpoint(out)) is None:
        return
    run.start = saved.step
    load_weights(run.model, saved.weights)
    if run.start < run.recipe.steps:
        load_states(optimizer, saved.optimizer)
    run.log = [row for row in read_log(out) if row["step"] < run.start]
