#!/usr/bin/env bash
# nibabel 5.4.2 and SimpleITK 2.5.7 on NIfTI files with two forms, or with none
#
# Good guess: both readers put a voxel at the same place in the patient. Where a file has a qform and an
#             sform, both take the sform, as nibabel documents it.
# Behaviour:  SimpleITK takes the sform if its code is 1, and otherwise the qform, if there is one; nibabel
#             takes the sform for every code above 0. After a registration (sform code 2 to 4, qform code 1,
#             as registration tools write it) they differ by the whole registration.
#             Without a form (both codes 0), nibabel says that x grows to the left and y to the front,
#             SimpleITK that x grows to the left and y to the back; the origins differ, too.
# Matters:    A mask that was written from nibabel's affine (MONAI, TotalSegmentator) and an image that is
#             read by ITK (nnU-Net, Slicer, ITK-SNAP) do not overlap; physical coordinates, resampling to
#             another image and distances to it are wrong, with no message.
# Seen (2026-11-30): codes (qform, sform) = (1, 1): 0.0 mm apart; (1, 2), (1, 4), (2, 3): 34.8 mm at the
#             farthest corner; (0, 2): 0.0 mm; (0, 0): 125.5 mm.
# Where:      ITK, Modules/IO/NIFTI, NiftiImageIO::SetImageIOOrientationFromNIfTI; nibabel, nifti1.py,
#             Nifti1Header.get_best_affine
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --disable-pip-version-check numpy==2.4.6 nibabel==5.4.2 SimpleITK==2.5.7
cd "$dir"
venv/bin/python -W ignore - <<'PY'
import sys
import nibabel as nib
import numpy as np
import SimpleITK as sitk

shape, lengths = (64, 96, 24), np.array([0.8, 0.8, 4.0])

def turned(degrees):
    """An affine in RAS: axes to the left and to the back, turned about z."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ np.diag(lengths * [-1, -1, 1])
    return affine

def apart(q, s):
    """Millimetres between the two readers at the farthest corner."""
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.int16)
    header.set_zooms(tuple(lengths))
    header.set_xyzt_units("mm")
    if q:
        header.set_qform(turned(0), q)
    if s:
        header.set_sform(turned(22), s)
    nib.save(nib.Nifti1Image(np.zeros(shape, np.int16), None, header=header), "a.nii.gz")
    ends = np.array(np.meshgrid(*[(0, n - 1) for n in shape])).reshape(3, -1).T
    by_nibabel = nib.affines.apply_affine(nib.load("a.nii.gz").affine, ends)
    image = sitk.ReadImage("a.nii.gz")
    by_itk = np.array([image.TransformIndexToPhysicalPoint(list(map(int, end))) for end in ends])
    return np.linalg.norm(by_nibabel - by_itk * [-1, -1, 1], axis=1).max()  # ITK is in LPS

found = {(q, s): round(float(apart(q, s)), 1) for q, s in [(1, 1), (1, 2), (1, 4), (2, 3), (0, 2), (0, 0)]}
print(f"nibabel {nib.__version__}, SimpleITK {sitk.Version_VersionString()}, mm apart by codes: {found}")
same = [found[1, 1], found[0, 2]]
other = [found[1, 2], found[1, 4], found[2, 3], found[0, 0]]
if max(same) > 0.1 or min(other) < 10:
    sys.exit("the readers behave differently now")
PY
