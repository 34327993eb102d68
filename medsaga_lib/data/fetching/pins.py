"""The sets of the chapters, made from their origins as the results of this book were.

`pins/NAME.csv` is the index that the results were measured with: its cases, patients and splits.
"""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medsaga_lib.data.dataset import DataSet
from medsaga_lib.data.fetching.catalogue import OfficialSet
from medsaga_lib.data.fetching.pictures import read_as
from medsaga_lib.data.images import read_stored
from medsaga_lib.data.importing.found import Array, Content, Copied, Drawn, Found, Item, LabelMap
from medsaga_lib.data.importing.shapes import paint, points, polygon
from medsaga_lib.data.importing.source import Source
from medsaga_lib.data.problems import BadFile, listed
from medsaga_lib.errors import UserError, counted
from medsaga_lib.files import file_hash, file_stem

PINS = Path(__file__).with_name("pins")
OWN = ("case", "image", "mask", "patient", "split")  # the columns that every index has
JPEG_WHITE = 127  # masks stored as JPEG: brighter pixels are the object
SHOWN = 5  # our choice: a message names at most this many cases


class Pair(NamedTuple):
    """The image and the mask of a case."""

    image: Content
    mask: Content


Finder = Callable[[dict[str, str]], Pair]


def pinned(prepare: Callable[[Source, OfficialSet], Finder]) -> Callable[..., Found]:
    """Return a converter that lists the cases of the shipped index.

    prepare: returns a function from a row of the index to the image and the mask; it raises
    KeyError if the source lacks the case.
    """

    def convert(source: Source, official: OfficialSet) -> Found:
        find = prepare(source, official)
        items, missing = [], []
        for row in read_pins(official.name):
            try:
                pair = find(row)
            except KeyError:
                missing.append(row["case"])
                continue
            columns = {key: value for key, value in row.items() if key not in OWN}
            path = Path(row["image"])
            items.append(
                Item(
                    row["case"], path, pair.image, pair.mask, row["split"], row["patient"], columns
                )
            )
        if missing:
            raise UserError(
                f"{source.path} lacks {counted(len(missing), 'case')} of {official.name}, such as "
                f"{listed(missing[:SHOWN])}; it is not at the commit of {official.page} that the "
                "book used."
            )
        return Found(items, label_list=_label_list(official.name))

    return convert


