"""The domain of a run, which is the traits of its training images, and shifts away from it."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medsaga_lib.data.images import Picture, Window
from medsaga_lib.data.problems import Problem, in_mm

# Our choice: a spacing is far from the training images' beyond this ratio to all of them, and a
# range of stored values beyond that one, which is 2 bits
SPACING_RATIO, RANGE_RATIO = 2.0, 4.0
PLANES = {"S": "axial", "I": "axial", "A": "coronal", "P": "coronal", "L": "sagittal",
          "R": "sagittal"}  # fmt: skip
SCALED = {
    "CT": "the window of CT",
    "percentiles": "percentiles of each volume",
    "file": "the window in each file",
}
REMEDY = "look at the result, and train on images like this one if it is wrong."
Ends = tuple[tuple[float, ...], tuple[float, ...]]  # the smallest and the largest of each axis


@dataclass(frozen=True)
class Traits:
    """Facts of one image besides its pixels; see `Domain`."""

    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None  # None: unknown
    codes: str
    dtype: str
    low: float
    high: float
    window: Window
    rule: str

    @property
    def bits(self) -> int | None:
        """The bits of its largest value; None for fractions."""
        return int(self.high).bit_length() if self.dtype[0] in "ui" else None


def traits_of(picture: Picture) -> Traits | None:
    """Return the traits of a picture; None if it was not read from a file."""
    source, where = picture.source, picture.geometry
    if source is None:
        return None
    known = where is not None or set(picture.spacing) != {1.0}
    codes = "" if where is None else where.codes
    return Traits(picture.shape, picture.spacing if known else None, codes, *source)


@dataclass(frozen=True)
class Domain:
    """The traits of the training images of a run, as `run.json` holds them.

    orientations: directions of the axes of the files, such as "RAS"; "?" if a file does not say.
    spacing_mm: in the order of the library's axes, (z, y, x) or (y, x); None if unknown.
    size: (D, H, W) or (H, W). types, bits: of the stored values. range: the difference of the
        largest and the smallest stored value of an image. window: (low, high) that become black and
        white. rules: how the window was found, as in `images.Source`.
    """

    orientations: tuple[str, ...]
    spacing_mm: Ends | None
    size: Ends
    types: tuple[str, ...]
    bits: tuple[int, int] | None
    range: tuple[float, float]
    window: Ends
    rules: tuple[str, ...]

    @classmethod
    def of(cls, found: Iterable[Traits]) -> "Domain | None":
        """Return the domain of images; None without images."""
        traits = list(found)
        if not traits:
            return None
        spacings = [one.spacing for one in traits if one.spacing is not None]
        bits = [one.bits for one in traits if one.bits is not None]
        ranges = [one.high - one.low for one in traits]
        return cls(
            orientations=tuple(sorted({one.codes for one in traits if one.codes})),
            spacing_mm=_ends(spacings) if spacings else None,
            size=_ends([one.shape for one in traits]),
            types=tuple(sorted({one.dtype for one in traits})),
            bits=(min(bits), max(bits)) if bits else None,
            range=(min(ranges), max(ranges)),
            window=_ends([one.window for one in traits]),
            rules=tuple(sorted({one.rule for one in traits})),
        )

    @classmethod
    def from_json(cls, content: dict[str, Any] | None) -> "Domain | None":
        """Return the domain in a `run.json`; None if an older version wrote it.

        Raises:
            TypeError: its keys or their values are not those of `asdict`.
        """
        if content is None:
            return None
        return cls(**{key: _frozen(value) for key, value in content.items()})

    def to_json(self) -> dict[str, Any]:
        """Return the domain as `from_json` reads it."""
        return asdict(self)

    def window_line(self) -> str | None:
        """Return a sentence on a window that is not declared; None if the values need none."""
        how = [SCALED[rule] for rule in self.rules if rule in SCALED]
        if not how:
            return None
        (low, high), (low_end, high_end) = self.window
        black, white = _between(low, low_end), _between(high, high_end)
        return f"values of {black} become black and values of {white} white ({', '.join(how)})"

    def shifts(self, one: Traits) -> dict[str, str]:
        """Return in what an image is far from the training images: a word, and what to say."""
        found = {}
        if one.spacing is not None and self.spacing_mm is not None:
            axes = min(len(one.spacing), len(self.spacing_mm[0]))  # 2 for a picture, or for its run
            rows = one.spacing, *self.spacing_mm
            here, low, high = (np.array(row[-axes:]) for row in rows)
            if ((here * SPACING_RATIO < low) | (here > high * SPACING_RATIO)).any():
                ends = dict.fromkeys(in_mm(end) for end in self.spacing_mm)
                found["spacing"] = f"has the spacing {in_mm(one.spacing)}, not {' to '.join(ends)}"
        planes = {_plane(codes) for codes in self.orientations}
        if one.codes and planes and _plane(one.codes) not in planes:
            wanted = " or ".join(sorted(planes))
            found["orientation"] = f"is stored in {_plane(one.codes)} slices, not in {wanted} ones"
        span, (least, most) = one.high - one.low, self.range
        far = 0 < span * RANGE_RATIO < least or span > most * RANGE_RATIO
        if far and {"CT", "declared"} & set(self.rules):
            found["values"] = (
                f"has values from {one.low:g} to {one.high:g}, a range of {span:g} and not of "
                f"{_between(least, most)}"
            )
        return found


def shifts(domain: Domain | None, picture: Picture) -> dict[str, str]:
    """Return in what a picture is far from the training images; nothing where they are unknown."""
    traits = traits_of(picture)
    return domain.shifts(traits) if domain is not None and traits is not None else {}


def shift_notes(domain: Domain | None, path: Path, picture: Picture) -> list[str]:
    """Return one sentence for each word of `shifts`."""
    found = shifts(domain, picture).values()
    return [str(Problem(str(path), f"{what} as the training images", REMEDY)) for what in found]


def _ends(rows: Iterable[Iterable[float]]) -> Ends:
    """Return the smallest and the largest value of each column."""
    columns = list(zip(*rows, strict=True))
    return tuple(map(min, columns)), tuple(map(max, columns))


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _between(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _plane(codes: str) -> str:
    return PLANES.get(codes[-1], "unknown")
