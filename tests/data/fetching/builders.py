"""Small archives in the official layouts."""

import gzip
import io
import tarfile
import zipfile

import nibabel as nib
import numpy as np
from PIL import Image

AFFINE = np.diag([-1.5, -1.5, 4, 1])


def zipped(files: dict[str, bytes]) -> bytes:
    """Return a zip archive."""
    with io.BytesIO() as buffer:
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return buffer.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    """Return a tar archive."""
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return buffer.getvalue()


def nifti(values: np.ndarray) -> bytes:
    """Return a .nii.gz file of the axes (x, y, z)."""
    return gzip.compress(nib.Nifti1Image(values, AFFINE).to_bytes(), mtime=0)


def picture(values: np.ndarray, kind: str = "PNG") -> bytes:
    """Return a picture of (H, W) or (H, W, 3)."""
    with io.BytesIO() as buffer:
        Image.fromarray(values).save(buffer, kind)
        return buffer.getvalue()


def ct(seed: int, shape=(12, 10, 4)) -> np.ndarray:
    """Return a volume (x, y, z) in Hounsfield units."""
    return np.random.default_rng(seed).integers(-900, 900, shape).astype(np.int16)


def organs(*slices: list[int], shape=(12, 10)) -> np.ndarray:
    """Return a mask (x, y, z) whose slices show the given labels, one column of x for each."""
    volume = np.zeros((*shape, len(slices)), np.uint8)
    for z, labels in enumerate(slices):
        for x, label in enumerate(labels):
            volume[x, 2:7, z] = label
    return volume
