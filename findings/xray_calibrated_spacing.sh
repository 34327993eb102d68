#!/usr/bin/env bash
# SimpleITK 2.5.7 (ITK 5.4, GDCM) and pydicom 3.0.2: pixel size of a calibrated X-ray
#
# Good guess: SimpleITK's spacing is DICOM's Pixel Spacing, as it is for CT and MR.
# Behaviour:  for DX, CR and MG, SimpleITK takes Imager Pixel Spacing (the size at the detector) and
#             ignores Pixel Spacing, also if Pixel Spacing Calibration Type says that it was corrected
#             for magnification. For CT it takes Pixel Spacing from a file with both. No warning.
# Matters:    areas and distances in mm differ by the magnification between a reader with SimpleITK
#             and one with pydicom. At a magnification of 1.25 an area is 1.56 times too large.
# Seen (2026-11-29): DX, CR and MG 0.2 mm, CT 0.16 mm; pydicom 0.16 mm for all; the lung 400 or 256 mm2.
# Where:      GDCM, gdcmImageHelper.cxx, GetSpacingTagFromMediaStorage; DICOM PS3.3 section 10.7.1.3
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --disable-pip-version-check numpy==2.4.6 pydicom==3.0.2 SimpleITK==2.5.7
cd "$dir"
venv/bin/python - <<'PY'
import sys
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

def write(modality, sop_class):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.1"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    ds.PatientID, ds.Modality, ds.InstanceNumber = "A", modality, 1
    ds.ImagerPixelSpacing, ds.PixelSpacing = [0.2, 0.2], [0.16, 0.16]
    ds.PixelSpacingCalibrationType = "GEOMETRY"
    ds.PixelSpacingCalibrationDescription = "source to object 1440 mm, to detector 1800 mm"
    ds.Rows = ds.Columns = 128
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = np.zeros((128, 128), np.uint16).tobytes()
    ds.save_as("x.dcm", enforce_file_format=True)

lung = np.zeros((128, 128), bool)
lung[10:110, 10:110] = True
seen = {}
for modality, sop_class in (("DX", uid.DigitalXRayImageStorageForPresentation),
                            ("CR", uid.ComputedRadiographyImageStorage),
                            ("MG", uid.DigitalMammographyXRayImageStorageForPresentation),
                            ("CT", uid.CTImageStorage)):
    write(modality, sop_class)
    a = sitk.ReadImage("x.dcm").GetSpacing()[0]
    b = float(pydicom.dcmread("x.dcm").PixelSpacing[0])
    seen[modality] = a
    print(f"{modality}: SimpleITK {a} mm, pydicom {b} mm; area {lung.sum() * a * a:.0f} and {lung.sum() * b * b:.0f} mm2")
if not np.allclose([seen[m] for m in ("DX", "CR", "MG", "CT")], [0.2, 0.2, 0.2, 0.16]):
    sys.exit("SimpleITK no longer prefers the detector's pixel size for X-rays only.")
PY
