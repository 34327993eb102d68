"""Repairs `dataset.toml` and `index.csv` where no decision is needed; see `data.repair`."""

import csv
import io
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

from medsaga_lib.data.dataset import DESCRIPTION, INDEX, MODALITIES, SPLITS, Case, Masks
from medsaga_lib.data.facts import written_differently
from medsaga_lib.data.folder import COLUMNS, escapes, inside_folder, known_modality
from medsaga_lib.data.problems import listed
from medsaga_lib.errors import counted

KEYS = {"license": "licence", "colors": "colours"}  # American English
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}  # as spreadsheets write them
SPLIT_WORDS = {
    "train": ("train", "training", "tr"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "ts"),
}
# `key = value` on one line; the value is a string, a number or a word
LINE = (
    r"(?m)^(?P<key>[ \t]*{key}[ \t]*=[ \t]*)(\"[^\"\n]*\"|'[^'\n]*'|[^\s#\[{{]+)(?=[ \t]*(#.*)?$)"
)


class Change(NamedTuple):
    """A change of one file of the copy, named by its path inside the folder."""

    file: str
    what: str


def repaired_description(text: str) -> tuple[str, list[Change]]:
    """Return `dataset.toml` with its mechanical repairs, and the changes; comments stay."""
    changes: list[Change] = []
    for edit in (_rename_keys, _correct_modality, _correct_dimensions, _correct_masks):
        for what, changed, meant in edit(text, tomllib.loads(text)):
            try:
                found = tomllib.loads(changed)
            except tomllib.TOMLDecodeError:
                continue
            if found == meant:  # the text is edited line by line, so its meaning is checked
                text = changed
                changes.append(Change(DESCRIPTION, what))
    return text, changes


Edits = Iterator[tuple[str, str, dict[str, Any]]]  # what is changed, the text, its meaning


def _rename_keys(text: str, found: dict[str, Any]) -> Edits:
    for old, new in KEYS.items():
        if old in found and new not in found:
            pattern = rf"(?m)^([ \t]*\[?[ \t]*){old}(?=[ \t]*[=\]])"
            text, found = re.sub(pattern, rf"\g<1>{new}", text, count=1), dict(found)
            found[new] = found.pop(old)
            yield f"the key '{old}' is now '{new}'", text, found


def _correct_modality(text: str, found: dict[str, Any]) -> Edits:
    word = found.get("modality")
    if isinstance(word, str) and word not in MODALITIES and (meant := known_modality(word)):
        yield _set(text, found, "modality", meant)


def _correct_dimensions(text: str, found: dict[str, Any]) -> Edits:
    number = found.get("dimensions")
    if isinstance(number, str | float) and str(number).strip() in ("2", "3", "2.0", "3.0"):
        yield _set(text, found, "dimensions", int(float(number)))


def _correct_masks(text: str, found: dict[str, Any]) -> Edits:
    word = found.get("masks")
    if isinstance(word, str) and word not in get_args(Masks):
        plain = word.strip().casefold()
        if plain in get_args(Masks):
            yield _set(text, found, "masks", plain)


def _set(
    text: str, found: dict[str, Any], key: str, value: str | int
) -> tuple[str, str, dict[str, Any]]:
    written = f'"{value}"' if isinstance(value, str) else str(value)
    changed = re.sub(LINE.format(key=key), rf"\g<key>{written}", text, count=1)
    return f"{key} is now {written}, and was {found[key]!r}", changed, {**found, key: value}


