"""Reports all problems of a data set, file by file, with the messages that training gives."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from medsaga_lib.data.cases import as_declared, displacement_of, match, read_case_mask
from medsaga_lib.data.dataset import DESCRIPTION, INDEX, Case, DataSet
from medsaga_lib.data.facts import Facts, facts_of, notes, summary
from medsaga_lib.data.folder import (
    build_dataset,
    description_problems,
    index_problems,
    names_files,
    read_description,
    read_index,
    train_problems,
)
from medsaga_lib.data.images import Picture, Stored, read_stored, scale
from medsaga_lib.data.parallel import cores, for_each
from medsaga_lib.data.problems import BadFile, Problem
from medsaga_lib.data.thumbnails import Thumbnail, thumbnail

Result = TypeVar("Result")

PICTURES = 2000  # our choice: a page with more thumbnails than this (20 MB) opens slowly
# Our choice: files of fewer bytes are read sooner here than new processes start, which takes 2 s
WORTH_PROCESSES = 24 * 2**20


class Checked(NamedTuple):
    """The problems of one case; facts if its image can be used; a thumbnail if it was asked for."""

    case: Case
    problems: list[Problem]
    facts: Facts | None
    thumbnail: Thumbnail | None


class Report(NamedTuple):
    """The problems of a data set, and a summary of its files; None if they could not be read.

    dataset, cases: empty if `dataset.toml` or `index.csv` cannot be used.
    """

    problems: list[Problem]
    summary: dict[str, Any] | None
    dataset: DataSet | None = None
    cases: tuple[Checked, ...] = ()


def check_dataset(path: str | Path) -> list[Problem]:
    """List the problems of a data set; it can be used if the list is empty or holds only notes.

    Training stops at each problem that is not a note, with the same message. A bad file is listed
    here and raises no error.
    """
    return report(path).problems


def report(path: str | Path, pictures: bool = False, processes: int | None = 1) -> Report:
    """Check a data set as in `check_dataset`, and summarise its files.

    Each file is read once, and each process holds one case at a time.

    Args:
        path: folder of the data set.
        pictures: draw thumbnails; above `PICTURES` cases, of those with a problem and of a sample.
        processes: processes that read files, see `for_each`; None: as many as are useful.

    Raises:
        UserError: the system ended one of the processes.
    """
    root = Path(path).expanduser().absolute()
    if not root.is_dir():
        what = "is not a folder"
        return Report([Problem(str(root), what, f"give one with {DESCRIPTION} and {INDEX}.")], None)
    problems: list[Problem] = []
    description = _collect(problems, lambda: read_description(root))
    rows = _collect(problems, lambda: read_index(root))
    if rows is not None:
        problems += index_problems(root, rows)
        problems += train_problems(root, rows)
    if description is None:
        return Report(problems, None)
    faults = list(description_problems(root, description))
    problems += faults
    if rows is None or not all(fault.note for fault in faults):
        return Report(problems, None)
    dataset = build_dataset(root, description, [row for row in rows if names_files(row)])
    processes = processes or useful_processes(dataset)
    colours = label_colours(dataset) if pictures else None
    check = partial(_check_case, replace(dataset, cases=()), colours)
    step = -(-len(dataset.cases) // PICTURES)
    wanted = [(case, number % step == 0) for number, case in enumerate(dataset.cases)]
    cases = tuple(for_each(check, wanted, processes))
    problems += [problem for one in cases for problem in one.problems]
    facts = [one.facts for one in cases if one.facts is not None]
    problems += notes(dataset, facts)
    return Report(problems, summary(dataset, facts), dataset, cases)


def label_colours(dataset: DataSet) -> dict[int, str]:
    """Return the colour of each label, different ones while there are enough colours.

    The colour of 0 is for all other values: instances, and values that are no label.
    """
    from medsaga_lib.display.style import GREY, colour, distinct_colours

    if dataset.masks == "instances" or not dataset.labels:
        return {0: colour(dataset.labels.get(1, "object"))}
    names = dataset.labels
    return {0: GREY} | dict(zip(names, distinct_colours(list(names.values())), strict=True))


def useful_processes(dataset: DataSet) -> int:
    """Return the number of processes that read a data set in the shortest time."""
    paths = {path for case in dataset.cases for path in (case.image, case.mask) if path}
    return cores() if sum(map(_size, paths)) > WORTH_PROCESSES else 1


def _size(path: Path) -> int:
    """Return the bytes of a file, or of the files in a folder; 0 if there are none to read."""
    try:
        return sum(map(_size, path.iterdir())) if path.is_dir() else path.stat().st_size
    except OSError:  # the reader says what is wrong
        return 0


def _check_case(
    dataset: DataSet, colours: Mapping[int, str] | None, wanted: tuple[Case, bool]
) -> Checked:
    """Check the image and the mask of one case; draw it if it has a problem, or if `wanted`."""
    case, draw = wanted
    problems: list[Problem] = []
    stored = _collect(problems, lambda: read_stored(case.image))
    picture = mask = labels = apart = numbers = None
    if stored is not None:
        picture = _collect(problems, lambda: as_declared(dataset, stored))
    if case.mask is None:
        what = f"case '{case.name}' has no mask"
        remedy = "training and scoring skip it; name a mask in index.csv to use it."
        problems.append(Problem(str(case.image), what, remedy, note=True))
    else:
        mask = _collect(problems, lambda: read_case_mask(dataset, case, stored))
        problems += mask.notes if mask is not None else ()
        if picture is not None and mask is not None:
            labels = _collect(problems, lambda: match(dataset, picture, mask))
    facts = None
    if stored is not None and picture is not None:
        if labels is not None and mask is not None:
            apart = displacement_of(mask, picture)
            numbers = mask.values if dataset.masks == "instances" else None
        facts = facts_of(case, stored, labels, apart, numbers)
    drawn = None
    if colours is not None and stored is not None and (draw or not all(p.note for p in problems)):
        drawn = _draw(stored, picture, mask, colours)
    return Checked(case, problems, facts, drawn)


def _draw(
    stored: Stored, picture: Picture | None, mask: Stored | None, colours: Mapping[int, str]
) -> Thumbnail:
    """Draw a case, with the contours of its mask if it has the image's size.

    An image that has a problem is shown from its smallest to its largest value.
    """
    if picture is None:
        finite = np.isfinite(stored.values)
        ends = stored.values[finite] if finite.any() else np.zeros(1)
        low, high = float(ends.min()), float(ends.max())
        picture = Picture(scale(np.where(finite, stored.values, low), low, high), stored.spacing)
    labels = None
    if mask is not None and mask.values.shape == picture.shape:
        labels = mask.values
    return thumbnail(picture.pixels, picture.spacing, labels, colours)


def _collect(problems: list[Problem], read: Callable[[], Result]) -> Result | None:
    try:
        return read()
    except BadFile as error:
        problems.append(error.problem)
        return None
