#!/usr/bin/env bash
# SimpleITK 2.5.7 and pydicom 3.0.2 on X-rays that store white as zero (MONOCHROME1)
#
# Good guess: a reader either turns the values and says MONOCHROME2, or leaves both as stored; a program
#             that sees MONOCHROME1 has to turn the values itself.
# Behaviour:  SimpleITK turns the values (largest value of the stored bits minus the value, before slope and
#             intercept), but its metadata still say MONOCHROME1, and the window in them is that of the
#             values before. pydicom's pixel_array is as stored.
# Matters:    Code that turns "if PhotometricInterpretation is MONOCHROME1", as written for pydicom, turns an
#             image from SimpleITK back: air is white, bone is black. The window of the header cuts the wrong
#             range. A network trained on one reader's images gets negatives from the other, with no message.
# Seen (2026-11-30): stored 100 (a bright pixel) of 12 bits: pydicom 100, SimpleITK 3995; tag MONOCHROME1;
#             window 1000 +- 250 of the header: shows the stored values 750 to 1250 to pydicom, 2845 to 3345
#             to SimpleITK.
# Where:      GDCM, as ITK's DICOM reader uses it (itkGDCMImageIO.cxx); DICOM PS3.3, C.7.6.3.1.2
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --disable-pip-version-check numpy==2.4.6 pydicom==3.0.2 SimpleITK==2.5.7
cd "$dir"
venv/bin/python -W ignore - <<'PY'
import sys
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

stored = np.array([[100, 1000], [2000, 4000]], "<u2")
meta = FileMetaDataset()
meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
meta.MediaStorageSOPInstanceUID = generate_uid()
meta.TransferSyntaxUID = ExplicitVRLittleEndian
file = FileDataset("a.dcm", {}, file_meta=meta, preamble=b"\0" * 128)
file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
file.SeriesInstanceUID, file.StudyInstanceUID, file.Modality = generate_uid(), generate_uid(), "DX"
file.Rows, file.Columns, file.SamplesPerPixel = 2, 2, 1
file.PhotometricInterpretation = "MONOCHROME1"
file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 12, 11, 0
file.WindowCenter, file.WindowWidth = 1000, 500
file.PixelData = stored.tobytes()
file.save_as("a.dcm", enforce_file_format=True)

by_pydicom = pydicom.dcmread("a.dcm").pixel_array
image = sitk.ReadImage("a.dcm")
by_itk = sitk.GetArrayFromImage(image)[0]
tag, centre = image.GetMetaData("0028|0004").strip(), image.GetMetaData("0028|1050").strip()
print(f"pydicom {pydicom.__version__}: {by_pydicom.tolist()}")
print(f"SimpleITK {sitk.Version_VersionString()}: {by_itk.tolist()}, tag {tag}, window centre {centre}")
turned = np.array_equal(by_itk, 2**12 - 1 - stored.astype(int))
if not (turned and np.array_equal(by_pydicom, stored) and tag == "MONOCHROME1" and float(centre) == 1000):
    sys.exit("the readers behave differently now")
PY
