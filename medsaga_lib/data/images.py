"""Reads images, volumes and masks from PNG, JPEG, BMP, TIFF, NIfTI and npz files.

The npz files are those of the challenge "Segment Anything in Medical Images on Laptop" at CVPR
2024. Intensities are mapped to [0, 1] as in LiteMedSAM (bowang-lab/MedSAM, branch LiteMedSAM): CT
by the window with level 40 and width 400, other volumes by the percentiles 0.5 and 99.5 of the
values above 0.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from medsaga_lib.data.problems import BadFile

Window = tuple[float, float]
Array = np.ndarray

CT_WINDOW: Window = (-160.0, 240.0)  # Hounsfield units: level 40, width 400 (LiteMedSAM)
PERCENTILES = (0.5, 99.5)  # of the values above 0 (LiteMedSAM)
BITMAPS = {".png", ".jpg", ".jpeg", ".bmp"}
TIFFS = {".tif", ".tiff"}
ENDINGS = "PNG, JPEG, BMP, TIFF, NIfTI (.nii, .nii.gz) or .npz"


@dataclass(frozen=True)
class Picture:
    """An image or volume in [0, 1], float32: (H, W) grey, (H, W, 3) colour or (D, H, W) volume.

    `spacing` is in mm in the order of the array's axes; 1.0 means unknown. `affine` (4 x 4) maps a
    voxel (x, y, z) of a NIfTI file to mm, while the axes of the array are (z, y, x). It is None for
    other files.
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
    """The values of a file before scaling, with `spacing` and `affine` as in `Picture`."""

    path: Path
    values: Array
    spacing: tuple[float, ...]
    affine: Array | None

    @property
    def shape(self) -> tuple[int, ...]:
        """The size without colours: (H, W) or (D, H, W)."""
        return self.values.shape[: len(self.spacing)]


def read_image(path: str | Path, modality: str, window: Window | None = None) -> Picture:
    """Read an image or a volume and map its intensities to [0, 1].

    Args:
        path: PNG, JPEG, BMP, TIFF, NIfTI, or npz with `imgs`, (H, W, 3) or (D, H, W).
        modality: "CT" selects `CT_WINDOW` for volumes.
        window: (low, high) in stored units; it replaces every other rule. 16-bit images need one.

    Raises:
        BadFile: a `UserError`; the file cannot be read as an image of one of these formats.
    """
    stored = _read(Path(path))
    values = stored.values
    if not np.issubdtype(values.dtype, np.integer) and not np.isfinite(values).all():
        raise BadFile(
            path, "holds NaN or infinite values", "replace them, for example by the minimum."
        )
    low, high = window or _range(stored, modality)
    return Picture(scale(values, low, high), stored.spacing, stored.affine)


def read_mask(path: str | Path) -> tuple[Array, tuple[float, ...]]:
    """Read a mask as an int64 array and its spacing in mm, axes as in `read_image`.

    Raises:
        BadFile: a `UserError`; the file cannot be read, or a value is not a whole number from 0.
    """
    stored = read_labels(Path(path))
    return stored.values, stored.spacing


def scale(values: Array, low: float, high: float) -> Array:
    """Clip values to [low, high] and map them to [0, 1], float32; return 0 if low = high."""
    if not high > low:
        return np.zeros(values.shape, np.float32)
    scaled = (values.astype(np.float32) - np.float32(low)) / np.float32(high - low)
    return np.clip(scaled, 0, 1, out=scaled)


def _range(stored: Stored, modality: str) -> Window:
    """Return the intensities that become 0 and 1 if the data set gives no window."""
    path, values = stored.path, stored.values
    if values.dtype == bool:
        return 0.0, 1.0
    is_volume = len(stored.shape) == 3
    if path.suffix.lower() == ".npz" and values.dtype == np.uint8:
        return 0.0, 255.0  # the volumes of the challenge are already windowed
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
        "add `window = [low, high]` to dataset.toml, give --window, or save it with 8 bits.",
    )


def read_labels(path: Path) -> Stored:
    """Read a mask as `read_mask`, but return it with the path, spacing and affine of its file."""
    stored = _read(path, is_mask=True)
    values = stored.values
    if stored.shape != values.shape:
        raise BadFile(path, "is a colour image", "save the mask as one channel of label values.")
    with np.errstate(invalid="ignore"):  # NaN and infinity fail the check below
        labels = values.astype(np.int64)
    if values.dtype.kind == "f" and not (labels == values).all():
        raise BadFile(path, "holds fractional values", "save whole numbers (0, 1, 2 ...).")
    if labels.min() < 0:
        raise BadFile(
            path, f"holds the value {labels.min()}", "number the labels from 0 (background)."
        )
    return replace(stored, values=labels)


