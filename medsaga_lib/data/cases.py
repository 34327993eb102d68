"""Reads the image and the mask of a case and checks that they belong together."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from medsaga_lib.data.corrections import into_central_square
from medsaga_lib.data.dataset import Case, DataSet
from medsaga_lib.data.dicom_masks import kind_of_mask
from medsaga_lib.data.geometry import displacement
from medsaga_lib.data.images import (
    BITMAPS,
    Array,
    Picture,
    Stored,
    kind_of,
    picture_of,
    read_labels,
    read_regions,
    read_stored,
)
from medsaga_lib.data.problems import BadFile, in_mm, times

APART = 0.1  # voxels; our choice: above rounding in headers, far below a change of a label
SHOWN_VALUES = 5  # our choice: a message names at most this many wrong mask values


def read_pair(dataset: DataSet, case: Case) -> tuple[Picture, Array]:
    """Read the image of a case and its label map.

    The label map is int64 and has the size of the image. All instances become label 1.

    Raises:
        BadFile: a `UserError`; as `read_image` and `read_mask`, or image and mask do not match.
    """
    picture = read_case(dataset, case)
    return picture, match(dataset, picture, read_case_mask(dataset, case, picture))


def match(dataset: DataSet, picture: Picture, mask: Stored) -> Array:
    """Return the label map of a mask after checking its grid and its labels.

    Raises:
        BadFile: a `UserError`; the mask has another size or lies elsewhere than the image, or it
            holds a value that is not a label.
    """
    require_same_grid(mask, picture)
    if dataset.masks == "instances":
        return (mask.values > 0).astype(np.int64)
    if dataset.labels:
        _require_known_labels(mask, dataset.labels)
    return mask.values


def read_case(dataset: DataSet, case: Case) -> Picture:
    """Read the image of a case and check that it is 2-D or 3-D, as its data set declares.

    Raises:
        BadFile: a `UserError`; as `read_image`, or the image has other dimensions.
    """
    return as_declared(dataset, read_stored(case.image))


def as_declared(dataset: DataSet, stored: Stored) -> Picture:
    """Return a stored image as a data set declares it; errors as in `read_case`."""
    picture = picture_of(stored, dataset.modality, dataset.window)
    found = len(picture.shape)
    if found == 2 and dataset.pixel_size is not None and set(picture.spacing) == {1.0}:
        picture = replace(picture, spacing=dataset.pixel_size)
    if found != dataset.dimensions:
        what = f"is {found}-D, but dataset.toml says dimensions = {dataset.dimensions}"
        raise BadFile(stored.path, what, "correct dataset.toml, or move it to another data set.")
    return picture


def read_case_mask(dataset: DataSet, case: Case, image: Picture | Stored | None = None) -> Stored:
    """Read the mask of a case; its values are int64 and at least 0, known faults corrected.

    image: that of the case, if it is read already; an RTSTRUCT or a SEG needs its grid.

    Raises:
        BadFile: a `UserError`; as `read_mask`, or the case has no mask.
    """
    if case.mask is None:
        what = f"case '{case.name}' has no mask"
        raise BadFile(case.image, what, "name a mask in index.csv, or remove the row.")
    if kind_of_mask(case.mask):
        return read_regions(case.mask, image or read_stored(case.image), dataset.labels)
    stored = read_labels(case.mask, dataset.colours)
    if dataset.correction:
        return replace(stored, values=into_central_square(stored.values))
    return stored


def spacing_of(
    dataset: DataSet, case: Case, mask: Stored, image: Picture | Stored | None = None
) -> tuple[tuple[float, ...], bool]:
    """Return the spacing of a case in mm, and whether it is known; otherwise it is 1 pixel.

    It is that of the mask's file, or else that of the image's file, or else `pixel_size`.

    image: that of the case, if it is read already.
    """
    if mask.geometry is not None or set(mask.spacing) != {1.0}:
        return mask.spacing, True
    if image is None and kind_of(case.image) not in BITMAPS:  # those give none
        image = read_stored(case.image)
    if image is not None and (image.geometry is not None or set(image.spacing) != {1.0}):
        return image.spacing, True
    if dataset.pixel_size is not None and mask.values.ndim == 2:
        return dataset.pixel_size, True
    return mask.spacing, False


def _require_known_labels(mask: Stored, labels: Collection[int]) -> None:
    unknown = sorted(count_values(mask.values).keys() - {0, *labels})
    if not unknown:
        return
    shown = ", ".join(str(value) for value in unknown[:SHOWN_VALUES])
    more = f" and {len(unknown) - SHOWN_VALUES} more" if len(unknown) > SHOWN_VALUES else ""
    what = f"holds the value {shown}{more}, not in [labels] ({', '.join(map(str, labels))})"
    raise BadFile(mask.path, what, "add it to [labels] of dataset.toml, or renumber the mask.")


def require_same_grid(mask: Stored, picture: Picture) -> None:
    """Raise BadFile if a mask has another size or lies elsewhere than its image."""
    if mask.values.shape != picture.shape:
        what = f"is {times(mask.values.shape)}, but its image is {times(picture.shape)}"
        raise BadFile(mask.path, what, "give the image and the mask the same size.")
    remedy = "resample the mask to its image, or correct its header."
    apart = displacement_of(mask, picture)
    if apart is None:
        if {1.0} in (set(mask.spacing), set(picture.spacing)):  # one is not known
            return
        ratios = np.divide(mask.spacing, picture.spacing)
        if (abs(ratios - 1) * (np.array(picture.shape) - 1) > APART).any():
            what = f"has the spacing {in_mm(mask.spacing)}, its image {in_mm(picture.spacing)}"
            raise BadFile(mask.path, what, remedy)
    elif not apart <= APART:
        what = (
            f"lies up to {apart:.2g} voxels from its image (spacing {in_mm(mask.spacing)}, image "
            f"{in_mm(picture.spacing)})"
        )
        raise BadFile(mask.path, what, remedy)


def displacement_of(mask: Stored, picture: Picture | Stored) -> float | None:
    """Return how far apart a mask and its image of the same shape are; see `displacement`.

    None if one of the files gives no geometry.
    """
    where, of_mask, shape = picture.geometry, mask.geometry, picture.shape
    if where is None or of_mask is None:
        return None
    return displacement(where.affine_inside(shape), of_mask.affine_inside(shape), shape)


def count_values(labels: Array) -> dict[int, int]:
    """Return the number of pixels of each value of a label map, in the order of the values."""
    if labels.max() <= np.iinfo(np.uint16).max:  # counting takes a tenth of the time of sorting
        counts = np.bincount(labels.ravel())
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values, numbers = np.unique(labels, return_counts=True)
    return {int(v): int(n) for v, n in zip(values, numbers, strict=True)}
