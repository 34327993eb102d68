"""Benchmark of many boxes on one image: this library and the published way, in one run.

`python -m tools.boxes` runs it. The published way is one decoder call per box, and each mask is
resized to the image (segment_anything, LiteMedSAM). The batched way gives the same decoder several
boxes per call (SAMIL gives it all boxes). Times depend on the machine and its load, so the ways
take turns and the result is the ratio.
"""

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch import Tensor

from medsaga_lib.data.cases import read_case_mask, read_pair
from medsaga_lib.data.catalog import data_root, open_dataset
from medsaga_lib.data.phantoms import PHANTOMS
from medsaga_lib.data.prompts import box_of
from medsaga_lib.inference.box_decoder import segment_boxes
from medsaga_lib.inference.box_predictor import BoxPredictor
from medsaga_lib.models.feeding import FEED_OF
from medsaga_lib.models.frame import Frame
from medsaga_lib.models.sam import build_sam
from medsaga_lib.models.weights import load_state

BOXES = 241  # in the case that LiteMedSAM's authors time (2DBox_Microscope_0016, 19.1 s)
AT_ONCE = 16  # boxes per call of the batched way; all 241 would need gigabytes
SIDES = (0.05, 0.3)  # of a rectangle, as a fraction of the image's sides; our choice


class Task(NamedTuple):
    """A network, an image (H, W) or (H, W, 3) in [0, 1], and boxes (N, 4) in its pixels.

    truth: masks (N, H, W) of the objects in the boxes, or None if the boxes surround no objects.
    """

    name: str
    predictor: BoxPredictor
    pixels: np.ndarray
    boxes: Tensor
    truth: np.ndarray | None = None

    @property
    def frame(self) -> Frame:
        """The position of the image in the network's input."""
        return self.predictor.frame(self.pixels.shape[:2])


@torch.inference_mode()
def one_by_one(
    sam: Sam, embedding: Tensor, boxes: Tensor, frame: Frame, at_once: int = 1
) -> Iterator[np.ndarray]:
    """Yield each box's mask (H, W) bool, computed in the published way.

    Args:
        sam, embedding: as in `segment_boxes`.
        boxes: (N, 4) x0, y0, x1, y1 in pixels of the image.
        frame: the position of the image in the input.
        at_once: boxes per call of the decoder, which repeats the image embedding for each.
    """
    position = sam.prompt_encoder.get_dense_pe()
    for some in frame.boxes(boxes).split(at_once):
        sparse, dense = sam.prompt_encoder(None, some, None)
        logits, _ = sam.mask_decoder(embedding, position, sparse, dense, multimask_output=False)
        yield from (sam.postprocess_masks(logits, frame.inner, frame.size)[:, 0] > 0).numpy()


def compare_boxes(boxes: int = BOXES, rounds: int = 7) -> list[dict[str, Any]]:
    """Return wall-clock seconds, processor seconds and the agreement of masks for each task."""
    return [measure(task, rounds) for task in tasks(boxes)]


def measure(task: Task, rounds: int) -> dict[str, Any]:
    """Measure the seconds of each round, the ratio published / ours and the agreement of masks.

    `ratio_with_encoder` includes the image encoder's time in both.
    """
    sam, frame, boxes = task.predictor.sam, task.frame, task.boxes
    embedding = task.predictor.embed(task.pixels)
    contestants: dict[str, Callable[[], Any]] = {
        "published": lambda: list(one_by_one(sam, embedding, boxes, frame)),
        "batched": lambda: list(one_by_one(sam, embedding, boxes, frame, AT_ONCE)),
        "ours": lambda: segment_boxes(sam, embedding, boxes, frame.size, frame=frame).masks,
        "encoder": lambda: task.predictor.embed(task.pixels),
    }
    clocks = {"seconds": time.perf_counter, "cpu_seconds": time.process_time}
    spent: dict[str, dict[str, list[float]]] = {c: {n: [] for n in contestants} for c in clocks}
    masks: dict[str, Any] = {}
    for _ in range(rounds):
        for name, run in contestants.items():
            began = {clock: read() for clock, read in clocks.items()}
            masks[name] = run()
            for clock, read in clocks.items():
                spent[clock][name].append(read() - began[clock])
    ratios = {
        clock: median(p / o for p, o in zip(times["published"], times["ours"], strict=True))
        for clock, times in spent.items()
    }
    took = spent["seconds"]
    rounds_of = zip(took["published"], took["ours"], took["encoder"], strict=True)
    published = masks["published"]
    ours = [mask.whole(frame.size) for mask in masks["ours"]]
    return {
        "name": task.name,
        "boxes": len(boxes),
        "size": list(frame.size),
        **spent,
        "ratio": ratios,
        "ratio_with_encoder": median((p + e) / (o + e) for p, o, e in rounds_of),
        "least_iou": min(map(iou, published, ours)),
        "not_empty": sum(bool(mask.any()) for mask in published),
        "iou_with_truth": None
        if task.truth is None
        else float(np.mean([*map(iou, ours, task.truth)])),
    }


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Return the intersection over union of two masks; 1 if both are empty."""
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 1.0


def tasks(boxes: int) -> list[Task]:
    """Return two tasks with the same image and boxes, for the pocket SAM and LiteMedSAM.

    The boxes surround nuclei if $MEDSAGA_DATA is set; otherwise they are rectangles on a phantom
    X-ray. Both have their trained weights: our decoder computes fine logits near the mask only, so
    its time depends on the masks, and random weights spread them over the image.
    """
    pixels, asked, truth = nuclei(boxes) if data_root() else (*rectangles(boxes), None)
    what = "rectangles" if truth is None else "nuclei"
    return [
        Task(f"{title}, {what}", load_backbone(name), pixels, asked, truth)
        for name, title in {"pocket": "pocket SAM", "lite_medsam": "LiteMedSAM"}.items()
    ]


def nuclei(count: int) -> tuple[np.ndarray, Tensor, np.ndarray]:
    """Return the test image with most nuclei (313), boxes around some of them, and their masks."""
    dataset = open_dataset("nuclei_dsb2018")
    numbers = {
        case: read_case_mask(dataset, case).values for case in dataset.split("test") if case.mask
    }
    case = max(numbers, key=lambda case: len(np.unique(numbers[case])))
    picture, _ = read_pair(dataset, case)
    values = [value for value in np.unique(numbers[case]) if value][:count]
    truth = np.stack([numbers[case] == value for value in values])
    return picture.pixels, torch.from_numpy(np.stack([*map(box_of, truth)])).float(), truth


def rectangles(count: int, seed: int = 0) -> tuple[np.ndarray, Tensor]:
    """Return a phantom X-ray, and random boxes on it."""
    dataset = open_dataset(PHANTOMS)
    picture, _ = read_pair(dataset, dataset.split("test")[0])
    height, width = picture.shape
    random = np.random.default_rng(seed)
    sides = random.uniform(*SIDES, (count, 2)) * (width, height)
    corners = random.uniform(0, 1, (count, 2)) * ((width, height) - sides - 1)
    return picture.pixels, torch.from_numpy(np.hstack([corners, corners + sides])).float()


def load_backbone(name: str) -> BoxPredictor:
    """Load a backbone with its weights, and with the preprocessing of its pretraining."""
    sam = build_sam(name)
    sam.load_state_dict(load_state(name))
    return BoxPredictor(sam.eval(), feed=FEED_OF[name])
