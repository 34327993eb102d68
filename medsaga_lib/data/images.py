"""Reads pictures, volumes and masks: PNG, JPEG, BMP, TIFF, NIfTI, and npz as in CVPR24's challenge.

Intensities follow LiteMedSAM (bowang-lab/MedSAM, branch LiteMedSAM): CT windowed at level 40 and
width 400, other volumes between the percentiles 0.5 and 99.5 of what is above 0, then scaled to
[0, 1].
"""

import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from medsaga_lib.data.folder import Case, DataSet
from medsaga_lib.data.problems import BadFile

Window = tuple[float, float]
Array = np.ndarray

CT_WINDOW: Window = (-160.0, 240.0)  # Hounsfield units: level 40, width 400 (LiteMedSAM)
PERCENTILES = (0.5, 99.5)  # of the values above 0 (LiteMedSAM)
AFFINE_TOLERANCE = 1e-2  # mm; our choice: headers round differently, slices are rarely below 0.5 mm
SHOWN_VALUES = 5  # our choice: of wrong mask values, so many are named
BITMAPS = {".png", ".jpg", ".jpeg", ".bmp"}
TIFFS = {".tif", ".tiff"}
ENDINGS = "PNG, JPEG, BMP, TIFF, NIfTI (.nii, .nii.gz) or .npz"


@dataclass(frozen=True)
class Picture:
    """Pixels in [0, 1], float32: (H, W) grey, (H, W, 3) colour, (D, H, W) volume, slices first.

    `spacing` is in mm in the order of the array's axes, 1.0 where unknown. `affine` (4 x 4) maps
    a NIfTI's own voxel (x, y, z) to mm; the array's axes are (z, y, x). None for other files.
    """

    pixels: Array
    spacing: tuple[float, ...]
    affine: Array | None

    @property
    def shape(self) -> tuple[int, ...]:
        """The size without colours: (H, W) or (D, H, W)."""
        return self.pixels.shape[: len(self.spacing)]


@dataclass(frozen=True)
class Stored:
    """What a file holds, before any scaling; `spacing` and `affine` as in `Picture`."""

    path: Path
    values: Array
    spacing: tuple[float, ...]
    affine: Array | None

    @property
    def shape(self) -> tuple[int, ...]:
        """The size without colours: (H, W) or (D, H, W)."""
        return self.values.shape[: len(self.spacing)]


def read_image(path: str | Path, modality: str, window: Window | None = None) -> Picture:
    """Read a picture or volume and map its intensities to [0, 1].

    Args:
        path: PNG, JPEG, BMP, TIFF, NIfTI, or npz with `imgs`, (H, W, 3) or (D, H, W).
        modality: "CT" selects the window of `CT_WINDOW` for volumes.
        window: (low, high) in stored units, before any other rule; 16-bit pictures need one.

    Raises:
        BadFile: the file cannot be read as such an image (a `UserError`).
    """
    stored = _read(Path(path))
    values = stored.values
    if not np.issubdtype(values.dtype, np.integer) and not np.isfinite(values).all():
        raise BadFile(path, "holds NaN or infinite values", "replace them, e.g. by the minimum.")
    low, high = window or _range(stored, modality)
    return Picture(scale(values, low, high), stored.spacing, stored.affine)


def read_mask(path: str | Path) -> tuple[Array, tuple[float, ...]]:
    """Read a mask as (int64 array, spacing in mm), axes as in `read_image`.

    Raises:
        BadFile: the file cannot be read, or its values are no whole numbers from 0 (a `UserError`).
    """
    stored = _read_labels(Path(path))
    return stored.values, stored.spacing


def read_pair(dataset: DataSet, case: Case) -> tuple[Picture, Array]:
    """A case's picture and its label map (int64, the picture's size; instances become label 1).

    Raises:
        BadFile: as `read_image` and `read_mask`, or they do not belong together (a `UserError`).
    """
    picture = read_case(dataset, case)
    return picture, match(dataset, picture, read_case_mask(case))


def match(dataset: DataSet, picture: Picture, mask: Stored) -> Array:
    """The label map of a mask that lies on its picture's grid and holds only known labels.

    Raises:
        BadFile: another size or affine, or a value that is not among the labels (a `UserError`).
    """
    _require_same_grid(mask, picture)
    if dataset.masks == "instances":
        return (mask.values > 0).astype(np.int64)
    if dataset.labels:
        _require_known_labels(mask, dataset.labels)
    return mask.values


