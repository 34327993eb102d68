"""nnU-Net's raw layout: `dataset.json`, `imagesTr/CASE_0000.nii.gz`, `labelsTr/CASE.nii.gz`.

Source: MIC-DKFZ/nnUNet, documentation/dataset_format.md; version 1 has the same files. The cases of
`imagesTs` are the split test, without masks unless there is a folder `labelsTs`. If nnU-Net has
written `splits_final.json`, fold 0 gives the splits train and val.
"""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from medsaga_lib.data.importing import decathlon
from medsaga_lib.data.importing.found import Copied, Found, Item, Options, choose_channel
from medsaga_lib.data.importing.source import IMAGES, Source, read_json
from medsaga_lib.data.importing.tasks import (
    TASK,
    channels_of,
    labels_of,
    modality_text,
    statement,
    task_of,
)
from medsaga_lib.data.problems import BadFile, listed
from medsaga_lib.errors import counted

LOOKED_FOR = "dataset.json and imagesTr with files such as CASE_0000.nii.gz"
CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
FOLDS = "splits_final.json"
SHOWN = 5  # our choice: a message names at most this many cases


def recognises(source: Source) -> bool:
    """Return whether the source has this layout."""
    task = task_of(source)
    if task is None or decathlon.recognises(source):  # whose names may also end with four digits
        return False
    return bool(_images(source.root / "imagesTr", task))


def find(source: Source, options: Options) -> Found:
    """List the cases of the layout.

    Raises:
        UserError: `dataset.json` cannot be used, files are missing, or no channel was chosen.
    """
    task, path = task_of(source), source.root / TASK
    if task is None:
        raise BadFile(path, "is missing or damaged", "give the folder of one nnU-Net data set.")
    if "dataset" in task:
        what = "lists its files under `dataset`, which is not read"
        raise BadFile(path, what, "put them into imagesTr and labelsTr.")
    labels, names = labels_of(path, task), channels_of(task)
    training = _images(source.root / "imagesTr", task)
    if not training:
        raise BadFile(source.root / "imagesTr", "holds no CASE_0000 files", "correct the folder.")
    count = len({number for files in training.values() for number in files})
    channel = choose_channel(count, names, options.channel)
    folds, note = _fold(source.root, set(training))
    items = _items(source, training, channel, "labelsTr", folds)
    if missing := [item.name for item in items if item.mask is None]:
        what = f"has no mask of {listed(missing[:SHOWN])} ({counted(len(missing), 'case')})"
        raise BadFile(source.root / "labelsTr", what, "add them, or remove the images.")
    tests = _images(source.root / "imagesTs", task)
    items += _items(source, tests, channel, "labelsTs", dict.fromkeys(tests, "test"))
    modality = modality_text(names, channel)
    said = statement(task)
    return Found(items, said.name, modality, labels, said.licence, said.citation, note)


def _images(folder: Path, task: dict[str, Any]) -> dict[str, dict[int, Path]]:
    """Return the files of each case by their channels."""
    found: dict[str, dict[int, Path]] = defaultdict(dict)
    for path in sorted(folder.glob("*")):
        ending = _ending(path.name, task)
        parts = CHANNEL.fullmatch(path.name[: -len(ending)]) if ending else None
        if parts and not path.name.startswith("."):
            found[parts["case"]][int(parts["channel"])] = path
    return dict(found)


def _ending(name: str, task: dict[str, Any]) -> str:
    """Return the ending of a file's name; empty if it is not the one of the images."""
    declared = task.get("file_ending")
    endings = [declared] if isinstance(declared, str) and declared else sorted(IMAGES, key=len)
    return next((end for end in reversed(endings) if name.casefold().endswith(end.casefold())), "")


def _items(
    source: Source,
    cases: dict[str, dict[int, Path]],
    channel: int,
    masks: str,
    splits: dict[str, str],
) -> list[Item]:
    items = []
    for case, files in cases.items():
        if channel not in files:
            what = f"has no channel {channel} of the case '{case}'"
            raise BadFile(next(iter(files.values())).parent, what, "add it, or remove the case.")
        image = files[channel]
        ending = image.name[len(f"{case}_0000") :]
        mask = source.root / masks / f"{case}{ending}"
        content = Copied(mask) if mask.is_file() else None
        relative = source.relative(image)
        items.append(Item(case, relative, Copied(image), content, splits.get(case)))
    return items


def _fold(root: Path, cases: set[str]) -> tuple[dict[str, str], list[str]]:
    """Return the splits of nnU-Net's fold 0, and a note about them; empty without its file."""
    preprocessed = root.parent.parent / "nnUNet_preprocessed" / root.name
    for path in (root / FOLDS, preprocessed / FOLDS):
        if path.is_file():
            break
    else:
        return {}, []
    folds = read_json(path)
    try:
        splits = {case: split for split in ("train", "val") for case in folds[0][split]}
    except (LookupError, TypeError):
        raise BadFile(path, "is not a list of folds", "let nnU-Net write it again.") from None
    if unknown := sorted(splits.keys() - cases):
        what = f"names cases that are not in imagesTr, such as {listed(unknown[:SHOWN])}"
        raise BadFile(path, what, "let nnU-Net write it again.")
    return splits, [f"splits: fold 0 of {FOLDS} gives train and val"]
