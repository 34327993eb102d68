"""The folder of a run: `run.json` describes it, `checkpoint.safetensors` holds every tensor.

The checkpoint is one file of tensors only. It is written under another name and then renamed, so at
any moment there is a complete one. During training it also holds the optimizer's states. `log.csv`
has one row for each step.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

import medsaga_lib
from medsaga_lib.data.dataset import DataSet
from medsaga_lib.data.domain import Domain
from medsaga_lib.data.problems import listed
from medsaga_lib.errors import UserError
from medsaga_lib.files import file_hash, is_leftover, replacing, write_json, write_tensors
from medsaga_lib.models.weights import file_of
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.build import Model, learned
from medsaga_lib.recipes.recipe import Recipe, changed

RUN_FILE = "run.json"
CHECKPOINT_FILE = "checkpoint.safetensors"
LOG_FILE = "log.csv"
LOG_COLUMNS = ("step", "lr", "loss", "cross_entropy", "dice_loss", "val_dice", "seconds")

# Settings that runs of older versions lack, with the value that they used for every backbone
OLDER: dict[str, Any] = {"feed": "squeeze"}
# Options that recipes no longer have, with the value that all recorded runs have
GONE = {"stagger": False}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The user's settings of a run, besides the recipe and the data."""

    shots: int  # labelled images, or labelled slices of volumes; subsets are nested
    backbone: str = "pocket"  # "none" if the recipe has its own network
    weights: str = "pretrained"  # of the backbone: pretrained, random, or a file with its layout
    size: int | None = None  # side of the square input in pixels; None: the backbone's
    seed: int = 0  # for all random numbers
    changes: tuple[str, ...] = ()  # other values of the recipe, as `recipe.changed` reads them
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: autocast; weights and states stay fp32
    accumulate: int = 1  # passes per batch; Dice is summed over the images of one pass only
    checkpointing: bool = False  # recompute blocks in the backward pass: less memory, more time
    per_layer: bool = False  # update each tensor in the backward pass and free its gradient there
    feed: str | None = None  # preprocessing of the input (`models.feeding`); None: the backbone's
    validations: int = 4  # number of validations during training; it never changes the weights


@dataclass(frozen=True, kw_only=True)
class RunSettings(Settings):
    """Everything that decides the result of a run: all settings resolved, recipe and data."""

    size: int
    feed: str
    recipe: str
    data: str  # name of the data set
    steps: int
    batch: int
    processes: int = 1  # number of processes that share each batch


@dataclass(frozen=True)
class Checkpoint:
    """The state of training after `step` steps; a finished run has no optimizer tensors."""

    step: int
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]


def run_facts(
    recipe: Recipe,
    dataset: DataSet,
    settings: RunSettings,
    train_samples: list[str],
    domain: Domain | None = None,
) -> dict[str, Any]:
    """Return the content of `run.json`: settings, whole recipe, data, the backbone's hash."""
    file = file_of(settings.backbone, settings.weights)
    return {
        "settings": asdict(settings),
        "labels": dataset.labels,
        "modality": dataset.modality,
        "window": dataset.window,
        "recipe": asdict(recipe),
        "backbone_sha256": file_hash(file) if file else None,
        "train_samples": train_samples,
        "domain": domain.to_json() if domain else None,
        "versions": {"medsaga_lib": medsaga_lib.__version__, "torch": torch.__version__},
    }


def write_run(folder: Path, facts: dict[str, Any]) -> None:
    """Record a new run, or check that the folder holds this same run.

    Raises:
        UserError: the folder holds another run, or something that is not a run.
    """
    path = folder / RUN_FILE
    if not path.exists():
        if folder.exists() and not (
            folder.is_dir() and all(is_leftover(found) for found in folder.iterdir())
        ):
            raise UserError(f"{folder} exists and is not a run; choose another --out.")
        return write_json(path, facts)
    before, now = read_run(folder), json.loads(json.dumps(facts))
    settings = now["settings"]
    for key, value in settings.items():
        if before["settings"][key] != value and key != "validations":
            raise UserError(
                f"{folder} holds another run ({key} = {before['settings'][key]!r}, not {value!r}); "
                "choose another --out."
            )
    if before["backbone_sha256"] != now["backbone_sha256"]:
        raise UserError(
            f"{folder} was started with other {settings['backbone']} weights than the current "
            "ones; choose another --out."
        )
    if not _same_recipe(before.get("recipe"), now["recipe"]):
        raise UserError(
            f"{folder} was started with other values of {settings['recipe']} than the current "
            "ones; choose another --out."
        )
    of_data: tuple[str, ...] = "labels", "modality", "window", "train_samples"
    if before.get("domain"):  # older runs have none
        of_data = *of_data, "domain"
    if any(before.get(key) != now.get(key) for key in of_data):
        raise UserError(
            f"{folder} was trained on other data with the name {settings['data']}; choose another "
            "--out."
        )


def _same_recipe(before: dict[str, Any] | None, now: dict[str, Any]) -> bool:
    """Return whether a stored recipe has the same values as the current one, where they matter."""
    before = {k: v for k, v in (before or {}).items() if k not in {"title", "source"}}
    encoder = before.get("image_encoder", {})
    if "network" in encoder:  # its place in older files
        before |= {"network": encoder["network"], "image_encoder": {}}
    elif encoder:
        before["image_encoder"] = {k: v for k, v in encoder.items() if GONE.get(k, ...) != v}
    return all(_covers(now.get(key), value) for key, value in before.items())


