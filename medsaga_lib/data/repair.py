"""Writes a copy of a data set in which mechanical problems are repaired.

A problem is mechanical if its repair needs no decision of the user and changes no value that
training reads, except the white of a mask with a single label. book/how-to-use.md lists what is
repaired, what is left to the user, and why. `repair_index` repairs the description and the index.
"""

import csv
import os
import shutil
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medsaga_lib.data.bitmaps import declared, read_opaque
from medsaga_lib.data.cases import APART, count_values, displacement_of
from medsaga_lib.data.check import useful_processes
from medsaga_lib.data.dataset import DESCRIPTION, INDEX, Case, DataSet
from medsaga_lib.data.folder import (
    build_dataset,
    description_problems,
    names_files,
    read_description,
)
from medsaga_lib.data.images import (
    BITMAPS,
    ROUNDED,
    TIFFS,
    Array,
    Stored,
    is_folder,
    kind_of,
    read_stored,
    reading,
)
from medsaga_lib.data.label_files import write_labels
from medsaga_lib.data.parallel import for_each
from medsaga_lib.data.problems import BadFile
from medsaga_lib.data.repair_index import Change, Index, repaired_description
from medsaga_lib.errors import UserError
from medsaga_lib.files import replacing, working_folder, write_bytes, write_json

REPAIRS = "repairs.json"  # the changes, in the copy
WHITES = (255, 65535)  # the foreground that programs for photographs write, 8 and 16 bits
SAME_GRID = 1e-6  # voxels; our choice: float32 headers that say the same differ by less
LARGEST_LABEL = 65535  # of the files that `write_labels` writes
PICTURES = {*BITMAPS, *TIFFS}
# Masks of these formats are repaired; npz holds more than the mask, a detached header names a file
# beside it, and a DICOM file describes the patient
MASKS = {*PICTURES, ".nii", ".nii.gz", ".nrrd", ".mha"}


def repair(root: Path, out: Path, processes: int | None = 1) -> list[Change]:
    """Write a repaired copy of a data set, and return its changes; without changes, no copy.

    The copy has all files of the folder, and `repairs.json` with the changes.

    Args:
        root: folder of the data set; nothing in it is changed.
        out: folder of the copy, which must not exist.
        processes: processes that repair files, as in `check.report`.

    Raises:
        UserError: `out` exists or is inside `root`, or the copy cannot be written.
    """
    root, out = root.absolute(), out.expanduser().absolute()
    if out.exists() or out.is_symlink():
        raise UserError(f"{out} exists; name a new folder for the repaired copy.")
    if out.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{out} is inside the data set {root}; name a folder outside of it.")
    try:
        with working_folder(out) as folder:
            draft = folder / out.name
            shutil.copytree(root, draft)
            changes = _repair_in_place(draft, root, processes)
            if changes:
                record = [change._asdict() for change in changes]
                write_json(draft / REPAIRS, {"original": str(root), "changes": record})
                draft.rename(out)
    except (OSError, shutil.Error) as error:
        raise UserError(
            f"The copy {out} cannot be written ({_reason(error)}); free some space, choose another "
            "folder, or correct the file that cannot be read."
        ) from error
    return changes


def _reason(error: OSError) -> str:
    if isinstance(error, shutil.Error):  # with a list of (source, target, reason)
        source, _, reason = error.args[0][0]
        return f"{source}: {reason}"
    return error.strerror or str(error)


def _repair_in_place(draft: Path, root: Path, processes: int | None) -> list[Change]:
    """Repair a copy of the folder `root`."""
    changes, description = _repair_description(draft)
    index = _read_index(draft)
    if index is None:
        return changes
    names: dict[str, str] = {}
    if index.complete:
        index.repair(root)
    changes += index.changes
    if index.complete and description is not None:
        rows = [row for row in index.records() if names_files(row)]
        dataset = build_dataset(draft, description, rows)
        of_files, names = _repair_files(dataset, processes)
        changes += of_files
        index.rename(names)
    if index.changes or names:
        write_bytes(draft / INDEX, index.text().encode())
    return changes


def _repair_description(draft: Path) -> tuple[list[Change], dict[str, Any] | None]:
    """Repair `dataset.toml`; return the changes, and its content if it has no problem left."""
    path = draft / DESCRIPTION
    try:
        read_description(draft)
        text, changes = repaired_description(path.read_text(encoding="utf-8-sig"))
        if changes:
            write_bytes(path, text.encode())
        description = read_description(draft)
    except BadFile:  # the check of the copy reports it
        return [], None
    faults = [fault for fault in description_problems(draft, description) if not fault.note]
    return changes, None if faults else description


def _read_index(draft: Path) -> Index | None:
    try:
        with (draft / INDEX).open(newline="", encoding="utf-8-sig") as file:
            return Index(draft, file.read())
    except (OSError, UnicodeDecodeError, csv.Error):  # the check of the copy reports it
        return None


class _Task(NamedTuple):
    """The image of a case, or its mask, that may need a repair.

    target: the path of the repaired file; None if another file has this name.
    """

    case: Case
    is_mask: bool
    target: Path | None


class _Repaired(NamedTuple):
    """The changes of one file, and its new path."""

    path: Path
    target: Path
    what: list[str]


