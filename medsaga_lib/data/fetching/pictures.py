"""Official layouts of pictures: CholecSeg8k, GlaS, ultrasound, ChestX-Det, CheXmask, CVPR 2024."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medsaga_lib.data.fetching.catalogue import OfficialSet
from medsaga_lib.data.images import read_labels, reading
from medsaga_lib.data.importing import arrays
from medsaga_lib.data.importing.found import (
    Array,
    Content,
    Copied,
    Drawn,
    Found,
    Item,
    LabelMap,
    Options,
)
from medsaga_lib.data.importing.shapes import paint, points, polygon
from medsaga_lib.data.importing.source import Source, read_json, split_of
from medsaga_lib.data.problems import BadFile
from medsaga_lib.errors import UserError

# CholecSeg8k: ids in the watershed masks, in the order of the labels here; 50 is the background,
# and 255 a white frame around some pictures
CHOLEC_IDS = (11, 21, 13, 12, 31, 23, 24, 25, 32, 22, 33, 5)
CHOLEC_BACKGROUND = (0, 50, 255)
CHOLEC_VAL, CHOLEC_TEST = ("video12", "video27"), ("video17", "video52")  # S-SAM
ULTRASOUND_COLOURS = (
    ((100, 0, 100), 1), ((255, 255, 0), 2), ((0, 0, 255), 3), ((255, 0, 0), 4),
    ((0, 255, 255), 5), ((0, 255, 0), 6), ((255, 255, 255), 7), ((255, 0, 255), 8),
)  # fmt: skip
MOST_UNKNOWN = 0.01  # our choice: a mask with more pixels without a meaning is another kind of mask
LEAST_AGREEMENT = 0.7  # CheXmask recommends masks with at least this mean Dice of RCA
CHEXMASK_COLUMNS = ("Right Lung", "Left Lung", "Heart")  # in the order of the labels here
IMAGE_COLUMNS = ("Image Index", "Image ID", "image_id")  # CheXmask names it differently


def read_as(mode: Literal["RGB", "L"], path: Path) -> Array:
    """Return the colours (H, W, 3) or the grey values (H, W) of a picture without transparency.

    Raises:
        BadFile: the file cannot be read.
    """
    from PIL import Image

    with reading(path):
        return np.asarray(Image.open(path).convert(mode))


def cholecseg8k(source: Source, official: OfficialSet) -> Found:
    """List the frames of CholecSeg8k, split by video as in S-SAM; a video is a patient."""
    found = Found([], notes=["splits: videos 12 and 27 val, 17 and 52 test, as in S-SAM"])
    for image in _matching(source, r"frame_\d+_endo\.png"):
        clip, number = image.parent.name, image.name.removesuffix("_endo.png")
        video = clip.split("_")[0]
        mask = image.with_name(f"{number}_endo_watershed_mask.png")
        split = {**dict.fromkeys(CHOLEC_VAL, "val"), **dict.fromkeys(CHOLEC_TEST, "test")}
        found.items.append(
            Item(
                f"{clip}_{number}",
                source.relative(image),
                Copied(image),
                _if_there(mask, lambda path: _cholec_mask(path, found.counted)),
                split.get(video, "train"),
                patient=video,
            )
        )
    return found


def _cholec_mask(path: Path, counted: Counter[str]) -> Array:
    ids = read_as("RGB", path)[..., 0]  # the three channels are equal
    labels = np.zeros(ids.shape, np.uint8)
    for label, number in enumerate(CHOLEC_IDS, start=1):
        labels[ids == number] = label
    _count_unknown(path, ~np.isin(ids, (*CHOLEC_IDS, *CHOLEC_BACKGROUND)), counted)
    return labels


def _count_unknown(path: Path, unknown: Array, counted: Counter[str]) -> None:
    """Count pixels that the data set does not describe; they are background, as in S-SAM's code.

    Raises:
        BadFile: there are many, so that the mask is not of the official kind.
    """
    counted["pixels of masks with values without a meaning, now background"] += int(unknown.sum())
    if unknown.mean() > MOST_UNKNOWN:
        what = f"has {unknown.mean():.0%} of pixels with values that the data set does not describe"
        raise BadFile(path, what, "check that it is the mask of the official archive.")


def glas(source: Source, official: OfficialSet) -> Found:
    """List the images of GlaS with one id for each gland; the parts testA and testB are the test.

    The official training images are split into train and val.
    """
    items = []
    for image in _matching(source, r"(train|testA|testB)_\d+\.bmp"):
        part = image.stem.split("_")[0]
        mask = image.with_name(f"{image.stem}_anno.bmp")
        items.append(
            Item(
                image.stem,
                source.relative(image),
                Copied(image),
                _if_there(mask, lambda path: read_labels(path).values),
                None if part == "train" else "test",
                columns={"part": part},
            )
        )
    return Found(items, notes=["splits: the official parts testA and testB are the test split"])


def ultrasound(source: Source, official: OfficialSet) -> Found:
    """List the annotated ultrasound images: AUS simulated from CT, RUS real.

    The folders train and test give the splits; the column `domain` of the index is AUS or RUS.
    """
    found = Found([], notes=["images without an annotation were left out"])
    for image in source.files:
        parts = image.relative_to(source.root).parts
        if len(parts) < 4 or parts[-3] != "images" or parts[-4] not in ("AUS", "RUS"):
            continue
        folder = image.parents[2] / "annotations" / image.parent.name
        mask = next((path for path in folder.glob("*") if path.stem == image.stem), None)
        if mask is None:
            continue  # most real images have no annotation
        split = split_of(parts[-2])
        found.items.append(
            Item(
                f"{parts[-4]}_{image.stem}",
                source.relative(image),
                Copied(image),
                _if_there(mask, lambda path: _ultrasound_mask(path, found.counted)),
                "test" if split == "test" else None,
                columns={"domain": parts[-4]},
            )
        )
    return found


def _ultrasound_mask(path: Path, counted: Counter[str]) -> Array:
    colours = read_as("RGB", path)
    labels = np.zeros(colours.shape[:2], np.uint8)
    for colour, label in ULTRASOUND_COLOURS:
        labels[(colours == colour).all(axis=2)] = label
    _count_unknown(path, (labels == 0) & colours.any(axis=2), counted)
    return labels


def chestxdet(source: Source, official: OfficialSet) -> Found:
    """List the images of ChestX-Det; their polygons become one map of labels.

    Where findings overlap, the smaller one is on top (our choice). A patient is the first part of a
    file name of the NIH. Training images of patients of the test split are left out.
    """
    pictures = {path.name: path for path in _matching(source, r"\d+_\d+\.png")}
    values = {label: value for value, label in official.labels.items()}
    found = Found([])
    cases: dict[str, list[dict[str, Any]]] = {}
    for part in ("train", "test"):
        path = next(_matching(source, rf"ChestX_Det_{part}\.json"), None)
        if path is None:
            raise UserError(f"{source.path} has no ChestX_Det_{part}.json; add it.")
        cases[part] = read_json(path)
    tested = {_nih_patient(case["file_name"]) for case in cases["test"]}
    for part, split in (("train", None), ("test", "test")):
        for case in cases[part]:
            name, patient = case["file_name"], _nih_patient(case["file_name"])
            if part == "train" and patient in tested:
                found.counted["training images of patients of the test split, left out"] += 1
                continue
            if name not in pictures:
                found.counted["annotated images that are missing, left out"] += 1
                continue
            image = pictures[name]
            mask = LabelMap(_polygons(image, case, values, found.counted))
            relative = source.relative(image)
            content = _grey(image, found.counted)
            found.items.append(Item(image.stem, relative, content, mask, split, patient))
    return found


def _polygons(
    image: Path, case: dict[str, Any], values: dict[str, int], counted: Counter[str]
) -> Callable[[], tuple[Array, None]]:
    def draw() -> tuple[Array, None]:
        height, width = read_as("L", image).shape
        shapes = []
        for name, corners in zip(case["syms"], case["polygons"], strict=True):
            if name not in values:
                raise BadFile(image, f"has the finding '{name}'", "it is not one of the 13.")
            try:
                pixels = polygon(points(corners, (height, width)), (height, width))
            except UserError:
                counted["polygons with fewer than 3 usable points, left out"] += 1
                continue
            shapes.append((values[name], np.flatnonzero(pixels)))
        shapes.sort(key=lambda shape: -len(shape[1]))
        rule = "pixels of several findings, which show the smallest one"
        return paint(shapes, (height, width), rule, counted), None

    return draw


def chestxray8(source: Source, official: OfficialSet) -> Found:
    """List the images of the NIH that a CSV file of CheXmask has a good mask of.

    A mask is good if its mean Dice by reverse classification accuracy (RCA) is at least 0.7. The
    heart lies over the lungs. A list of the NIH's test images, test_list.txt, gives the test split.
    """
    pictures = {path.name: path for path in _matching(source, r"\d+_\d+\.png")}
    lists = [path for path in source.files if path.name == "test_list.txt"]
    tested = set(lists[0].read_text(encoding="utf-8").split()) if lists else set()
    tables = [path for path in source.files if path.suffix.lower() == ".csv"]
    found = Found([])
    for row in (row for table in tables for row in _rows(table)):
        image = pictures.get(next(row[name] for name in IMAGE_COLUMNS if name in row))
        if image is None:
            continue
        if float(row["Dice RCA (Mean)"]) < LEAST_AGREEMENT:
            found.counted[f"masks with a Dice of RCA below {LEAST_AGREEMENT}, left out"] += 1
            continue
        mask = LabelMap(_chexmask(image, row))
        split = "test" if image.name in tested else None
        patient = _nih_patient(image.name)
        relative = source.relative(image)
        content = _grey(image, found.counted)
        found.items.append(Item(image.stem, relative, content, mask, split, patient))
    if not found.items:
        raise UserError(
            f"{source.path} has no image with a mask in a CSV file of CheXmask; put the images and "
            "ChestX-Ray8.csv into it."
        )
    return found


def _rows(table: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV file of CheXmask, one at a time: the files have gigabytes."""
    csv.field_size_limit(2**31 - 1)
    with table.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = set(reader.fieldnames or ())
        needed = {*CHEXMASK_COLUMNS, "Dice RCA (Mean)", "Height", "Width"}
        if needed <= columns and columns & set(IMAGE_COLUMNS):
            yield from reader


