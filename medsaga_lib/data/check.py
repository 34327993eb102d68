"""Reports all problems of a data set, file by file, with the messages that training gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from medsaga_lib.data.cases import as_declared, match, read_case_mask
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
from medsaga_lib.data.images import read_stored
from medsaga_lib.data.problems import BadFile, Problem

Result = TypeVar("Result")


class Report(NamedTuple):
    """The problems of a data set, and a summary of its files; None if they could not be read."""

    problems: list[Problem]
    summary: dict[str, Any] | None


def check_dataset(path: str | Path) -> list[Problem]:
    """List the problems of a data set; it can be used if the list is empty or holds only notes.

    Training stops at each problem that is not a note, with the same message. A bad file is listed
    here and raises no error.
    """
    return report(path).problems


def report(path: str | Path) -> Report:
    """Check a data set as in `check_dataset`, and summarise its files."""
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
    facts: list[Facts] = []
    for case in dataset.cases:
        problems += case_problems(dataset, case, facts)
    return Report([*problems, *notes(dataset, facts)], summary(dataset, facts))


def case_problems(dataset: DataSet, case: Case, facts: list[Facts]) -> list[Problem]:
    """List the problems of the image and the mask of one case, and append its facts."""
    problems: list[Problem] = []
    stored = _collect(problems, lambda: read_stored(case.image))
    picture = None
    if stored is not None:
        picture = _collect(problems, lambda: as_declared(dataset, stored))
    labels = None
    if case.mask is None:
        what = f"case '{case.name}' has no mask"
        remedy = "training and scoring skip it; name a mask in index.csv to use it."
        problems.append(Problem(str(case.image), what, remedy, note=True))
    else:
        mask = _collect(problems, lambda: read_case_mask(dataset, case, stored))
        problems += mask.notes if mask is not None else ()
        if picture is not None and mask is not None:
            labels = _collect(problems, lambda: match(dataset, picture, mask))
    if stored is not None and picture is not None:
        facts.append(facts_of(case, stored, labels))
    return problems


def _collect(problems: list[Problem], read: Callable[[], Result]) -> Result | None:
    try:
        return read()
    except BadFile as error:
        problems.append(error.problem)
        return None
