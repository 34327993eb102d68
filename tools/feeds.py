"""Compare ways to prepare images for LiteMedSAM, for the book.

    python -m tools.feeds
    python -m tools.feeds --images 2 --sizes 128 --out /tmp/feeds.json     # a quick look

Every image is segmented from the exact boxes of its objects, and the score is the IoU on the whole
image. The ways are compared on validation images. The test images are scored with the published
way and with the feed of this library only. Small changes of the published input, on training
images, show what the published way is sensitive to. The tool writes notebooks/recorded/feeds.json
after each row and does not score rows again.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medsaga_lib.data.cases import read_case, read_case_mask
from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.data.dataset import Case, DataSet
from medsaga_lib.data.prompts import box_of
from medsaga_lib.evaluation.scores import bootstrap, without_nan
from medsaga_lib.files import write_json
from medsaga_lib.inference.box_decoder import segment_boxes
from medsaga_lib.inference.box_predictor import BoxPredictor
from medsaga_lib.models.feeding import (
    LEAST_RANGE,
    LITE_MEDSAM,
    Feed,
    in_8_bits,
    min_max,
    resize_area,
)
from medsaga_lib.models.frame import Frame
from medsaga_lib.models.sam import build_sam
from medsaga_lib.models.weights import load_state
from tools.provenance import RECORDED, machine

TARGET = RECORDED / "feeds.json"
DATA = ("cxr_hannover_lungs", "polyp_kvasir", "nuclei_dsb2018", "hippocampus_msd")
CHANGED_DATA = DATA[:2]  # the small changes are tried on X-rays and, as a control, on polyps
BACKBONE = "lite_medsam"
SIZES = (256, 128)  # pixels; 128 px is the size of the few-shot runs
OBJECTS = 20  # boxes per image, evenly spaced; only images of nuclei have more
# The default of LiteMedSAM is the published way. The other is the best on validation images, and
# `--feed` takes it.
PUBLISHED, CHOSEN = "area", "linear_squeezed"
PERCENTILES = (0.5, 99.5)  # MedSAM
BLUR = 0.5  # standard deviation in pixels of the input
NOISE = 2.0  # grey levels of 255
QUALITY = 75  # of JPEG
DIMMED = 0.3  # the contrast of the X-rays on which the published way fails, about
HALF_NYQUIST = 0.25  # cycles per pixel

Picture = NDArray[np.float32]  # (h, w, C), grey levels 0 to 255


@dataclass(frozen=True)
class Way:
    """A way to make an input: cut off, resize, change, stretch to [0, 1], pad with zeros.

    resize: turns uint8 (H, W, C) into float32 (h, w, C).
    change: changes the small image.
    ranged: the small image whose minimum and maximum become 0 and 1; default: the changed one.
    cut: clip a grey image by its percentiles first, see `cut_off`.
    gain: factor of the stretched image; below 1, the contrast becomes lower.
    """

    resize: Callable[[NDArray[np.uint8], tuple[int, int]], Picture]
    change: Callable[[Picture], Picture] = lambda small: small
    ranged: Callable[[Picture], Picture] | None = None
    cut: bool = False
    gain: float = 1
    squeezed: bool = False

    def small(self, picture: NDArray[np.uint8], frame: Frame) -> Picture:
        """Return the image inside the input, (h, w, C) in [0, 1], without the padding."""
        small = self.resize(cut_off(picture) if self.cut else picture, frame.inner)
        changed = self.change(small)
        if self.ranged is not None:
            limits = self.ranged(small)
            changed = changed.clip(limits.min(), limits.max())
            changed = (changed - limits.min()) / max(np.ptp(limits), LEAST_RANGE)
        else:
            changed = min_max(changed)
        return (self.gain * changed).astype(np.float32)

    def prepare(self, images: Tensor, frame: Frame) -> Tensor:
        """Do the work of `Feed.prepare`."""
        height, width = frame.inner
        square = np.zeros((len(images), frame.side, frame.side, images.shape[1]), np.float32)
        for target, picture in zip(square, in_8_bits(images), strict=True):
            target[:height, :width] = self.small(picture, frame)
        return torch.from_numpy(square).movedim(-1, 1)

    @property
    def feed(self) -> Feed:
        """The way as a feed of `BoxPredictor`; boxes are rounded as in LiteMedSAM's script."""
        whole = not self.squeezed
        return replace(LITE_MEDSAM, prepare=self.prepare, squeezed=self.squeezed, whole=whole)


