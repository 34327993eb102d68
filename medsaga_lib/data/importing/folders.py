"""A pair of folders, images and masks, whose files have the same names but for common words.

The pair may lie at the root, or in folders train, val and test; those folders may also lie below
images and masks. They give the splits.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from medsaga_lib.data.importing.found import Copied, Found, Item, Options
from medsaga_lib.data.importing.source import Source, case_name, is_image, split_of
from medsaga_lib.data.problems import listed
from medsaga_lib.data.volumes import DICOM
from medsaga_lib.errors import UserError
from medsaga_lib.files import file_stem

IMAGES = ("images", "image", "imgs", "img")
MASKS = ("masks", "mask", "labels", "label", "segmentations", "gts", "gt", "annotations")
LOOKED_FOR = "folders images and masks with files of the same names"
# Words that tell a mask's or an image's name from that of its partner, such as a_mask.png
MASK_WORDS = "masks|mask|msk|segmentation|seg|labels|label|groundtruth|gt|annotation|anno"
IMAGE_WORDS = "image|img|im|0000"  # the last is nnU-Net's first channel
SHOWN = 5  # our choice: a message names at most this many files


def recognises(source: Source) -> bool:
    """Return whether the source has a pair of folders."""
    try:
        return bool(_pairs(source))
    except UserError:  # too many; `find` says which
        return True


def find(source: Source, options: Options) -> Found:
    """Match the files of the folders.

    Raises:
        UserError: there is no such pair of folders, no image has a mask, or a name has several.
    """
    if options.channel is not None:
        raise UserError("A pair of folders has one file for each image; omit --channel.")
    items: list[Item] = []
    alone: list[PurePath] = []
    for split, images, masks in _pairs(source):
        partners, rest = _match(source, images, masks)
        alone += [source.relative(path) for path in rest]
        for path, mask in partners.items():
            relative, inner = source.relative(path), path.relative_to(images)
            own = next((s for part in inner.parts[:-1] if (s := split_of(part))), split)
            content = None if mask is None else Copied(mask)
            items.append(Item(case_name(inner), relative, Copied(path), content, own))
    if not any(item.mask for item in items):
        raise UserError(
            f"{source.root}: no image has a mask of the same name; looked for {LOOKED_FOR}, or for "
            "masks such as NAME_mask.png."
        )
    notes = []
    if bare := [item.source for item in items if item.mask is None]:
        notes.append(f"images without a mask: {len(bare)} ({_few(bare)})")
    if alone:
        notes.append(f"masks without an image, left out: {len(alone)} ({_few(alone)})")
    return Found(items, notes=notes)


def _pairs(source: Source) -> list[tuple[str | None, Path, Path]]:
    """Return split, images and masks of each pair of folders; the masks have a known ending.

    Raises:
        UserError: there are several folders of images or of masks.
    """
    root = source.root
    holding = {parent for file in source.files if is_image(file) for parent in file.parents}
    places: list[tuple[str | None, Path]] = [(None, root)]
    places += [(split_of(p.name), p) for p in sorted(root.iterdir()) if split_of(p.name)]
    found = []
    for split, place in places:
        inside = {p.name.casefold(): p for p in sorted(place.glob("*")) if p.is_dir()}
        images = [inside[name] for name in IMAGES if name in inside]
        masks = [inside[name] for name in MASKS if inside.get(name) in holding]
        if len(images) > 1 or (images and len(masks) > 1):
            names = listed(p.name for p in (*images, *masks))
            raise UserError(
                f"{place} has the folders {names}; keep one of images and one of masks."
            )
        if images and masks:
            found.append((split, images[0], masks[0]))
    return found


def _match(source: Source, images: Path, masks: Path) -> tuple[dict[Path, Path | None], list[Path]]:
    """Return the mask of each image, and the masks that have no image.

    Raises:
        UserError: an image has several masks, or a mask several images.
    """
    truths = list(_units(source, masks, ()))
    pictures = list(_units(source, images, truths))
    exact = _by_key(truths, masks, "")
    loose = _by_key(truths, masks, MASK_WORDS)
    partners: dict[Path, Path | None] = {}
    for path in pictures:
        plain, core = _key(path, images, ""), _key(path, images, IMAGE_WORDS)
        found = exact.get(plain, []) or loose.get(plain, []) or loose.get(core, [])
        found = list(dict.fromkeys([*found, *loose.get(plain, [])]))
        if len(found) > 1:
            raise UserError(
                f"{path} has {len(found)} masks ({_few(p.name for p in found)}); keep one."
            )
        partners[path] = found[0] if found else None
    taken: dict[Path, Path] = {}
    for path, mask in partners.items():
        if mask is not None and taken.setdefault(mask, path) != path:
            raise UserError(
                f"{mask} is the mask of {taken[mask].name} and of {path.name}; rename one of them."
            )
    return partners, [mask for mask in truths if mask not in taken]


def _units(source: Source, folder: Path, masks: Iterable[Path]) -> Iterator[Path]:
    """Yield the files of a folder, and its folders that hold the slices of a DICOM series.

    A folder of DICOM files is one volume, unless a folder of masks has its name.
    """
    sliced = {mask.parent.name for mask in masks}
    groups: dict[Path, list[Path]] = defaultdict(list)
    for file in source.files:
        if folder in file.parents:
            groups[file.parent].append(file)
    for parent, files in groups.items():
        slices = all(f.name.lower().endswith(DICOM) or not f.suffix for f in files)
        if parent != folder and slices and parent.name not in sliced:
            yield parent
        else:
            yield from (file for file in files if is_image(file))


def _by_key(paths: Iterable[Path], folder: Path, words: str) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        found[_key(path, folder, words)].append(path)
    return found


def _key(path: Path, folder: Path, words: str) -> str:
    """Return the path below a folder without its ending, and without one of the words."""
    relative = path.relative_to(folder)
    stem = relative.name if path.is_dir() else file_stem(relative)
    if words:
        stem = re.sub(rf"(?i)[ _.-]({words})$|^({words})([ _.-]|(?=\d))", "", stem, count=1) or stem
    return (relative.parent / stem).as_posix()


def _few(paths: Iterable[object]) -> str:
    names = [str(path) for path in paths]
    return listed(names[:SHOWN]) + (" ..." if len(names) > SHOWN else "")
