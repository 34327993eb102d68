"""Reports all problems of a data set, file by file, with the messages that training gives."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from medsaga_lib.data.cases import match, read_case, read_case_mask
from medsaga_lib.data.dataset import DESCRIPTION, INDEX, Case, DataSet
from medsaga_lib.data.folder import (
    build_dataset,
    description_problems,
    index_problems,
    names_files,
    read_description,
    read_index,
    train_problems,
)
from medsaga_lib.data.problems import BadFile, Problem

Result = TypeVar("Result")


def check_dataset(path: str | Path) -> list[Problem]:
    """List the problems of a data set; it can be used if the list is empty or holds only notes.

    Training stops at each problem that is not a note, with the same message. A bad file is listed
    here and raises no error.
    """
    root = Path(path).expanduser().absolute()
    if not root.is_dir():
        return [Problem(str(root), "is not a folder", f"give one with {DESCRIPTION} and {INDEX}.")]
    problems: list[Problem] = []
    description = _collect(problems, lambda: read_description(root))
    rows = _collect(problems, lambda: read_index(root))
    if rows is not None:
        problems += index_problems(root, rows)
        problems += train_problems(root, rows)
    if description is None:
        return problems
    faults = list(description_problems(root, description))
    problems += faults
    if rows is not None and all(fault.note for fault in faults):
        dataset = build_dataset(root, description, [row for row in rows if names_files(row)])
        for case in dataset.cases:
            problems += case_problems(dataset, case)
    return problems


def case_problems(dataset: DataSet, case: Case) -> list[Problem]:
    """List the problems of the image and the mask of one case."""
    problems: list[Problem] = []
    picture = _collect(problems, lambda: read_case(dataset, case))
    if case.mask is None:
        what = f"case '{case.name}' has no mask"
        remedy = "training and scoring skip it; name a mask in index.csv to use it."
        return [*problems, Problem(str(case.image), what, remedy, note=True)]
    mask = _collect(problems, lambda: read_case_mask(case))
    if picture is not None and mask is not None:
        _collect(problems, lambda: match(dataset, picture, mask))
    return problems


def _collect(problems: list[Problem], read: Callable[[], Result]) -> Result | None:
    try:
        return read()
    except BadFile as error:
        problems.append(error.problem)
        return None
