"""Masks in DICOM: the contours of an RTSTRUCT and the frames of a SEG, on the grid of their image.

A region (an ROI or a segment) becomes the label that has its name in dataset.toml; upper and lower
case are the same, and regions with other names are omitted. Where labels overlap, the larger label
value is kept. A pixel belongs to an ROI if its centre is on one of the contours of its slice, or
inside an odd number of them: a contour inside another one is a hole. The centres on a contour count
because programs draw contours through the outermost pixels of a mask (OpenCV, rt-utils).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medsaga_lib.data.geometry import Geometry, displacement, itk_affine
from medsaga_lib.data.problems import BadFile, Problem, listed
from medsaga_lib.errors import UserError

Array = np.ndarray
Kind = Literal["RTSTRUCT", "SEG"]

# SOP classes, PS3.6
KINDS: dict[bytes, Kind] = {
    b"1.2.840.10008.5.1.4.1.1.481.3": "RTSTRUCT",
    b"1.2.840.10008.5.1.4.1.1.66.4": "SEG",
    b"1.2.840.10008.5.1.4.1.1.66.7": "SEG",  # label map segmentation
}
META = 1024  # bytes; our choice: the SOP class is near the start of a file
WORD: dict[Kind, str] = {"RTSTRUCT": "ROI", "SEG": "segment"}
UNITS = 1000  # of contours in a pixel; our choice: coarser than the rounding of positions in files
APART = 0.1  # voxels; our choice, as for an image and its mask
SHOWN = 8  # our choice: a message names at most this many regions


def kind_of_mask(path: Path) -> Kind | None:
    """Return whether a file is an RTSTRUCT or a SEG; None for every other file."""
    try:
        with path.open("rb") as file:
            start = file.read(META)
    except (OSError, ValueError):  # the reader says what is wrong; a name may hold a zero byte
        return None
    found = re.search(rb"\x02\x00\x02\x00UI..([0-9.]+)", start, re.DOTALL)
    return KINDS.get(found[1]) if found and start[128:132] == b"DICM" else None


def read_dicom_mask(
    path: Path, where: Geometry | None, shape: tuple[int, ...], labels: dict[int, str]
) -> tuple[Array, tuple[Problem, ...]]:
    """Return a label map and notes on what of the file is not in it.

    Args:
        path: an RTSTRUCT or a SEG.
        where: the grid of the image.
        shape: of the image, (D, H, W).
        labels: label values and names.

    Returns:
        int64 (D, H, W) in the orientation of the library, and the notes.

    Raises:
        UserError: pydicom is not installed.
        BadFile: the file was not drawn on this grid, has no region with the name of a label, or has
            a kind of region that has no pixels.
    """
    try:
        import pydicom
    except ImportError as error:
        what = f'{path} needs pydicom; install it with pip install "medsaga-lib[dicom]".'
        raise UserError(what) from error
    kind = kind_of_mask(path)
    if kind is None or where is None or len(shape) != 3:
        what = "has no image with positions in space"
        raise BadFile(path, what, "give the folder of its DICOM series as the image.")
    file = pydicom.dcmread(path)
    if not labels:
        what = "has regions with names, but dataset.toml has no [labels]"
        raise BadFile(path, what, "add [labels] with these names.")
    names = _names(path, file, kind)
    values = _values(path, names, kind, labels)
    grid = where.shape_outside(shape)
    read = _contour_masks if kind == "RTSTRUCT" else _frame_masks
    result, count = np.zeros(grid, np.int64), np.zeros(grid, np.uint8)
    notes: list[tuple[str, str]] = []
    masks = read(path, file, where, grid, set(values), notes)
    for number, mask in sorted(masks, key=lambda one: values[one[0]]):
        result[mask] = values[number]
        count += mask
    notes += _notes(names, values, kind, labels, result, int((count > 1).sum()))
    problems = tuple(Problem(str(path), *note, note=True) for note in notes)
    return where.inside(result.T), problems


def _names(path: Path, file: Any, kind: Kind) -> dict[int, str]:
    """Return the numbers and the names of the regions."""
    if kind == "RTSTRUCT":
        return {int(roi.ROINumber): str(roi.ROIName) for roi in file.StructureSetROISequence}
    if file.SegmentationType == "FRACTIONAL":
        remedy = "save it as a binary segmentation."
        raise BadFile(path, "is a fractional segmentation, which has no labels", remedy)
    names = {int(one.SegmentNumber): str(one.SegmentLabel) for one in file.SegmentSequence}
    return {number: name for number, name in names.items() if number > 0}  # 0 is background


def _values(path: Path, names: dict[int, str], kind: Kind, labels: dict[int, str]) -> dict:
    """Return the label values of the regions whose names are labels."""
    wanted = {_plain(name): value for value, name in labels.items()}
    values = {n: wanted[_plain(name)] for n, name in names.items() if _plain(name) in wanted}
    if not values:
        what = f"has no {WORD[kind]} with the name of a label (its {WORD[kind]}s: {_some(names)})"
        raise BadFile(path, what, f"use these names in [labels]; there they are {_some(labels)}.")
    twice = [value for value, count in Counter(values.values()).items() if count > 1]
    if twice:
        what = f"has several {WORD[kind]}s with the name '{labels[twice[0]]}'"
        raise BadFile(path, what, "rename or remove all but one of them.")
    return values


def _plain(name: str) -> str:
    return " ".join(name.casefold().split())


def _some(names: dict[int, str]) -> str:
    shown = [f"'{name}'" for name in names.values()]
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return listed(shown[:SHOWN]) + more


def _notes(
    names: dict[int, str],
    values: dict[int, int],
    kind: Kind,
    labels: dict[int, str],
    result: Array,
    overlap: int,
) -> Iterator[tuple[str, str]]:
    """List what of the regions is not in the label map, and labels that it does not show."""
    word = WORD[kind]
    omitted = {number: name for number, name in names.items() if number not in values}
    if omitted:
        what = f"{len(omitted)} of its {word}s are not in [labels] ({_some(omitted)})"
        yield what, "they are omitted; add them to [labels] to use them."
    absent = {value: name for value, name in labels.items() if not (result == value).any()}
    if absent:
        what = f"has no {word} for {_some(absent)}, or it is empty"
        yield what, f"its pixels are background; correct the name if the {word} has another one."
    if overlap:
        what = f"{overlap} voxels are in several labels"
        yield what, "the larger label value is kept; renumber [labels] to change it."


# RTSTRUCT


def _contour_masks(
    path: Path,
    file: Any,
    where: Geometry,
    grid: tuple[int, ...],
    wanted: set[int],
    notes: list[tuple[str, str]],
) -> Iterator[tuple[int, Array]]:
    """Yield the numbers of the wanted ROIs and their masks (z, y, x) on the grid of the file."""
    names = {}
    for roi in file.StructureSetROISequence:
        names[int(roi.ROINumber)] = str(roi.ROIName)
        if int(roi.ROINumber) in wanted:
            _require_frame(path, roi.get("ReferencedFrameOfReferenceUID", ""), where)
    to_voxels = np.linalg.inv(where.affine_lps)
    for one in file.ROIContourSequence:
        number = int(one.ReferencedROINumber)
        if number not in wanted:
            continue
        name = f"the ROI '{names[number]}'"
        slices: dict[int, list[Array]] = defaultdict(list)
        for contour in one.get("ContourSequence", ()):
            if contour.ContourGeometricType not in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"):
                what = f"{name} has a contour of the type {contour.ContourGeometricType}"
                raise BadFile(path, what, "draw it with closed contours, or rename it.")
            places = np.reshape(np.array(contour.ContourData, float), (-1, 3))
            points = places @ to_voxels[:3, :3].T + to_voxels[:3, 3]
            z = int(np.rint(points[:, 2].mean()))
            _require_inside(path, name, points, z, grid)
            slices[z].append(points)
        if slices:
            yield number, _filled(path, name, slices, grid)
            gaps = len(range(min(slices), max(slices) + 1)) - len(slices)
            if gaps:
                what = f"{name} has no contour on {gaps} slices between its first and its last one"
                notes.append((what, "they are background; interpolate the contours if it is not."))


def _require_frame(path: Path, frame: Any, where: Geometry) -> None:
    """Raise BadFile if a mask and its image name different frames of reference."""
    if frame and where.frame and str(frame) != where.frame:
        what = "was drawn in another frame of reference than its image"
        raise BadFile(path, what, "name the series that it was drawn on as the image.")


def _require_inside(path: Path, name: str, points: Array, z: int, grid: tuple[int, ...]) -> None:
    """Raise BadFile if a contour (voxels x, y, z) is not in the plane of one slice of the image."""
    if abs(points[:, 2] - z).max() > 0.5:
        what = f"{name} has a contour that is not parallel to the slices of its image"
        raise BadFile(path, what, "name the series that it was drawn on as the image.")
    ends = np.array(grid[::-1]) - 1
    outside = (points < -1).any() or (points > ends + 1).any() or not 0 <= z <= ends[2]
    if outside:  # a contour around the pixels at the border may be half a pixel outside
        x, y = points[:, :2].mean(0)
        what = f"{name} has a contour outside its image (near the voxel {x:.0f}, {y:.0f}, {z})"
        raise BadFile(path, what, "name the series that it was drawn on as the image.")


def _filled(path: Path, name: str, slices: dict[int, list[Array]], grid: tuple[int, ...]) -> Array:
    """Return the mask (z, y, x) of contours (voxels x, y, z) by the number of their slice."""
    mask = np.zeros(grid, bool)
    for z, contours in slices.items():
        planes = np.concatenate([points[:, 2] for points in contours])
        if np.ptp(planes) > APART:
            what = f"{name} has contours in several planes near slice {z} of its image"
            raise BadFile(path, what, "name the series that it was drawn on as the image.")
        on_line = np.zeros(grid[1:], bool)
        for points in contours:
            inside, line, window = _raster(points[:, 1::-1], grid[1:])
            mask[z][window] ^= inside
            on_line[window] |= line
        mask[z] |= on_line
    return mask


def _raster(points: Array, shape: tuple[int, ...]) -> tuple[Array, Array, tuple[slice, slice]]:
    """Return the pixels inside a polygon (rows, columns), those on it, and their part of the image.

    A pixel is decided by its centre, which has whole coordinates: it is inside if an odd number of
    edges is right of it in its row. Whole numbers of 1 / UNITS of a pixel make this exact.
    """
    corners = np.rint(points * UNITS).astype(np.int64)
    first = (corners.min(0) // UNITS).clip(0)
    last = np.maximum(np.minimum(corners.max(0) // UNITS + 1, shape), first)
    height, width = last - first
    corners -= first * UNITS
    ends = np.stack([corners, np.roll(corners, 1, axis=0)])
    order = ends[:, :, 0].argsort(axis=0)
    (low, high) = np.take_along_axis(ends, order[:, :, None], axis=0)  # from top to bottom
    start = (-(-low[:, 0] // UNITS)).clip(0)  # the first row of pixels that an edge reaches
    counts = (np.minimum(high[:, 0] // UNITS + 1, height) - start).clip(0)
    edge = np.repeat(np.arange(len(low)), counts)
    row = np.arange(len(edge)) - np.repeat(counts.cumsum() - counts, counts) + start[edge]

    on_line = np.zeros((height, width), bool)
    (y0, x0), (y1, x1) = low[edge].T, high[edge].T
    flat = y0 == y1
    for r, *columns in zip(row[flat], x0[flat], x1[flat], strict=True):
        on_line[r, max(-(-min(columns) // UNITS), 0) : max(max(columns) // UNITS + 1, 0)] = True
    row, y0, x0, y1, x1 = (part[~flat] for part in (row, y0, x0, y1, x1))
    unit = UNITS * (y1 - y0)
    place = x0 * (y1 - y0) + (row * UNITS - y0) * (x1 - x0)  # column of the edge, times `unit`
    column = -(-place // unit)
    hit = (place % unit == 0) & (column >= 0) & (column < width)
    on_line[row[hit], column[hit]] = True

    flips = np.zeros((height, width + 1), np.uint8)
    crossing = row * UNITS < y1  # an edge does not have its lower end, which the next one has
    np.bitwise_xor.at(flips, (row[crossing], column[crossing].clip(0, width)), 1)
    inside = np.bitwise_xor.accumulate(flips[:, ::-1], axis=1)[:, ::-1][:, 1:] > 0
    return inside & ~on_line, on_line, (slice(first[0], last[0]), slice(first[1], last[1]))


# SEG


def _frame_masks(
    path: Path,
    file: Any,
    where: Geometry,
    grid: tuple[int, ...],
    wanted: set[int],
    notes: list[tuple[str, str]],
) -> Iterator[tuple[int, Array]]:
    """Yield the numbers of the wanted segments and their masks (z, y, x) on the grid of the file.

    A SEG may omit the frames of slices without a segment, so each frame is placed by its position.
    """
    _require_frame(path, file.get("FrameOfReferenceUID", ""), where)
    frames = file.pixel_array.reshape(-1, file.Rows, file.Columns)
    masks: dict[int, Array] = defaultdict(lambda: np.zeros(grid, bool))
    is_map = file.SegmentationType == "LABELMAP"
    shared = file.SharedFunctionalGroupsSequence[0]
    for frame, groups in zip(frames, file.PerFrameFunctionalGroupsSequence, strict=True):
        z = _slice_of(path, frame.shape, (groups, shared), where, grid)
        if is_map:
            for number in wanted & set(np.unique(frame).tolist()):
                masks[number][z] |= frame == number
            continue
        number = _group((groups, shared), "SegmentIdentificationSequence").ReferencedSegmentNumber
        if number in wanted:
            masks[number][z] |= frame > 0
    yield from masks.items()


def _slice_of(
    path: Path,
    shape: tuple[int, ...],
    groups: tuple[Any, Any],
    where: Geometry,
    grid: tuple[int, ...],
) -> int:
    """Return the number of the slice that a frame lies on."""
    position = _group(groups, "PlanePositionSequence").ImagePositionPatient
    rows = np.reshape(_group(groups, "PlaneOrientationSequence").ImageOrientationPatient, (2, 3))
    height, width = _group(groups, "PixelMeasuresSequence").PixelSpacing
    direction = np.column_stack([*rows.astype(float), np.cross(*rows.astype(float))])
    frame = itk_affine((float(width), float(height), 1.0), position, direction)
    z = int(np.rint((np.linalg.inv(where.affine) @ frame)[2, 3]))
    of_slice = where.affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, z], [0, 0, 0, 1.0]])
    apart = displacement(of_slice, frame, (1, *shape))
    if shape != grid[1:] or not 0 <= z < grid[0] or not apart <= APART:
        what = "has frames that are not on the slices of its image"
        raise BadFile(path, what, "name the series that it was drawn on, or resample the mask.")
    return z


def _group(groups: tuple[Any, Any], name: str) -> Any:
    """Return the item of a functional group, of the frame itself or of all frames."""
    return next(one for one in groups if name in one)[name].value[0]
