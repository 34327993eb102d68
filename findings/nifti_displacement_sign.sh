#!/usr/bin/env bash
# SimpleITK 2.5.7 (ITK 5.4) and NiBabel 5.4.2: a NIfTI field of vectors, and its intent code
#
# Good guess: the intent code names what the numbers are; it does not change them, and what was read can be saved.
# Behaviour:  with code 1006 (displacement vector), SimpleITK changes the sign of x and y when it reads; with
#             code 1007 (vector), it does not. NiBabel never does. Saving the image of code 1006 is an error.
#             Saving a new image of its array, the usual way round, writes the changed signs with code 1007.
# Matters:    two files that differ by one header code, or a file and its copy, move tissue in opposite
#             directions. Shape, affine and the lengths of the vectors are the same, so no check sees it.
# Seen (2026-12-04): vectors (1, 2, 3) are read as (-1, -2, 3) with code 1006 and as (1, 2, 3) with 1007; for
#             NiBabel, the new file of the first has code 1007 and (-1, -2, 3), and the same affine.
# Where:      ITK's NiftiImageIO, ConvertRASVectors (false by default) and ConvertRASDisplacementVectors (true);
#             SimpleITK has no switch for them
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --disable-pip-version-check numpy==2.4.6 nibabel==5.4.2 SimpleITK==2.5.7
cd "$dir"
venv/bin/python - <<'PY'
import sys
import nibabel
import numpy as np
import SimpleITK as sitk

affine = np.diag([-1.0, -1.0, 1.0, 1.0])
field = np.tile(np.float32([1, 2, 3]), (4, 5, 6, 1, 1))


def by_nibabel(name):
    image = nibabel.load(name)
    return image.get_fdata()[0, 0, 0, 0].tolist(), int(image.header["intent_code"]), image.affine


seen = []
for code in (1006, 1007):
    image = nibabel.Nifti1Image(field, affine)
    image.header["intent_code"] = code
    nibabel.save(image, f"{code}.nii")
    read = sitk.ReadImage(f"{code}.nii")
    try:
        sitk.WriteImage(read, "as_read.nii")
        saved = True
    except RuntimeError:
        saved = False
    again = sitk.GetImageFromArray(sitk.GetArrayFromImage(read), isVector=True)
    again.CopyInformation(read)
    sitk.WriteImage(again, f"{code}_copy.nii")
    vector, _, before = by_nibabel(f"{code}.nii")
    copied, second, after = by_nibabel(f"{code}_copy.nii")
    values = list(read[0, 0, 0])
    print(f"code {code}: NiBabel {vector}, SimpleITK {values}; saved as it was read: {saved}")
    print(f"  the array saved as a new image, by NiBabel: code {second}, {copied}")
    seen.append((vector, values, saved, second, copied, bool(np.allclose(before, after))))
one, other = [1.0, 2.0, 3.0], [-1.0, -2.0, 3.0]
if seen != [(one, other, False, 1007, other, True), (one, one, True, 1007, one, True)]:
    sys.exit("SimpleITK's vectors by intent code are no longer what the head of this script says.")
PY
