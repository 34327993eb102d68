"""Official layouts of volumes: Decathlon, AMOS, ISLES, Synapse, BraTS, LiTS."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from medsaga_lib.data.fetching.catalogue import OfficialSet
from medsaga_lib.data.importing import decathlon
from medsaga_lib.data.importing.found import Copied, Found, Item, Options, Renumbered
from medsaga_lib.data.importing.source import Source
from medsaga_lib.data.importing.tasks import TASK
from medsaga_lib.data.problems import listed
from medsaga_lib.errors import UserError, counted
from medsaga_lib.files import file_stem

SHOWN = 5  # our choice: a message names at most this many cases
FIRST_MR = 500  # AMOS: cases with numbers up to this one are CT, those above are MR
# The organs of the published Synapse tables: value in the challenge's masks -> value here (SAMed)
SYNAPSE = {1: 1, 2: 2, 3: 3, 4: 4, 6: 5, 7: 6, 8: 7, 11: 8}
SYNAPSE_TEST = (1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38)  # the 12 test cases of TransUNet's split


def decathlon_task(source: Source, official: OfficialSet) -> Found:
    """List the labelled volumes of a task of the Decathlon; its test images have no masks."""
    tasks = [path.parent for path in source.files if path.name == TASK]
    if len(tasks) != 1:
        raise UserError(
            f"{source.path} holds {len(tasks)} files {TASK}; give the folder of one task."
        )
    found = decathlon.find(Source(tasks[0]), Options(channel=official.channel))
    return replace(found, items=_labelled(found.items, found.notes))


def amos(source: Source, official: OfficialSet) -> Found:
    """List the labelled CT or MR of AMOS; its split `Va` is the test split here.

    The masks of `Ts` are not public, so that the published validation cases are the test (our
    choice). MedSAGa does not say how it splits the slices.
    """
    items: list[Item] = []
    notes = ["splits: the official validation cases (Va) are the test split, our choice"]
    wanted = official.modality == "CT"
    for part, split in (("Tr", None), ("Va", "test")):
        for image in _files(source, r"amos_(\d+)\.nii\.gz", f"images{part}"):
            if (_number(image) <= FIRST_MR) == wanted:
                mask = image.parent.parent / f"labels{part}" / image.name
                items.append(_item(source, image, mask, split))
    return Found(_labelled(items, notes), notes=notes)


def isles(source: Source, official: OfficialSet) -> Found:
    """List the DWI of ISLES 2022 (BIDS) and their masks in `derivatives`."""
    masks = {
        path.name.removesuffix("_msk.nii.gz"): path for path in _files(source, r".+_msk\.nii\.gz")
    }
    items: list[Item] = []
    notes: list[str] = []
    for image in _files(source, r"sub-.+_dwi\.nii\.gz"):
        session = image.name.removesuffix("_dwi.nii.gz")
        item = _item(source, image, masks.get(session))
        items.append(replace(item, name=session, patient=session.split("_")[0]))
    return Found(_labelled(items, notes), notes=notes)


def synapse(source: Source, official: OfficialSet) -> Found:
    """List the 30 volumes of Synapse by SAMed's protocol: 8 organs, 18 training and 12 test cases.

    The window [-125, 275] maps the intensities to [0, 1], as the published preparation does.
    """
    items: list[Item] = []
    notes: list[str] = []
    for image in _files(source, r"img(\d{4})\.nii\.gz"):
        mask = image.parent.parent / "label" / image.name.replace("img", "label")
        split = "test" if _number(image) in SYNAPSE_TEST else "train"
        item = _item(source, image, mask, split)
        truth = Renumbered(mask, SYNAPSE) if item.mask else None
        items.append(replace(item, name=f"case{_number(image):04d}", mask=truth))
    items = _labelled(items, notes)
    missing = set(SYNAPSE_TEST) - {int(item.name[-4:]) for item in items}
    if missing:
        raise UserError(
            f"{source.path} lacks the test cases {listed(sorted(missing))} of Synapse, or their "
            "masks; give the folder RawData with Training/img and Training/label."
        )
    notes += [
        "the 8 organs of the published tables have the values 1 to 8; the others are background",
        "splits: the 12 test cases of the published tables",
    ]
    return Found(items, notes=notes)


def brats(source: Source, official: OfficialSet) -> Found:
    """List the FLAIR volumes of BraTS with their masks; the label 4 stays 4."""
    items: list[Item] = []
    notes: list[str] = []
    for image in _files(source, r".+_flair\.nii(\.gz)?"):
        mask = image.with_name(image.name.replace("_flair", "_seg"))
        item = _item(source, image, mask)
        items.append(replace(item, name=item.name.removesuffix("_flair")))
    return Found(_labelled(items, notes), notes=notes)


def lits(source: Source, official: OfficialSet) -> Found:
    """List the volumes of LiTS; the two batches of training data may be in two folders."""
    masks = {_number(path): path for path in _files(source, r"segmentation-(\d+)\.nii(\.gz)?")}
    items: list[Item] = []
    notes: list[str] = []
    for image in _files(source, r"volume-(\d+)\.nii(\.gz)?"):
        items.append(_item(source, image, masks.get(_number(image))))
    return Found(_labelled(items, notes), notes=notes)


def _files(source: Source, pattern: str, folder: str | None = None) -> Iterator[Path]:
    """Yield the files whose whole name matches a pattern, in a folder of a name if it is given."""
    for path in source.files:
        if re.fullmatch(pattern, path.name) and folder in (None, path.parent.name):
            yield path


def _number(path: Path) -> int:
    """Return the last number in the name of a file, before its ending."""
    return int(re.findall(r"\d+", file_stem(path))[-1])


def _item(source: Source, image: Path, mask: Path | None, split: str | None = None) -> Item:
    truth = Copied(mask) if mask is not None and mask.is_file() else None
    return Item(file_stem(image), source.relative(image), Copied(image), truth, split)


def _labelled(items: list[Item], notes: list[str]) -> list[Item]:
    """Return the items that have a mask, and note the number of the others."""
    if bare := [item.name for item in items if item.mask is None]:
        more = " ..." if len(bare) > SHOWN else ""
        notes.append(
            f"{counted(len(bare), 'image')} without a mask left out: {listed(bare[:SHOWN])}{more}"
        )
    return [item for item in items if item.mask is not None]
