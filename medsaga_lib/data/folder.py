"""The one on-disk layout of every data set: `dataset.toml`, `index.csv`, `images/`, `masks/`."""

import csv
import math
import os
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from medsaga_lib.data.problems import BadFile, Problem
from medsaga_lib.errors import UserError

DESCRIPTION = "dataset.toml"
INDEX = "index.csv"
LABEL_LIST = "labels.json"  # stands for [labels] where the label values differ from case to case
DATA_VARIABLE = "MEDSAGA_DATA"
LARGEST_LABEL = 2**16 - 1  # that a PNG can hold
PHANTOMS = "phantom_cxr"  # the data set that is drawn where none is given

Split = Literal["train", "val", "test"]
Masks = Literal["labels", "instances"]
SPLITS: tuple[str, ...] = get_args(Split)

REQUIRED_KEYS = {"name": str, "modality": str, "dimensions": int, "masks": str}
OPTIONAL_KEYS = {"licence": str, "citation": str, "labels": dict, "window": list}
COLUMNS = ("case", "image", "mask", "split")  # `patient` may be left out: the case stands for it


@dataclass(frozen=True)
class Case:
    """One image or volume of one patient; `mask` is None where nobody has labelled it."""

    name: str
    patient: str
    image: Path
    mask: Path | None
    split: str


@dataclass(frozen=True)
class DataSet:
    """A data set on disk; `labels` maps foreground ids to names (empty: they differ per case).

    `window` is the (low, high) intensity that becomes [0, 1], or None for the modality's own rule.
    """

    root: Path
    name: str
    modality: str
    dimensions: int
    masks: Masks
    licence: str
    citation: str
    labels: dict[int, str]
    window: tuple[float, float] | None
    cases: tuple[Case, ...]

    def split(self, name: str) -> tuple[Case, ...]:
        """The cases of "train", "val" or "test", in the order of the index.

        Raises:
            UserError: there is no such split.
        """
        if name not in SPLITS:
            raise UserError(f"{self.root}: no split is called '{name}'; use {_listed(SPLITS)}.")
        return tuple(case for case in self.cases if case.split == name)

    def describe(self) -> str:
        """One line: name, images, patients, licence.

        Patients are not counted where no two cases share one: each may have a number of its own, or
        the data set may not know whose images it has.
        """
        patients, count = len({case.patient for case in self.cases}), len(self.cases)
        kind = "images" if self.dimensions == 2 else "volumes"
        whose = f" of {patients} patients" if patients < count else ""
        return f"{self.name}: {count} {kind}{whose}, {self.licence}"

    def require_labels(self) -> dict[int, str]:
        """The labels that a network can be trained for.

        Raises:
            UserError: the label values differ from case to case, so they name no common classes.
        """
        if not self.labels:
            raise BadFile(
                self.root / DESCRIPTION,
                f"'{self.name}' has no [labels] because its label values differ from case to case "
                f"({LABEL_LIST})",
                "it is for looking at and predicting only: train on another data set, or rewrite "
                "its masks with one list of labels and add [labels].",
            )
        return self.labels


def open_dataset(path_or_name: str | Path) -> DataSet:
    """Open a folder, a data set below $MEDSAGA_DATA by its name, or the phantoms `phantom_cxr`.

    Raises:
        UserError: nothing is found there, or its description or index is wrong.
    """
    root = find_dataset(path_or_name)
    description = read_description(root)
    rows = read_index(root)
    for problem in (*description_problems(root, description), *index_problems(root, rows)):
        if not problem.note:
            raise BadFile(problem.file, problem.what, problem.remedy)
    return build_dataset(root, description, rows)


def open_or_phantoms(name: str) -> DataSet:
    """A real data set where $MEDSAGA_DATA is set, else the phantoms; never phantoms unannounced.

    Raises:
        UserError: $MEDSAGA_DATA is set, but has no such data set.
    """
    return open_dataset(PHANTOMS if data_root() is None else name)


