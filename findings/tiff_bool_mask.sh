#!/usr/bin/env bash
# tifffile 2026.3.3: a boolean mask saved as TIFF, read by Pillow, OpenCV and SimpleITK
#
# Good guess: every reader gives the mask back, True as 1 or 255.
# Behaviour:  tifffile marks boolean arrays as "white is zero" and leaves the bits as they are; its own
#             reader ignores the mark. Pillow, OpenCV and SimpleITK obey it: they return the complement.
#             The same mask as uint8 is read alike by all four.
# Matters:    background and organ change places when the reader is not the writer: a mask of 400 pixels
#             becomes one of 3,696. scikit-image reads TIFF through tifffile too, so it hides the problem.
# Seen (2026-11-29): bool: tifffile 400, Pillow 3696, OpenCV 3696, SimpleITK 3696; uint8: 400 for all.
# Where:      tifffile.py, TiffWriter.write ("if bilevel: photometric = MINISWHITE");
#             the reader's half: https://github.com/imageio/imageio/issues/355
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --disable-pip-version-check numpy==2.4.6 tifffile==2026.3.3 \
  pillow==13.0.0 opencv-python-headless==5.0.0.93 SimpleITK==2.5.7
cd "$dir"
venv/bin/python - <<'PY'
import sys
import cv2
import numpy as np
import SimpleITK as sitk
import tifffile
from PIL import Image

mask = np.zeros((64, 64), bool)
mask[10:30, 10:30] = True

def read_all(path):
    s = sitk.GetArrayFromImage(sitk.ReadImage(path))  # of one bit: four channels, the last is opacity
    pictures = {"tifffile": tifffile.imread(path), "Pillow": np.array(Image.open(path)),
                "OpenCV": cv2.imread(path, cv2.IMREAD_UNCHANGED), "SimpleITK": s[..., 0] if s.ndim == 3 else s}
    return {name: int(np.count_nonzero(p)) for name, p in pictures.items()}

tifffile.imwrite("bool.tif", mask)
tifffile.imwrite("uint8.tif", mask.astype(np.uint8) * 255)
print("pixels of the mask:", mask.sum(), "of", mask.size)
print("photometric:", tifffile.TiffFile("bool.tif").pages[0].photometric.name)
as_bool, as_uint8 = read_all("bool.tif"), read_all("uint8.tif")
print("saved as bool: ", as_bool)
print("saved as uint8:", as_uint8)
if as_bool != {"tifffile": 400, "Pillow": 3696, "OpenCV": 3696, "SimpleITK": 3696}:
    sys.exit("A boolean mask from tifffile is no longer read as its complement by the other three.")
if set(as_uint8.values()) != {400}:
    sys.exit("A uint8 mask from tifffile is no longer read alike by all four.")
PY