def _covers(now: Any, before: Any) -> bool:
    """Return whether two values are equal, apart from options that are newer than the file."""
    if isinstance(before, dict) and isinstance(now, dict):
        return all(key in now and now[key] == value for key, value in before.items())
    return now == before


def read_run(folder: Path) -> dict[str, Any]:
    """Read `run.json` in the current format; raise UserError if the folder is not a run."""
    path = folder / RUN_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        settings = OLDER | content["settings"]
        content["settings"] = json.loads(json.dumps(asdict(RunSettings(**settings))))
        _ = content["labels"], content["modality"], content["window"], content["backbone_sha256"]
        _ = Domain.from_json(content.get("domain"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(
            f"{folder} is not a run: it has no {RUN_FILE}; give the --out folder of "
            "`medsaga train`."
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged ({error}); delete {folder} and train the run again."
        ) from error
    return content


def recipe_of(run: dict[str, Any]) -> Recipe:
    """Return the recipe of a run that `read_run` has read, with its changed values."""
    return changed(get_recipe(run["settings"]["recipe"]), run["settings"]["changes"])


def method_names(folders: Sequence[Path]) -> list[tuple[str, int]]:
    """Return the method and the seed of each run; runs of one method differ by the seed alone.

    A method is named by its recipe, and by the changes and settings in which its runs differ from
    others of the same recipe.

    Raises:
        UserError: a folder is not a run, or the runs are of several data sets.
    """
    settings = [read_run(folder)["settings"] for folder in folders]
    if len(names := sorted({one["data"] for one in settings})) > 1:
        raise UserError(f"The runs were trained on {listed(names)}; compare runs of one data set.")
    return [(_method_name(one, settings), one["seed"]) for one in settings]


def _method_name(one: dict[str, Any], settings: list[dict[str, Any]]) -> str:
    same = [other for other in settings if other["recipe"] == one["recipe"]]
    changes = [c for c in one["changes"] if not all(c in other["changes"] for other in same)]
    # batch and steps are also among the changes, or those of the recipe
    keys = one.keys() - {"recipe", "changes", "seed", "data", "batch", "steps"}
    differing = [k for k in one if k in keys and any(other[k] != one[k] for other in same)]
    return ":".join([one["recipe"], *changes, *(f"{key}={one[key]}" for key in differing)])


def save_checkpoint(folder: Path, checkpoint: Checkpoint, log: list[dict[str, float]]) -> None:
    """Replace the run's log, then its checkpoint, each completely or not at all."""
    with replacing(folder / LOG_FILE) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, LOG_COLUMNS)
        writer.writeheader()
        writer.writerows(log)
    tensors = {f"weights.{k}": v for k, v in checkpoint.weights.items()}
    tensors |= {f"optimizer.{k}": v for k, v in checkpoint.optimizer.items()}
    write_tensors(folder / CHECKPOINT_FILE, tensors, {"step": str(checkpoint.step)})


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """Read the run's checkpoint; return None before the first one.

    Raises:
        UserError: the file is truncated or not a checkpoint.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / CHECKPOINT_FILE
    if not path.exists():
        return None
    parts: dict[str, dict[str, torch.Tensor]] = {"weights": {}, "optimizer": {}}
    try:
        with safe_open(path, framework="pt") as file:
            step = int((file.metadata() or {})["step"])
            for key in file.keys():  # noqa: SIM118 (not a mapping)
                part, _, name = key.partition(".")
                parts[part][name] = file.get_tensor(key)
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise UserError(
            f"{path} cannot be read as a checkpoint ({error}); delete it and train the run again."
        ) from error
    return Checkpoint(step, **parts)


def read_log(folder: Path) -> list[dict[str, float]]:
    """Read the rows of the run's log; raise UserError if the file is damaged."""
    path = folder / LOG_FILE
    if not path.exists():
        return []
    try:
        with path.open(newline="") as file:
            table = csv.DictReader(file)
            return [{name: float(row[name]) for name in LOG_COLUMNS} for row in table]
    except (ValueError, KeyError, TypeError, csv.Error, OSError) as error:
        raise UserError(f"{path} is damaged; delete {folder} and train the run again.") from error


def kept_weights(model: Model, weights: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint: the learned ones, or all if the backbone has no file."""
    return dict(model.state_dict()) if weights == "random" else learned(model)


def load_weights(model: Model, weights: dict[str, torch.Tensor]) -> None:
    """Put a checkpoint's weights into the model that the same recipe built.

    Raises:
        UserError: a tensor is missing, unknown, or of another shape.
    """
    own = model.state_dict()
    wrong = [k for k, v in weights.items() if k not in own or own[k].shape != v.shape]
    wrong += [k for k in learned(model) if k not in weights]
    if wrong:
        raise UserError(
            f"The checkpoint does not fit this recipe at {wrong[0]}; train the run again."
        )
    model.load_state_dict(weights, strict=False)


def flatten_states(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return the optimizer's states as one flat dict, "<parameter index>.<name>" to tensor."""
    return {
        f"{index}.{name}": tensor
        for index, state in optimizer.state_dict()["state"].items()
        for name, tensor in state.items()
    }


def load_states(optimizer: torch.optim.Optimizer, flat: dict[str, torch.Tensor]) -> None:
    """Load states from `flatten_states`; the parameter groups stay as the recipe made them."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in flat.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