def find_dataset(path_or_name: str | Path) -> Path:
    """The absolute folder of a data set given by path or by name (see `open_dataset`)."""
    path = Path(path_or_name).expanduser().absolute()
    if path.is_dir():
        return path
    name, tried = str(path_or_name), f"'{path}'"
    if Path(name).name == name:
        root = data_root()
        if root is not None and (root / name).is_dir():
            return root / name
        if name == PHANTOMS:
            from medsaga_lib.data.phantoms import write_once

            return write_once()
        tried += f" or ${DATA_VARIABLE} ({root or 'not set'})"
    raise UserError(
        f"No data set '{name}' in {tried}; "
        f"give a folder with {DESCRIPTION} and {INDEX}, or '{PHANTOMS}'."
    )


def data_root() -> Path | None:
    """The folder that $MEDSAGA_DATA names, or None where it is not set.

    The variable is made absolute, so that kernels and workers started elsewhere mean the same.

    Raises:
        UserError: it is set and there is no such folder.
    """
    value = os.environ.get(DATA_VARIABLE, "")
    if not value:
        return None
    root = Path(value).expanduser().absolute()
    if not root.is_dir():
        raise UserError(f"${DATA_VARIABLE} names no folder: '{root}'; correct it or unset it.")
    os.environ[DATA_VARIABLE] = str(root)
    return root


def read_description(root: Path) -> dict[str, Any]:
    """The content of `dataset.toml`.

    Raises:
        BadFile: it is missing or no TOML.
    """
    path = root / DESCRIPTION
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        keys = _listed(REQUIRED_KEYS)
        raise BadFile(path, "is missing", f"write it with at least {keys} and [labels].") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise BadFile(path, f"cannot be read ({error})", "correct it as UTF-8 TOML.") from None


def read_index(root: Path) -> list[dict[str, str]]:
    """The rows of `index.csv`, without blanks around the values.

    Raises:
        BadFile: it is missing, no CSV text, or lacks a column.
    """
    path = root / INDEX
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            rows = [
                {key: value.strip() for key, value in row.items() if key is not None}
                for row in reader
            ]
            columns = reader.fieldnames or ()
    except FileNotFoundError:
        wanted = _listed(("case", "image", "mask", "patient", "split"))
        raise BadFile(path, "is missing", f"write it with the columns {wanted}.") from None
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise BadFile(path, f"cannot be read ({error})", "save it as UTF-8 CSV.") from None
    if missing := [column for column in COLUMNS if column not in columns]:
        what = f"has no column {_listed(missing)} (its columns: {_listed(columns)})"
        raise BadFile(path, what, "add it; values are separated by commas.")
    return rows


def build_dataset(root: Path, description: dict[str, Any], rows: list[dict[str, str]]) -> DataSet:
    """The data set that a faultless description and index describe."""
    window = description.get("window")
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
        cases=tuple(_case(root, row) for row in rows),
    )


