"""The data sets that can be opened by name, for `medsaga data list`."""

from dataclasses import dataclass
from pathlib import Path

from medsaga_lib.data.folder import DESCRIPTION, PHANTOMS, data_root, open_dataset
from medsaga_lib.data.phantoms import LICENCE, MODALITY, PICTURES
from medsaga_lib.errors import UserError


@dataclass(frozen=True)
class Entry:
    """One data set; where its folder cannot be opened, `fault` says why and `cases` is 0."""

    name: str
    modality: str = ""
    cases: int = 0
    licence: str = ""
    place: str = ""
    fault: str = ""


def catalog() -> tuple[Entry, ...]:
    """The phantoms, and every folder below $MEDSAGA_DATA that has a description.

    Raises:
        UserError: $MEDSAGA_DATA is set and there is no such folder.
    """
    phantoms = Entry(PHANTOMS, MODALITY, PICTURES, LICENCE, "drawn when first opened")
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
