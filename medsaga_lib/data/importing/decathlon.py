"""The layout of the Medical Segmentation Decathlon: `dataset.json` lists the pairs.

Source: http://medicaldecathlon.com, Antonelli et al. 2022. The images of `test` have no masks.
Other data sets with this file, such as AMOS22, also have pairs `validation`. An image with several
channels has the axes (x, y, z, channel).
"""

from pathlib import Path, PurePath
from typing import Any

from medsaga_lib.data.importing.found import (
    Channel,
    Content,
    Copied,
    Found,
    Item,
    Options,
    choose_channel,
)
from medsaga_lib.data.importing.source import Source, case_name
from medsaga_lib.data.importing.tasks import (
    TASK,
    channels_of,
    labels_of,
    modality_text,
    statement,
    task_of,
)
from medsaga_lib.data.problems import BadFile, times
from medsaga_lib.data.volumes import NIFTI

LOOKED_FOR = "dataset.json with pairs `training` of files that exist"


def recognises(source: Source) -> bool:
    """Return whether the source has this layout."""
    task = task_of(source)
    pairs = task.get("training") if task is not None else None
    return isinstance(pairs, list) and any(
        isinstance(pair, dict) and (source.root / str(pair.get("image"))).is_file()
        for pair in pairs
    )


def find(source: Source, options: Options) -> Found:
    """List the cases of the layout.

    Raises:
        UserError: `dataset.json` cannot be used, files are missing, or no channel was chosen.
    """
    task, path = task_of(source), source.root / TASK
    if task is None:
        raise BadFile(path, "is missing or damaged", "give the folder of one task.")
    labels, names = labels_of(path, task), channels_of(task)
    pairs = _pairs(path, task)
    for name in (name for pair in pairs for name in pair[:2] if name):
        if not (source.root / name).is_file():
            raise BadFile(path, f"lists '{name}', which is missing", "add the file.")
    counts = {image: _channels(source.root / image) for image, _, _ in pairs}
    channel = choose_channel(max(counts.values()), names, options.channel)
    items = []
    for image, mask, split in pairs:
        content: Content = Copied(source.root / image)
        if counts[image] > 1:
            content = Channel(source.root / image, channel)
        truth = Copied(source.root / mask) if mask else None
        items.append(
            Item(case_name(PurePath(Path(image).name)), PurePath(image), content, truth, split)
        )
    modality = modality_text(names, channel)
    said = statement(task)
    return Found(items, said.name, modality, labels, said.licence, said.citation)


def _pairs(path: Path, task: dict[str, Any]) -> list[tuple[str, str, str | None]]:
    """Return image, mask and split of each case; a test image has an empty path of its mask."""
    try:
        pairs: list[tuple[str, str, str | None]] = [
            (str(Path(pair["image"])), str(Path(pair["label"])), split)
            for key, split in (("training", None), ("validation", "val"))
            for pair in task.get(key) or ()
        ]
        for test in task.get("test") or ():
            pairs.append((str(Path(test["image"] if isinstance(test, dict) else test)), "", "test"))
    except (LookupError, TypeError):
        what = "has entries that are not pairs of `image` and `label`"
        raise BadFile(path, what, "give the folder of one task.") from None
    if not pairs:
        raise BadFile(path, "lists no images", "give the folder of one task.")
    return pairs


def _channels(path: Path) -> int:
    """Return the number of channels of an image."""
    if not path.name.lower().endswith(NIFTI) or not path.is_file():
        return 1
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    try:
        shape = nibabel.load(path).shape  # type: ignore[attr-defined]
    except (ImageFileError, OSError, ValueError) as error:
        raise BadFile(path, f"cannot be read ({error})", "copy it again.") from None
    if len(shape) > 4:
        raise BadFile(path, f"has the shape {times(shape)}", "save it as (x, y, z, channel).")
    return int(shape[3]) if len(shape) == 4 else 1
