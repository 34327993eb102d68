"""NumPy files: npz of the challenge at CVPR 2024, and npy as MedSAM's training takes them.

Source: bowang-lab/MedSAM. Its branch LiteMedSAM has npz with `imgs`, `gts` and `spacing`. In the
branch main, `pre_CT_MR.py` writes `imgs/NAME-000.npy`, float (1024, 1024, 3) in [0, 1], and `gts`
of the same names; 000 is the slice. File names begin with a word for the modality in both.
"""

import re
from pathlib import Path

import numpy as np

from medsaga_lib.data.folder import known_modality
from medsaga_lib.data.images import reading
from medsaga_lib.data.importing.found import Copied, Found, Item, LabelMap, Options, read_label_map
from medsaga_lib.data.importing.source import Source, case_name
from medsaga_lib.data.problems import BadFile, listed
from medsaga_lib.errors import UserError, counted

NPZ_LOOKED_FOR = "npz files with the arrays imgs and gts"
NPY_LOOKED_FOR = "imgs/NAME.npy and gts/NAME.npy"
SLICE = re.compile(r"(?P<volume>.+)-\d{3,}")
SHOWN = 5  # our choice: a message names at most this many files


def recognises_npz(source: Source) -> bool:
    """Return whether the source holds npz files."""
    return any(file.suffix.lower() == ".npz" for file in source.files)


def recognises_npy(source: Source) -> bool:
    """Return whether the source has the folders of npy files."""
    return (source.root / "gts").is_dir() and any((source.root / "imgs").glob("*.npy"))


def find_npz(source: Source, options: Options) -> Found:
    """List the npz files; the masks of files in `imgs` may lie in `gts`, under the same name.

    Raises:
        UserError: a file cannot be read.
    """
    _no_channel(options)
    truths = source.root / "gts"
    items = []
    for path in source.files:
        if path.suffix.lower() != ".npz" or truths in path.parents:
            continue
        mask = next((p for p in (path, truths / path.name) if _has_masks(p)), None)
        relative = source.relative(path)
        items.append(Item(case_name(relative), relative, Copied(path), _drawn(mask)))
    if not items:
        raise UserError(f"{source.root} holds no npz files with images; give their folder.")
    return Found(items, modality=_modality(items))


def find_npy(source: Source, options: Options) -> Found:
    """List the npy files of `imgs` and `gts`; slices of one volume belong to one patient.

    Raises:
        UserError: an image or a mask has no partner.
    """
    _no_channel(options)
    names = {
        folder: {path.name for path in (source.root / folder).glob("[!.]*.npy")}
        for folder in ("imgs", "gts")
    }
    for here, there in (("imgs", "gts"), ("gts", "imgs")):
        if alone := sorted(names[here] - names[there]):
            some = listed(alone[:SHOWN])
            what = f"lacks {counted(len(alone), 'file')} that {here} has, such as {some}"
            raise BadFile(source.root / there, what, "add them, or remove their partners.")
    items = []
    for name in sorted(names["imgs"]):
        image, stem = source.root / "imgs" / name, Path(name).stem
        volume = SLICE.fullmatch(stem)
        patient = volume["volume"] if volume else ""
        mask = _drawn(source.root / "gts" / name)
        items.append(Item(stem, source.relative(image), Copied(image), mask, patient=patient))
    if not items:
        raise UserError(f"{source.root} has no imgs/*.npy; give the folder with imgs and gts.")
    return Found(items, modality=_modality(items))


def _no_channel(options: Options) -> None:
    if options.channel is not None:
        raise UserError("NumPy files hold one image each; omit --channel.")


def _has_masks(path: Path) -> bool:
    """Return whether an npz file has the array `gts`."""
    if not path.is_file():
        return False
    with reading(path, "npz"), np.load(path, allow_pickle=False) as arrays:
        return "gts" in arrays


def _drawn(path: Path | None) -> LabelMap | None:
    return None if path is None else LabelMap(lambda: read_label_map(path))


def _modality(items: list[Item]) -> str:
    """Return the modality that all file names give, or an empty text."""
    named = {known_modality(item.source.stem) for item in items}
    return named.pop() or "" if len(named) == 1 else ""