def _repair_files(dataset: DataSet, processes: int | None) -> tuple[list[Change], dict[str, str]]:
    """Repair images and masks; return the changes, and the new names of files in the index."""
    paths: dict[Path, tuple[Case, bool]] = {}  # a mask may belong to several images
    for case in dataset.cases:
        paths.setdefault(case.image, (case, False))
        if case.mask is not None:
            paths.setdefault(case.mask, (case, True))
    targets = {path: _target(path) for path in paths}
    wanted = Counter(str(target).casefold() for target in targets.values())
    tasks = []
    for path, (case, is_mask) in paths.items():
        target = targets[path]
        free = target == path or not (os.path.lexists(target) or wanted[str(target).casefold()] > 1)
        tasks.append(_Task(case, is_mask, target if free else None))
    repair_one = partial(_repair_file, replace(dataset, cases=()))
    done = for_each(repair_one, tasks, processes or useful_processes(dataset))
    changes, names = [], {}
    for one in done:
        if one is None:
            continue
        old, new = (path.relative_to(dataset.root).as_posix() for path in (one.path, one.target))
        if old != new:
            one.path.unlink()
            names[old] = new
        renamed = [f"it was {old}"] if old != new else []
        changes.append(Change(new, "; ".join([*one.what, *renamed])))
    return changes, names


def _target(path: Path) -> Path:
    """Return the path of a repaired file: pictures other than TIFF become PNG."""
    return path.with_suffix(".png") if path.suffix.lower() in BITMAPS - {".png"} else path


def _repair_file(dataset: DataSet, task: _Task) -> _Repaired | None:
    """Repair one file; None if nothing is mechanical there: the check of the copy reports it."""
    path = task.case.mask if task.is_mask else task.case.image
    if path is None or task.target is None or is_folder(path):
        return None
    try:
        if kind_of(path) not in (MASKS if task.is_mask else PICTURES):
            return None
        read = _read(path, task.is_mask)
        found = _mask_of(dataset, task.case, *read) if task.is_mask else read
    except BadFile:
        return None
    if found is None or not found[1]:
        return None
    stored, what = found
    if task.is_mask:
        same = path.suffix.lower() == task.target.suffix.lower()
        write_labels(task.target, stored, stored.values, path if same else None)
    else:
        _write_picture(task.target, stored.values, depth=len(stored.shape) == 3)
    return _Repaired(path, task.target, what)


def _read(path: Path, is_mask: bool) -> tuple[Stored, list[str]]:
    """Return the content of a file as training reads it, and what its file declares in addition.

    Raises:
        BadFile: it cannot be read, or a new file would lose its pixel size.
    """
    what = []
    says = None
    if kind_of(path) in PICTURES:
        with reading(path):
            says = declared(path)
    if says is not None and says.opaque:
        what.append("the transparency channel is removed; no pixel was transparent")
        with reading(path):
            stored = Stored(path, read_opaque(path), (1.0, 1.0))
    else:
        stored = read_stored(path, is_mask)
    if says is not None and says.turn != 1:
        what.append("the pixels are upright without an orientation tag")
    if says is not None and says.white_zero and is_mask:
        what.append("black is stored as zero, and was white")
    if says is not None and says.spacing:
        raise BadFile(path, "gives a pixel size", "save it upright, with black as zero.")
    return stored, what


def _mask_of(
    dataset: DataSet, case: Case, stored: Stored, what: list[str]
) -> tuple[Stored, list[str]] | None:
    """Return the repaired mask on its grid, and what is changed; None if it needs a decision."""
    values = stored.values
    if stored.shape != values.shape:
        if dataset.colours or (values != values[..., :1]).any():
            return None
        values = values[..., 0]
        what.append("one channel is kept of three equal ones")
    labels = np.rint(values).astype(np.int64) if np.isfinite(values).all() else np.array(-1)
    if labels.min() < 0 or labels.max() > LARGEST_LABEL or (abs(values - labels) > ROUNDED).any():
        return None
    if (values != labels).any():
        what.append(f"values within {ROUNDED:g} of whole numbers are whole numbers")
    labels = _without_white(dataset, labels, what)
    stored = replace(stored, values=labels)
    return _on_grid_of_image(case, stored, what), what


def _without_white(dataset: DataSet, labels: Array, what: list[str]) -> Array:
    """Return a mask of black and white with the only label of the data set."""
    if dataset.masks != "labels" or len(dataset.labels) != 1:
        return labels
    (label,) = dataset.labels
    values = count_values(labels).keys() - {0}
    if len(values) != 1 or label in values or not values <= set(WHITES):
        return labels
    (white,) = values
    what.append(f"the value {white} is now {label}, the only label")
    return np.where(labels == white, label, 0)


def _on_grid_of_image(case: Case, mask: Stored, what: list[str]) -> Stored:
    """Return a mask with the header of its image if they differ within the tolerance."""
    if mask.geometry is None:
        return mask
    try:
        image = read_stored(case.image)
    except BadFile:  # the check of the copy reports it
        return mask
    apart = displacement_of(mask, image) if image.shape == mask.shape else None
    if apart is None or not SAME_GRID < apart <= APART:
        return mask
    what.append(f"the header has the grid of its image, which was {apart:.2g} voxels away")
    return replace(mask, geometry=image.geometry, spacing=image.spacing)


def _write_picture(path: Path, values: Array, depth: bool) -> None:
    with replacing(path) as temporary:
        if path.suffix.lower() in TIFFS:
            import tifffile

            kind = "minisblack" if depth or values.ndim == 2 else "rgb"
            tifffile.imwrite(temporary, values, photometric=kind, compression="zlib")
        elif values.ndim == 3 and values.dtype == np.uint16:  # Pillow has no such mode
            import imagecodecs

            temporary.write_bytes(imagecodecs.png_encode(values))
        else:
            from PIL import Image

            Image.fromarray(values).save(temporary, format="PNG")
