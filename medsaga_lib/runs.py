"""The folder of a run: `run.json` says what was run, `checkpoint.safetensors` holds every tensor.

The checkpoint is one file of tensors only, written beside itself and then renamed, so that at any
moment there is a whole one. While training goes on it also holds the optimizer's states.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from medsaga_lib.errors import UserError
from medsaga_lib.files import write_json, write_tensors

RUN_FILE = "run.json"
CHECKPOINT_FILE = "checkpoint.safetensors"
LOG_FILE = "log.csv"


@dataclass(frozen=True)
class Settings:
    """What decides the result of a run, besides the recipe's own values and the data."""

    recipe: str
    backbone: str
    weights: str  # pretrained | random | a file
    size: int
    data: str  # name of the data set
    shots: int
    seed: int
    steps: int
    batch: int
    precision: str  # fp32 | bf16
    accumulate: int  # passes that make up a batch
    checkpointing: bool  # recompute the blocks' activations instead of keeping them
    per_layer: bool = False  # updates inside the backward pass
    changes: list[str] = field(default_factory=list)  # of the recipe, as `recipe.changed` reads
    processes: int = 1  # that shared each batch


@dataclass(frozen=True)
class Checkpoint:
    """Where training stands: `step` steps are done; no optimizer tensors once it is finished."""

    step: int
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]


def write_run(folder: Path, settings: Settings, facts: dict[str, Any]) -> None:
    """Records a new run, or makes sure that the folder holds this very one.

    Raises:
        UserError: the folder holds another run, or something that is no run.
    """
    path = folder / RUN_FILE
    if path.exists():
        run = read_run(folder)
        before = asdict(Settings(**run["settings"]))
        different = [k for k, v in asdict(settings).items() if before.get(k) != v]
        if different:
            key = different[0]
            raise UserError(
                f"{folder} holds another run ({key} = {before.get(key)!r}, not "
                f"{getattr(settings, key)!r}); choose another --out."
            )
        now = json.loads(json.dumps(facts))
        if run["backbone_sha256"] != now["backbone_sha256"]:
            raise UserError(
                f"{folder} was begun with other {settings.backbone} weights than there are now; "
                "choose another --out."
            )
        begun, today = (_values(facts.get("recipe")) for facts in (run, now))
        if any(today.get(key, value) != value for key, value in begun.items()):
            raise UserError(
                f"{folder} was begun with other values of {settings.recipe} than it has now; "
                "choose another --out."
            )
        of_data = "labels", "modality", "window", "train_samples"
        if any(run.get(key) != now.get(key) for key in of_data):
            raise UserError(
                f"{folder} was trained on other data of the name {settings.data}; choose another "
                "--out."
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is no run; choose another --out.")
    write_json(path, {"settings": asdict(settings), **facts})


def _values(recipe: dict[str, Any] | None) -> dict[str, Any]:
    """What of a recipe decides the result."""
    return {k: v for k, v in (recipe or {}).items() if k not in {"title", "source"}}


def read_run(folder: Path) -> dict[str, Any]:
    """What `run.json` says; UserError if the folder is no run."""
    path = folder / RUN_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        Settings(**content["settings"])
        _ = content["labels"], content["modality"], content["window"], content["backbone_sha256"]
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(
            f"{folder} is no run: it has no {RUN_FILE}; give the --out folder of `medsaga train`."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged ({error}); delete {folder} and train the run again."
        ) from error
    return content


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replaces the run's checkpoint at once, whole or not at all."""
    tensors = {f"weights.{k}": v for k, v in checkpoint.weights.items()}
    tensors |= {f"optimizer.{k}": v for k, v in checkpoint.optimizer.items()}
    write_tensors(folder / CHECKPOINT_FILE, tensors, {"step": str(checkpoint.step)})


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """The run's checkpoint, or None before the first one.

    Raises:
        UserError: the file is truncated or no checkpoint.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / CHECKPOINT_FILE
    if not path.exists():
        return None
    parts: dict[str, dict[str, torch.Tensor]] = {"weights": {}, "optimizer": {}}
    try:
        with safe_open(path, framework="pt") as file:
            step = int((file.metadata() or {})["step"])
            for key in file.keys():  # noqa: SIM118 (no mapping)
                part, _, name = key.partition(".")
                parts[part][name] = file.get_tensor(key)
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise UserError(
            f"{path} cannot be read as a checkpoint (truncated or of another kind: {error}); "
            "delete it and train again."
        ) from error
    return Checkpoint(step, **parts)


def flatten_states(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's states as one flat dict, "<parameter index>.<name>" to tensor."""
    return {
        f"{index}.{name}": tensor
        for index, state in optimizer.state_dict()["state"].items()
        for name, tensor in state.items()
    }


def load_states(optimizer: torch.optim.Optimizer, flat: dict[str, torch.Tensor]) -> None:
    """Puts back what `flatten_states` gave; the groups stay as the recipe made them."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in flat.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
