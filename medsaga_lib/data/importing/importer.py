"""Finds the layout, labels, patients and splits of a data set, and writes its folder."""

import csv
import filecmp
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from medsaga_lib.data.dataset import DESCRIPTION, INDEX, LABEL_LIST, MODALITIES
from medsaga_lib.data.folder import description_problems, index_problems, known_modality
from medsaga_lib.data.images import Window, read_stored
from medsaga_lib.data.importing import arrays, coco, decathlon, folders, labelme, nnunet
from medsaga_lib.data.importing.assign import Shares, patients_of, splits_of
from medsaga_lib.data.importing.found import Channel, Copied, Found, Item, Options, Place
from medsaga_lib.data.importing.labels import labels_of
from medsaga_lib.data.importing.source import Source, case_name
from medsaga_lib.data.problems import BadFile, listed
from medsaga_lib.errors import UserError
from medsaga_lib.files import working_folder

PROVENANCE = "SOURCE.md"
AUTO = "auto"


class Layout(NamedTuple):
    """A layout of other tools, with the sentence that says what is looked for."""

    recognises: Callable[[Source], bool]
    find: Callable[[Source, Options], Found]
    looked_for: str


LAYOUTS = {
    "nnunet": Layout(nnunet.recognises, nnunet.find, nnunet.LOOKED_FOR),
    "msd": Layout(decathlon.recognises, decathlon.find, decathlon.LOOKED_FOR),
    "cvpr24": Layout(arrays.recognises_npz, arrays.find_npz, arrays.NPZ_LOOKED_FOR),
    "medsam-npy": Layout(arrays.recognises_npy, arrays.find_npy, arrays.NPY_LOOKED_FOR),
    "coco": Layout(coco.recognises, coco.find, coco.LOOKED_FOR),
    "labelme": Layout(labelme.recognises, labelme.find, labelme.LOOKED_FOR),
    "folders": Layout(folders.recognises, folders.find, folders.LOOKED_FOR),
}


@dataclass(frozen=True)
class Request:
    """Options of an import, besides its source and its result.

    layout: a key of `LAYOUTS`, or "auto". modality: empty if the source gives it. window: the
    stored values that become black and white; None if the files need no window. patient: a regular
    expression. patients: a CSV file with the columns case and patient. link: hard links instead of
    copies.
    """

    layout: str = AUTO
    modality: str = ""
    window: Window | None = None
    patient: str | None = None
    patients: Path | None = None
    shares: Shares = field(default_factory=Shares)
    options: Options = field(default_factory=Options)
    link: bool = False


class Imported(NamedTuple):
    """An import: its layout, its notes, and whether the folder already had the same files."""

    layout: str
    notes: list[str]
    unchanged: bool


def import_dataset(source: Path, out: Path, request: Request) -> Imported:
    """Write the data set of another layout as a folder of the project's format.

    Images stay as they are. The folder appears when it is complete, and nothing is overwritten: if
    it exists, its files are compared with those that would be written.

    Raises:
        UserError: the source cannot be understood or obeyed, or the folder has other files.
    """
    given, out = Source(source), out.expanduser().absolute()
    name = _layout(given, request.layout)
    return write_dataset(given, LAYOUTS[name].find(given, request.options), out, request, name)


