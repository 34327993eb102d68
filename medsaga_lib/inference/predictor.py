"""Prediction of label maps with a trained run: whole images, and volumes slice by slice."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from medsaga_lib.data.cases import read_pair
from medsaga_lib.data.dataset import Case, DataSet
from medsaga_lib.data.domain import Domain, shift_notes
from medsaga_lib.data.images import Picture, read_image
from medsaga_lib.data.label_files import require_room, targets, write_labels
from medsaga_lib.data.prompts import Prompts, draw_prompts
from medsaga_lib.errors import UserError
from medsaga_lib.files import file_hash, file_stem, write_bytes
from medsaga_lib.inference.point_grid import everything, named_by
from medsaga_lib.inference.runtime import Runtime, use_runtime
from medsaga_lib.inference.volume_labels import Consistency, consistent
from medsaga_lib.models.feeding import SQUEEZE, Feed, get_feed
from medsaga_lib.models.frame import Frame
from medsaga_lib.models.heads import Promptable
from medsaga_lib.models.scratch import FromScratch
from medsaga_lib.models.weights import file_of
from medsaga_lib.recipes.build import Model, build_model
from medsaga_lib.recipes.recipe import Recipe
from medsaga_lib.training.run_folder import (
    RUN_FILE,
    load_weights,
    read_checkpoint,
    read_run,
    recipe_of,
)

SLICES_AT_ONCE = 8  # our choice: enough to keep 2 cores busy
PROMPT_SEED = 0  # for the points that evaluation draws from the ground truth


@dataclass(frozen=True)
class Predictor:
    """A trained network, with the preprocessing of its input and the names of its labels."""

    model: Model
    labels: dict[int, str]  # foreground label values and names; class k is the k-th value
    modality: str
    window: tuple[float, float] | None
    feed: Feed = SQUEEZE  # preprocessing that the network was trained with
    domain: Domain | None = None  # what the training images were like; None in older runs
    runtime: str = "torch"  # of the image encoder

    def __call__(
        self,
        picture: Picture,
        axis: int = 0,
        step: Consistency = "none",
        prompts: Prompts | None = None,
    ) -> np.ndarray:
        """Return the label map of an image (H, W) or a volume (D, H, W), int64.

        Args:
            picture: the image or volume.
            axis: 0, 1 or 2 for z, y or x; a volume is cut across it into slices, which are
                predicted one by one.
            step: makes the slices consistent afterwards (`volume_labels`).
            prompts: for a model that is prompted with points or boxes: one prompt per label and
                slice, (slices or 1, K, N, ...), in pixels of the slice.

        Raises:
            UserError: the model uses a grid of points, or its prompts are missing.
        """
        if self._asks_for_everything:
            raise UserError(
                "The masks of a grid of points have no names; use `medsaga evaluate`, which takes "
                "the masks that are nearest to those of a data set."
            )
        if isinstance(self.model, Promptable) and prompts is None:
            raise UserError(
                f"This run is prompted with {self.model.kind}, but files have none; use "
                "`medsaga evaluate`, which takes them from the masks of a data set."
            )
        if len(picture.shape) == 2:
            pixels = torch.from_numpy(np.ascontiguousarray(picture.pixels))
            image = (pixels if pixels.ndim == 3 else pixels[..., None]).movedim(-1, 0)[None]
            return self._values(image, prompts)[0]
        slices = np.ascontiguousarray(np.moveaxis(picture.pixels, axis, 0))
        labels = consistent(self._values(torch.from_numpy(slices)[:, None], prompts), step)
        return np.moveaxis(labels, 0, axis)

    def _values(self, images: Tensor, prompts: Prompts | None) -> np.ndarray:
        """Return label values (N, H, W) of images (N, 1 or 3, H, W) in [0, 1]."""
        frame = self.feed.frame(images.shape[2:], self.model.size)
        tensors = [images]
        if prompts is not None:
            tensors += [frame.coordinates(prompts.coordinates), prompts.roles]
        parts = zip(*(tensor.split(SLICES_AT_ONCE) for tensor in tensors), strict=True)
        return torch.cat([self._labels(frame, *part) for part in parts]).numpy()

    @torch.inference_mode()
    def _labels(self, frame: Frame, images: Tensor, *prompts: Tensor) -> Tensor:
        """Return label values (N, H, W) of images (N, 1 or 3, H, W) in [0, 1]."""
        device = next(self.model.parameters()).device
        inputs = self.feed.images(images, self.model.size).expand(-1, 3, -1, -1), *prompts
        logits = self.model(*(tensor.to(device) for tensor in inputs))
        return highest(frame.enlarge(logits), [0, *sorted(self.labels)]).cpu()

    def case(self, dataset: DataSet, case: Case) -> np.ndarray:
        """Return the label map of a case; its prompts, if needed, come from the ground truth."""
        return self.pair(case.name, *read_pair(dataset, case))

    def pair(self, name: str, picture: Picture, truth: np.ndarray) -> np.ndarray:
        """Return the label map of a picture as `case` does; `name` is that of the case."""
        if not isinstance(self.model, Promptable):
            return self(picture)
        if self._asks_for_everything:
            return self._everything(picture, truth)
        seed = PROMPT_SEED + zlib.crc32(name.encode())
        slices = truth.reshape(-1, *truth.shape[-2:])
        drawn = [
            draw_prompts(self.model.kind, sorted(self.labels), labels, seed + number)
            for number, labels in enumerate(slices)
        ]
        return self(picture, prompts=default_collate(drawn))

    @property
    def _asks_for_everything(self) -> bool:
        return isinstance(self.model, Promptable) and self.model.kind == "grid"

    @torch.inference_mode()
    def _everything(self, picture: Picture, truth: np.ndarray) -> np.ndarray:
        """Return the label map of a grid's masks, named by the ground truth, slice by slice."""
        sam, values = self.model.get_submodule("sam"), sorted(self.labels)
        if len(picture.shape) == 2:
            return named_by(truth, everything(sam, picture.pixels), values)
        slices = zip(truth, picture.pixels, strict=True)
        return np.stack([named_by(t, everything(sam, p), values) for t, p in slices])


