"""Small data sets on disk for the tests of `medsaga_lib.data`."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from medsaga_lib.data.catalog import open_dataset

settings.register_profile("shared machine", deadline=None)  # other programs slow it down
settings.load_profile("shared machine")

DESCRIPTION = """name = "tiny"
modality = "X-ray"
dimensions = 2
masks = "labels"
licence = "CC0"
citation = "none"

[labels]
1 = "right lung"
2 = "left lung"
"""
PATIENTS = ("ann", "ann", "ben", "cleo", "dan", "eve")
SPLITS = ("train", "train", "train", "train", "val", "test")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Six pictures of 24 x 32 of five patients, with label maps of labels 0, 1, 2."""
    root = tmp_path / "tiny"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    (root / "dataset.toml").write_text(DESCRIPTION)
    random = np.random.default_rng(0)
    lines = ["case,image,mask,patient,split"]
    for number, (patient, split) in enumerate(zip(PATIENTS, SPLITS, strict=True)):
        name = f"case{number}"
        picture = random.integers(0, 256, (24, 32), dtype=np.uint8)
        mask = np.zeros((24, 32), np.uint8)
        mask[4:12, 3:10], mask[5:15, 20:28] = 1, 2
        Image.fromarray(picture).save(root / f"images/{name}.png")
        Image.fromarray(mask).save(root / f"masks/{name}.png")
        lines.append(f"{name},images/{name}.png,masks/{name}.png,{patient},{split}")
    (root / "index.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def few_phantoms(monkeypatch, own_cache) -> Path:
    """Make `phantom_cxr` a set of five pictures that is not drawn yet; returns the test's cache."""
    monkeypatch.delenv("MEDSAGA_DATA", raising=False)
    monkeypatch.setattr("medsaga_lib.data.phantoms.PATIENTS", 4)
    monkeypatch.setattr("medsaga_lib.data.phantoms.PICTURES", 5)
    return own_cache


@pytest.fixture
def volumes(tmp_path: Path):
    """A volume of 8 slices of 10 x 12 (y, x); slices 2, 3 and 6 have a label."""
    root = tmp_path / "volumes"
    root.mkdir()
    (root / "dataset.toml").write_text(
        'name = "v"\nmodality = "CT"\ndimensions = 3\nmasks = "labels"\n[labels]\n1 = "organ"\n'
    )
    (root / "index.csv").write_text("case,image,mask,split\na,i.nii,m.nii,train\n")
    values = np.zeros((12, 10, 8), np.int16) + np.arange(8, dtype=np.int16) * 40 - 160
    mask = np.zeros((12, 10, 8), np.uint8)
    mask[3:6, 2:9, [2, 3, 6]] = 1
    nib.Nifti1Image(values, np.diag([-1.0, -1, 1, 1])).to_filename(root / "i.nii")
    nib.Nifti1Image(mask, np.diag([-1.0, -1, 1, 1])).to_filename(root / "m.nii")
    return open_dataset(root)