def _chexmask(image: Path, row: dict[str, str]) -> Callable[[], tuple[Array, None]]:
    def draw() -> tuple[Array, None]:
        shape = int(row["Height"]), int(row["Width"])
        if shape != read_as("L", image).shape:
            raise BadFile(image, f"is not {shape[0]} x {shape[1]}", "use OriginalResolution's CSV.")
        labels = np.zeros(shape, np.uint8)
        for value, column in enumerate(CHEXMASK_COLUMNS, start=1):
            labels.flat[_run_lengths(row[column])] = value
        return labels, None

    return draw


def _run_lengths(text: str) -> Array:
    """Return the places, row by row, of runs "start length start length ..." that count from 1."""
    numbers = np.array(text.split(), np.int64)
    runs = [np.arange(start, start + n) - 1 for start, n in numbers.reshape(-1, 2)]
    return np.concatenate([np.empty(0, np.int64), *runs])


def cvpr24(source: Source, official: OfficialSet) -> Found:
    """List the npz files of one modality; each object has its own value, as the boxes take it."""
    return arrays.find_npz(source, Options())


def _nih_patient(name: str) -> str:
    return name.split("_")[0]


def _matching(source: Source, pattern: str) -> Iterator[Path]:
    return (path for path in source.files if re.fullmatch(pattern, path.name))


def _if_there(path: Path, read: Callable[[Path], Array]) -> LabelMap | None:
    return LabelMap(lambda: (read(path), None)) if path.is_file() else None


def _grey(image: Path, counted: Counter[str]) -> Content:
    """Return a picture of the NIH; some have colour channels and transparency, although grey."""
    from PIL import Image

    with reading(image), Image.open(image) as picture:
        if picture.mode == "L":
            return Copied(image)
    counted["pictures with several channels, written as grey ones"] += 1
    return Drawn(lambda: read_as("L", image))
