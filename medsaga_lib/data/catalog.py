"""Finds data sets by path or by name: the phantoms and all folders below $MEDSAGA_DATA."""

import os
from dataclasses import dataclass
from pathlib import Path

from medsaga_lib.data.dataset import DESCRIPTION, INDEX, DataSet
from medsaga_lib.data.folder import (
    build_dataset,
    description_problems,
    index_problems,
    read_description,
    read_index,
)
from medsaga_lib.data.phantoms import LICENCE, MODALITY, PHANTOMS, PICTURES, write_once
from medsaga_lib.data.problems import BadFile
from medsaga_lib.display.real_cells import skip_real_cells
from medsaga_lib.errors import UserError

DATA_VARIABLE = "MEDSAGA_DATA"


def open_dataset(path_or_name: str | Path) -> DataSet:
    """Open a data set by its folder, its name below $MEDSAGA_DATA, or the name `phantom_cxr`.

    Raises:
        UserError: no such data set is found, or its description or index is wrong.
    """
    root = find_dataset(path_or_name)
    description = read_description(root)
    rows = read_index(root)
    for problem in (*description_problems(root, description), *index_problems(root, rows)):
        if not problem.note:
            raise BadFile(problem.file, problem.what, problem.remedy)
    return build_dataset(root, description, rows)


def open_or_phantoms(name: str) -> DataSet:
    """Open the data set `name` if $MEDSAGA_DATA is set, and the phantoms if it is not set.

    If $MEDSAGA_DATA is set, the phantoms never replace a missing data set. In a notebook with the
    phantoms, the cells that need real images are skipped from now on (`display.real_cells`).

    Raises:
        UserError: $MEDSAGA_DATA is set, but no folder below it has this name.
    """
    drawn = data_root() is None
    skip_real_cells(drawn)
    return open_dataset(PHANTOMS if drawn else name)


def find_dataset(path_or_name: str | Path) -> Path:
    """Return the absolute folder of a data set given by path or by name; see `open_dataset`."""
    path = Path(path_or_name).expanduser().absolute()
    if path.is_dir():
        return path
    name, tried = str(path_or_name), f"'{path}'"
    if Path(name).name == name:
        root = data_root()
        if root is not None and (root / name).is_dir():
            return root / name
        if name == PHANTOMS:
            return write_once()
        tried += f" or ${DATA_VARIABLE} ({root or 'not set'})"
    raise UserError(
        f"No data set '{name}' in {tried}; give a folder with {DESCRIPTION} and {INDEX} or "
        f"'{PHANTOMS}', or make the folder with `medsaga data fetch` or `medsaga data import`."
    )


def data_root() -> Path | None:
    """Return the absolute path of the folder $MEDSAGA_DATA, or None if the variable is not set.

    Raises:
        UserError: the variable is set, but the folder does not exist.
    """
    value = os.environ.get(DATA_VARIABLE, "")
    if not value:
        return None
    root = Path(value).expanduser().absolute()
    if not root.is_dir():
        raise UserError(f"${DATA_VARIABLE} is not a folder: '{root}'; correct it or unset it.")
    return root


@dataclass(frozen=True)
class Entry:
    """One data set; if it cannot be opened, `fault` says why and `cases` is 0."""

    name: str
    modality: str = ""
    cases: int = 0
    licence: str = ""
    place: str = ""
    fault: str = ""


def catalog() -> tuple[Entry, ...]:
    """List the phantoms and all folders below $MEDSAGA_DATA that have a description.

    Raises:
        UserError: $MEDSAGA_DATA is set, but the folder does not exist.
    """
    phantoms = Entry(PHANTOMS, MODALITY, PICTURES, LICENCE, "drawn at the first use")
    root = data_root()
    if root is None:
        return (phantoms,)
    folders = sorted(path.parent for path in root.glob(f"*/{DESCRIPTION}"))
    return (phantoms, *(_entry(folder) for folder in folders))


def _entry(folder: Path) -> Entry:
    place = str(folder)
    try:
        dataset = open_dataset(folder)
    except UserError as error:
        return Entry(folder.name, place=place, fault=str(error))
    return Entry(folder.name, dataset.modality, len(dataset.cases), dataset.licence, place)
