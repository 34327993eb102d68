"""Checks what a file declares before a library reserves memory for it.

The readers in C++ trust the lengths and sizes of a header. A damaged header of some hundred bytes
can therefore ask for gigabytes, which these checks refuse.
"""

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal

from medsaga_lib.data.problems import BadFile, times

# Our choice: bytes of values for each byte of a file. LZW reaches 2,730, JPEG 1,366 and deflate
# 1,032; JPEG 2000 and other compressions of DICOM and TIFF have no limit.
MOST = 4096
# Our choice, above the longest valid ones: characters of a field of numbers, and of another one
LONGEST_FIELD, LONGEST_TEXT = 512, 200
FREE_TEXT = (b"#", b"content:", b"labels:", b"units:")  # of NRRD, any length; and every "key:="
DIRECTIONS = (b"TransformMatrix", b"Orientation", b"Rotation")  # names of one field of MetaImage
LARGEST_COSINE = 2.0  # our choice: a cosine is at most 1, and some programs round it up
AXES = (b"1", b"2", b"3", b"4")  # NDims of MetaImage; `volumes` reads at most three
# ITK ignores these units of NRRD and MetaImage, and this scale of a MetaImage's values
OTHER_UNITS = {"nm", "um", "µm", "micron", "microns", "cm", "centimeter", "centimeters", "m",
               "meter", "meters", "in", "inch", "inches"}  # fmt: skip
UNSCALED = {b"ElementToIntensityFunctionSlope": 1.0, b"ElementToIntensityFunctionOffset": 0.0}
DAMAGED = "copy or export it again."


def require_room(
    path: Path, shape: Sequence[int], bytes_each: int, held: int | None = None
) -> None:
    """Raise BadFile if values of this shape cannot be in the file, or do not fit into memory.

    Args:
        path: of the file.
        shape: lengths of the axes, with the channels.
        bytes_each: bytes of one value.
        held: bytes of the file that can hold values; None if there is no limit to their number.
    """
    import psutil

    declared = math.prod(shape) * bytes_each
    if held is not None and declared > MOST * held:
        what = f"declares {times(tuple(shape))} values, too many for a file of {held:,} bytes"
        raise BadFile(path, what, DAMAGED)
    free = psutil.virtual_memory().available
    if declared > free:
        what = f"needs {declared / 2**30:,.1f} GiB of memory, and {free / 2**30:,.1f} GiB are free"
        raise BadFile(path, what, "close other programs, or save a smaller part of it.")


def require_nrrd(path: Path) -> None:
    """Raise BadFile if the header of an NRRD file has a long field, or a unit other than mm."""
    with path.open("rb") as file:
        if file.read(4) != b"NRRD":
            return  # ITK says so
        for line in file:
            if not line.strip():
                return
            free = line.startswith(FREE_TEXT) or b":=" in line
            if not free and len(line) > LONGEST_FIELD:
                raise BadFile(path, "has a damaged header", DAMAGED)
            if line.startswith((b"units:", b"space units:")):
                _require_mm(path, line.partition(b":")[2])


def require_metaimage(path: Path) -> None:
    """Raise BadFile if the header of a MetaImage has a damaged field.

    That is: too many axes, a field that is too long, or directions that are no cosines. Units other
    than mm and a scale of the values are refused, too.
    """
    with path.open("rb") as file:
        for line in file:
            key, _, value = line.partition(b"=")
            key, value = key.strip(), value.strip()
            if key == b"ElementDataFile":
                return
            is_numbers = not value.strip(b"0123456789+-.eE \t")
            is_short = len(line) <= (LONGEST_FIELD if is_numbers else LONGEST_TEXT)
            has_axes = key != b"NDims" or value in AXES
            is_turn = key not in DIRECTIONS or _are_cosines(value)
            if not (is_short or key == b"Comment") or not has_axes or not is_turn:
                raise BadFile(path, "has a damaged header", DAMAGED)
            if key == b"DistanceUnits":
                _require_mm(path, value)
            if key in UNSCALED and not _is_number(value, UNSCALED[key]):
                what = f"scales its values by {key.decode()} = {value.decode(errors='replace')}"
                raise BadFile(path, what, "save the scaled values, without this field.")


def _is_number(text: bytes, wanted: float) -> bool:
    try:
        return float(text) == wanted
    except ValueError:
        return False


