"""Reads images, volumes and masks, and maps intensities to [0, 1].

`bitmaps` reads the values of pictures, `volumes` those of volumes; here they get one form and one
kind of error. The npz files are those of the challenge "Segment Anything in Medical Images on
Laptop" at CVPR 2024, and npy files hold one array, as MedSAM's training takes them. Intensities are
mapped as in LiteMedSAM (bowang-lab/MedSAM, branch LiteMedSAM): CT by the window with level 40 and
width 400, other volumes by the percentiles 0.5 and 99.5 of the values above 0.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medsaga_lib.data import bitmaps, headers, volumes
from medsaga_lib.data.dicom_masks import kind_of_mask, read_dicom_mask
from medsaga_lib.data.geometry import Geometry
from medsaga_lib.data.problems import BadFile, Problem, listed, times
from medsaga_lib.data.quiet import quiet
from medsaga_lib.errors import UserError

Window = tuple[float, float]
Array = np.ndarray

CT_WINDOW: Window = (-160.0, 240.0)  # Hounsfield units: level 40, width 400 (LiteMedSAM)
PERCENTILES = (0.5, 99.5)  # of the values above 0 (LiteMedSAM)
BITMAPS = {".png", ".jpg", ".jpeg", ".bmp"}
TIFFS = {".tif", ".tiff"}
NUMPY = (".npz", ".npy")
ENDINGS = (
    "PNG, JPEG, BMP, TIFF, NIfTI (.nii, .nii.gz), NRRD, MetaImage (.mha, .mhd), DICOM, .npz or .npy"
)
LARGEST = 1e37  # our choice: far above intensities, and differences of such values fit into float32
ROUNDED = 1e-3  # our choice: labels that a file stores with a scale may be off by this much


class Source(NamedTuple):
    """The stored values of a picture, and the window by which they were scaled.

    rule: "declared", "CT", "percentiles" of the volume, "file" (DICOM) or "type" (8 bits or less).
    """

    dtype: str
    low: float
    high: float
    window: Window
    rule: str


@dataclass(frozen=True)
class Picture:
    """An image or volume in [0, 1], float32: (H, W) grey, (H, W, 3) colour or (D, H, W) volume.

    spacing: in mm, in the order of the array's axes; 1.0 means unknown.
    geometry: the grid of a volume's file, to which results return; None if it gives none.
    source: None for a picture that was not read from a file.
    """

    pixels: Array
    spacing: tuple[float, ...]
    geometry: Geometry | None = None
    source: Source | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The size without colours: (H, W) or (D, H, W)."""
        return self.pixels.shape[: len(self.spacing)]


