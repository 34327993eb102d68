"""Explains what is wrong with a data set's folder, file by file, in the sentences of training."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from medsaga_lib.data.folder import (
    DESCRIPTION,
    INDEX,
    Case,
    DataSet,
    build_dataset,
    description_problems,
    index_problems,
    names_files,
    read_description,
    read_index,
    train_problems,
)
from medsaga_lib.data.images import match, read_case, read_case_mask
from medsaga_lib.data.problems import BadFile, Problem

Result = TypeVar("Result")


def check_dataset(path: str | Path) -> list[Problem]:
    """Everything that is wrong with a folder; nothing, or only notes, means that it can be used.

    Whatever is found here ends training with the same sentence. No bad file raises.
    """
    root = Path(path).expanduser().absolute()
    if not root.is_dir():
        return [Problem(str(root), "is no folder", f"give one with {DESCRIPTION} and {INDEX}.")]
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
    """What is wrong with the image and the mask of one case."""
    problems: list[Problem] = []
    picture = _collect(problems, lambda: read_case(dataset, case))
    if case.mask is None:
        what = f"case '{case.name}' has no mask"
        remedy = "it is not trained on nor scored; name one in index.csv to use it."
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