def read_case(dataset: DataSet, case: Case) -> Picture:
    """A case's picture, in the dimensions that its data set declares.

    Raises:
        BadFile: as `read_image`, or it has other dimensions (a `UserError`).
    """
    picture = read_image(case.image, dataset.modality, dataset.window)
    found = len(picture.shape)
    if found != dataset.dimensions:
        what = f"is {found}-D, but dataset.toml says dimensions = {dataset.dimensions}"
        raise BadFile(case.image, what, "correct dataset.toml, or keep such files apart.")
    return picture


def read_case_mask(case: Case) -> Stored:
    """A case's mask, its values whole numbers from 0 in int64.

    Raises:
        BadFile: as `read_mask`, or the case has none (a `UserError`).
    """
    if case.mask is None:
        what = f"case '{case.name}' has no mask"
        raise BadFile(case.image, what, "name one in index.csv, or remove the row.")
    return _read_labels(case.mask)


def scale(values: Array, low: float, high: float) -> Array:
    """Clip to [low, high] and map it to [0, 1] in float32; a constant picture becomes 0."""
    if not high > low:
        return np.zeros(values.shape, np.float32)
    scaled = (values.astype(np.float32) - np.float32(low)) / np.float32(high - low)
    return np.clip(scaled, 0, 1, out=scaled)


def _range(stored: Stored, modality: str) -> Window:
    """The intensities that become 0 and 1 where the data set gives no window."""
    path, values = stored.path, stored.values
    if values.dtype == bool:
        return 0.0, 1.0
    is_volume = len(stored.shape) == 3
    if path.suffix.lower() == ".npz" and values.dtype == np.uint8:
        return 0.0, 255.0  # the challenge's volumes are windowed already
    if is_volume and modality.upper() == "CT":
        return CT_WINDOW
    if is_volume:
        shown = values[values > 0]
        low, high = np.percentile(shown if shown.size else values, PERCENTILES)
        return float(low), float(high)
    if values.dtype == np.uint8:
        return 0.0, 255.0
    what = f"has {values.dtype} values from {values.min():g} to {values.max():g}, not 8 bits"
    raise BadFile(
        path,
        what,
        "add `window = [low, high]` to dataset.toml, give --window, or save it as 8 bits.",
    )


def _read_labels(path: Path) -> Stored:
    stored = _read(path, is_mask=True)
    values = stored.values
    if stored.shape != values.shape:
        raise BadFile(path, "is a colour picture", "save the mask as one channel of label ids.")
    with np.errstate(invalid="ignore"):  # NaN and infinity are no labels either
        labels = values.astype(np.int64)
    if values.dtype.kind == "f" and not (labels == values).all():
        raise BadFile(path, "holds fractional values", "save label ids (0, 1, 2 ...), not grades.")
    if labels.min() < 0:
        raise BadFile(path, f"holds the value {labels.min()}", "labels start at 0 (background).")
    return replace(stored, values=labels)


def _require_known_labels(mask: Stored, labels: Collection[int]) -> None:
    unknown = sorted(set(np.unique(mask.values).tolist()) - {0, *labels})
    if not unknown:
        return
    shown = ", ".join(str(value) for value in unknown[:SHOWN_VALUES])
    more = f" and {len(unknown) - SHOWN_VALUES} more" if len(unknown) > SHOWN_VALUES else ""
    what = f"holds the value {shown}{more}, not in [labels] ({', '.join(map(str, labels))})"
    raise BadFile(mask.path, what, "add it to [labels] of dataset.toml, or renumber the mask.")


def _require_same_grid(mask: Stored, picture: Picture) -> None:
    if mask.values.shape != picture.shape:
        what = f"is {_times(mask.values.shape)}, but its image is {_times(picture.shape)}"
        raise BadFile(mask.path, what, "give both the same size.")
    known = "spacing" if mask.affine is None or picture.affine is None else "affine"
    of_mask, of_image = getattr(mask, known), getattr(picture, known)
    if not np.allclose(of_mask, of_image, rtol=0, atol=AFFINE_TOLERANCE):
        ours, theirs = _mm(mask.spacing), _mm(picture.spacing)
        what = f"has another {known} than its image (spacing {ours} and {theirs})"
        raise BadFile(mask.path, what, "resample the mask to its image, or correct its header.")