def _require_mm(path: Path, units: bytes) -> None:
    for unit in units.decode(errors="replace").replace('"', " ").lower().split():
        if unit in OTHER_UNITS:
            what = f"gives lengths in {unit}, which programs that use ITK take for mm"
            raise BadFile(path, what, "save it with lengths in mm.")


def _are_cosines(value: bytes) -> bool:
    """Return whether all words are numbers that may be cosines, with a wide tolerance."""
    try:
        return all(abs(float(number)) <= LARGEST_COSINE for number in value.split())
    except ValueError:
        return False


# TIFF 6.0, section 2, and BigTIFF: bytes of a number of entries, of an entry, and of an offset
CLASSIC, BIG = (2, 12, 4), (8, 20, 8)


def require_tiff(path: Path) -> None:
    """Raise BadFile if the directories of a TIFF, each of which names the next, cannot be in it.

    Together they are not longer than the file, unless they overlap or lead back to another one.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
        is_big = int.from_bytes(head[2:4], order) == 43  # the version; 42 is the classic one
        of_count, of_entry, of_offset = BIG if is_big else CLASSIC
        start = int.from_bytes(head[8:] if is_big else head[4:8], order)
        left = size
        while 0 < start < size:  # tifffile ends at a place outside the file, too
            file.seek(start)
            entries = int.from_bytes(file.read(of_count), order)
            left -= of_count + of_entry * entries + of_offset
            if left < 0:
                raise BadFile(path, "has damaged directories of pages", DAMAGED)
            file.seek(of_entry * entries, os.SEEK_CUR)
            start = int.from_bytes(file.read(of_offset), order)


# The kinds of values (VR) of PS3.5, 7.1.2: with a length of 2 bytes, and with one of 4 bytes
SHORT = {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN",
         b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}  # fmt: skip
LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
SYNTAX = 0x00020010  # Transfer Syntax UID
IMPLICIT, BIG_ENDIAN = b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.2"
DEFLATED = b"1.2.840.10008.1.2.1.99"
PIXELS = 0x7FE00010
MODALITY_LUT = {0x00283000, 0x00283004}  # its sequence, and an element that only it has
ITEMS = 0xFFFE  # the group of items and delimiters
UNDEFINED = 0xFFFFFFFF  # the length of what ends with a delimiter


def require_dicom(path: Path) -> None:
    """Raise BadFile if an element of a DICOM file is longer than the rest of the file.

    A table that replaces slope and intercept is refused, because ITK ignores it.
    Files that are not DICOM pass; ITK says what they are.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(128)
        if file.read(4) != b"DICM":  # older files begin with group 2 or 8
            file.seek(0)
            if file.read(2) not in (b"\2\0", b"\10\0"):
                return
            file.seek(0)
        for tag, length in _elements(file):
            if length > size - file.tell():
                what = (
                    f"is damaged or truncated: the element ({tag >> 16:04X},{tag & 0xFFFF:04X}) "
                    f"has {length:,} bytes, more than the rest of the file"
                )
                raise BadFile(path, what, DAMAGED)
            if tag in MODALITY_LUT:
                what = "scales its values by a table (Modality LUT)"
                raise BadFile(path, what, "export it with a rescale slope and intercept.")
            file.seek(length, os.SEEK_CUR)


def _elements(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Yield the tag and the length of each element that has a value, those of sequences too."""
    order: Literal["little", "big"] = "little"
    explicit, in_pixels, syntax = True, False, b""
    while len(head := file.read(8)) == 8:
        group = int.from_bytes(head[:2], "little")
        if group != 2 and syntax:  # the elements of group 2 are always explicit and little-endian
            explicit, order = syntax != IMPLICIT, "big" if syntax == BIG_ENDIAN else "little"
            if syntax == DEFLATED:
                return
        tag = int.from_bytes(head[:2], order) << 16 | int.from_bytes(head[2:4], order)
        length = int.from_bytes(head[4:8], order)
        if tag >> 16 == ITEMS:
            if in_pixels and length != UNDEFINED:
                yield tag, length
            continue  # the elements of an item follow
        kind = head[4:6] if explicit else b""
        if kind in LONG:
            length = int.from_bytes(file.read(4), order)
        elif kind in SHORT:
            length = int.from_bytes(head[6:8], order)
        if tag == SYNTAX:
            syntax = file.read(min(length, 64)).rstrip(b"\0 ")
            file.seek(-min(length, 64), os.SEEK_CUR)
        if length == UNDEFINED:
            in_pixels = tag == PIXELS
        elif kind != b"SQ":
            yield tag, length
