"""A pretraining run: model, moving average, optimizers, curve; saved whole, resumed exactly."""

import csv
import json
import math
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.utils.data import DataLoader

from medsaga_lib.backbones.sam import build_sam, resize_positions
from medsaga_lib.data.procedural import HELD_OUT, TRAINED
from medsaga_lib.files import replacing
from medsaga_lib.pretraining.optimizers import STATE, build_optimizers
from medsaga_lib.pretraining.pictures import Pictures, Settings, unseen_scenes
from medsaga_lib.pretraining.scores import evaluate, prompted, spread
from medsaga_lib.pretraining.together import any_of_all, objective, share

LOG_EVERY = 50  # steps
TEST_EVERY = 500
SAVE_EVERY = 250
TEST_PICTURES = 16  # of each set
READABLE = 0o644  # safetensors writes files that only their owner can read


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

    def train_step(self, batch: dict[str, Tensor], bf16: bool = False) -> dict[str, float]:
        """One step on a batch of `Pictures`; returns the parts of its loss."""
        batch = {key: value.to(self.device, non_blocking=True) for key, value in batch.items()}
        for optimizer in self.optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = self.rate() * group["relative_rate"]
        precision = torch.autocast(self.device, torch.bfloat16) if bf16 else nullcontext()
        with precision:
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
        for name, parameter in self.sam.named_parameters():
            for optimizer in self.optimizers:
                for key, value in optimizer.state.get(parameter, {}).items():
                    tensors[f"optimizer.{key}.{name}"] = value
        metadata = {"step": str(self.step), "settings": json.dumps(asdict(self.settings))}
        write_tensors(tensors, path, metadata)

    def start_from(self, path: Path) -> None:
        """Takes the weights of a saved run or of an export, of any input size."""
        tensors = load_file(path)
        weights = _part(tensors, "average.") or tensors
        weights = {key: value.float() for key, value in weights.items()}
        weights = resize_positions(weights, self.settings.shape, self.settings.size)
        self.sam.load_state_dict(weights)
        self.average = {k: v.detach().clone() for k, v in self.sam.state_dict().items()}

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> "Run":
        """A run that goes on where `save` left it."""
        with safe_open(path, "pt", device=device) as file:
            metadata = file.metadata()
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        run = cls(Settings(**json.loads(metadata["settings"])), device)
        run.step = int(metadata["step"])
        run.average = _part(tensors, "average.")
        run.sam.load_state_dict(_part(tensors, "model."))
        name_of = {parameter: name for name, parameter in run.sam.named_parameters()}
        for optimizer in run.optimizers:
            for parameter in (p for group in optimizer.param_groups for p in group["params"]):
                for key in STATE:
                    if (name := f"optimizer.{key}.{name_of[parameter]}") in tensors:
                        optimizer.state[parameter][key] = tensors[name]
        return run


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def write_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """A safetensors file that replaces an older one only when it is complete."""
    with replacing(path) as temporary:
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, metadata)
        temporary.chmod(READABLE)


class Curve:
    """`curve.csv`: a row every `LOG_EVERY` steps, means since the row before."""

    columns = (
        "step",
        "minutes",  # of training in all
        "pictures_per_second",
        "learning_rate",
        # of `pretraining_loss`
        *("loss", "foreground", "borders", "box", "point", "unseen", "click"),
        "spread",  # of the embeddings over pictures, as a part of their whole spread
        *("test_box", "test_point", "test_clicks_3"),  # of the average, on families trained on
        *("held_out_box", "held_out_point", "held_out_clicks_3"),
    )

    def __init__(self, path: Path, step: int):
        """Continues a curve up to `step`; later rows belong to steps that were not saved."""
        self.path, self.rows = path, []
        if path.exists():
            with path.open(newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]

    def add(self, row: dict) -> None:
        """Writes the file again with one more row; unknown columns stay empty."""
        self.rows.append(row)
        with replacing(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)

    @property
    def minutes(self) -> float:
        return float(self.rows[-1]["minutes"]) if self.rows else 0.0


def train(
    run: Run, out: Path, minutes: float = math.inf, bf16: bool = False, workers: int = 0
) -> None:
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
        recent.append(run.train_step(batch, bf16))
        now = time.monotonic()
        late = any_of_all(now - start >= 60 * minutes, run.device)
        stop = late or run.step == settings.steps
        if writes and (stop or run.step % LOG_EVERY == 0):
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
            recent, since = [], time.monotonic()
        if writes and (stop or run.step % SAVE_EVERY == 0):
            run.save(out / "run.safetensors")
        if stop:
            return


def _tested(run: Run) -> dict[str, float]:
    sam = run.averaged()
    row = {"spread": round(spread(sam), 4)}
    for name, families in (("test", TRAINED), ("held_out", HELD_OUT)):
        scores = evaluate(sam, prompted(unseen_scenes(TEST_PICTURES, families, run.settings.size)))
        row |= {f"{name}_{k}": round(scores[k], 4) for k in ("box", "point", "clicks_3")}
    return row


def export(run: Run, path: Path) -> None:
    """The averaged weights in float16, as the library ships them."""
    half = {key: value.half() for key, value in run.average.items()}
    metadata = {"step": str(run.step), "settings": json.dumps(asdict(run.settings))}
    write_tensors(half, path, metadata)
