"""The label values of an imported data set and their names."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from medsaga_lib.data.folder import LARGEST_LABEL
from medsaga_lib.data.images import Colours, read_labels, read_stored
from medsaga_lib.data.importing.found import Copied, Found, LabelMap, Options
from medsaga_lib.data.problems import BadFile, listed
from medsaga_lib.errors import UserError

BRIGHTEST = 255  # level of a colour of 8 bits
BACKGROUND = "background"
SHOWN = 5  # our choice: a message names at most this many files
MOST_VALUES = 255  # our choice: masks with more values hold ids of objects, not labels


def parse_labels(texts: Iterable[str]) -> dict[int, str]:
    """Return the labels of texts such as "1=liver" or "1=liver,2=spleen".

    Raises:
        UserError: a text has another form, or a value or a name occurs twice.
    """
    labels: dict[int, str] = {}
    for text in (part for given in texts for part in given.split(",")):
        value, _, name = (part.strip() for part in text.partition("="))
        if not (value.isascii() and value.isdigit() and 0 < int(value) <= LARGEST_LABEL and name):
            raise UserError(
                f"--labels {text} is not VALUE=NAME with a value from 1 to {LARGEST_LABEL}; write "
                "it as in --labels 1=liver,2=spleen."
            )
        if int(value) in labels or name in labels.values():
            raise UserError(f"--labels gives {value} or '{name}' twice; give each label once.")
        labels[int(value)] = name
    return labels


def parse_colours(texts: Iterable[str]) -> tuple[dict[int, str], Colours]:
    """Return labels and colours of texts such as "255,0,0=liver"; the labels are 1, 2, 3 ...

    The name "background" gives the label 0, which black has if no colour is named so.

    Raises:
        UserError: a text has another form, or a colour or a name occurs twice.
    """
    labels: dict[int, str] = {}
    colours: dict[tuple[int, int, int], int] = {}
    for text in texts:
        found = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*=\s*(\S.*?)\s*", text, re.ASCII)
        if not found or max(int(level) for level in found.groups()[:3]) > BRIGHTEST:
            raise UserError(
                f"--colours {text} is not RED,GREEN,BLUE=NAME with levels from 0 to {BRIGHTEST}; "
                "write it as in --colours 255,0,0=liver, once for each colour."
            )
        red, green, blue = (int(level) for level in found.groups()[:3])
        colour, name = (red, green, blue), found[4]
        is_background = name == BACKGROUND
        if (
            colour in colours
            or name in labels.values()
            or (is_background and 0 in colours.values())
        ):
            raise UserError(f"--colours gives {text.strip()} twice; give each colour its own name.")
        colours[colour] = 0 if is_background else len(labels) + 1
        if not is_background:
            labels[colours[colour]] = name
    if colours and not labels:
        raise UserError("--colours names the background only; name the colour of an object too.")
    return labels, tuple(colours.items())


def values_of_names(names: Mapping[int, str], options: Options) -> dict[int, int]:
    """Return the label values of classes that a source lists as {id: name}.

    --labels gives the values if it is used. Otherwise the ids are kept, or if one cannot be a label
    value, or if two classes have one name, the names are numbered from 1 in the order of the ids.

    Raises:
        UserError: --labels names another class, or lacks one.
    """
    if options.labels:
        values = {name: value for value, name in options.labels.items()}
        if wrong := sorted(set(values) ^ set(names.values())):
            raise UserError(
                f"--labels and the source differ in {listed(wrong)}; the classes of the source are "
                f"{listed(dict.fromkeys(names.values()))}."
            )
        return {key: values[name] for key, name in names.items()}
    if all(0 < key <= LARGEST_LABEL for key in names) and len(set(names.values())) == len(names):
        return {key: key for key in names}
    order = list(dict.fromkeys(names[key] for key in sorted(names)))
    return {key: order.index(name) + 1 for key, name in names.items()}


def labels_of(found: Found, options: Options) -> tuple[dict[int, str], list[str]]:
    """Return the labels of the data set, and notes; without names, the masks are read for values.

    Raises:
        UserError: --labels is given for a source with names or lacks a value of the masks, or the
            masks seem to hold ids of objects.
    """
    if options.colours and (found.labels or options.instances):
        raise UserError("--colours names the labels of RGB masks, not of these; omit it.")
    if options.instances:
        if options.labels:
            raise UserError("--instances gives each object its own value; omit --labels.")
        return {}, []
    if found.labels:
        if options.labels and found.labels != options.labels:
            given = listed(f"{value} {name}" for value, name in found.labels.items())
            raise UserError(f"The source names its labels itself ({given}); omit --labels.")
        return dict(sorted(found.labels.items())), []
    if not options.labels and all(item.mask is None for item in found.items):
        raise UserError("The source has no masks; give --labels to import it for prediction.")
    files = _files_by_value(found, options)
    values = set(files)
    if options.labels:
        if unknown := sorted(values - options.labels.keys()):
            holding = list(dict.fromkeys(file for value in unknown for file in files[value]))
            more = f" and {len(holding) - SHOWN} more" if len(holding) > SHOWN else ""
            raise UserError(
                f"--labels does not name the values {listed(unknown)} of the masks of "
                f"{listed(holding[:SHOWN])}{more}; name them, or correct these masks."
            )
        return dict(sorted(options.labels.items())), []
    if not values:
        raise UserError("The masks show no object: all values are 0; give --labels if that is so.")
    note = (
        f"the source does not name the labels {listed(sorted(values))}; give --labels, or rename "
        "them in dataset.toml"
    )
    return {value: f"label {value}" for value in sorted(values)}, [note]


def _files_by_value(found: Found, options: Options) -> dict[int, list[PurePath]]:
    """Return the values in the masks, without 0, each with the images whose masks hold it.

    Masks that cannot be read as labels are left to the check if --labels is given.

    Raises:
        UserError: a mask cannot be read, or it is an RGB mask with a colour that has no label.
    """
    files: dict[int, list[PurePath]] = {}
    for item in found.items:
        values: list[int] = []
        try:
            if isinstance(item.mask, Copied):
                values = np.unique(_read_mask(item.mask.path, options.colours)).tolist()
            elif isinstance(item.mask, LabelMap):
                values = np.unique(item.mask.draw()[0]).tolist()
        except BadFile:
            if options.colours or not options.labels:
                raise
        for value in values:
            if value != 0:
                files.setdefault(value, []).append(item.source)
        if not options.labels and len(files) > MOST_VALUES:
            raise UserError(
                f"The masks hold more than {MOST_VALUES} values; if they are ids of objects, give "
                "--instances, else --labels."
            )
    return files


def _read_mask(path: Path, colours: Colours) -> NDArray[np.int64]:
    """Read the labels of a mask; if colours are given, it must have them."""
    if colours:
        stored = read_stored(path, is_mask=True)
        if stored.values.shape == stored.shape:
            what = "is no RGB mask, to which --colours applies"
            raise BadFile(path, what, "omit --colours, and name its values with --labels.")
    return read_labels(path, colours).values
