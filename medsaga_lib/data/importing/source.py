"""The folder or file from which a data set is imported: its files and its JSON documents."""

import json
import os
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from medsaga_lib.data.images import BITMAPS, NUMPY, TIFFS
from medsaga_lib.data.problems import BadFile
from medsaga_lib.data.volumes import DICOM, ITK, NIFTI
from medsaga_lib.errors import UserError
from medsaga_lib.files import file_stem

IMAGES = (*BITMAPS, *TIFFS, *NIFTI, *ITK, *DICOM, *NUMPY)  # endings of files that can be read
SPLIT_WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val",
               "validation": "val", "test": "test", "testing": "test"}  # fmt: skip


class Source:
    """A folder, or one JSON file and the folder of its data set.

    That folder holds the file, or a folder `annotations` with the file.

    root: the absolute path of the folder. files: all of them in the order of their paths, without
    hidden ones. hidden: the number of hidden files, such as the ._ files that macOS writes.
    damaged: the errors of the JSON files that cannot be read, once `documents` is read.

    Raises:
        UserError: there is no such folder or JSON file, or a folder in it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        path = path.expanduser().absolute()
        if path.is_file() and path.suffix.lower() != ".json":
            raise UserError(f"{path} is a file; unpack it and give the folder, or a JSON file.")
        if not path.exists():
            raise UserError(f"{path} does not exist; give the folder of a data set.")
        self.path = path
        self.root = path
        if path.is_file():
            apart = path.parent.name.casefold() == "annotations"
            self.root = path.parent.parent if apart else path.parent
        try:
            every = sorted(_walk(self.root))
        except OSError as error:
            raise UserError(f"{error.filename} cannot be read ({error.strerror}).") from None
        self.files = [file for file in every if not file.name.startswith(".")]
        self.hidden = len(every) - len(self.files)
        self.damaged: list[BadFile] = []

    def relative(self, path: Path) -> PurePath:
        """Return a path below the root as a relative one."""
        return PurePath(os.path.relpath(path, self.root))

    @cached_property
    def documents(self) -> dict[Path, dict[str, Any]]:
        """The JSON files that hold an object; of Labelme's `imageData` only whether it is there."""
        wanted = [self.path] if self.path.is_file() else self.files
        found = {}
        for path in wanted:
            if path.suffix.lower() != ".json":
                continue
            try:
                content = read_json(path)
            except BadFile as error:
                self.damaged.append(error)
                continue
            if isinstance(content, dict):
                if "imageData" in content:
                    content["imageData"] = bool(content["imageData"])
                found[path] = content
        return found

    def documents_with(
        self, is_one: Callable[[dict[str, Any]], bool], what: str, looked_for: str
    ) -> dict[Path, dict[str, Any]]:
        """Return the JSON files of a layout.

        Raises:
            UserError: a JSON file is damaged, or no file is of the layout.
        """
        found = {path: content for path, content in self.documents.items() if is_one(content)}
        if self.damaged:
            raise self.damaged[0]
        if not found:
            raise UserError(f"{self.path} holds no {what}; looked for {looked_for}.")
        return found


def _walk(root: Path) -> Iterator[Path]:
    """Yield all files below a folder; links to folders are followed, but no folder twice."""
    seen = set()
    for folder, names, files in os.walk(root, onerror=_raise, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            names.clear()
            continue
        seen.add(real)
        names[:] = [name for name in names if not name.startswith(".")]
        yield from (Path(folder, file) for file in files)


def _raise(error: OSError) -> None:
    raise error


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        BadFile: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadFile(path, f"cannot be read as JSON ({error})", "export it again.") from None


def is_image(path: Path) -> bool:
    """Return whether a file has an ending that the readers know."""
    return path.name.lower().endswith(IMAGES)


def case_name(relative: PurePath) -> str:
    """Return the name of a case: the path of its image with _ for / and without the ending.

    >>> case_name(PurePath("patient7/a.b.nii.gz"))
    'patient7_a.b'
    """
    return "_".join([*relative.parent.parts, file_stem(Path(relative.name))])


def split_of(name: str) -> str | None:
    """Return the split of a folder's or file's name that is a word for one; else None."""
    return SPLIT_WORDS.get(name.casefold())