def cut_off(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Clip a grey image to `PERCENTILES` of its values above 0; a colour image stays as it is.

    MedSAM's authors prepare the grey images of their training data like this (pre_grey_rgb.py).
    """
    shown = picture[picture > 0]
    coloured = (np.ptp(picture, axis=2) > 0).any()
    if coloured or not shown.size:
        return picture
    low, high = np.percentile(shown, PERCENTILES)
    stretched = (255 * min_max(picture.clip(low, high).astype(np.float32))).astype(np.uint8)
    return np.where(picture == 0, np.uint8(0), stretched)


def area(picture: NDArray[np.uint8], size: tuple[int, int]) -> Picture:
    """Resize as LiteMedSAM's script."""
    return resize_area(picture, size).astype(np.float32).reshape(*size, -1)


def exact_area(picture: NDArray[np.uint8], size: tuple[int, int]) -> Picture:
    """Resize by areas without rounding to grey levels, as LiteMedSAM's training script."""
    return resize_area(picture.astype(np.float32), size).reshape(*size, -1)


def linear(picture: NDArray[np.uint8], size: tuple[int, int]) -> Picture:
    """Resize by bilinear interpolation with antialiasing, as the feeds of SAM and SAMed."""
    planes = torch.from_numpy(picture.astype(np.float32)).movedim(-1, 0)[None]
    return _interpolated(planes, size, "bilinear")


def spline(picture: NDArray[np.uint8], size: tuple[int, int]) -> Picture:
    """Resize by bicubic interpolation with antialiasing."""
    planes = torch.from_numpy(picture.astype(np.float32)).movedim(-1, 0)[None]
    return _interpolated(planes, size, "bicubic")


def cubic(picture: NDArray[np.uint8], size: tuple[int, int]) -> Picture:
    """Resize by OpenCV's `INTER_CUBIC`, which has no antialiasing."""
    import cv2

    small = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_CUBIC)
    return small.astype(np.float32).reshape(*size, -1)


def blurred(small: Picture) -> Picture:
    """Blur by a Gaussian of `BLUR` pixels."""
    import cv2

    return np.asarray(cv2.GaussianBlur(small, (0, 0), BLUR), np.float32).reshape(small.shape)


def noisy(small: Picture) -> Picture:
    """Add white noise of `NOISE` grey levels, the same for all images of one size."""
    noise = np.random.default_rng(0).normal(0, NOISE, small.shape[:2])
    return small + noise[..., None].astype(np.float32)


def sharpened(small: Picture) -> Picture:
    """Add the difference from the blurred image."""
    return 2 * small - blurred(small)


def compressed(small: Picture) -> Picture:
    """Store the image as JPEG and read it again."""
    import cv2

    levels = small.round().clip(0, 255).astype(np.uint8)
    _, data = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    read = np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED), np.float32)
    return read.reshape(small.shape)


def _interpolated(planes: Tensor, size: tuple[int, int], mode: str) -> Picture:
    small = torch.nn.functional.interpolate(planes, size, mode=mode, antialias=True)
    return small[0].movedim(0, -1).numpy()


CANDIDATES = {
    PUBLISHED: Way(area),
    CHOSEN: Way(linear, squeezed=True),
    "linear": Way(linear),
    "blurred": Way(area, blurred),
    "cubic": Way(cubic),
    "cut": Way(area, cut=True),
    "cut_blurred": Way(area, blurred, cut=True),
    "squeezed": Way(area, squeezed=True),
}
CHANGES = {
    PUBLISHED: Way(area),
    CHOSEN: Way(linear, squeezed=True),
    "linear": Way(linear),
    "blurred": Way(area, blurred),
    "blurred_same_range": Way(area, blurred, ranged=lambda small: small),
    "range_of_blurred": Way(area, ranged=blurred),
    "exact_area": Way(exact_area),
    "spline": Way(spline),
    "cubic": Way(cubic),
    "noisy": Way(area, noisy),
    "compressed": Way(area, compressed),
    "sharpened": Way(area, sharpened),
    "cut": Way(area, cut=True),
    "dimmed": Way(area, gain=DIMMED),
    "cut_dimmed": Way(area, cut=True, gain=DIMMED),
}
REPORTED = (PUBLISHED, CHOSEN, "linear")
SETTINGS = (  # split, images per set, ways, sizes, sets
    ("val", 8, CANDIDATES, SIZES, DATA),
    ("test", 20, {name: CANDIDATES[name] for name in REPORTED}, SIZES, DATA),
    ("train", 8, CHANGES, SIZES[:1], CHANGED_DATA),
)


