"""Batches of procedural pictures with prompts, each a function of (settings, step)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from medsaga_lib.backbones.sam import POCKET, ViTShape
from medsaga_lib.data.procedural import BACKGROUND, DRAWN, TRAINED, Scene, procedural_scene
from medsaga_lib.data.prompts import box_around, point_in
from medsaga_lib.errors import UserError
from medsaga_lib.pretraining.clutter import cluttered
from medsaga_lib.pretraining.prompts import first_asked
from medsaga_lib.pretraining.targets import borders, coverage
from medsaga_lib.pretraining.together import share

TRAIN_STREAM, PROMPT_STREAM, TEST_STREAM, CLUTTER_STREAM = range(4)  # keep random numbers apart


@dataclass(frozen=True)
class Settings:
    """What fixes a run. Values without a source are our choice."""

    steps: int = 20_000
    seed: int = 0
    size: int = 256  # pixels along one side
    pictures: int = 8  # in a step
    objects: int = 4  # prompts for each picture
    corrections: int = 2  # clicks after the first prompt
    clutter: float = 0.0  # share of the pictures that are `cluttered`
    learning_rate: float = 6e-4
    # The patch embedding sees 768 pixels that mostly agree, so Adam's equal steps on all of its
    # weights add up. At the full rate its output grew until it drowned the blocks.
    patch_rate: float = 0.1  # times the learning rate; MoCo v3 (2104.02057) freezes it altogether
    warmup: int = 200  # steps
    weight_decay: float = 0.05
    clip: float = 1.0  # largest norm of the gradient
    average: float = 0.999  # decay of the moving average of the weights, which is what is shipped
    iou_head_alone: bool = False  # all other weights stay as they are
    bf16: bool = False  # bfloat16 where autocast allows it
    processes: int = 1  # that share a step's pictures
    families: tuple[str, ...] = DRAWN  # of the scenes; twice here is twice as often
    start: str = ""  # sha256 of the file of the weights it began with; "" for random numbers
    # Of the image encoder: the pocket SAM's unless another is to be measured against it
    width: int = POCKET.width
    depth: int = POCKET.depth
    heads: int = POCKET.heads

    def __post_init__(self) -> None:
        """UserError for what no run can have."""
        object.__setattr__(self, "families", tuple(self.families))  # a file has them as a list
        if strange := set(self.families or ["nothing"]) - set(TRAINED):
            known = ", ".join(TRAINED)
            raise UserError(f"No run trains on {', '.join(sorted(strange))}; there are {known}.")
        counts = "steps", "size", "pictures", "objects", "width", "depth", "heads", "processes"
        for name, least in (dict.fromkeys(counts, 1) | {"corrections": 0, "seed": 0}).items():
            if getattr(self, name) < least:
                raise UserError(f"{name} is {getattr(self, name)}; give {least} or more.")
        if self.width % self.heads:
            raise UserError(f"width {self.width} has no {self.heads} equal heads; change one.")
        if self.pictures % self.processes:
            raise UserError(f"{self.processes} processes cannot share {self.pictures} pictures.")

    @property
    def trained(self) -> tuple[str, ...]:
        """The families, each once."""
        return tuple(dict.fromkeys(self.families))

    @property
    def shape(self) -> ViTShape:
        """The network's, with global attention in every block."""
        return replace(
            POCKET,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            global_blocks=tuple(range(self.depth)),
        )


class Pictures(Dataset):
    """Batches for training: item `step` is a function of the settings' seed and of `step`."""

    def __init__(self, settings: Settings):
        self.settings = settings
        number, _ = share()
        self.share = slice(number, None, settings.processes)

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        """A batch of B pictures with N = B x objects prompts: this process's of the step's.

        `images` (B, 3, S, S) uint8; `foreground`, `borders` (B, S/4, S/4) float32, the cells of any
        label, and those where two labels meet; `picture` (N,) int64, whose prompt it is;
        `coordinates` (N, 2, 2) and `labels` (N, 2): a box or a point with padding; `targets`
        (N, S/4, S/4) float32, the covered part of each cell; `noise` (corrections, 2, N, S/4, S/4)
        in [0, 1), which decides the clicks and whether masks are shown.
        """
        settings, positions = self.settings, range(self.settings.pictures)[self.share]
        lists: dict[str, list] = {key: [] for key in _OF_BATCH}
        for position in positions:
            key = settings.seed, step, position
            scene = procedural_scene((TRAIN_STREAM, *key), settings.size, settings.families)
            rng = np.random.default_rng((PROMPT_STREAM, *key))
            image, mess = scene.image, np.random.default_rng((CLUTTER_STREAM, *key))
            if mess.random() < settings.clutter:
                image = cluttered(image, scene.labels, mess)
            lists["images"].append(image.transpose(2, 0, 1))
            lists["foreground"].append(coverage(scene.labels != BACKGROUND))
            lists["borders"].append((coverage(borders(scene.labels)) > 0).astype(np.float32))
            chosen, by_box = first_asked(scene, settings.objects, rng)
            for mask, boxed in zip(scene.masks(chosen), by_box, strict=True):
                prompt, kinds = box_around(mask, rng) if boxed else point_in(mask, rng)
                lists["coordinates"].append(prompt.astype(np.float32))
                lists["labels"].append(np.array(kinds))
                lists["targets"].append(coverage(mask))
                shape = settings.corrections, 2, *lists["targets"][-1].shape
                lists["noise"].append(rng.random(shape, np.float32))
        batch = {key: torch.from_numpy(np.stack(values)) for key, values in lists.items()}
        batch["noise"] = batch["noise"].movedim(0, 2)
        whose = torch.arange(len(positions)).repeat_interleave(settings.objects)
        return batch | {"picture": whose}


_OF_BATCH = "images", "foreground", "borders", "coordinates", "labels", "targets", "noise"


def unseen_scenes(count: int, families: Sequence[str], size: int = 256) -> Iterator[Scene]:
    """Pictures that no training step sees."""
    return (procedural_scene((TEST_STREAM, 0, i), size, families) for i in range(count))
