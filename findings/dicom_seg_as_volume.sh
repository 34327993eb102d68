#!/usr/bin/env bash
# highdicom 0.28.2 and SimpleITK 2.5.7 (ITK 5.4, GDCM): a DICOM SEG read as if it were a volume
#
# Good guess: SimpleITK reads the SEG as a label volume on the CT's grid, or refuses it.
# Behaviour:  it reads. The frames of all segments are stacked along z: first segment 1, then segment 2.
#             Slices without a label are not in the file (highdicom leaves them out by default), so gaps
#             close up. Values are 0 and 255, slice spacing is 1 mm, and the origin is another one.
# Matters:    two organs of 4 and 3 slices in a CT of 10 become 7 slices of one label. Padded or
#             resampled to the CT, the mask lies in wrong slices, and the volume is wrong too.
# Seen (2026-11-29): CT 20x20x10, 2 mm; SEG 20x20x7, 1 mm; CT slices 2, 3, 6, 7 and 3, 4, 5 in 0 to 6.
# Where:      https://github.com/InsightSoftwareConsortium/ITK/issues/6647 (open);
#             highdicom's Segmentation, parameter omit_empty_frames
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --disable-pip-version-check \
  numpy==2.4.6 pydicom==3.0.2 highdicom==0.28.2 pillow==13.0.0 SimpleITK==2.5.7
mkdir "$dir/ct"
cd "$dir"
venv/bin/python -W ignore - <<'PY'
import sys
import highdicom as hd
import numpy as np
import SimpleITK as sitk
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes

slices = []
for i in range(10):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = uid.CTImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.4.{i + 1}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.3.5"
    ds.PatientID, ds.PatientName, ds.PatientBirthDate, ds.PatientSex = "A", "A^B", "", "O"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20200101", "000000", "1", ""
    ds.ReferringPhysicianName, ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "", "CT", 1, i + 1
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 2 * i], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.SliceThickness, ds.Rows, ds.Columns = [1, 1], 2, 20, 20
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleSlope, ds.RescaleIntercept = 1, 0
    ds.PixelData = np.zeros((20, 20), np.int16).tobytes()
    ds.save_as(f"ct/{i}.dcm", enforce_file_format=True)
    slices.append(ds)

labels = np.zeros((10, 20, 20), np.uint8)
labels[[2, 3, 6, 7], 4:8, 4:8] = 1
labels[3:6, 12:15, 4:8] = 2
segments = [hd.seg.SegmentDescription(k, f"organ {k}", codes.SCT.Organ, codes.SCT.Liver,
            hd.seg.SegmentAlgorithmTypeValues.MANUAL) for k in (1, 2)]
hd.seg.Segmentation(slices, labels, hd.seg.SegmentationTypeValues.BINARY, segments, "1.2.3.6", 2,
                    "1.2.3.6.1", 1, "maker", "model", "1", "1").save_as("seg.dcm")
ct = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames("ct"))
seg = sitk.ReadImage("seg.dcm")
a = sitk.GetArrayFromImage(seg)
print("CT ", ct.GetSize(), ct.GetSpacing(), ct.GetOrigin())
print("SEG", seg.GetSize(), seg.GetSpacing(), seg.GetOrigin(), "values", np.unique(a))
print("voxels per slice, true", (labels > 0).sum((1, 2)), " read", (a > 0).sum((1, 2)))
if seg.GetSize() != (20, 20, 7) or seg.GetSpacing()[2] != 1 or (a > 0).sum((1, 2)).tolist() != [16] * 4 + [12] * 3:
    sys.exit("SimpleITK no longer stacks the frames of all segments into one volume of 1 mm slices.")
PY
