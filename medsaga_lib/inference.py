"""From a trained run to label maps: whole pictures, and volumes slice by slice."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import default_collate

from medsaga_lib.backbones.weights import file_of
from medsaga_lib.consistency import Step, consistent
from medsaga_lib.data.folder import Case, DataSet
from medsaga_lib.data.images import Picture, read_image, read_pair
from medsaga_lib.data.prompts import Prompts, draw_prompts
from medsaga_lib.data.samples import squeeze
from medsaga_lib.errors import UserError
from medsaga_lib.evaluation import Evaluation, evaluate_cases
from medsaga_lib.everything import everything, named_by
from medsaga_lib.files import file_hash
from medsaga_lib.heads import Promptable
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.build import Model, build_model
from medsaga_lib.recipes.recipe import Recipe, changed
from medsaga_lib.results import require_room, stem, targets, write_bytes, write_labels
from medsaga_lib.runs import RUN_FILE, read_checkpoint, read_run
from medsaga_lib.training import load_weights

SLICES_AT_ONCE = 8  # our choice: enough to keep two cores busy
PROMPT_SEED = 0  # of the points that evaluation draws from the truth
TRUTH_PROMPTS = {
    "points": f"a random pixel of each label in each slice of the truth, seed {PROMPT_SEED}",
    "boxes": "the exact box of each label in each slice of the truth",
    "grid": "a grid of points; each label gets the mask that is nearest to its truth",
}


@dataclass(frozen=True)
class Predictor:
    """A trained network together with what is needed to feed and to read it."""

    model: Model
    labels: dict[int, str]  # foreground label values and names; class k is the k-th value
    modality: str
    window: tuple[float, float] | None

    def __call__(
        self,
        picture: Picture,
        axis: int = 0,
        step: Step = "none",
        prompts: Prompts | None = None,
    ) -> np.ndarray:
        """Label map of a picture, int64 of its size: (H, W), or (D, H, W) for a volume.

        A volume is cut across `axis` (0, 1, 2 for z, y, x) into slices, which are predicted one by
        one; `step` then makes them consistent (`consistency`).
        prompts: for a model that is asked by points or boxes: one for each label of each slice,
            (slices or 1, K, N, ...), in pixels of the slice.
        """
        if self._asks_for_everything:
            raise UserError(
                "The masks of a grid of points have no names; "
                "`medsaga evaluate` takes those that are nearest to the masks of a data set."
            )
        if isinstance(self.model, Promptable) and prompts is None:
            raise UserError(
                f"This run has to be asked by {self.model.kind}, and files come with none; "
                "`medsaga evaluate` takes them from the masks of a data set."
            )
        if len(picture.shape) == 2:
            pixels = torch.from_numpy(np.ascontiguousarray(picture.pixels))
            image = (pixels if pixels.ndim == 3 else pixels[..., None]).movedim(-1, 0)[None]
            return self._values(image, prompts)[0]
        slices = np.ascontiguousarray(np.moveaxis(picture.pixels, axis, 0))
        labels = consistent(self._values(torch.from_numpy(slices)[:, None], prompts), step)
        return np.moveaxis(labels, 0, axis)

    def _values(self, images: Tensor, prompts: Prompts | None) -> np.ndarray:
        """Label values (N, H, W) of images (N, 1 or 3, H, W) in [0, 1]."""
        tensors = [images]
        if prompts is not None:  # to input pixels, as segment_anything's ResizeLongestSide does
            factors = self.model.size / torch.tensor([images.shape[3], images.shape[2]])
            tensors += [prompts.coordinates * factors, prompts.roles]
        parts = zip(*(tensor.split(SLICES_AT_ONCE) for tensor in tensors), strict=True)
        classes = torch.cat([self._classes(*part) for part in parts])
        return torch.tensor([0, *sorted(self.labels)])[classes].numpy()

    @torch.inference_mode()
    def _classes(self, images: Tensor, *prompts: Tensor) -> Tensor:
        """Class indices (N, H, W) of images (N, 1 or 3, H, W) in [0, 1]."""
        size = self.model.size
        device = next(self.model.parameters()).device
        empty = torch.zeros(images.shape[0], *images.shape[2:], dtype=torch.uint8)
        squeezed, _ = squeeze(images, empty, size)
        inputs = squeezed.expand(-1, 3, -1, -1), *prompts
        logits = self.model(*(tensor.to(device) for tensor in inputs))
        logits = F.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=False)
        return logits.argmax(1).cpu()  # the argmax of the softmax is that of the logits

    def case(self, dataset: DataSet, case: Case) -> np.ndarray:
        """Label map of a case of a data set; prompts, if they are needed, are the truth's."""
        picture, truth = read_pair(dataset, case)
        if not isinstance(self.model, Promptable):
            return self(picture)
        if self._asks_for_everything:
            return self._everything(picture, truth)
        seed = PROMPT_SEED + zlib.crc32(case.name.encode())
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
        """Label map of a grid's masks, named by the truth; volumes slice by slice."""
        sam, values = self.model.get_submodule("sam"), sorted(self.labels)
        if len(picture.shape) == 2:
            return named_by(truth, everything(sam, picture.pixels), values)
        slices = zip(truth, picture.pixels, strict=True)
        return np.stack([named_by(t, everything(sam, p), values) for t, p in slices])


