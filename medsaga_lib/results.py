"""Results as files, in the kind that the input has: PNG, NIfTI with its affine, npz."""

import gzip
from pathlib import Path

import numpy as np

from medsaga_lib.data.images import Picture
from medsaga_lib.data.problems import BadFile
from medsaga_lib.errors import UserError
from medsaga_lib.files import replacing

VOLUME_ENDINGS = (".nii", ".nii.gz")


def targets(inputs: list[Path], out: Path) -> dict[Path, Path]:
    """Where each input's label map goes, and the input; UserError where two go to one place.

    A picture gives STEM_labels.png, NIfTI STEM_labels.nii.gz, npz STEM.npz. Refused is also a
    place, of a label map or of the overlay beside it, where one of the inputs lies.
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
        for written in (target, out / f"{stem(path)}_overlay.png"):
            if written.resolve() in given:
                raise UserError(f"{written} is an input and would be lost; choose another --out.")
        found[target] = path
    return found


def stem(path: Path) -> str:
    """The file's name without its ending, .nii.gz counting as one."""
    return path.name.removesuffix(".gz").rsplit(".", 1)[0]


def _result_name(path: Path) -> str:
    name = path.name.lower()
    if name.endswith(VOLUME_ENDINGS):
        return f"{stem(path)}_labels.nii.gz"
    if name.endswith(".npz"):
        return f"{stem(path)}.npz"
    return f"{stem(path)}_labels.png"


def require_room(target: Path, path: Path, picture: Picture) -> None:
    """BadFile where `target` cannot hold the labels of an input: a PNG those of a stack."""
    if target.suffix == ".png" and len(picture.shape) == 3:
        what = f"holds {picture.shape[0]} slices, too many for a PNG of labels"
        raise BadFile(path, what, "save the stack as NIfTI or npz.")


def write_labels(target: Path, picture: Picture, labels: np.ndarray) -> None:
    """A label map (H, W) or (D, H, W): NIfTI keeps the affine, npz has `segs` (CVPR24)."""
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


def write_bytes(path: Path, content: bytes) -> None:
    """A file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
