"""Label maps as files in the format of the input: PNG, NIfTI with its affine, or npz."""

import gzip
from pathlib import Path

import numpy as np

from medsaga_lib.data.images import Picture
from medsaga_lib.data.problems import BadFile
from medsaga_lib.errors import UserError
from medsaga_lib.files import file_stem, replacing, write_bytes

VOLUME_ENDINGS = (".nii", ".nii.gz")


def targets(inputs: list[Path], out: Path) -> dict[Path, Path]:
    """Return the path of each label map, with the input that it belongs to.

    An image gives STEM_labels.png, NIfTI gives STEM_labels.nii.gz, and npz gives STEM.npz.

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
    name = path.name.lower()
    if name.endswith(VOLUME_ENDINGS):
        return f"{file_stem(path)}_labels.nii.gz"
    if name.endswith(".npz"):
        return f"{file_stem(path)}.npz"
    return f"{file_stem(path)}_labels.png"


def require_room(target: Path, path: Path, picture: Picture) -> None:
    """Raise BadFile if `target` cannot hold the labels: a PNG has no room for those of a stack."""
    if target.suffix == ".png" and len(picture.shape) == 3:
        what = f"holds {picture.shape[0]} slices, too many for a PNG of labels"
        raise BadFile(path, what, "save the stack as NIfTI or npz.")


def write_labels(target: Path, picture: Picture, labels: np.ndarray) -> None:
    """Write a label map (H, W) or (D, H, W); NIfTI keeps the affine, npz has `segs` (CVPR24)."""
    small = labels.astype(np.uint8 if labels.max() < 256 else np.uint16)
    if target.name.endswith(".nii.gz"):
        import nibabel

        image = nibabel.Nifti1Image(small.T, picture.affine)  # (z, y, x) to (x, y, z)
        write_bytes(target, gzip.compress(image.to_bytes(), mtime=0))
    elif target.suffix == ".npz":
        with replacing(target) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, segs=small)
    else:
        from PIL import Image

        with replacing(target) as temporary:
            Image.fromarray(small).save(temporary, format="PNG")