def recipe_of(run: dict[str, Any]) -> Recipe:
    """The recipe of what `read_run` has read, with the values that were changed for it."""
    return changed(get_recipe(run["settings"]["recipe"]), run["settings"].get("changes", []))


def load_run(folder: Path) -> Predictor:
    """The network of a finished or interrupted run, on a GPU if there is one.

    Raises:
        UserError: the folder is no run, has no checkpoint yet, or the backbone's file has changed.
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
            f"{folder / RUN_FILE} was made on other {backbone} weights than those in {file} now; "
            "train the run again, or put the file there that it was made with."
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
    return Predictor(model, labels, run["modality"], window)


def evaluation_folder(run: Path, dataset: DataSet, split: str) -> Path:
    """Where a run's scores go: evaluation/ for the test split of its own data, or else a folder
    that names data and split, so that none replaces another.
    """
    own = (dataset.name, split) == (read_run(run)["settings"]["data"], "test")
    return run / ("evaluation" if own else f"evaluation-{dataset.name}-{split}")


def evaluate_run(folder: Path, dataset: DataSet, split: str, out: Path) -> Evaluation:
    """Scores a run on a split and writes cases.csv, summary.json and figure.png to `out`.

    Raises:
        UserError: the labels of the data set are not those the run was trained for, or a file
            cannot be used.
    """
    predictor = load_run(folder)
    if dataset.require_labels() != predictor.labels:
        raise UserError(
            f"{dataset.root} has the labels {dataset.labels}, but {folder} was trained for "
            f"{predictor.labels}; evaluate it on a data set with the same labels."
        )
    cases = [case for case in dataset.split(split) if case.mask is not None]
    evaluation = evaluate_cases(partial(predictor.case, dataset), dataset, cases)
    evaluation = replace(evaluation, data=dataset.name, split=split)
    if isinstance(predictor.model, Promptable):
        evaluation = replace(evaluation, prompts=TRUTH_PROMPTS[predictor.model.kind])
    evaluation.save(out)
    _write_figure(out / "figure.png", predictor, dataset, cases, evaluation)
    return evaluation


def _write_figure(path, predictor, dataset, cases, evaluation: Evaluation) -> None:
    """The worst, the middle and the best case, side by side."""
    from medsaga_lib.display import Panel, grid, to_png

    by_dice = evaluation.table.groupby("case")["dice"].mean().dropna().sort_values()
    chosen = {by_dice.index[i]: None for i in (0, len(by_dice) // 2, -1)} if len(by_dice) else {}
    panels = []
    for name in chosen:
        case = next(case for case in cases if case.name == name)
        picture, truth = read_pair(dataset, case)
        prediction = predictor.case(dataset, case)
        image, spacing = picture.pixels, picture.spacing
        if len(picture.shape) == 3:  # the slice with the largest object
            middle = int((truth > 0).sum((1, 2)).argmax())
            image, truth, prediction = image[middle], truth[middle], prediction[middle]
            spacing = spacing[1:]
        title = f"{name}: Dice {by_dice[name]:.3f}"
        panels.append(Panel(image, truth, prediction, title, (spacing[0], spacing[1])))
    if panels:
        alt = "Worst, middle and best case: truth dashed, prediction solid."
        write_bytes(path, to_png(grid(panels, predictor.labels, alt), alt))


def predict_files(
    predictor: Predictor, inputs: list[Path], out: Path, axis: int = 0, step: Step = "none"
) -> Iterator[dict[str, Any]]:
    """Predicts files and writes the results to a folder, one record for each.

    Files are named as in `results.targets`; beside a picture's there is STEM_overlay.png. `axis`
    and `step` are for volumes, as in `Predictor`.

    Raises:
        UserError: an input cannot be read, two inputs would give the same result, or the folder
            cannot be written.
    """
    from medsaga_lib.display import show_case, to_png

    for target, path in targets(inputs, out).items():
        picture = read_image(path, predictor.modality, predictor.window)
        require_room(target, path, picture)
        if len(picture.shape) == 2 and (axis, step) != (0, "none"):
            raise UserError(f"{path} is no volume; leave --axis and --consistency.")
        prediction = predictor(picture, axis, step)
        write_labels(target, picture, prediction)
        record: dict[str, Any] = {"input": str(path), "labels": str(target)}
        if target.suffix == ".png":
            overlay = out / f"{stem(path)}_overlay.png"
            figure = show_case(picture.pixels, prediction=prediction, labels=predictor.labels)
            write_bytes(overlay, to_png(figure))
            record["overlay"] = str(overlay)
        spacing = float(np.prod(picture.spacing))
        record["voxels"] = {n: int((prediction == v).sum()) for v, n in predictor.labels.items()}
        record["voxel_size"] = spacing  # mm^2 or mm^3; 1 where the file does not say
        yield record
