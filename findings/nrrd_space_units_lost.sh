#!/usr/bin/env bash
# SimpleITK 2.5.7: the key "space units" of an NRRD file
#
# Good guess: A reader that turns the micrometres of a NIfTI file into millimetres does so for NRRD, whose key
#             "space units" says what the space directions are measured in.
# Behaviour:  NIfTI with xyzt_units micron: spacing 0.5 mm. NRRD with space units "um": spacing 500, taken for
#             mm. The key is not among the image's metadata either, so a program cannot notice it afterwards.
# Matters:    Microscopy and small-animal volumes are stored in micrometres. Their HD95 is 1000 times too
#             large, and a resampling to 1 mm makes an image 1000 times as long.
# Seen (2026-11-30): NIfTI 0.5 0.5 2.0; NRRD 500.0 500.0 2000.0; metadata with "units": none.
# Where:      https://teem.sourceforge.net/nrrd/format.html#spaceunits; itk::NrrdImageIO
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --disable-pip-version-check SimpleITK==2.5.7 nibabel==5.4.2 numpy==2.4.6
cd "$dir"
venv/bin/python -W ignore - <<'PY'
import sys

import nibabel
import numpy as np
import SimpleITK as sitk

values = np.zeros((2, 3, 4), np.uint8)
header = (
    "NRRD0004\ntype: uint8\ndimension: 3\nspace: left-posterior-superior\nsizes: 4 3 2\n"
    "space directions: (500,0,0) (0,500,0) (0,0,2000)\nspace origin: (0,0,0)\n"
    'space units: "um" "um" "um"\nencoding: raw\n\n'
)
with open("a.nrrd", "wb") as file:
    file.write(header.encode() + values.tobytes())
nifti = nibabel.Nifti1Image(values.T, np.diag([500, 500, 2000, 1.0]))
nifti.header.set_xyzt_units("micron")
nibabel.save(nifti, "a.nii")

one, other = sitk.ReadImage("a.nii"), sitk.ReadImage("a.nrrd")
named = [key for key in other.GetMetaDataKeys() if "units" in key.lower()]
print("NIfTI:", *one.GetSpacing())
print("NRRD: ", *other.GetSpacing(), "| metadata with units:", *(named or ["none"]))
if not np.allclose(one.GetSpacing(), (0.5, 0.5, 2)):
    sys.exit("SimpleITK no longer converts the micrometres of a NIfTI file.")
if not np.allclose(other.GetSpacing(), (500, 500, 2000)) or named:
    sys.exit("SimpleITK now converts the units of an NRRD file, or keeps them.")
PY