class Index:
    """The table of `index.csv` with all its columns, and the changes that repair it."""

    def __init__(self, root: Path, text: str) -> None:
        """Parse the text of the file; `root` is the folder whose files it names."""
        self.root = root
        self.changes: list[Change] = []
        separator, self.columns, rows = _parse(text)
        if separator != ",":
            self._say("the values are separated by commas, and were by " + SEPARATORS[separator])
        if (plain := [_plain_column(column) for column in self.columns]) != self.columns:
            self._say("the names of the columns are lower case and have no blanks around them")
            self.columns = plain
        self.rows = [row for row in rows if any(cell.strip() for cell in row)]
        if dropped := sum(bool(row) for row in rows) - len(self.rows):
            self._say(f"rows without any value are removed ({dropped})")

    @property
    def complete(self) -> bool:
        """Whether all needed columns are there."""
        return set(COLUMNS) <= set(self.columns)

    def repair(self, of_original: Path) -> None:
        """Make the mechanical repairs; `of_original` is the folder that was copied to `root`."""
        width = len(self.columns)
        self.rows = [row + [""] * (width - len(row)) for row in self.rows]
        self._map(self.columns, str.strip, "blanks around values are removed")
        for column in ("image", "mask"):
            plain = partial(_plain_path, of_original)
            self._map([column], plain, f"paths of {column}s are relative, with / between parts")
            self._each(column, self._spelled_as_on_disk, "the {column} '{old}' is now '{new}'")
        self._each("split", _split_meant, "the split '{old}' is now '{new}'")
        self._drop_repeated()
        self._unite_patients()

    def rename(self, new_names: dict[str, str]) -> None:
        """Replace paths of images and masks; whoever renames a file reports it."""
        for column in ("image", "mask"):
            place = self.columns.index(column)
            for row in self.rows:
                row[place] = new_names.get(row[place], row[place])

    def records(self) -> list[dict[str, str]]:
        """Return the rows as `folder.read_index` does."""
        return [dict(zip(self.columns, row, strict=False)) for row in self.rows]

    def text(self) -> str:
        """Return the content of the repaired file."""
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows([self.columns, *self.rows])
        return file.getvalue()

    def _say(self, what: str) -> None:
        self.changes.append(Change(INDEX, what))

    def _map(self, columns: list[str], change: Callable[[str], str], what: str) -> None:
        """Change the cells of some columns, and report how many rows differ."""
        places = [self.columns.index(column) for column in columns]
        count = 0
        for row in self.rows:
            before = list(row)
            for place in places:
                row[place] = change(row[place])
            count += row != before
        if count:
            self._say(f"{what} ({counted(count, 'row')})")

    def _each(self, column: str, change: Callable[[str], str], what: str) -> None:
        """Change the cells of one column, and report each value that differs."""
        place = self.columns.index(column)
        counts: Counter[tuple[str, str]] = Counter()
        for row in self.rows:
            old = row[place]
            row[place] = new = change(old)
            counts[old, new] += old != new
        for (old, new), count in counts.items():
            if count:
                self._say(
                    f"{what.format(column=column, old=old, new=new)} ({counted(count, 'row')})"
                )

    def _spelled_as_on_disk(self, path: str) -> str:
        """Return the only path in the folder that differs in upper and lower case alone."""
        if path in self._files:
            return path
        found = self._by_plain_name[path.casefold()]
        return found[0] if len(found) == 1 else path

    @cached_property
    def _files(self) -> frozenset[str]:
        paths = (file.relative_to(self.root).as_posix() for file in self.root.rglob("*"))
        return frozenset(paths)

    @cached_property
    def _by_plain_name(self) -> defaultdict[str, list[str]]:
        names: defaultdict[str, list[str]] = defaultdict(list)
        for file in sorted(self._files):
            names[file.casefold()].append(file)
        return names

    def _drop_repeated(self) -> None:
        once = list(map(list, dict.fromkeys(map(tuple, self.rows))))
        if dropped := len(self.rows) - len(once):
            self._say(f"repeated rows are removed ({dropped})")
            self.rows = once

    def _unite_patients(self) -> None:
        """Write a patient in one way, the most frequent or else the first one."""
        if "patient" not in self.columns:
            return
        place, split = self.columns.index("patient"), self.columns.index("split")
        named = [row for row in self.rows if row[place]]
        counts = Counter(row[place] for row in named)
        cases = [Case("", row[place], Path(), None, row[split]) for row in named]
        for names in written_differently(cases):
            kept = max(names, key=lambda name: counts[name])
            for row in named:
                if row[place] in names:
                    row[place] = kept
            others = listed(f"'{name}'" for name in names if name != kept)
            what = f"the patient {others} is now '{kept}'"
            splits = sorted(set.union(*names.values()))
            if len(splits) > 1:
                what += f"; its images are in the splits {listed(splits)}: choose one of them"
            self._say(what)


def _parse(text: str) -> tuple[str, list[str], list[list[str]]]:
    """Return the separator, the columns and the rows of CSV text."""
    tables = {}
    for separator in SEPARATORS:
        header, *rows = list(csv.reader(io.StringIO(text), delimiter=separator)) or [[]]
        tables[separator] = header, rows
    for separator, (header, rows) in tables.items():
        if set(COLUMNS) <= {_plain_column(column) for column in header}:
            return separator, header, rows
    return ",", *tables[","]


def _plain_path(root: Path, path: str) -> str:
    """Return a path relative to the folder `root`; one that leaves it stays as it is."""
    plain = inside_folder(root, path)
    return path if escapes(plain) else plain


def _plain_column(column: str) -> str:
    """Return the name of a known column without blanks and capitals; other names stay."""
    plain = column.strip().casefold()
    return plain if plain in (*COLUMNS, "patient") else column


def _split_meant(word: str) -> str:
    plain = word.casefold()
    return next((split for split in SPLITS if plain in SPLIT_WORDS[split]), word)