def description_problems(root: Path, description: dict[str, Any]) -> Iterator[Problem]:
    """What is wrong with the keys of `dataset.toml`."""
    file = str(root / DESCRIPTION)
    known = REQUIRED_KEYS | OPTIONAL_KEYS
    for key in description.keys() - known.keys():
        yield Problem(file, f"has the unknown key '{key}'", f"use only {_listed(known)}.")
    for key in REQUIRED_KEYS.keys() - description.keys():
        yield Problem(file, f"lacks the key '{key}'", f"add `{key} = ...`.")
    for key in known.keys() & description.keys():
        value, kind = description[key], known[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            yield Problem(file, f"key '{key}' is {value!r}", f"make it a {_TOML_NAMES[kind]}.")
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


def _label_problems(root: Path, description: dict[str, Any]) -> Iterator[Problem]:
    file = str(root / DESCRIPTION)
    labels = description.get("labels", {})
    if not isinstance(labels, dict):
        return  # said already, with the types of the other keys
    for key, name in labels.items():
        if not (key.isascii() and key.isdigit() and 0 < int(key) <= LARGEST_LABEL):
            what = f"label '{key}' in [labels] is not a whole number from 1 to {LARGEST_LABEL}"
            yield Problem(file, what, "0 is the background; number the foreground from 1.")
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
        yield Problem(file, what, "fine for looking and predicting; cannot be trained on.", True)
    else:
        yield Problem(file, "has no [labels]", 'add [labels] with lines such as 1 = "lung".')


def index_problems(root: Path, rows: list[dict[str, str]]) -> Iterator[Problem]:
    """What is wrong with the rows of `index.csv`; whether the files exist is asked when reading."""
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
            if _escapes(row[column]):
                what = f"{where}: the {column} '{row[column]}' is outside the data set's folder"
                yield Problem(file, what, "copy it inside and give its path from the folder.")
        if row["split"] not in SPLITS:
            what = f"{where}: the split of case '{row['case']}' is '{row['split']}'"
            yield Problem(file, what, f"write {_listed(SPLITS)}.")
    yield from _clash_problems(file, rows)
    yield from _split_problems(file, rows)


def _clash_problems(file: str, rows: list[dict[str, str]]) -> Iterator[Problem]:
    """Names that are equal, or would be on a disk that ignores case (macOS, Windows)."""
    for column in ("case", "image", "mask"):
        values = [row[column] for row in rows if row[column]]
        same = {value for value, count in Counter(values).items() if count > 1}
        for value in sorted(same if column != "mask" else ()):  # images may share a mask
            what = f"the {column} '{value}' is listed {values.count(value)} times"
            yield Problem(file, what, "keep one row for each case.")
        folded: dict[str, str] = {}
        for value in dict.fromkeys(values):
            other = folded.setdefault(value.casefold(), value)
            if other != value:
                what = f"the {column}s '{other}' and '{value}' differ only in upper and lower case"
                yield Problem(file, what, "rename one: on many disks they are the same file.")
    stems: dict[str, str] = {}
    for image in dict.fromkeys(row["image"] for row in rows if row["image"]):
        other = stems.setdefault(without_ending(image).casefold(), image)
        if other != image and other.casefold() != image.casefold():
            what = f"the images '{other}' and '{image}' have the same name without the ending"
            yield Problem(file, what, "rename one: predictions are named by it.")


def _split_problems(file: str, rows: list[dict[str, str]]) -> Iterator[Problem]:
    sides: dict[str, set[str]] = {}
    for row in rows:
        patient = row.get("patient") or row["case"]
        sides.setdefault(patient, set()).add(row["split"])
    for patient, splits in sides.items():
        if len(splits) > 1:
            what = f"patient '{patient}' is in more than one split ({_listed(sorted(splits))})"
            yield Problem(file, what, "put all images of a patient into one split.")


def train_problems(root: Path, rows: list[dict[str, str]]) -> Iterator[Problem]:
    """What keeps a faultless index from being trained on; evaluating needs no training cases."""
    if rows and not any(row["split"] == "train" and row["mask"] for row in rows):
        what = "no case with a mask is in the split 'train'"
        yield Problem(str(root / INDEX), what, "write train in the column split of some.")


def names_files(row: dict[str, str]) -> bool:
    """Whether a row of the index names an image, and nothing outside the folder."""
    return bool(row["image"]) and not any(_escapes(row[key]) for key in ("image", "mask"))


def without_ending(path: str) -> str:
    """A path without the ending of its file, `.nii.gz` counting as one."""
    return (
        path[: -len(".nii.gz")]
        if path.lower().endswith(".nii.gz")
        else str(Path(path).with_suffix(""))
    )


def _escapes(path: str) -> bool:
    """Whether a path in the index leaves the folder; links inside the folder may lead anywhere."""
    normal = os.path.normpath(path.replace("\\", "/"))
    return Path(normal).is_absolute() or normal.split("/")[0] == ".." or normal[1:2] == ":"


def _case(root: Path, row: dict[str, str]) -> Case:
    mask = root / row["mask"] if row["mask"] else None
    patient = row.get("patient") or row["case"]
    return Case(row["case"], patient, root / row["image"], mask, row["split"])


def _labels(description: dict[str, Any]) -> dict[int, str]:
    """The foreground labels; objects that are only numbered are all of one kind."""
    labels = {int(key): name for key, name in description.get("labels", {}).items()}
    if description["masks"] == "instances":
        return {1: labels.get(1, "object")}
    return dict(sorted(labels.items()))


def _is_window(window: list[Any]) -> bool:
    numbers = [value for value in window if isinstance(value, int | float)]
    return len(window) == len(numbers) == 2 and -math.inf < numbers[0] < numbers[1] < math.inf


_TOML_NAMES = {str: "string", int: "whole number", dict: "table", list: "list of two numbers"}


def _listed(names: Any) -> str:
    return ", ".join(str(name) for name in names) or "none"