class Item(NamedTuple):
    """An image (H, W, C) in [0, 1] with the masks and boxes of its objects.

    classes: index of each object's class in the data set; 0 for instances.
    """

    patient: str
    pixels: NDArray[np.float32]
    masks: list[NDArray[np.bool_]]
    classes: list[int]

    @property
    def boxes(self) -> Tensor:
        """The exact boxes (N, 4) around the objects."""
        return torch.from_numpy(np.stack([box_of(mask) for mask in self.masks]))


def main(words: list[str] | None = None) -> None:
    """Read the command line, score the missing rows and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--out", type=Path, default=TARGET)
    add("--data", nargs="+", default=list(DATA), help="Data sets below $MEDSAGA_DATA.")
    add("--sizes", nargs="+", type=int, default=list(SIZES))
    add("--images", type=int, help="Images per set and split; default: as in `SETTINGS`.")
    options = parser.parse_args(words)
    command = shlex.join(
        ["python", "-m", "tools.feeds", *(sys.argv[1:] if words is None else words)]
    )
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    wanted = list(plan(options.data, options.sizes))
    images = {split: options.images or count for split, count, *_ in SETTINGS}
    items = {
        (data, split): read_items(open_dataset(data), split, images[split])
        for data, split in dict.fromkeys((data, split) for data, split, *_ in wanted)
    }
    for (data, split), some in items.items():
        objects = sum(len(item.masks) for item in some)
        print(f"{data}, {split}: {len(some)} images, {objects} objects")
    passes = sum(len(items[data, split]) for data, split, *_ in wanted)
    print(f"{len(wanted)} rows, {passes} passes of the encoder; {len(rows)} rows are there")
    origin = {"command": command, **machine(), "images": images, "objects": OBJECTS}
    known = {(row["data"], row["split"], row["size"], row["way"]): row for row in rows}
    predictors: dict[int, BoxPredictor] = {}
    for data, split, size, name, way in wanted:
        if (data, split, size, name) not in known:
            if size not in predictors:
                predictors[size] = load(size)
            predictor = replace(predictors[size], feed=way.feed)
            row = {"data": data, "split": split, "size": size, "way": name}
            row |= scored(predictor, way, items[data, split])
            known[data, split, size, name] = row
            print(f"{data} {split} {size} px {name}: {mean(row):.3f}", flush=True)
        write_json(options.out, content(origin, list(known.values()), items))


def plan(data: Sequence[str], sizes: Sequence[int]) -> Iterator[tuple[str, str, int, str, Way]]:
    """Yield data set, split, size and way of every row."""
    for split, _, ways, at, sets in SETTINGS:
        for size in (size for size in sizes if size in at):
            for name in (name for name in data if name in sets):
                for way, value in ways.items():
                    yield name, split, size, way, value


def load(size: int) -> BoxPredictor:
    """Load LiteMedSAM for inputs of `size` pixels."""
    sam = build_sam(BACKBONE, size)
    sam.load_state_dict(load_state(BACKBONE, size))
    sam.image_encoder.to(memory_format=torch.channels_last)  # faster, same numbers up to rounding
    return BoxPredictor(sam.eval().requires_grad_(False))


def read_items(dataset: DataSet, split: str, count: int) -> list[Item]:
    """Read at most `count` images of a split, evenly spaced; of a volume, its middle slice."""
    return [read_item(dataset, case) for case in spaced(dataset.split(split), count)]


def read_item(dataset: DataSet, case: Case) -> Item:
    """Read an image, or the middle one of the labelled slices of a volume, and its objects."""
    pixels, labels = read_case(dataset, case).pixels, read_case_mask(dataset, case).values
    if labels.ndim == 3:
        slices = np.flatnonzero(labels.any(axis=(1, 2)))
        middle = slices[len(slices) // 2]
        pixels, labels = pixels[middle], labels[middle]
    values = spaced(np.unique(labels[labels > 0]).tolist(), OBJECTS)
    names = sorted(dataset.labels) if dataset.masks == "labels" else []
    classes = [names.index(value) if names else 0 for value in values]
    shaped = pixels.reshape(*labels.shape, -1).astype(np.float32)
    return Item(case.patient, shaped, [labels == value for value in values], classes)


def spaced(things: Sequence[Any], count: int) -> list[Any]:
    """Return at most `count` evenly spaced things."""
    if len(things) <= count:
        return list(things)
    return [things[i] for i in np.linspace(0, len(things) - 1, count).round().astype(int)]


def scored(predictor: BoxPredictor, way: Way, items: Sequence[Item]) -> dict[str, Any]:
    """Return the IoU by class and image, and the mean of `high_frequencies` over images.

    An image's IoU is the mean over its objects of the class, and None if it has none.
    """
    found = [overlaps(predictor, item) for item in items]
    classes = range(1 + max(max(item.classes) for item in items))
    return {
        "iou": [
            [of_class(values, item.classes, k) for values, item in zip(found, items, strict=True)]
            for k in classes
        ],
        "high": round(float(np.mean([high(predictor, way, item) for item in items])), 5),
    }


def overlaps(predictor: BoxPredictor, item: Item) -> list[float]:
    """Return the IoU of each object with the mask that its exact box gives."""
    embedding = predictor.embed(item.pixels)
    frame = predictor.frame(item.pixels.shape[:2])
    found = segment_boxes(predictor.sam, embedding, item.boxes, frame.size, frame=frame)
    masks = (mask.whole(frame.size) for mask in found.masks)
    return [
        float((mask & truth).sum() / (mask | truth).sum())
        for mask, truth in zip(masks, item.masks, strict=True)
    ]


def of_class(values: Sequence[float], classes: Sequence[int], wanted: int) -> float | None:
    """Return the mean of the values of a class, or None if there are none."""
    chosen = [value for value, k in zip(values, classes, strict=True) if k == wanted]
    return round(float(np.mean(chosen)), 3) if chosen else None


def high(predictor: BoxPredictor, way: Way, item: Item) -> float:
    """Return the share of high frequencies of an item's input, without the padding."""
    levels = in_8_bits(torch.from_numpy(item.pixels).movedim(-1, 0)[None])[0]
    return high_frequencies(way.small(levels, predictor.frame(item.pixels.shape[:2])))


