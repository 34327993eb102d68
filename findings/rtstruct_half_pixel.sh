#!/usr/bin/env bash
# rt-utils 1.2.7: contours of an RTSTRUCT made from a mask
#
# Good guess: the contour goes around the pixels, so it encloses the mask's area.
# Behaviour:  the contour joins the centres of the border pixels. It encloses half a pixel less on every
#             side: n x n pixels become (n-1) x (n-1). A line one pixel wide encloses nothing.
#             rt-utils paints the border when it reads its own file, so a round trip is exact.
# Matters:    planning systems and 3-D viewers use the polygon. A nerve of 3 x 3 pixels loses 56 % of its
#             volume, an organ of 10 x 10 pixels 19 %. Tests that go there and back do not see it.
# Seen (2026-11-29): masks of 3, 9, 100 and 900 pixels enclose 0, 4, 81 and 841; the round trip is exact.
# Where:      https://github.com/qurit/rt-utils/pull/141 (merged 2026-08, in no release yet)
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --disable-pip-version-check \
  numpy==2.4.6 pydicom==3.0.2 opencv-python-headless==5.0.0.93
"$dir/venv/bin/pip" install -qq --disable-pip-version-check --no-deps rt-utils==1.2.7
mkdir "$dir/ct"
cd "$dir"
venv/bin/python -W ignore - <<'PY'
import contextlib, io, sys
import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from rt_utils import RTStructBuilder

for i in range(4):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = uid.CTImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.4.{i + 1}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.3.5"
    ds.PatientID, ds.PatientName, ds.PatientBirthDate, ds.PatientSex = "A", "A^B", "", "O"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.Modality, ds.InstanceNumber = "20200101", "000000", "1", "CT", i + 1
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 2 * i], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.SliceThickness, ds.Rows, ds.Columns = [1, 1], 2, 48, 48
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.PixelData = np.zeros((48, 48), np.int16).tobytes()
    ds.save_as(f"ct/{i}.dcm", enforce_file_format=True)

def enclosed(contour):  # the area of a polygon in the plane of a slice
    x, y, _ = np.reshape(np.array(contour.ContourData, float), (-1, 3)).T
    return abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2

for (h, w), expected in (((1, 3), 0), ((3, 3), 4), ((10, 10), 81), ((30, 30), 841)):
    mask = np.zeros((48, 48, 4), bool)
    mask[5:5 + h, 5:5 + w, 1:3] = True
    with contextlib.redirect_stdout(io.StringIO()):
        rt = RTStructBuilder.create_new(dicom_series_path="ct")
        rt.add_roi(mask=mask, name="organ")
        rt.save("rt.dcm")
        back = RTStructBuilder.create_from("ct", "rt.dcm").get_roi_mask_by_name("organ")
    contours = pydicom.dcmread("rt.dcm").ROIContourSequence[0].ContourSequence
    area = sum(map(enclosed, contours)) / 2
    print(f"mask {h} x {w}: {h * w} mm2, enclosed by the contour {area:.0f} mm2, read back {back.sum() / 2:.0f}")
    if round(area) != expected or not np.array_equal(back, mask):
        sys.exit("The contour no longer encloses half a pixel less on every side.")
PY