def _read(path: Path, is_mask: bool = False) -> Stored:
    """Read the stored values of a file: (H, W), (H, W, 3) or (D, H, W).

    Every error of a reader, such as that for a damaged file, becomes a `BadFile`.
    """
    reader = _reader(path, is_mask)
    try:
        _require_content(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the message of `BadFile` replaces the warnings
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
    raise BadFile(path, f"has the unknown extension '{ending}'", f"save it as {ENDINGS}.")


def _require_kind(stored: Stored) -> None:
    path, values = stored.path, stored.values
    if values.dtype.kind not in "buif":
        raise BadFile(path, f"holds values of type {values.dtype}", "save it as numbers.")
    if stored.shape != values.shape and values.shape[-1] == 4:
        what = "has 4 channels (RGBA)"
        raise BadFile(path, what, "save it as RGB or grey, without transparency.")
    if values.ndim not in (2, 3) or values.size == 0:
        what = f"has the shape {times(values.shape)}"
        raise BadFile(path, what, "save an image (H, W) or (H, W, 3), or a volume (D, H, W).")


def _read_bitmap(path: Path, is_mask: bool) -> Stored:
    from PIL import Image

    with Image.open(path) as picture:
        picture.load()
        mode = picture.mode
        if mode in ("RGBA", "LA", "PA", "RGBa", "La"):
            what = f"has a transparency channel ({mode})"
            raise BadFile(path, what, "save it as RGB or grey, without transparency.")
        if mode == "CMYK":
            raise BadFile(path, "is a CMYK image", "save it as RGB or grey.")
        if mode == "P" and not is_mask:  # in a mask, the palette indices are the labels
            values = np.asarray(picture.convert("RGB"))
        else:
            values = np.asarray(picture)
    return Stored(path, values, (1.0, 1.0), None)


def _read_tiff(path: Path) -> Stored:
    import tifffile

    with tifffile.TiffFile(path) as file:
        values, axes = file.series[0].asarray(), file.series[0].axes
    if axes == "SYX":  # one plane for each colour, not a volume
        values = np.moveaxis(values, 0, -1)
    return Stored(path, values, (1.0,) * _dimensions(values, (3, 4)), None)


def _read_nifti(path: Path) -> Stored:
    import nibabel as nib

    volume = nib.load(path)
    values = np.asanyarray(volume.dataobj)  # type: ignore[attr-defined]
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        what = f"has the shape {times(values.shape)}"
        raise BadFile(path, what, "save one volume (x, y, z) in each file.")
    zooms = volume.header.get_zooms()[:3]  # type: ignore[attr-defined]
    spacing = tuple(float(zoom) for zoom in reversed(zooms))
    _require_spacing(path, spacing)
    return Stored(path, np.ascontiguousarray(values.T), spacing, volume.affine)  # type: ignore


def _read_npz(path: Path) -> Stored:
    with np.load(path, allow_pickle=False) as arrays:
        if "imgs" not in arrays:
            what = f"has no array 'imgs' (its arrays: {', '.join(arrays) or 'none'})"
            raise BadFile(path, what, "save the image under the key 'imgs'.")
        values = arrays["imgs"]
        spacing = (1.0,) * _dimensions(values)
        if "spacing" in arrays and len(spacing) == 3:
            x, y, z = (float(value) for value in arrays["spacing"])  # the axes are (z, y, x)
            spacing = (z, y, x)
            _require_spacing(path, spacing)
    return Stored(path, values, spacing, None)


def _require_spacing(path: Path, spacing: tuple[float, ...]) -> None:
    if not all(0 < length < np.inf for length in spacing):  # False for NaN
        what = f"has the voxel size {in_mm(spacing)}"
        raise BadFile(path, what, "correct the voxel size in the file.")


def _dimensions(values: Array, colours: tuple[int, ...] = (3,)) -> int:
    """Return 2 for an image and 3 for a volume; a last axis of a length in `colours` is colour."""
    return 2 if values.ndim == 3 and values.shape[-1] in colours else values.ndim


def times(shape: tuple[int, ...]) -> str:
    """Write a shape as text, such as 5 x 12 x 12."""
    return " x ".join(str(length) for length in shape)


def in_mm(spacing: tuple[float, ...]) -> str:
    """Write a spacing as text, such as 5 x 0.8 x 0.8 mm."""
    return " x ".join(f"{length:.3g}" for length in spacing) + " mm"
