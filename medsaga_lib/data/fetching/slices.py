"""Slices of volumes as pictures of 8 bits, by the papers' rules."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from medsaga_lib.data.cases import require_same_grid
from medsaga_lib.data.images import Window, picture_of, read_labels, read_stored
from medsaga_lib.data.importing.found import Array, Copied, Drawn, Found, LabelMap
from medsaga_lib.errors import UserError

LEVELS = 255  # of 8 bits


def as_slices(
    found: Found, modality: str, window: Window | None, least: int, pad: int | None
) -> Found:
    """Return a data set of volumes as one of their axial slices.

    The volume's intensities are mapped to [0, 1] by the rule of its modality, see `data.images`,
    and stored with 8 bits. A slice keeps the patient and the split of its volume.

    Args:
        least: only slices that show at least so many labels are kept.
        pad: side of the square to which smaller slices are padded with 0, centred; None: no
            padding.

    Raises:
        UserError: no slice shows enough labels, or, when the slices are written, a mask does not
            lie on its image.
    """
    counted: Counter[str] = Counter()
    items = []
    for item in found.items:
        assert isinstance(item.image, Copied)
        assert isinstance(item.mask, Copied)
        image, mask = item.image.path, item.mask.path
        for number in _shown(mask, least):
            picture = _one(_picture, image, number, pad, counted, mask, modality, window)
            labels = _one(_labels, mask, number, pad, Counter())
            truth = LabelMap(_without_spacing(labels))
            items.append(
                replace(
                    item,
                    name=f"{item.name}_{number:03d}",
                    image=Drawn(picture),
                    mask=truth,
                    patient=item.patient or item.name,
                    columns={**item.columns, "volume": item.name, "slice": str(number)},
                )
            )
    if not items:
        raise UserError(f"No slice shows {least} or more labels; omit --slices.")
    notes = [f"slices: {len(items):,} that show at least {least} labels"]
    if pad:
        notes.append(f"slices smaller than {pad} x {pad} are padded with 0, centred")
    return replace(found, items=items, notes=[*found.notes, *notes], window=None, counted=counted)


def _shown(mask: Path, least: int) -> list[int]:
    """Return the numbers of the slices that show at least so many labels."""
    volume = _labels(mask)
    counts = [len(np.unique(one[one > 0])) for one in volume]
    return [number for number, count in enumerate(counts) if count >= least]


def _one(
    read: Callable[..., Array],
    path: Path,
    number: int,
    pad: int | None,
    counted: Counter[str],
    *rule: object,
) -> Callable[[], Array]:
    """Return a function that reads one slice of a volume."""

    def draw() -> Array:
        one = read(path, *rule)[number]
        if pad is None:
            return one
        if max(one.shape) > pad:
            counted[f"slices larger than {pad} x {pad}, not padded"] += 1
        before = [max(pad - side, 0) // 2 for side in one.shape]
        after = [max(pad - side, 0) - start for side, start in zip(one.shape, before, strict=True)]
        return np.pad(one, list(zip(before, after, strict=True)))

    return draw


def _without_spacing(draw: Callable[[], Array]) -> Callable[[], tuple[Array, None]]:
    return lambda: (draw(), None)


# The slices of a volume follow each other, so that one volume of each kind is kept
@lru_cache(maxsize=1)
def _picture(path: Path, mask: Path, modality: str, window: Window | None) -> Array:
    picture = picture_of(read_stored(path), modality, window)
    require_same_grid(read_labels(mask), picture)
    return np.rint(picture.pixels * LEVELS).astype(np.uint8)


@lru_cache(maxsize=1)
def _labels(path: Path) -> Array:
    return read_labels(path).values.astype(np.uint16)
