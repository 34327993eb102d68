#!/usr/bin/env bash
# SimpleITK 2.5.7 (ITK 5.4, GDCM): a DICOM series whose rescale slope changes from slice to slice
#
# Good guess: each slice has its own slope, so the volume holds floating point numbers.
# Behaviour:  the first file alone decides the pixel type. A first slice with a whole slope (1) makes
#             the volume uint16, and every later slice is cut down to whole numbers. No warning.
#             The same four files in reverse order give float64 and the right values.
# Matters:    PET has a slope per slice. One first slice with slope 1 turns 0.75 and 0.9 into 0,
#             so a threshold on uptake, a lesion's mean and its volume all change.
# Seen (2026-11-29): slices 1, 0.75, 0.9, 2.1 come back as uint16 1, 0, 0, 2; reversed: right.
# Where:      https://github.com/SimpleITK/SimpleITK/issues/1636 and pull request 1640 (open)
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --disable-pip-version-check numpy==2.4.6 pydicom==3.0.2 SimpleITK==2.5.7
cd "$dir"
venv/bin/python - <<'PY'
import sys
import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage as PET

def write(i, stored, slope):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = PET
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.4.{i + 1}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.3.5"
    ds.PatientID, ds.Modality, ds.InstanceNumber = "A", "PT", i + 1
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 2 * i], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.SliceThickness = [2, 2], 2
    ds.Rows = ds.Columns = 8
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.RescaleSlope, ds.RescaleIntercept = slope, 0
    ds.PixelData = np.full((8, 8), stored, np.uint16).tobytes()
    ds.save_as(f"{i}.dcm", enforce_file_format=True)

stored, slopes = [1, 3, 3, 3], [1, 0.25, 0.3, 0.7]
for i in range(4):
    write(i, stored[i], slopes[i])
truth = np.multiply(stored, slopes)
files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(".")
first = sitk.GetArrayFromImage(sitk.ReadImage(files))
last = sitk.GetArrayFromImage(sitk.ReadImage(files[::-1]))
print("true values      ", truth)
print("series as sorted ", first.dtype, first[:, 0, 0])
print("series reversed  ", last.dtype, last[::-1, 0, 0])
if first.dtype != np.uint16 or first[:, 0, 0].tolist() != [1, 0, 0, 2]:
    sys.exit("The series is no longer read with the integer type of its first slice.")
if not np.allclose(last[::-1, 0, 0], truth):
    sys.exit("The reversed series no longer gives the true values.")
PY