def write_dataset(
    given: Source,
    found: Found,
    out: Path,
    request: Request,
    name: str,
    finish: Callable[[Path, list[str]], None] | None = None,
) -> Imported:
    """Write a data set that was found in a source as a folder; see `import_dataset`.

    Args:
        name: the layout.
        finish: called with the complete folder and the notes before the folder gets its name; it
            may add files.

    Raises:
        UserError: as in `import_dataset`.
    """
    _require_apart(given, out)
    items = _with_unique_names(given, found.items)
    found = replace(found, items=items)
    labels, notes = ({}, []) if found.label_list else labels_of(found, request.options)
    patients, rule = patients_of(items, request.patient, request.patients)
    splits, of_splits = splits_of(items, patients, request.shares)
    notes = [*found.notes, *notes, f"patients: {len(set(patients.values()))}, {rule}", *of_splits]
    if given.hidden:
        notes.append(f"{given.hidden} hidden files were left out, such as those with ._ of macOS")
    description = {
        "name": found.name or given.root.name,
        "modality": _modality(found, request.modality, notes),
        "dimensions": _dimensions(items),
        "masks": "instances" if request.options.instances else "labels",
        "window": list(request.window or found.window or ()),
        "licence": found.licence,
        "citation": found.citation,
        "labels": {str(value): label for value, label in labels.items()},
        "colours": {str(label): list(colour) for colour, label in request.options.colours},
    }
    description = {key: value for key, value in description.items() if value not in ("", {}, [])}
    exists = out.exists() and not (out.is_dir() and not any(out.iterdir()))
    with _draft(given, out, request.link) as draft:
        place = _symlink if exists else _link if request.link else _copy
        rows = _write_files(items, draft, place, patients, splits)
        if found.label_list:
            text = json.dumps(found.label_list, indent=1, ensure_ascii=False) + "\n"
            (draft / LABEL_LIST).write_text(text, encoding="utf-8")
        _require_valid(given, draft, description, rows)
        notes += [f"{what}: {count:,}" for what, count in found.counted.items() if count]
        _write_index(draft / INDEX, rows)
        (draft / DESCRIPTION).write_text(toml(description), encoding="utf-8")
        text = _provenance(given, name, notes)
        (draft / PROVENANCE).write_text(text, encoding="utf-8")
        if finish is not None:
            finish(draft, notes)
        if exists:
            _require_same(draft, out)
        else:
            draft.rename(out)
    return Imported(name, notes, unchanged=exists)


def _require_apart(source: Source, out: Path) -> None:
    root, target = source.root.resolve(), out.resolve()
    if root == target or root in target.parents or target in root.parents:
        raise UserError(f"{out} and the source {root} contain each other; choose another OUT.")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; choose another OUT.")


def _layout(source: Source, asked: str) -> str:
    if all((source.root / name).is_file() for name in (DESCRIPTION, INDEX)):
        raise UserError(f"{source.root} has the project's format already; use it as it is.")
    if asked != AUTO:
        return asked
    matching = [name for name, layout in LAYOUTS.items() if layout.recognises(source)]
    if {"cvpr24", "medsam-npy"} & set(matching) and "folders" in matching:
        matching.remove("folders")  # imgs and gts are names of folders too
    if len(matching) > 1:
        raise UserError(
            f"{source.path} may have the layouts {listed(matching)}; choose one with --format."
        )
    if not matching:
        sought = "; ".join(f"{name}: {layout.looked_for}" for name, layout in LAYOUTS.items())
        damaged = f" ({source.damaged[0]})" if source.damaged else ""
        raise UserError(f"{source.path} has no known layout{damaged}; looked for {sought}.")
    return matching[0]


def _with_unique_names(source: Source, items: list[Item]) -> list[Item]:
    """Return the items; those whose names are not unique are named by their whole path.

    Raises:
        UserError: two names are still the same.
    """
    counts = Counter(item.name for item in items)
    items = [
        replace(item, name=case_name(item.source)) if counts[item.name] > 1 else item
        for item in items
    ]
    seen: dict[str, Item] = {}
    for item in items:
        if (other := seen.setdefault(item.name, item)) is not item:
            raise UserError(
                f"{source.path}: {other.source} and {item.source} give the same case "
                f"'{item.name}'; rename one of them."
            )
    return items


def _modality(found: Found, asked: str, notes: list[str]) -> str:
    if asked:
        if (meant := known_modality(asked)) is None:
            raise UserError(f"--modality {asked} is not known; give one of {listed(MODALITIES)}.")
        return meant
    for words in found.modality.splitlines():
        if meant := known_modality(words):
            notes.append(f"modality: {meant}, as the source says")
            return meant
    raise UserError(
        f"The source does not give one modality; add --modality, one of {listed(MODALITIES)}."
    )


