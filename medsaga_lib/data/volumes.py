"""Reads the stored values and the geometry of NIfTI, NRRD, MetaImage and DICOM.

nibabel reads NIfTI, because results must keep its header: SimpleITK writes another one. SimpleITK
reads the other formats; it applies slope and intercept, sorts the slices of a DICOM series by their
position and turns MONOCHROME1 into black as zero. highdicom reads DICOM files with several frames,
which need positions, because SimpleITK 2.5 keeps the order of the frames, takes those of a film for
slices, and applies the slope and intercept of the first one to all of them. Two rules for NIfTI,
where readers differ:

- The sform holds if its code is above 0, then the qform, as in nibabel. SimpleITK 2.5 takes the
  qform first unless the code of the sform is 1. If both codes are 0, the file has no orientation;
  its axes are kept as in ITK, while nibabel 5.4 mirrors the first one.
- Lengths come from pixdim, and directions from the form, as in ITK.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medsaga_lib.data import headers
from medsaga_lib.data.dicom_masks import kind_of_mask
from medsaga_lib.data.geometry import RAS_OF_LPS, Geometry, itk_affine
from medsaga_lib.data.problems import BadFile, in_mm, times
from medsaga_lib.data.quiet import quiet
from medsaga_lib.errors import UserError

Array = np.ndarray

NIFTI = (".nii", ".nii.gz")
ITK = (".nrrd", ".nhdr", ".mha", ".mhd")
DICOM = (".dcm", ".dicom", ".ima")
UNIT = {"meter": 1000.0, "mm": 1.0, "micron": 1e-3, "unknown": 1.0}  # mm
SAME = 1e-3  # mm; our choice: slices that are nearer have the same position
ASIDE = 0.1  # mm; our choice: slices are above each other if they are not further apart
GAP = 0.01  # our choice: slices are evenly spaced if no distance differs by more than this share

# DICOM tags, PS3.6
PHOTOMETRIC, BITS, INSTANCE = "0028|0004", "0028|0101", "0020|0013"
CENTRE, WIDTH = "0028|1050", "0028|1051"
INTERCEPT, SLOPE = "0028|1052", "0028|1053"
POSITION, ORIENTATION = "0020|0032", "0020|0037"
IMAGER_SPACING, FRAME = "0018|1164", "0020|0052"
FRAMES, SIGNED = "0028|0008", "0028|0103"


class Read(NamedTuple):
    """The content of a file: values (H, W), (H, W, 3) or (D, H, W), without scaling to [0, 1].

    geometry: of a volume, else None. window: (low, high) that a DICOM picture gives, else None.
    """

    values: Array
    spacing: tuple[float, ...]
    geometry: Geometry | None
    window: tuple[float, float] | None = None


def read_nifti(path: Path) -> Read:
    """Read one volume.

    Raises:
        BadFile: it has more than three axes, or a voxel size or form that cannot be used.
    """
    import nibabel as nib

    volume: Any = nib.load(path)
    dtype = volume.header.get_data_dtype()
    headers.require_room(path, volume.shape, dtype.itemsize, path.stat().st_size)
    values = np.asanyarray(volume.dataobj)
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        what = f"has the shape {times(values.shape)}"
        raise BadFile(path, what, "save one volume (x, y, z) in each file.")
    header = volume.header
    unit = UNIT[header.get_xyzt_units()[0]]
    lengths = unit * np.asarray(header.get_zooms()[:3], float)
    require_lengths(path, tuple(lengths[::-1]))
    known = bool(header["sform_code"] > 0 or header["qform_code"] > 0)
    affine = np.array(volume.affine, float) if known else RAS_OF_LPS @ np.diag([*lengths, 1.0])
    columns = np.linalg.norm(affine[:3, :3], axis=0)
    if not (np.isfinite(affine).all() and (columns > 0).all()) or _is_flat(affine, columns):
        form = "sform" if header["sform_code"] > 0 else "qform"
        what = f"has a {form} that is not a grid of voxels"
        raise BadFile(path, what, "correct its header, or convert the original again.")
    if known:
        affine[:3, :3] *= lengths / columns
        affine[:3, 3] *= unit
    geometry = Geometry(affine, known, header)
    return Read(geometry.inside(values), geometry.spacing(), geometry)


def other_form(geometry: Geometry) -> Array | None:
    """Return the affine of the qform if a NIfTI file has it beside the sform; otherwise None.

    It is NaN if the qform is not a rotation.
    """
    header = geometry.header
    if header is None or not (header["qform_code"] > 0 and header["sform_code"] > 0):
        return None
    try:
        affine = np.array(header.get_qform(), float)
    except ValueError:  # the three stored numbers of the quaternion are too large
        return np.full((4, 4), np.nan)
    affine[:3] *= UNIT[header.get_xyzt_units()[0]]
    return affine


def _is_flat(affine: Array, columns: Array) -> bool:
    return bool(abs(np.linalg.det(affine[:3, :3] / columns)) < 1e-3)


def require_lengths(path: Path, spacing: tuple[float, ...]) -> None:
    """Raise BadFile if a length of a voxel is not above 0."""
    if not all(0 < length < np.inf for length in spacing):  # False for NaN
        what = f"has the voxel size {in_mm(spacing)}"
        raise BadFile(path, what, "correct the voxel size in the file.")


def read_itk(path: Path, is_dicom: bool = False) -> Read:
    """Read an image or a volume of NRRD, MetaImage or a single DICOM file.

    is_dicom: whether a file is DICOM that has no extension of it.
    """
    is_dicom = is_dicom or is_dicom_file(path)
    if is_dicom:
        headers.require_dicom(path)
        if has_frames(path):
            return read_frames(path)
    image = _read_file(path, is_dicom)
    return _of_itk(path, image, {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()})


def is_dicom_file(path: Path) -> bool:
    """Return whether a file has an extension of DICOM."""
    return path.name.lower().endswith(DICOM)


def _read_file(path: Path, is_dicom: bool) -> Any:
    """Read a file with ITK after checks of its header."""
    import SimpleITK as sitk  # noqa: N813

    name = path.name.lower()
    if name.endswith((".nrrd", ".nhdr")):
        headers.require_nrrd(path)
    elif not is_dicom:
        headers.require_metaimage(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    one = sitk.Image([1] * reader.GetDimension(), reader.GetPixelID(), 0)
    apart = is_dicom or name.endswith((".nhdr", ".mhd"))  # values are elsewhere, or JPEG 2000
    headers.require_room(
        path,
        (*reader.GetSize(), reader.GetNumberOfComponents()),
        one.GetSizeOfPixelComponent(),
        None if apart else path.stat().st_size,
    )
    return reader.Execute()


def has_frames(path: Path) -> bool:
    """Return whether a DICOM file has several frames; False if it cannot be read."""
    try:
        with quiet:
            return int(_head(str(path)).get(FRAMES, 1)) > 1
    except (RuntimeError, ValueError):  # the reader of its values says what is wrong
        return False


def read_frames(path: Path) -> Read:
    """Read a DICOM file whose frames are the slices of a volume.

    Raises:
        UserError: highdicom is not installed.
        BadFile: the frames are not the slices of one volume, or are not evenly spaced.
    """
    try:
        import highdicom
        import pydicom
    except ImportError as error:
        what = f'{path} needs highdicom; install it with pip install "medsaga-lib[dicom]".'
        raise UserError(what) from error
    head = pydicom.dcmread(path, stop_before_pixels=True)
    if "PerFrameFunctionalGroupsSequence" not in head:
        what = f"holds {head.NumberOfFrames} frames without positions, such as those of a film"
        raise BadFile(path, what, "save a frame as an image, or a volume as a series of slices.")
    file = highdicom.imread(path)
    grid = file.get_volume_geometry(rtol=GAP)
    if grid is None or grid.spatial_shape[0] != file.number_of_frames:
        what = "has frames that are not evenly spaced slices of one volume"
        raise BadFile(path, what, "save each volume in a file of its own, with all of its slices.")
    headers.require_room(path, (file.number_of_frames, file.Rows, file.Columns), 8, None)
    values = file.get_volume(rtol=GAP, apply_real_world_transform=False).array
    if values.ndim != 3:
        raise BadFile(path, "has frames in colour", "save one channel.")
    whole = np.rint(values).astype(np.int32)
    values = whole if (whole == values).all() else values.astype(np.float32)
    affine = RAS_OF_LPS @ grid.affine[:, [2, 1, 0, 3]]  # its voxels are (slice, row, column)
    require_lengths(path, tuple(np.linalg.norm(affine[:3, :3], axis=0)))
    geometry = Geometry(affine, frame=str(file.get("FrameOfReferenceUID", "")))
    return Read(geometry.inside(values.T), geometry.spacing(), geometry)


def read_dicom(folder: Path) -> Read:
    """Read the only DICOM series of a folder.

    Raises:
        BadFile: the folder has no series or several, or slices are missing or differ.
    """
    import SimpleITK as sitk  # noqa: N813

    for file in filter(Path.is_file, folder.iterdir()):
        headers.require_dicom(file)
    names = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    series = [sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), n) for n in names]
    series = [files for files in series if not kind_of_mask(Path(files[0]))]
    if len(series) != 1:
        found = f"holds {len(series)} DICOM series" if series else "holds no DICOM series"
        other = "" if series else ", or name images of other formats one by one, as in FOLDER/*.png"
        raise BadFile(folder, found, f"give a folder with the files of one series{other}.")
    files = series[0]
    if len(files) == 1:
        read = read_itk(Path(files[0]), is_dicom=True)
    else:
        heads = [_head(file) for file in files]
        _require_stack(folder, heads)
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(files)
        read = _of_itk(folder, reader.Execute(), heads[0])
    if read.geometry is None:
        raise BadFile(folder, "holds a single image, not a volume", "give the file in it instead.")
    return read


def _head(file: str) -> dict[str, str]:
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    reader.ReadImageInformation()
    head = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
    return head | {"size": str(reader.GetSize())}


def _require_stack(folder: Path, heads: list[dict[str, str]]) -> None:
    """Raise BadFile if slices differ in size or direction, or are not evenly spaced."""
    for key, what in (("size", "sizes"), (ORIENTATION, "directions")):
        if len({head.get(key) for head in heads}) > 1:
            raise BadFile(folder, f"has slices of different {what}", "separate the series.")
    if not all(POSITION in head and ORIENTATION in head for head in heads):
        what = "has slices without a position"
        raise BadFile(folder, what, "export the series again, with ImagePositionPatient.")
    normal = np.cross(*_numbers(heads[0][ORIENTATION]).reshape(2, 3))
    positions = np.array([_numbers(head[POSITION]) for head in heads])
    along = positions @ normal
    aside = positions - np.outer(along, normal)
    shift = np.linalg.norm(aside - aside[0], axis=1).max()
    if shift > ASIDE:
        what = f"has slices that are shifted by up to {shift:.3g} mm in their plane (gantry tilt)"
        raise BadFile(folder, what, "resample it to a grid with right angles.")
    steps = np.diff(along)
    distances = abs(steps)
    smallest = min(distances[distances > SAME], default=0.0)
    if not smallest or (abs(distances - smallest) > GAP * smallest).any():
        place = int(abs(distances - smallest).argmax())
        numbers = [heads[place + i].get(INSTANCE, "?").strip() for i in (0, 1)]
        what = (
            f"has slices at uneven distances: {distances[place]:.4g} mm between instances "
            f"{numbers[0]} and {numbers[1]}, but {smallest:.4g} mm elsewhere"
        )
        raise BadFile(folder, what, "add the missing slices, or remove the doubled ones.")


def _numbers(text: str) -> Array:
    return np.array([float(part) for part in text.split("\\")])


def _of_itk(path: Path, image: Any, head: dict[str, str]) -> Read:
    import SimpleITK as sitk  # noqa: N813

    values, dimensions = sitk.GetArrayFromImage(image), image.GetDimension()
    spacing = np.array(image.GetSpacing())
    channels = image.GetNumberOfComponentsPerPixel()
    if dimensions == 4 or (channels not in (1, 3)) or (channels == 3 and values.shape[:-3] > (1,)):
        what = f"has the shape {times(values.shape)}"
        raise BadFile(path, what, "save one image, or one volume of one channel, in each file.")
    of_dicom = PHOTOMETRIC in head
    is_picture = dimensions == 2 or channels == 3 or (of_dicom and image.GetSize()[2] == 1)
    require_lengths(path, tuple(spacing[::-1]))
    if is_picture:
        values = values.reshape(values.shape[-3:] if channels == 3 else values.shape[-2:])
        unknown = of_dicom and not {"0028|0030", IMAGER_SPACING} & head.keys()
        in_plane = (1.0, 1.0) if unknown else (float(spacing[1]), float(spacing[0]))
        return Read(values, in_plane, None, _window(head))
    affine = itk_affine(spacing, image.GetOrigin(), image.GetDirection())
    geometry = Geometry(affine, _is_oriented(path, head), frame=head.get(FRAME, "").strip(" \0"))
    return Read(geometry.inside(values.T), geometry.spacing(), geometry)


def _is_oriented(path: Path, head: dict[str, str]) -> bool:
    """Return False for an NRRD file that does not name directions of the patient."""
    space = head.get("NRRD_space", "")
    is_nrrd = path.name.lower().endswith((".nrrd", ".nhdr"))
    return not is_nrrd or "anterior" in space or "posterior" in space


def _window(head: dict[str, str]) -> tuple[float, float] | None:
    """Return the first window of a DICOM picture, for values with black as zero."""
    try:
        centre, width = _numbers(head[CENTRE])[0], _numbers(head[WIDTH])[0]
    except (KeyError, ValueError):
        return None
    if head.get(PHOTOMETRIC, "").strip() == "MONOCHROME1":  # ITK has turned the stored values
        slope, intercept = float(head.get(SLOPE, 1)), float(head.get(INTERCEPT, 0))
        ends = -1 if head.get(SIGNED, "0").strip() == "1" else 2 ** int(head[BITS]) - 1  # their sum
        centre = slope * ends + 2 * intercept - centre
    low, high = float(centre - width / 2), float(centre + width / 2)
    return (low, high) if low < high and math.isfinite(high - low) else None
