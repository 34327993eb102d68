#!/usr/bin/env bash
# MONAI 1.6.1 (torch 2.13.0): a MetaTensor cropped, flipped or thinned by indexing
#
# Good guess: a MetaTensor carries its affine, so indexing shifts the origin, as nibabel's slicer does.
# Behaviour:  plain indexing, torch.flip and a step of 2 keep the old affine, and so does the file that
#             SaveImage writes. SpatialCrop and Flip, MONAI's own transforms, correct it. No warning.
# Matters:    a mask predicted on img[:, 8:] is saved 8 voxels beside the organ, a mask of every second
#             voxel has half its size. Metrics on the arrays do not see it; overlays and volumes do.
# Seen (2026-11-29): voxel of 2 mm: the organ at x = 20 mm lies at 4 mm in the saved file; with a step of
#             2 the spacing stays 2 mm and the volume falls from 900 to 540 mm3.
# Where:      monai/data/meta_tensor.py (__torch_function__ copies the metadata as they are)
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --disable-pip-version-check \
  numpy==2.4.6 torch==2.13.0 monai==1.6.1 nibabel==5.4.2
cd "$dir"
venv/bin/python -W ignore - <<'PY'
import sys
import nibabel as nib
import numpy as np
import torch
from monai.transforms import Flip, LoadImage, SaveImage, SpatialCrop

organ = np.zeros((20, 20, 10), np.float32)
organ[10:15, 5:10, 3:6] = 1
nib.save(nib.Nifti1Image(organ, np.diag([2.0, 2, 3, 1])), "mask.nii.gz")
mask = LoadImage(ensure_channel_first=True)("mask.nii.gz")

def saved(image, name):
    """Return the corner of the organ in mm and its volume in mm3, as a reader of the saved file sees them."""
    SaveImage(output_dir=".", output_postfix=name, separate_folder=False, print_log=False)(image)
    file = nib.load(f"mask_{name}.nii.gz")
    voxels = np.argwhere(file.get_fdata() > 0.5)
    corner = (file.affine @ np.append(voxels, np.ones((len(voxels), 1)), 1).T)[:3].min(1)
    return [float(x) for x in corner], float(len(voxels) * abs(np.linalg.det(file.affine)))

seen = {
    "as loaded": saved(mask, "loaded"),
    "SpatialCrop": saved(SpatialCrop(roi_start=(8, 0, 0), roi_end=(20, 20, 10))(mask), "crop"),
    "mask[:, 8:]": saved(mask[:, 8:], "index"),
    "Flip": saved(Flip(0)(mask), "flip"),
    "torch.flip": saved(torch.flip(mask, [1]), "torchflip"),
    "mask[:, ::2]": saved(mask[:, ::2], "step"),
}
for name, (corner, volume) in seen.items():
    print(f"{name:13} organ begins at {corner} mm, volume {volume:.0f} mm3")
if seen["SpatialCrop"] != seen["as loaded"] or seen["Flip"] != seen["as loaded"]:
    sys.exit("MONAI's own crop and flip no longer keep the organ in its place.")
if [seen[n][0][0] for n in ("mask[:, 8:]", "torch.flip", "mask[:, ::2]")] != [4, 10, 10]:
    sys.exit("Indexing a MetaTensor no longer leaves the old affine.")
PY