def _dimensions(items: list[Item]) -> int:
    """Return 2 or 3, as the first image has that can be read; the check finds those that differ."""
    errors = []
    for item in items:
        if isinstance(item.image, Channel):
            return 3
        if not isinstance(item.image, Copied):
            return 2
        try:
            return len(read_stored(item.image.path).shape)
        except BadFile as error:
            errors.append(error)
    raise errors[0] if errors else UserError("The source lists no images; give another folder.")


@contextmanager
def _draft(source: Source, out: Path, link: bool) -> Iterator[Path]:
    """Yield an empty folder beside the result, and remove what is left of it."""
    try:
        with working_folder(out) as folder:
            draft = folder / out.name  # with the usual permissions, unlike `folder`
            for name in ("images", "masks"):
                (draft / name).mkdir(parents=True)
            yield draft
    except OSError as error:
        other = ", or omit --link" if link else ""
        raise UserError(
            f"Cannot import {source.path} to {out}: {error.strerror or error} "
            f"({error.filename or out}); free some space or choose another OUT{other}."
        ) from error


# What a link of the source points to is copied or linked, and not that link
def _copy(path: Path, target: Path) -> None:
    shutil.copyfile(path, target)


def _link(path: Path, target: Path) -> None:
    os.link(path.resolve(), target)


def _symlink(path: Path, target: Path) -> None:
    target.symlink_to(path.resolve())


def _write_files(
    items: list[Item],
    draft: Path,
    place: Place,
    patients: dict[str, str],
    splits: dict[str, str],
) -> list[dict[str, str]]:
    """Write images and masks; return the rows of the index."""
    rows = []
    for item in items:
        paths = {}
        for column, content in (("image", item.image), ("mask", item.mask)):
            target = draft / f"{column}s" / item.name
            path = None if content is None else content.write(target, place)
            paths[column] = "" if path is None else path.relative_to(draft).as_posix()
        row = {"case": item.name, **paths, "patient": patients[item.name]}
        row |= {**item.columns, "split": splits[item.name], "source": item.source.as_posix()}
        rows.append(row)
    return rows


def _require_valid(
    source: Source, draft: Path, description: dict[str, Any], rows: list[dict[str, str]]
) -> None:
    for problem in (*description_problems(draft, description), *index_problems(draft, rows)):
        if not problem.note:
            raise UserError(f"Cannot import {source.path}: {problem.what}; {problem.remedy}")


def _write_index(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def toml(description: dict[str, Any]) -> str:
    """Return texts, numbers, lists and tables of them as TOML, the tables at the end."""
    plain = {key: value for key, value in description.items() if not isinstance(value, dict)}
    lines = [f"{key} = {_toml_value(value)}" for key, value in plain.items()]
    for key in description.keys() - plain.keys():
        lines += ["", f"[{key}]"]
        lines += [f"{name} = {_toml_value(value)}" for name, value in description[key].items()]
    return "\n".join(lines) + "\n"


def _toml_value(value: str | int | list[float]) -> str:
    # the escapes of JSON are those of TOML, which also wants one for DEL
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _provenance(source: Source, layout: str, notes: list[str]) -> str:
    lines = [f"# Imported from {source.path.name}", "", f"Layout: {layout}.", ""]
    return "\n".join([*lines, *(f"- {note}." for note in notes)]) + "\n"


def _require_same(draft: Path, out: Path) -> None:
    """Raise UserError if a file of the draft is missing in the folder or differs there."""
    for file in sorted(path for path in draft.rglob("*") if path.is_file()):
        other = out / file.relative_to(draft)
        if not (other.is_file() and filecmp.cmp(file, other, shallow=False)):
            raise UserError(
                f"{out} exists, and its {file.relative_to(draft)} is not that of this import; "
                "choose another OUT (nothing was changed)."
            )
