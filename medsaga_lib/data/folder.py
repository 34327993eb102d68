"""Reads and checks data set folders: `dataset.toml`, `index.csv`, `images/` and `masks/`."""

import csv
import math
import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from medsaga_lib.data.corrections import correction_of
from medsaga_lib.data.dataset import (
    DESCRIPTION,
    INDEX,
    LABEL_LIST,
    MODALITIES,
    SPLITS,
    Case,
    DataSet,
    Masks,
)
from medsaga_lib.data.problems import BadFile, Problem, listed
from medsaga_lib.files import file_stem

LARGEST_LABEL = 2**16 - 1  # the largest value in a 16-bit PNG
REQUIRED_KEYS = {"name": str, "modality": str, "dimensions": int, "masks": str}
OPTIONAL_KEYS = {"licence": str, "citation": str, "labels": dict, "window": list,
                 "pixel_size": list, "colours": dict}  # fmt: skip
# Words by which people call a modality; the check proposes the name that the library knows
WORDS = {
    "CT": "ct cta cbct ldct computed tomography",
    "MR": "mr mri mra fmri dwi adc flair t1 t2 magnetic resonance",
    "X-ray": "xray x ray xr cxr dx cr radiograph radiographs radiography",
    "ultrasound": "us ultrasound ultrasonography sonography sonogram echo echocardiography",
    "endoscopy": "endoscopy endoscopic colonoscopy gastroscopy laparoscopy bronchoscopy",
    "dermoscopy": "dermoscopy dermatoscopy dermatology skin",
    "fundus": "fundus retina retinal",
    "OCT": "oct",
    "microscopy": "microscopy histology histopathology pathology wsi fluorescence",
    "mammography": "mammography mammogram mammograms mg",
    "PET": "pet",
}
COLUMNS = ("case", "image", "mask", "split")  # `patient` is optional; default: the case


def read_description(root: Path) -> dict[str, Any]:
    """Read `dataset.toml`.

    Raises:
        BadFile: the file is missing, or it is not TOML.
    """
    path = root / DESCRIPTION
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        remedy = (
            f"write it with at least {listed(REQUIRED_KEYS)} and [labels], or let "
            "`medsaga data import` make the folder."
        )
        raise BadFile(path, "is missing", remedy) from None
    # ValueError: not TOML, not UTF-8, or a number of thousands of digits
    except (ValueError, RecursionError, OSError) as error:
        raise BadFile(path, f"cannot be read ({error})", "write valid TOML in UTF-8.") from None


def read_index(root: Path) -> list[dict[str, str]]:
    """Read the rows of `index.csv`, without spaces around the values.

    Raises:
        BadFile: the file is missing, is not CSV text, or lacks a column.
    """
    path = root / INDEX
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            reader.fieldnames = columns = [name.strip() for name in reader.fieldnames or ()]
            rows = [
                {key: value.strip() for key, value in row.items() if key is not None}
                for row in reader
            ]
            for row in rows:
                for column in {"image", "mask"} & row.keys():
                    row[column] = inside_folder(root, row[column])
    except FileNotFoundError:
        wanted = listed(("case", "image", "mask", "patient", "split"))
        raise BadFile(path, "is missing", f"write it with the columns {wanted}.") from None
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise BadFile(path, f"cannot be read ({error})", "save it as UTF-8 CSV.") from None
    if missing := [column for column in COLUMNS if column not in columns]:
        what = f"has no column {listed(missing)} (its columns: {listed(columns)})"
        raise BadFile(path, what, "add it, and separate the values by commas.")
    return rows


def build_dataset(root: Path, description: dict[str, Any], rows: list[dict[str, str]]) -> DataSet:
    """Return the data set of a description and an index that have no problems."""
    window, size = description.get("window"), description.get("pixel_size")
    colours = description.get("colours", {})
    cases = tuple(_case(root, row) for row in rows)
    return DataSet(
        root=root,
        name=description["name"],
        modality=description["modality"],
        dimensions=description["dimensions"],
        masks=description["masks"],
        licence=description.get("licence", "not stated"),
        citation=description.get("citation", ""),
        labels=_labels(description),
        window=(float(window[0]), float(window[1])) if window else None,
        cases=cases,
        pixel_size=(float(size[0]), float(size[1])) if size else None,
        colours=tuple((tuple(colour), int(label)) for label, colour in colours.items()),
        correction=correction_of([case.mask for case in cases]),
    )