@dataclass(frozen=True)
class Stored:
    """The values of a file before scaling, with `spacing` and `geometry` as in `Picture`.

    window: (low, high) that the file itself gives, or None. notes: what of the file is not used.
    """

    path: Path
    values: Array
    spacing: tuple[float, ...]
    geometry: Geometry | None = None
    window: Window | None = None
    notes: tuple[Problem, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """The size without colours: (H, W) or (D, H, W)."""
        return self.values.shape[: len(self.spacing)]


def read_image(path: str | Path, modality: str, window: Window | None = None) -> Picture:
    """Read an image or a volume and map its intensities to [0, 1].

    Args:
        path: PNG, JPEG, BMP, TIFF, NIfTI, NRRD, MetaImage, DICOM (a file, or a folder with one
            series), npz with `imgs`, or npy; their arrays are (H, W), (H, W, 3) or (D, H, W).
        modality: "CT" selects `CT_WINDOW` for volumes.
        window: (low, high) in stored units; it replaces every other rule. 16-bit images need one.

    Raises:
        BadFile: a `UserError`; the file cannot be read as an image of one of these formats.
    """
    return picture_of(read_stored(Path(path)), modality, window)


def picture_of(stored: Stored, modality: str, window: Window | None = None) -> Picture:
    """Map the values of a file to [0, 1]; arguments and errors as in `read_image`."""
    path, values = stored.path, stored.values
    if not np.issubdtype(values.dtype, np.integer) and not np.isfinite(values).all():
        raise BadFile(
            path, "holds NaN or infinite values", "replace them, for example by the minimum."
        )
    if values.dtype.kind == "f" and values.size and float(np.abs(values).max()) > LARGEST:
        raise BadFile(path, f"holds values above {LARGEST:g}", "correct them, or save other units.")
    (low, high), rule = (window, "declared") if window else _range(stored, modality)
    ends = float(values.min()), float(values.max())
    source = Source(str(values.dtype), *ends, (float(low), float(high)), rule)
    return Picture(scale(values, low, high), stored.spacing, stored.geometry, source)


def read_mask(path: str | Path) -> tuple[Array, tuple[float, ...]]:
    """Read a mask as an int64 array and its spacing in mm, axes as in `read_image`.

    Raises:
        BadFile: a `UserError`; the file cannot be read, or a value is not a whole number from 0.
    """
    stored = read_labels(Path(path))
    return stored.values, stored.spacing


def scale(values: Array, low: float, high: float) -> Array:
    """Clip values to [low, high] and map them to [0, 1], float32; return 0 if low = high."""
    low, high = float(low), float(high)
    is_wide = max(abs(low), abs(high), abs(high - low)) > float(np.finfo(np.float32).max)
    kind: type[np.floating] = np.float64 if is_wide else np.float32
    if is_wide:  # halves, whose difference is finite
        values, low, high = values.astype(kind) / 2, low / 2, high / 2
    if not kind(high - low) > 0:
        return np.zeros(values.shape, np.float32)
    with np.errstate(over="ignore", divide="ignore"):  # of a range that is nearly 0
        scaled = (values.astype(kind) - kind(low)) / kind(high - low)
    return np.clip(scaled, 0, 1, out=scaled).astype(np.float32, copy=False)


def _range(stored: Stored, modality: str) -> tuple[Window, str]:
    """Return the intensities that become 0 and 1 if the data set gives no window, and the rule."""
    path, values = stored.path, stored.values
    if values.dtype == bool:
        return (0.0, 1.0), "type"
    is_volume = len(stored.shape) == 3
    is_ct = modality.upper() == "CT"
    if values.dtype == np.uint8 and (path.suffix.lower() == ".npz" or is_ct):
        return (
            0.0,
            255.0,
        ), "type"  # already windowed: the challenge's volumes, and CT without negatives
    if is_volume and is_ct:
        return CT_WINDOW, "CT"
    if is_volume:
        shown = values[values > 0]
        low, high = np.percentile(shown if shown.size else values, PERCENTILES)
        return (float(low), float(high)), "percentiles"
    if stored.window is not None:
        return stored.window, "file"
    if values.dtype == np.uint8:
        return (0.0, 255.0), "type"
    unit = values.dtype.kind == "f" and values.min() >= 0 and values.max() <= 1
    if unit and path.suffix.lower() == ".npy":
        return (0.0, 1.0), "type"  # as MedSAM's preparation stores images
    what = f"has {values.dtype} values from {values.min():g} to {values.max():g}, not 8 bits"
    raise BadFile(
        path,
        what,
        "add `window = [low, high]` to dataset.toml, give --window, or save it with 8 bits.",
    )


MOST_COLOURS = 16  # our choice: a message lists at most this many colours of a mask
Colours = Sequence[tuple[tuple[int, int, int], int]]  # RGB of 8 bits, and its label value


def read_labels(path: Path, colours: Colours = ()) -> Stored:
    """Read a mask as `read_mask`, but return it with the path and the geometry of its file.

    colours: the labels of the colours of an RGB mask; black is 0 unless it is among them.
    """
    stored = read_stored(path, is_mask=True)
    values = stored.values
    if stored.shape != values.shape and colours and values.dtype == np.uint8:
        return replace(stored, values=_of_colours(path, values, colours))
    if stored.shape != values.shape:
        raise BadFile(path, *_colour_mask(values))
    if values.dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # NaN and infinity fail the comparison
            labels = np.rint(values).astype(np.int64)
            whole = abs(values - labels) <= ROUNDED
        if not whole.all():
            raise BadFile(path, "holds fractional values", "save whole numbers (0, 1, 2 ...).")
    else:
        labels = values.astype(np.int64)
    if labels.min() < 0:
        raise BadFile(
            path, f"holds the value {labels.min()}", "number the labels from 0 (background)."
        )
    return replace(stored, values=labels)


def read_regions(path: Path, image: Picture | Stored, labels: dict[int, str]) -> Stored:
    """Read the label map of an RTSTRUCT or a SEG on the grid of its image; see `dicom_masks`."""
    with reading(path, kind_of_mask(path) or ".dcm"):
        values, notes = read_dicom_mask(path, image.geometry, image.shape, labels)
    return Stored(path, values, image.spacing, image.geometry, notes=notes)


def _colour_mask(values: Array) -> tuple[str, str]:
    """Return what is wrong with a mask (H, W, 3), and the remedy."""
    remedy = "save the mask as one channel of label values"
    found = np.unique(values.reshape(-1, 3), axis=0)
    if values.dtype != np.uint8 or len(found) > MOST_COLOURS:
        return f"is a colour image of {len(found):,} colours", remedy + "."
    named = listed(str(colour.tolist()) for colour in found)
    remedy += (
        ", or name its colours: --colours of `medsaga data import`, [colours] in dataset.toml."
    )
    return f"is a colour image of the colours {named}", remedy


def _of_colours(path: Path, values: Array, colours: Colours) -> Array:
    """Return the labels (H, W) of an RGB mask (H, W, 3)."""
    codes = values.astype(np.int64) @ [1 << 16, 1 << 8, 1]
    legend = {0: 0} | {(r << 16) + (g << 8) + b: label for (r, g, b), label in colours}
    unknown = ~np.isin(codes, list(legend))
    if unknown.any():
        code = int(codes[unknown][0])
        first = [code >> 16, code >> 8 & 255, code & 255]
        what = f"holds {unknown.sum()} pixels of colours that are not in [colours], such as {first}"
        raise BadFile(path, what, "add the colour to dataset.toml, or save the mask without loss.")
    labels = np.zeros(codes.shape, np.int64)
    for code, label in legend.items():
        labels[codes == code] = label
    return labels


def read_stored(path: Path, is_mask: bool = False) -> Stored:
    """Read the stored values of a file: (H, W), (H, W, 3) or (D, H, W).

    Raises:
        BadFile: a `UserError`; also for every error of a reader, such as that for a damaged file.
    """
    kind = kind_of(path)
    with reading(path):
        _require_content(path)
        if regions := kind_of_mask(path):
            what = f"is a DICOM {regions}, which has no pixels of its own"
            remedy = "give it as the mask of its DICOM series."
            raise BadFile(path, what, remedy)
        stored = _read_as(kind, path, is_mask)
    _require_kind(stored)
    native = stored.values.dtype.newbyteorder("=")
    return replace(stored, values=stored.values.astype(native, copy=False))


@contextmanager
def reading(path: Path, kind: str = "") -> Iterator[None]:
    """Raise every error of a reader, such as that for a damaged file, as BadFile.

    kind: the format that the message names; default: `kind_of`.
    """
    kind = kind or kind_of(path)
    try:
        with quiet:
            yield
    except UserError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = type(error).__name__ if not lines else lines[-1 if "SimpleITK" in lines[0] else 0]
        raise BadFile(
            path, f"cannot be read as {kind} ({reason})", "copy or export it again."
        ) from error


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder; False also for a name that no file can have."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _require_content(path: Path) -> None:
    if path.is_dir():
        return
    if not path.is_file():
        raise BadFile(path, "is missing", "put the file there, or correct its name.")
    if path.stat().st_size == 0:
        raise BadFile(path, "is empty (0 bytes)", "copy or download it again.")


def kind_of(path: Path) -> str:
    """Return the format of a file by its name: its extension, or "DICOM series" for a folder.

    Raises:
        BadFile: there is no reader for this extension.
    """
    name = path.name.lower()
    if is_folder(path):
        return "DICOM series"
    known = (*BITMAPS, *TIFFS, *volumes.NIFTI, *volumes.ITK, *volumes.DICOM, *NUMPY)
    for ending in sorted(known, key=len, reverse=True):
        if name.endswith(ending):
            return ending
    raise BadFile(
        path, f"has the unknown extension '{path.suffix.lower()}'", f"save it as {ENDINGS}."
    )


def _read_as(kind: str, path: Path, is_mask: bool) -> Stored:
    if kind in BITMAPS:
        return Stored(path, bitmaps.read_bitmap(path, is_mask), (1.0, 1.0))
    if kind in TIFFS:
        values, dimensions, spacing = bitmaps.read_tiff(path, is_mask)
        return Stored(path, values, spacing or (1.0,) * dimensions)
    if kind == ".npz":
        return _read_npz(path, is_mask)
    if kind == ".npy":
        # a map of the file, because only that compares the declared size with the file's
        values = np.array(np.load(path, mmap_mode="r", allow_pickle=False))
        return Stored(path, values, (1.0,) * _dimensions(values, is_mask))
    if kind in volumes.NIFTI:
        return Stored(path, *volumes.read_nifti(path))
    return Stored(path, *(volumes.read_dicom if path.is_dir() else volumes.read_itk)(path))


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
    is_array = path.name.lower().endswith(NUMPY)
    if is_array and values.ndim == 3 and values.shape[-1] == 1 < len(values):
        what = f"has the shape {times(values.shape)}, of one channel or of slices 1 voxel wide"
        raise BadFile(path, what, "save an image as (H, W), and a volume as (D, H, W) with W > 1.")


def _dimensions(values: Array, is_mask: bool) -> int:
    """Return the dimensions of an array without an axis of 3 colours at its end."""
    colours = not is_mask and values.ndim == 3 and values.shape[-1] == 3
    return 2 if colours else values.ndim


def _read_npz(path: Path, is_mask: bool) -> Stored:
    key, what = ("gts", "labels") if is_mask else ("imgs", "image")
    with np.load(path, allow_pickle=False) as arrays:
        if key not in arrays:
            found = f"has no array '{key}' (its arrays: {', '.join(arrays) or 'none'})"
            raise BadFile(path, found, f"save the {what} under the key '{key}'.")
        packed = arrays.zip.getinfo(f"{key}.npy")
        headers.require_room(path, (packed.file_size,), 1, path.stat().st_size)
        values = arrays[key]
        dimensions = _dimensions(values, is_mask)
        if dimensions < values.ndim:  # or a volume three voxels wide: the other arrays say so
            volume = "spacing" in arrays or any(
                name in arrays and arrays[name].shape[axis:] == shape
                for name, axis, shape in (("gts", 0, values.shape), ("boxes", 1, (6,)))
            )
            dimensions = values.ndim if volume else dimensions
        spacing = (1.0,) * dimensions
        if "spacing" in arrays and len(spacing) == 3:
            x, y, z = (float(value) for value in arrays["spacing"])  # the axes are (z, y, x)
            spacing = (z, y, x)
            volumes.require_lengths(path, spacing)
    return Stored(path, values, spacing)