def read_pins(name: str) -> list[dict[str, str]]:
    """Return the rows of the shipped index of a data set."""
    with (PINS / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def is_pinned(name: str) -> bool:
    """Return whether a data set is one of the chapters, with a shipped index."""
    return (PINS / f"{name}.csv").is_file()


def write_pins(name: str, path: Path) -> None:
    """Write the shipped index, so that the folder is the one that the results were measured on."""
    rows = read_pins(name)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _label_list(name: str) -> dict[str, Any]:
    path = PINS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def listed_files(source: Source, official: OfficialSet) -> Finder:
    """Find files that have the paths of the index, because they were downloaded to them."""
    paths = {source.relative(path).as_posix(): path for path in source.files}

    def find(row: dict[str, str]) -> Pair:
        image, mask = paths[row["image"]], paths[row["mask"]]
        return Pair(Copied(image, file_stem(image)), Copied(mask, file_stem(mask)))

    return find


def hippocampus(source: Source, official: OfficialSet) -> Finder:
    """Find the volumes in TrainingSet/images and TrainingSet/labels."""
    images, masks = _in(source, "images"), _in(source, "labels")
    return lambda row: Pair(Copied(images[row["case"]]), Copied(masks[row["case"]]))


def polyps(source: Source, official: OfficialSet) -> Finder:
    """Find the frames in images and masks of train, val and test; JPEG masks get two values."""
    images, masks = _in(source, "images"), _in(source, "masks")

    def find(row: dict[str, str]) -> Pair:
        mask = masks[row["case"]]
        return Pair(Copied(images[row["case"]]), LabelMap(lambda: (_bright(mask), None)))

    return find


def _bright(path: Path) -> Array:
    return (read_as("L", path) > JPEG_WHITE).astype(np.uint8)


def nuclei(source: Source, official: OfficialSet) -> Finder:
    """Find stage1_train/ID/images/ID.png and its masks, one file for each nucleus.

    The nuclei are numbered in the order of the names of their files; a later one lies over an
    earlier one.
    """
    images = _in(source, "images")
    masks: dict[str, list[Path]] = {}
    for path in source.files:
        if path.parent.name == "masks":
            masks.setdefault(path.parent.parent.name, []).append(path)

    def find(row: dict[str, str]) -> Pair:
        image, files = images[row["case"]], masks[row["case"]]
        return Pair(Drawn(lambda: _without_alpha(image)), LabelMap(lambda: (_merged(files), None)))

    return find


def _without_alpha(path: Path) -> Array:
    """Return the colours (H, W, 3) of a picture, or (H, W) if all its pixels are grey."""
    colours = read_as("RGB", path)
    grey = (colours == colours[..., :1]).all()
    return colours[..., 0] if grey else colours


def _merged(files: list[Path]) -> Array:
    """Return one map of ids (H, W), int64, from one mask for each object."""
    objects = [read_as("L", path) > 0 for path in sorted(files)]
    ids = np.zeros(objects[0].shape, np.int64)
    for number, pixels in enumerate(objects, start=1):
        if pixels.shape != ids.shape:
            raise BadFile(files[0].parent, "has masks of different sizes", "fetch it again.")
        ids[pixels] = number
    return ids


def sammed2d(source: Source, official: OfficialSet) -> Finder:
    """Find the slices of SAM-Med2D's demonstration, one mask for each structure."""
    images, masks = _in(source, "images"), _in(source, "masks")
    values = _label_list(official.name)

    def find(row: dict[str, str]) -> Pair:
        image, case = images[row["case"]], row["case"]
        parts = {stem: path for stem, path in sorted(masks.items()) if stem.startswith(f"{case}_")}
        if not parts:
            raise KeyError(case)

        def draw() -> tuple[Array, None]:
            labels = None
            for stem, path in parts.items():
                structure = stem.removeprefix(f"{case}_").rpartition("_")[0]
                pixels = read_stored(path, is_mask=True).values > 0
                labels = np.zeros(pixels.shape, np.uint8) if labels is None else labels
                labels[pixels] = values[structure]
            assert labels is not None  # there is a part
            return labels, None

        return Pair(Copied(image), LabelMap(draw))

    return find


def hannover(source: Source, official: OfficialSet) -> Finder:
    """Find the X-rays in png/, and their two polygons "Lung" in Darwin JSON.

    V7 annotated the central square of each X-ray (`data.corrections`); the polygons are scaled to
    this square. The lung with the smaller mean x is the right one of the patient.
    """
    images = _in(source, "png")
    documents = {}
    for path, content in source.documents.items():
        image = content.get("image")
        if isinstance(image, dict) and isinstance(content.get("annotations"), list):
            name = str(image.get("original_filename") or image.get("filename") or path.name)
            documents[Path(name).stem] = (path, content)

    def find(row: dict[str, str]) -> Pair:
        image, (path, content) = images[row["case"]], documents[row["case"]]
        size = int(row["height"]), int(row["width"])
        return Pair(Copied(image), LabelMap(lambda: (_lungs(path, content, size), None)))

    return find


def _lungs(path: Path, content: dict, size: tuple[int, int]) -> Array:
    height, width = size
    side = min(size)
    across, down = side / content["image"]["width"], side / content["image"]["height"]
    left, top = (width - side) / 2, (height - side) / 2
    lungs = []
    for annotation in content["annotations"]:
        corners = (annotation.get("polygon") or {}).get("path")
        if annotation.get("name") == "Lung" and corners:
            scaled = [(left + corner["x"] * across, top + corner["y"] * down) for corner in corners]
            lungs.append(np.flatnonzero(polygon(points(scaled, size), size)))
    if len(lungs) != 2:
        raise BadFile(
            path, f"has {len(lungs)} polygons of lungs", "two are needed; fetch it again."
        )
    lungs.sort(key=lambda pixels: (pixels % width).mean())
    return paint(list(enumerate(lungs, start=1)), size, "pixels belong to both lungs", Counter())


def _in(source: Source, folder: str) -> dict[str, Path]:
    """Return the files in folders of a name by their names without ending."""
    return {file_stem(path): path for path in source.files if path.parent.name == folder}


def pixel_hash(dataset: DataSet) -> str:
    """Return the sha256 of all values of a data set in the order of the index.

    JPEG files count by their bytes, because decoders differ. Ids of objects count in the order of
    their first pixels, because any numbering means the same.
    """
    hashed = hashlib.sha256()
    for case in dataset.cases:
        hashed.update(case.name.encode())
        for path in (case.image, case.mask):
            if path is None:
                continue
            if path.suffix.lower() in (".jpg", ".jpeg"):
                hashed.update(file_hash(path).encode())
                continue
            values = read_stored(path, is_mask=path == case.mask).values
            if path == case.mask and dataset.masks == "instances":
                values = _in_order(values)
            hashed.update(str(values.shape).encode())
            hashed.update(np.ascontiguousarray(values, "<f8").tobytes())
    return hashed.hexdigest()


def _in_order(ids: Array) -> Array:
    """Return a map of ids (H, W) with the objects numbered by their first pixels."""
    found, first, places = np.unique(ids, return_index=True, return_inverse=True)
    first = np.where(found == 0, -1, first)  # the background stays 0 ...
    order = np.empty(len(found), np.int64)
    order[np.argsort(first)] = np.arange(len(found)) + (0 if (found == 0).any() else 1)
    return order[places].reshape(ids.shape)