def high_frequencies(picture: NDArray) -> float:
    """Return the share of an image's power above half the Nyquist frequency, in any direction.

    The image is (h, w, C); its mean colour is removed and a Hann window applied.
    """
    grey = picture.mean(axis=-1)
    window = np.outer(*(np.hanning(length) for length in grey.shape))
    power = np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2
    power[0, 0] = 0
    down, right = (np.fft.fftfreq(length) for length in grey.shape)
    above = np.hypot(down[:, None], right) > HALF_NYQUIST
    return float(power[above].sum() / power.sum())


def mean(row: dict[str, Any]) -> float:
    """Return the mean over classes of the means over images."""
    return float(np.mean(np.nanmean(np.array(row["iou"], float), axis=1)))


def content(
    origin: dict[str, Any],
    rows: list[dict[str, Any]],
    items: dict[tuple[str, str], list[Item]],
) -> dict[str, Any]:
    """Return the content of the file: rows, and the differences from the published way."""
    sets = [
        {
            "data": data,
            "split": split,
            "images": len(some),
            "patients": len({item.patient for item in some}),
            "objects": sum(len(item.masks) for item in some),
            "longest_side": float(np.median([max(item.pixels.shape) for item in some])),
        }
        for (data, split), some in items.items()
    ]
    known = {(row["data"], row["split"], row["size"], row["way"]): row for row in rows}
    differences = []
    for (data, split, size, way), row in known.items():
        base = known.get((data, split, size, PUBLISHED))
        if way != PUBLISHED and base is not None and (data, split) in items:
            patients = [item.patient for item in items[data, split]]
            low, upper = interval(base, row, patients)
            differences.append(
                {"data": data, "split": split, "size": size, "way": way}
                | {"difference": round(mean(row) - mean(base), 4)}
                | {"interval": [round(low, 4), round(upper, 4)]}
            )
    found = {"provenance": origin, "sets": sets, "rows": rows, "differences": differences}
    return without_nan(found)  # the interval of a single patient


def interval(
    base: dict[str, Any], row: dict[str, Any], patients: Sequence[str]
) -> tuple[float, float]:
    """Return the paired bootstrap interval, over patients, of a row's mean less the base's."""
    change = (np.array(row["iou"], float) - np.array(base["iou"], float)).T  # (images, classes)
    groups = np.array(patients)[:, None] == np.unique(patients)  # (images, patients)
    sums = groups.T.astype(float) @ np.nan_to_num(change)
    return bootstrap(sums, groups.T.astype(float) @ ~np.isnan(change))


if __name__ == "__main__":
    main()