def description_problems(root: Path, description: dict[str, Any]) -> Iterator[Problem]:
    """List the problems of the keys of `dataset.toml`."""
    file = str(root / DESCRIPTION)
    known = REQUIRED_KEYS | OPTIONAL_KEYS
    for key in description.keys() - known.keys():
        yield Problem(file, f"has the unknown key '{key}'", f"use only {listed(known)}.")
    for key in REQUIRED_KEYS.keys() - description.keys():
        yield Problem(file, f"lacks the key '{key}'", f"add `{key} = ...`.")
    for key in known.keys() & description.keys():
        value, kind = description[key], known[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            yield Problem(file, f"key '{key}' is {value!r}", f"make it a {_TOML_NAMES[kind]}.")
    if isinstance(modality := description.get("modality", "CT"), str):
        yield from _modality_problems(file, modality)
    if description.get("dimensions", 2) not in (2, 3):
        yield Problem(file, f"dimensions = {description['dimensions']!r}", "write 2 or 3.")
    if description.get("masks", "labels") not in get_args(Masks):
        remedy = 'write "labels" (label maps) or "instances" (one id per object).'
        yield Problem(file, f"masks = {description['masks']!r}", remedy)
    yield from _label_problems(root, description)
    window = description.get("window", [0, 1])
    if isinstance(window, list) and not _is_window(window):
        remedy = "write [low, high] with low < high, in the units of the stored values."
        yield Problem(file, f"window = {window!r}", remedy)
    size = description.get("pixel_size", [1, 1])
    if isinstance(size, list) and not (_are_numbers(size) and min(size) > 0):
        remedy = "write [height, width] of a pixel in mm, for example [0.14, 0.14]."
        yield Problem(file, f"pixel_size = {size!r}", remedy)
    elif "pixel_size" in description and description.get("dimensions") == 3:
        remedy = "write the voxel size into the files, or remove the key."
        yield Problem(file, "pixel_size is for images, and is not used for volumes", remedy, True)
    yield from _colour_problems(file, description)


def known_modality(text: str) -> str | None:
    """Return the modality that a text names in the list's word or a near one; None without one."""
    if text in MODALITIES:
        return text
    words = set(re.findall(r"[a-z0-9]+", text.casefold().replace("x-ray", "xray")))
    meant = [name for name, near in WORDS.items() if words & set(near.split())]
    return meant[0] if len(meant) == 1 else None


def _modality_problems(file: str, modality: str) -> Iterator[Problem]:
    """Report a modality that is not in the list, and propose one for a word that is near."""
    if modality in MODALITIES:
        return
    meant = known_modality(modality)
    remedy = f'write modality = "{meant}".' if meant else f"write one of {listed(MODALITIES)}."
    yield Problem(file, f"modality = {modality!r}", remedy)


def _colour_problems(file: str, description: dict[str, Any]) -> Iterator[Problem]:
    colours = description.get("colours", {})
    if not isinstance(colours, dict):
        return  # `description_problems` reports the wrong type
    for label, colour in colours.items():
        levels = colour if isinstance(colour, list) else []
        if len(levels) != 3 or not all(
            isinstance(level, int) and not isinstance(level, bool) and 0 <= level <= 255
            for level in levels
        ):
            what = f"the colour of label {label} in [colours] is {colour!r}"
            yield Problem(file, what, "write [red, green, blue] with numbers from 0 to 255.")
        if label != "0" and label not in description.get("labels", {}):
            what = f"label {label} in [colours] is not in [labels]"
            yield Problem(file, what, "give each label of [labels] a colour, and 0 the background.")
    seen = Counter(str(colour) for colour in colours.values())
    for twice in [colour for colour, count in seen.items() if count > 1]:
        yield Problem(file, f"[colours] has {twice} twice", "give each label its own colour.")


def _label_problems(root: Path, description: dict[str, Any]) -> Iterator[Problem]:
    file = str(root / DESCRIPTION)
    labels = description.get("labels", {})
    if not isinstance(labels, dict):
        return  # `description_problems` reports the wrong type
    for key, name in labels.items():
        if not (key.isascii() and key.isdigit() and 0 < int(key) <= LARGEST_LABEL):
            what = f"label '{key}' in [labels] is not a whole number from 1 to {LARGEST_LABEL}"
            yield Problem(file, what, "number the foreground labels from 1; 0 is the background.")
        if not (isinstance(name, str) and name.strip()):
            yield Problem(file, f"label {key} in [labels] has no name", f'write {key} = "...".')
    values = Counter(int(key) for key in labels if key.isascii() and key.isdigit())
    names = Counter(name for name in labels.values() if isinstance(name, str))
    for twice in [key for key, count in (values + names).items() if count > 1]:
        yield Problem(
            file, f"[labels] has {twice!r} twice", "give each label its own line and name."
        )
    if labels or description.get("masks") != "labels":
        return
    if (root / LABEL_LIST).is_file():
        what = f"has no [labels]; the values differ from case to case ({LABEL_LIST})"
        yield Problem(file, what, "it can be used for prediction, not for training.", True)
    else:
        yield Problem(file, "has no [labels]", 'add [labels] with lines such as 1 = "lung".')


def index_problems(root: Path, rows: list[dict[str, str]]) -> Iterator[Problem]:
    """List the problems of the rows of `index.csv`; the files are checked when they are read."""
    file = str(root / INDEX)
    if not rows:
        yield Problem(file, "has no rows", "write one row for each image.")
        return
    for line, row in enumerate(rows, start=2):  # the header is line 1
        where = f"line {line}"
        for column in ("case", "image"):
            if not row[column]:
                yield Problem(file, f"{where} has no {column}", "fill it in, or remove the row.")
        for column in ("image", "mask"):
            if escapes(row[column]):
                what = f"{where}: the {column} '{row[column]}' is outside the data set's folder"
                yield Problem(file, what, "copy it into the folder and correct the path.")
        both = row["mask"] if row["mask"] == row["image"] else ""
        if both and not both.lower().endswith(".npz"):  # which may hold image and mask
            what = f"{where}: '{both}' is the image and the mask"
            yield Problem(file, what, "name the file with the labels, or remove the mask.")
        if row["split"] not in SPLITS:
            what = f"{where}: the split of case '{row['case']}' is '{row['split']}'"
            yield Problem(file, what, f"write {listed(SPLITS)}.")
    yield from _clash_problems(file, rows)
    yield from _split_problems(file, rows)


def _clash_problems(file: str, rows: list[dict[str, str]]) -> Iterator[Problem]:
    """List names that are equal, or equal on file systems that ignore case (macOS, Windows)."""
    for column in ("case", "image", "mask"):
        values = [row[column] for row in rows if row[column]]
        same = {value for value, count in Counter(values).items() if count > 1}
        for value in sorted(same if column != "mask" else ()):  # two images may have the same mask
            what = f"the {column} '{value}' is listed {values.count(value)} times"
            yield Problem(file, what, "keep one row for each case.")
        folded: dict[str, str] = {}
        for value in dict.fromkeys(values):
            other = folded.setdefault(value.casefold(), value)
            if other != value:
                what = f"the {column}s '{other}' and '{value}' differ only in upper and lower case"
                yield Problem(file, what, "rename one; some systems take them for one file.")
    stems: dict[str, str] = {}
    for image in dict.fromkeys(row["image"] for row in rows if row["image"]):
        other = stems.setdefault(_result_of(image).casefold(), image)
        if other != image and other.casefold() != image.casefold():
            what = f"the images '{other}' and '{image}' have the same name without the extension"
            yield Problem(file, what, "rename one; their predictions have the same name.")


def _split_problems(file: str, rows: list[dict[str, str]]) -> Iterator[Problem]:
    sides: dict[str, set[str]] = {}
    for row in rows:
        patient = row.get("patient") or row["case"]
        sides.setdefault(patient, set()).add(row["split"])
    for patient, splits in sides.items():
        if len(splits) > 1:
            what = f"patient '{patient}' is in more than one split ({listed(sorted(splits))})"
            yield Problem(file, what, "put all images of a patient into one split.")


def train_problems(root: Path, rows: list[dict[str, str]]) -> Iterator[Problem]:
    """List the problems of an index that matter only for training: no training case with a mask."""
    if rows and not any(row["split"] == "train" and row["mask"] for row in rows):
        what = "no case with a mask is in the split 'train'"
        yield Problem(str(root / INDEX), what, "write train in the column split of some cases.")


def names_files(row: dict[str, str]) -> bool:
    """Tell whether a row of the index names an image, and all its files are in the folder."""
    return bool(row["image"]) and not any(escapes(row[key]) for key in ("image", "mask"))


def inside_folder(root: Path, path: str) -> str:
    """Return a path of the index relative to the folder, with / between its parts."""
    plain = path.replace("\\", "/")
    if Path(plain).is_absolute() and Path(plain).is_relative_to(root):
        return Path(plain).relative_to(root).as_posix()
    return plain


def _result_of(image: str) -> str:
    """Return the path of an image without the file extension; its prediction gets this name."""
    return (Path(image).parent / file_stem(Path(image))).as_posix()


def escapes(path: str) -> bool:
    """Tell whether a path in the index leaves the folder; symbolic links are not followed."""
    normal = os.path.normpath(path.replace("\\", "/"))
    return Path(normal).is_absolute() or normal.split("/")[0] == ".." or normal[1:2] == ":"


def _case(root: Path, row: dict[str, str]) -> Case:
    mask = root / row["mask"] if row["mask"] else None
    patient = row.get("patient") or row["case"]
    return Case(row["case"], patient, root / row["image"], mask, row["split"])


def _labels(description: dict[str, Any]) -> dict[int, str]:
    """Return the foreground labels; all objects of an instance mask get label 1."""
    labels = {int(key): name for key, name in description.get("labels", {}).items()}
    if description["masks"] == "instances":
        return {1: labels.get(1, "object")}
    return dict(sorted(labels.items()))


def _is_window(window: list[Any]) -> bool:
    return _are_numbers(window) and window[0] < window[1]


def _are_numbers(pair: list[Any]) -> bool:
    """Return whether a list has two finite numbers."""
    numbers = [v for v in pair if isinstance(v, int | float) and not isinstance(v, bool)]
    return len(pair) == len(numbers) == 2 and all(map(math.isfinite, numbers))


_TOML_NAMES = {str: "string", int: "whole number", dict: "table", list: "list of two numbers"}
