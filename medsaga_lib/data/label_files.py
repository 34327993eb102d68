"""Label maps as files, in the format and on the grid of their input.

A NIfTI result has the header of its input: both forms, their codes and the units. Only the type of
the values changes.
"""

import gzip
from pathlib import Path
from typing import Any

import numpy as np

from medsaga_lib.data import volumes
from medsaga_lib.data.bitmaps import is_stack, write_stack
from medsaga_lib.data.geometry import RAS_OF_LPS, Geometry
from medsaga_lib.data.images import TIFFS, Picture, Stored
from medsaga_lib.data.problems import BadFile
from medsaga_lib.data.quiet import quiet
from medsaga_lib.errors import UserError
from medsaga_lib.files import file_stem, replacing, write_bytes


def targets(inputs: list[Path], out: Path) -> dict[Path, Path]:
    """Return the path of each label map, with the input that it belongs to.

    An image gives STEM_labels.png, a TIFF stack STEM_labels.tif, NIfTI and DICOM volumes
    STEM_labels.nii.gz, NRRD STEM_labels.nrrd, MetaImage STEM_labels.mha, and npz STEM.npz.

    Raises:
        UserError: two label maps would be the same file, or a label map or its overlay would
            overwrite an input.
    """
    given = {path.resolve() for path in inputs}
    found: dict[Path, Path] = {}
    for path in inputs:
        target = out / _result_name(path)
        if target in found:
            raise UserError(
                f"{path} and {found[target]} would both be written to {target}; "
                "predict them into different folders."
            )
        for written in (target, out / f"{file_stem(path)}_overlay.png"):
            if written.resolve() in given:
                raise UserError(
                    f"{written} is an input and would be overwritten; choose another --out."
                )
        found[target] = path
    return found


def _result_name(path: Path) -> str:
    name, stem = path.name.lower(), file_stem(path)
    if name.endswith(".npz"):
        return f"{stem}.npz"
    frames = volumes.is_dicom_file(path) and volumes.has_frames(path)
    if name.endswith(volumes.NIFTI) or path.is_dir() or frames:
        return f"{stem}_labels.nii.gz"
    if name.endswith((".nrrd", ".nhdr")):
        return f"{stem}_labels.nrrd"
    if name.endswith((".mha", ".mhd")):
        return f"{stem}_labels.mha"
    if path.suffix.lower() in TIFFS and is_stack(path):
        return f"{stem}_labels.tif"
    return f"{stem}_labels.png"


def require_room(target: Path, path: Path, picture: Picture) -> None:
    """Raise BadFile if `target` cannot hold the labels: a PNG has no room for those of a stack."""
    if target.suffix == ".png" and len(picture.shape) == 3:
        what = f"holds {picture.shape[0]} slices, too many for a PNG of labels"
        raise BadFile(path, what, "save the stack as NIfTI or npz.")


def write_labels(
    target: Path, picture: Picture | Stored, labels: np.ndarray, like: Path | None = None
) -> None:
    """Write a label map (H, W) or (D, H, W) on the grid of the picture's file.

    target: .nii, .nii.gz, .nrrd, .mha, .npz or .tif; every other name gives a PNG.
    like: the picture's file. NRRD and MetaImage of two axes keep their position and direction only
    with it, and a TIFF stack its kind of metadata.
    """
    small = labels.astype(np.uint8 if labels.max() < 256 else np.uint16)
    name, suffix = target.name.lower(), target.suffix.lower()
    if name.endswith(volumes.NIFTI):
        content = _nifti(small, picture)
        write_bytes(target, gzip.compress(content, mtime=0) if suffix == ".gz" else content)
        return
    with quiet, replacing(target) as temporary:
        if suffix == ".npz":
            with temporary.open("wb") as file:
                np.savez_compressed(file, segs=small)
        elif suffix in (".nrrd", ".mha"):
            _write_itk(temporary, small, picture, suffix, like)
        elif suffix in TIFFS:
            write_stack(temporary, small, picture.spacing, like)
        else:
            from PIL import Image

            Image.fromarray(small).save(temporary, format="PNG")


def _nifti(labels: np.ndarray, picture: Picture | Stored) -> bytes:
    import nibabel

    where = picture.geometry or Geometry(
        RAS_OF_LPS @ np.diag([*picture.spacing[::-1], 1.0]), known=False
    )
    values = where.outside(labels)
    if where.header is None:  # of a DICOM series
        image = nibabel.Nifti1Image(values, where.affine)
        image.header.set_xyzt_units("mm")
        return image.to_bytes()
    header = where.header.copy()
    header.set_data_dtype(values.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0  # the range of the image's display
    header.extensions.clear()  # they describe the image
    kind = nibabel.Nifti2Image if isinstance(header, nibabel.Nifti2Header) else nibabel.Nifti1Image
    return kind(values, None, header).to_bytes()


def _write_itk(
    path: Path, labels: np.ndarray, picture: Picture | Stored, ending: str, like: Path | None
) -> None:
    import SimpleITK as sitk  # noqa: N813

    where = picture.geometry
    image = sitk.GetImageFromArray(labels if where is None else where.outside(labels).T)
    if where is None and like is not None:
        head = sitk.ImageFileReader()
        head.SetFileName(str(like))
        head.ReadImageInformation()
        image = sitk.GetImageFromArray(labels.reshape(head.GetSize()[::-1]))
        image.SetSpacing(head.GetSpacing())
        image.SetOrigin(head.GetOrigin())
        image.SetDirection(head.GetDirection())
    elif where is None:
        image.SetSpacing(picture.spacing[::-1])
    else:
        affine = where.affine_lps
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        image.SetSpacing(lengths.tolist())
        image.SetOrigin(affine[:3, 3].tolist())
        image.SetDirection((affine[:3, :3] / lengths).ravel().tolist())
    made = path.with_name(f"{path.name}{ending}")  # ITK chooses the format by the name
    try:
        sitk.WriteImage(image, str(made), useCompression=True)
        if not _holds(made, image):  # SimpleITK 2.5 raises no error if the disk is full
            raise OSError("the file is incomplete, the disk may be full")
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)


def _holds(path: Path, image: Any) -> bool:
    """Tell whether a file that ITK has written has the values of an image."""
    import SimpleITK as sitk  # noqa: N813

    try:
        found = sitk.ReadImage(str(path))
    except RuntimeError:
        return False
    return np.array_equal(sitk.GetArrayViewFromImage(found), sitk.GetArrayViewFromImage(image))