def highest(logits: Tensor, values: Sequence[int]) -> Tensor:
    """Return for each pixel the value of the channel with the largest logit, the first of equals.

    On a CPU this takes 1/7 of the time of an argmax over the channels, whose logits are far apart
    in memory. A softmax would not change the result.

    Args:
        logits: (N, C, H, W).
        values: of the C channels.

    Returns:
        (N, H, W) int64.
    """
    best = logits[:, 0]
    found = torch.full(best.shape, values[0], dtype=torch.int64, device=logits.device)
    for value, channel in zip(values[1:], logits.unbind(1)[1:], strict=True):
        found.masked_fill_(channel > best, value)
        best = torch.maximum(best, channel)
    return found


def load_run(folder: Path, runtime: Runtime = "torch") -> Predictor:
    """Load the network of a finished or interrupted run, on a GPU if there is one.

    runtime: of the image encoder (`inference.runtime`); all but torch compute on the CPU.

    Raises:
        UserError: the folder is not a run, it has no checkpoint yet, the backbone's file has
            changed, or the runtime cannot be used.
    """
    run = read_run(folder)
    saved = read_checkpoint(folder)
    if saved is None:
        raise UserError(f"{folder} has no checkpoint yet; let `medsaga train` run longer.")
    settings = run["settings"]
    backbone = settings["backbone"]
    file = file_of(backbone, settings["weights"])
    if file is not None and file_hash(file) != run["backbone_sha256"]:
        raise UserError(
            f"{folder / RUN_FILE} was trained with other {backbone} weights than {file} has now; "
            "train the run again, or restore the file that it was trained with."
        )
    labels = {int(value): name for value, name in run["labels"].items()}
    model = build_model(
        recipe_of(run),
        backbone,
        settings["size"],
        len(labels),
        settings["weights"],
        settings["seed"],
        names=[labels[value] for value in sorted(labels)],
    )
    load_weights(model, saved.weights)
    window = tuple(run["window"]) if run["window"] else None
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    feed, domain = get_feed(settings["feed"]), Domain.from_json(run.get("domain"))
    used = _on_runtime(model, runtime, recipe_of(run))
    return Predictor(model, labels, run["modality"], window, feed, domain, used)


def _on_runtime(model: Model, runtime: Runtime, recipe: Recipe) -> str:
    """Apply `use_runtime` to a run's network; one without an image encoder stays in torch."""
    if not isinstance(model, FromScratch):
        used = use_runtime(model.sam, runtime, recipe.image_encoder)
        if used != "torch":
            model.cpu()
        return used
    if runtime in ("torch", "auto"):
        return "torch"
    raise UserError(f"{recipe.name} has no image encoder of a SAM; omit --runtime {runtime}.")


def predict_files(
    predictor: Predictor, inputs: list[Path], out: Path, axis: int = 0, step: Consistency = "none"
) -> Iterator[dict[str, Any]]:
    """Predict files, write the results to a folder and yield one record per file.

    Files are named as in `label_files.targets`; for an image there is also STEM_overlay.png.
    `axis` and `step` are for volumes, as in `Predictor`.

    Raises:
        UserError: an input cannot be read, two inputs would give the same result, or the folder
            cannot be written.
    """
    from medsaga_lib.display import show_case, to_png

    for target, path in targets(inputs, out).items():
        picture = read_image(path, predictor.modality, predictor.window)
        require_room(target, path, picture)
        if len(picture.shape) == 2 and (axis, step) != (0, "none"):
            raise UserError(f"{path} is not a volume; omit --axis and --consistency.")
        prediction = predictor(picture, axis, step)
        write_labels(target, picture, prediction, path)
        record: dict[str, Any] = {"input": str(path), "labels": str(target)}
        if target.suffix == ".png":
            overlay = out / f"{file_stem(path)}_overlay.png"
            figure = show_case(picture.pixels, prediction=prediction, labels=predictor.labels)
            write_bytes(overlay, to_png(figure))
            record["overlay"] = str(overlay)
        spacing = float(np.prod(picture.spacing))
        record["voxels"] = {n: int((prediction == v).sum()) for v, n in predictor.labels.items()}
        record["voxel_size"] = spacing  # mm^2 or mm^3; 1 where the file does not say
        record["notes"] = shift_notes(predictor.domain, path, picture)
        yield record