def _read(path: Path, is_mask: bool = False) -> Stored:
    """The stored values of a file, (H, W), (H, W, 3) or (D, H, W).

    Whatever a damaged file makes its reader raise ends in one sentence about that file.
    """
    reader = _reader(path, is_mask)
    try:
        _require_content(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # readers warn before they fail; we say it once
            stored = reader(path)
    except BadFile:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        what = f"cannot be read as {path.suffix.lower()} ({reason})"
        raise BadFile(path, what, "copy or export it again.") from error
    _require_kind(stored)
    return stored


def _require_content(path: Path) -> None:
    if not path.is_file():
        raise BadFile(path, "is missing", "put the file there, or correct its name.")
    if path.stat().st_size == 0:
        raise BadFile(path, "is empty (0 bytes)", "copy or download it again.")


def _reader(path: Path, is_mask: bool) -> Callable[[Path], Stored]:
    ending = path.suffix.lower()
    if ending in BITMAPS:
        return partial(_read_bitmap, is_mask=is_mask)
    if ending in TIFFS:
        return _read_tiff
    if ending == ".nii" or path.name.lower().endswith(".nii.gz"):
        return _read_nifti
    if ending == ".npz":
        return _read_npz
    raise BadFile(path, f"has the ending '{ending}', which is not read", f"save it as {ENDINGS}.")


def _require_kind(stored: Stored) -> None:
    path, values = stored.path, stored.values
    if values.dtype.kind not in "buif":
        raise BadFile(path, f"holds values of type {values.dtype}", "save numbers.")
    if stored.shape != values.shape and values.shape[-1] == 4:
        what = "has four channels (RGBA)"
        raise BadFile(path, what, "remove the transparency: save it as RGB or grey.")
    if values.ndim not in (2, 3) or values.size == 0:
        what = f"has the shape {_times(values.shape)}"
        raise BadFile(path, what, "save a picture (H, W), (H, W, 3) or a volume (D, H, W).")


def _read_bitmap(path: Path, is_mask: bool) -> Stored:
    from PIL import Image

    with Image.open(path) as picture:
        picture.load()
        mode = picture.mode
        if mode in ("RGBA", "LA", "PA", "RGBa", "La"):
            what = f"has a transparent channel ({mode})"
            raise BadFile(path, what, "remove the transparency: save it as RGB or grey.")
        if mode == "CMYK":
            raise BadFile(path, "is a CMYK picture", "save it as RGB or grey.")
        if mode == "P" and not is_mask:  # of a mask the numbers count, not their colours
            values = np.asarray(picture.convert("RGB"))
        else:
            values = np.asarray(picture)
    return Stored(path, values, (1.0, 1.0), None)


def _read_tiff(path: Path) -> Stored:
    import tifffile

    with tifffile.TiffFile(path) as file:
        values, axes = file.series[0].asarray(), file.series[0].axes
    if axes == "SYX":  # a plane for each colour, no volume
        values = np.moveaxis(values, 0, -1)
    return Stored(path, values, (1.0,) * _dimensions(values, (3, 4)), None)


def _read_nifti(path: Path) -> Stored:
    import nibabel as nib

    volume = nib.load(path)
    values = np.asanyarray(volume.dataobj)  # type: ignore[attr-defined]
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        what = f"has the shape {_times(values.shape)}"
        raise BadFile(path, what, "save one volume (x, y, z) in a file.")
    zooms = volume.header.get_zooms()[:3]  # type: ignore[attr-defined]
    spacing = tuple(float(zoom) for zoom in reversed(zooms))
    _require_spacing(path, spacing)
    return Stored(path, np.ascontiguousarray(values.T), spacing, volume.affine)  # type: ignore


def _read_npz(path: Path) -> Stored:
    with np.load(path, allow_pickle=False) as arrays:
        if "imgs" not in arrays:
            what = f"has no array 'imgs' (it has: {', '.join(arrays) or 'none'})"
            raise BadFile(path, what, "save the picture under the key 'imgs'.")
        values = arrays["imgs"]
        spacing = (1.0,) * _dimensions(values)
        if "spacing" in arrays and len(spacing) == 3:
            x, y, z = (float(value) for value in arrays["spacing"])  # the array is (z, y, x)
            spacing = (z, y, x)
            _require_spacing(path, spacing)
    return Stored(path, values, spacing, None)


def _require_spacing(path: Path, spacing: tuple[float, ...]) -> None:
    if not all(0 < length < np.inf for length in spacing):  # nor is it NaN
        what = f"has voxels of {_mm(spacing)}"
        raise BadFile(path, what, "correct the voxel size in the file.")


def _dimensions(values: Array, colours: tuple[int, ...] = (3,)) -> int:
    """2 for pictures, also coloured: a last axis so short is colour, no volume is so narrow."""
    return 2 if values.ndim == 3 and values.shape[-1] in colours else values.ndim


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(length) for length in shape)


def _mm(spacing: tuple[float, ...]) -> str:
    return " x ".join(f"{length:.3g}" for length in spacing) + " mm"
