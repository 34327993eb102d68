#!/usr/bin/env bash
# SimpleITK 2.5.7 writes label volumes where the disk has no room (a limit on the size of files stands in)
#
# Good guess: a writer that cannot write all bytes raises an error, as nibabel and open() do.
# Behaviour:  sitk.WriteImage of a small NRRD file, whose values fit into one buffer, returns without an error
#             or a message and leaves a file that ends early; reading it back raises an error. A large NRRD
#             file and MetaImage do raise.
# Matters:    Label maps compress to some kilobytes. A loop that writes predictions reports success, and the
#             missing values are found when the files are opened, perhaps on another machine. Read a file back
#             before you replace an older one by it.
# Seen (2026-11-30): random labels 0 and 1 of 16 x 32 x 32 voxels with room for 1,024 bytes: .nrrd returned and
#             left 1,024 bytes that cannot be read; .mha raised RuntimeError; nibabel 5.4.2 OSError. With
#             256 labels of 64 x 64 x 64 voxels and room for 16,384 bytes, .nrrd raised as well.
# Where:      the writer of ITK's NrrdImageIO
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --disable-pip-version-check numpy==2.4.6 SimpleITK==2.5.7 nibabel==5.4.2
cd "$dir"
venv/bin/python -W ignore - <<'PY'
import os
import resource
import sys

import nibabel
import numpy as np
import SimpleITK as sitk

ROOM = 1_024
labels = np.random.default_rng(0).integers(0, 2, (16, 32, 32), dtype=np.uint8)
image = sitk.GetImageFromArray(labels)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, hard))
silent = []
for name in ("a.nrrd", "a.mha"):
    try:
        sitk.WriteImage(image, name, useCompression=True)
        silent.append(name)
    except RuntimeError as error:
        print(name, "raises", error)
try:
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), "a.nii")
    other = "no error"
except OSError as error:
    other = type(error).__name__
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
damaged = []
for name in silent:
    try:
        whole = np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(name)), labels)
    except RuntimeError:
        whole = False
    print(f"{name}: written without an error, {os.path.getsize(name):,} bytes, whole: {whole}")
    damaged += [name] * (not whole)
print("nibabel:", other)
if damaged != ["a.nrrd"] or other == "no error":
    sys.exit("the writers behave differently now")
PY
