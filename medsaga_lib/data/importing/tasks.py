"""Reads the keys of `dataset.json`, of the Medical Segmentation Decathlon and of nnU-Net.

Sources: http://medicaldecathlon.com; MIC-DKFZ/nnUNet, documentation/dataset_format.md (version 2)
and version 1, which keeps the Decathlon's keys. Both number the channels from 0.
"""

from pathlib import Path
from typing import Any, NamedTuple

from medsaga_lib.data.importing.source import Source
from medsaga_lib.data.problems import BadFile

TASK = "dataset.json"
LICENCE = ("licence", "license", "Licence", "License")  # "licence" in the Decathlon


def task_of(source: Source) -> dict[str, Any] | None:
    """Return the content of `dataset.json` at the source's root, or None without one."""
    return source.documents.get(source.root / TASK)


def channels_of(task: dict[str, Any]) -> dict[int, str]:
    """Return the names of the channels by their numbers; empty if they are not given so."""
    names = task.get("channel_names", task.get("modality"))
    if not isinstance(names, dict):
        return {}
    return {int(key): str(name) for key, name in names.items() if str(key).isdecimal()}


def labels_of(path: Path, task: dict[str, Any]) -> dict[int, str]:
    """Return the names of the foreground labels: {"liver": 1} of version 2, or {"1": "liver"}.

    Raises:
        BadFile: a label is a region of several values, is to be ignored, or is no whole number.
    """
    given = task.get("labels")
    if not isinstance(given, dict) or not given:
        raise BadFile(
            path, "has no table `labels`", 'add it, such as {"background": 0, "liver": 1}.'
        )
    by_value = all(str(key).isdecimal() for key in given)
    labels = {}
    for key, value in given.items():
        number, name = (key, value) if by_value else (value, key)
        if isinstance(number, list):
            what = f"gives the label '{name}' the values {number}, which makes it a region"
            remedy = "give each label one value: a pixel has one label in label maps here."
            raise BadFile(path, what, remedy)
        if str(name).casefold() == "ignore":
            what = f"gives the value {number} to pixels that are to be ignored"
            raise BadFile(
                path, what, "label them, or remove their cases: no method ignores pixels."
            )
        if isinstance(number, bool) or not str(number).isdecimal():
            raise BadFile(path, f"gives the label '{name}' the value {number!r}", "write a number.")
        if int(number) > 0:
            labels[int(number)] = str(name)
    return dict(sorted(labels.items()))


class Statement(NamedTuple):
    """Texts of a data set about itself; empty if it does not give them."""

    name: str
    licence: str
    citation: str


def statement(task: dict[str, Any]) -> Statement:
    """Return the name, the licence and the citation of a data set as far as they are given."""
    licence = next((task[key] for key in LICENCE if task.get(key)), "")
    citation = task.get("citation") or task.get("reference") or ""
    return Statement(_text(task.get("name", "")), _text(licence), _text(citation))


def _text(value: Any) -> str:
    return str(value).strip() if not isinstance(value, list | dict) else "; ".join(map(str, value))


def modality_text(channels: dict[int, str], chosen: int) -> str:
    """Return the words for the modality: the chosen channel's name, then those of all channels."""
    return "\n".join([channels.get(chosen, ""), " ".join(channels.values())])
