#!/usr/bin/env bash
# nibabel 5.4.2 and SimpleITK 2.5.7: a label map of floats saved with the picture's header
#
# Good guess: labels 0, 1, 2, 3 held as floats are saved as 0, 1, 2, 3, since the header says int16.
# Behaviour:  nibabel stretches the floats over the full range of int16 and writes a slope. Reading gives
#             0.9999999998, 1.9999999995, 2.9999999993: `== 1` finds no voxel and astype(int) gives
#             0, 0, 1, 2. SimpleITK reads the same file in single precision: exactly 0, 1, 2, 3.
# Matters:    one and the same file has Dice 0 for every class, or classes shifted down by one, in a script
#             with nibabel, and Dice 1 in a script with SimpleITK. Labels become floats by np.zeros
#             or get_fdata, so such files are common. No warning.
# Seen (2026-11-29): voxels equal to 1, 2, 3: 0, 0, 0 (nibabel), 128, 128, 128 (SimpleITK); true 128 each.
# Where:      https://nipy.org/nibabel/devel/scaling.html (a page for developers), nibabel/arraywriters.py
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --disable-pip-version-check numpy==2.4.6 nibabel==5.4.2 SimpleITK==2.5.7
cd "$dir"
venv/bin/python - <<'PY'
import sys
import nibabel as nib
import numpy as np
import SimpleITK as sitk

rng = np.random.default_rng(0)
nib.save(nib.Nifti1Image(rng.integers(-1000, 1000, (8, 8, 8), dtype=np.int16), np.eye(4)), "ct.nii.gz")
ct = nib.load("ct.nii.gz")
labels = np.zeros(ct.shape)
labels[1:3], labels[3:5], labels[5:7] = 1, 2, 3
nib.save(nib.Nifti1Image(labels, ct.affine, ct.header), "labels.nii.gz")

a = nib.load("labels.nii.gz").get_fdata()
b = sitk.GetArrayFromImage(sitk.ReadImage("labels.nii.gz"))
count = lambda x: [int((x == k).sum()) for k in (1, 2, 3)]
print("stored as   ", nib.load("labels.nii.gz").get_data_dtype(), "slope", nib.load("labels.nii.gz").dataobj.slope)
print("nibabel     ", np.unique(a).tolist())
print("SimpleITK   ", b.dtype, np.unique(b).tolist())
print("voxels equal to 1, 2, 3: true", count(labels), "nibabel", count(a), "SimpleITK", count(b))
print("nibabel, astype(int):", np.unique(a.astype(int)).tolist())
if count(a) != [0, 0, 0] or np.unique(a.astype(int)).tolist() != [0, 1, 2] or count(b) != count(labels):
    sys.exit("nibabel and SimpleITK no longer differ on float labels saved as int16.")
PY
