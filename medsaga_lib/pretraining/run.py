"""A pretraining run: model, moving average, optimizers, curve; saved whole, resumed exactly."""

import json
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.utils.data import DataLoader

from medsaga_lib.backbones.sam import build_sam, resize_positions
from medsaga_lib.backbones.weights import read_tensors
from medsaga_lib.data.procedural import HELD_OUT, TRAINED
from medsaga_lib.errors import UserError
from medsaga_lib.files import write_tensors
from medsaga_lib.pretraining.curve import Curve
from medsaga_lib.pretraining.optimizers import build_optimizers
from medsaga_lib.pretraining.pictures import Pictures, Settings, unseen_scenes
from medsaga_lib.pretraining.scores import evaluate, prompted, spread
from medsaga_lib.pretraining.together import any_of_all, objective, share
from medsaga_lib.runs import flatten_states, load_states

RUN_FILE = "run.safetensors"
LOG_EVERY = 50  # steps
TEST_EVERY = 500
SAVE_EVERY = 250  # a multiple of LOG_EVERY
TEST_PICTURES = 16  # of each set


class Run:
    """A model, its moving average and its optimizers, at a step."""

    def __init__(self, settings: Settings, device: str = "cpu"):
        self.settings, self.device, self.step = settings, device, 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.sam = build_sam(settings.shape, settings.size).to(device)
        if settings.iou_head_alone:
            self.sam.requires_grad_(False)
            self.sam.mask_decoder.iou_prediction_head.requires_grad_(True)
        self.average = {k: v.detach().clone() for k, v in self.sam.state_dict().items()}
        self.optimizers = build_optimizers(self.sam, settings)
        self.objective = objective(self.sam, settings.corrections)

    def rate(self) -> float:
        """The learning rate of this step: linear warm-up, then half a cosine to 0."""
        settings = self.settings
        if self.step < settings.warmup:
            return settings.learning_rate * (self.step + 1) / settings.warmup
        done = (self.step - settings.warmup) / max(1, settings.steps - settings.warmup)
        return settings.learning_rate * (1 + math.cos(math.pi * done)) / 2

    def train_step(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """One step on a batch of `Pictures`; returns the parts of its loss."""
        batch = {key: value.to(self.device, non_blocking=True) for key, value in batch.items()}
        for optimizer in self.optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = self.rate() * group["relative_rate"]
        with torch.autocast(self.device, torch.bfloat16, enabled=self.settings.bf16):
            parts = self.objective(batch)
        parts["loss"].backward()
        nn.utils.clip_grad_norm_(self.sam.parameters(), self.settings.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        decay = min(self.settings.average, self.step / (self.step + 10))
        with torch.no_grad():
            for key, value in self.sam.state_dict().items():
                self.average[key].lerp_(value, 1 - decay)
        return {key: value.item() for key, value in parts.items()}

    def averaged(self) -> Sam:
        """A copy with the averaged weights, in evaluation mode."""
        sam = build_sam(self.settings.shape, self.settings.size)
        sam.load_state_dict(self.average)
        return sam.to(self.device).eval()

    def save(self, path: Path) -> None:
        """Everything that goes on, in one file of tensors."""
        tensors = {f"average.{key}": value for key, value in self.average.items()}
        tensors |= {f"model.{key}": value for key, value in self.sam.state_dict().items()}
        for number, optimizer in enumerate(self.optimizers):
            states = flatten_states(optimizer)
            tensors |= {f"optimizer.{number}.{key}": value for key, value in states.items()}
        write_tensors(path, tensors, self._metadata())

    def export(self, path: Path) -> None:
        """The averaged weights in float16, as the library ships them."""
        half = {key: value.half() for key, value in self.average.items()}
        write_tensors(path, half, self._metadata())

    def _metadata(self) -> dict[str, str]:
        return {"step": str(self.step), "settings": json.dumps(asdict(self.settings))}

    def start_from(self, path: Path) -> None:
        """Takes the weights of a saved run or of an export, of any input size.

        Raises:
            UserError: the file cannot be read, or is of another network.
        """
        tensors = read_tensors(path)
        weights = _part(tensors, "average.") or tensors
        weights = {key: value.float() for key, value in weights.items()}
        try:
            weights = resize_positions(weights, self.settings.shape, self.settings.size)
            self.sam.load_state_dict(weights)
        except (KeyError, RuntimeError) as error:
            raise UserError(
                f"The weights of {path} are not of this network; give its --width, --depth and "
                "--heads, or other weights."
            ) from error
        self.average = {k: v.detach().clone() for k, v in self.sam.state_dict().items()}

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> "Run":
        """A run that goes on where `save` left it; UserError if the file is none."""
        tensors, (step, settings) = read_tensors(path), saved_state(path)
        try:
            run = cls(settings, device)
            run.step = step
            run.average = {k: v.to(device) for k, v in _part(tensors, "average.").items()}
            run.sam.load_state_dict(_part(tensors, "model."))
            for number, optimizer in enumerate(run.optimizers):
                load_states(optimizer, _part(tensors, f"optimizer.{number}."))
        except (KeyError, ValueError, RuntimeError) as error:
            raise UserError(f"{path} holds no run that goes on; choose another --out.") from error
        return run


# What older files do not say: their pictures were drawn without these two families
_BEFORE = {"families": [name for name in TRAINED if name not in ("trunks", "folds")]}


def saved_state(path: Path) -> tuple[int, Settings]:
    """The step and the settings of a saved run or of an export; UserError of any other file."""
    step, named = saved_words(path)
    return step, Settings(**named)


def saved_words(path: Path) -> tuple[int, dict[str, Any]]:
    """The same with those settings only that the file names: older ones do not name all."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        named = _BEFORE | json.loads(metadata["settings"])
        Settings(**named)  # or it is no file of this command
        return int(metadata["step"]), named
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} was not written by this command; give another file.") from error


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def train(run: Run, out: Path, minutes: float = math.inf, workers: int = 0) -> None:
    """Trains to the last step of the settings, or for `minutes`.

    Writes `out`/run.safetensors, from which `Run.load` goes on, and `out`/curve.csv; of several
    processes the first does.
    """
    settings, writes = run.settings, share()[0] == 0
    pictures = DataLoader(
        Pictures(settings),
        batch_size=None,
        sampler=range(run.step, settings.steps),
        num_workers=workers,
        pin_memory=run.device != "cpu",
    )
    curve = Curve(out / "curve.csv", run.step)
    start = since = time.monotonic()
    recent: list[dict[str, float]] = []
    for batch in pictures:
        rate = run.rate()
        recent.append(run.train_step(batch))
        now = time.monotonic()
        late = any_of_all(now - start >= 60 * minutes, run.device)
        stop = late or run.step == settings.steps
        if not (stop or run.step % LOG_EVERY == 0):
            continue
        if writes:
            row = {
                "step": run.step,
                "minutes": round(curve.minutes + (now - since) / 60, 2),
                "pictures_per_second": round(settings.pictures * len(recent) / (now - since), 1),
                "learning_rate": f"{rate:.3g}",
            }
            row |= pd.DataFrame(recent).mean().round(4).to_dict()
            if stop or run.step % TEST_EVERY == 0:
                row |= _tested(run)
            curve.add(row)
            print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
            if stop or run.step % SAVE_EVERY == 0:
                run.save(out / RUN_FILE)
        recent, since = [], time.monotonic()
        if stop:
            return


def _tested(run: Run) -> dict[str, float]:
    sam = run.averaged()
    row = {"spread": round(spread(sam), 4)}
    for name, families in (("test", run.settings.trained), ("held_out", HELD_OUT)):
        scores = evaluate(sam, prompted(unseen_scenes(TEST_PICTURES, families, run.settings.size)))
        row |= {f"{name}_{k}": round(scores[k], 4) for k in ("box", "point", "clicks_3")}
    return row
