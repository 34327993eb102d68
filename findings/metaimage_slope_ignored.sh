#!/usr/bin/env bash
# SimpleITK 2.5.7: the slope and offset that a MetaImage file declares for its values
#
# Good guess: ElementToIntensityFunctionSlope and ...Offset are applied, as scl_slope of NIfTI and Rescale Slope
#             of DICOM are by the same reader.
# Behaviour:  They are ignored, without a warning, and are not among the image's metadata: stored 5 with slope 2
#             and offset -1000 is read as 5. The same numbers in a NIfTI header give -990.
# Matters:    A CT that stores its values above 0 loses its Hounsfield units, and a window for CT makes it
#             white.
# Seen (2026-11-30): MetaImage 5; NIfTI -990.0; metadata with "intensity": none.
# Where:      MetaIO's list of tags (itk.org/Wiki/MetaIO/Documentation); itk::MetaImageIO
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

values = np.full((2, 3, 4), 5, np.uint8)
header = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = 4 3 2\nElementSpacing = 1 1 1\n"
    "ElementToIntensityFunctionSlope = 2\nElementToIntensityFunctionOffset = -1000\n"
    "ElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
)
with open("a.mha", "wb") as file:
    file.write(header.encode() + values.tobytes())
nifti = nibabel.Nifti1Image(values.T, np.eye(4))
nifti.header.set_slope_inter(2, -1000)
nibabel.save(nifti, "a.nii")

one, other = sitk.ReadImage("a.mha"), sitk.ReadImage("a.nii")
named = [key for key in one.GetMetaDataKeys() if "intensity" in key.lower()]
found, expected = (sitk.GetArrayFromImage(image).max() for image in (one, other))
print("MetaImage:", found, "| metadata with intensity:", *(named or ["none"]))
print("NIfTI:    ", expected)
if expected != -990:
    sys.exit("SimpleITK no longer applies the slope of a NIfTI file.")
if found != 5 or named:
    sys.exit("SimpleITK now applies the slope of a MetaImage file, or keeps it.")
PY
