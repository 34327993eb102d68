"""Small DICOM files for tests: a series, an RTSTRUCT and a SEG."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    RTStructureSetStorage,
    generate_uid,
)

FRAME = "1.2.3.9"
STEP = 2.5  # mm between slices
SPACING = [0.5, 0.7]  # mm between rows, and between columns
ORIGIN = np.array([-20.0, 30, -5])
TURN = [1, 0, 0, 0, 0.8, 0.6]  # rows to the left, columns backwards and up
# What highdicom and readers of a patient's name ask for
PATIENT = {
    "PatientID": "A", "PatientName": "A^B", "PatientBirthDate": "", "PatientSex": "O",
    "StudyDate": "20200101", "StudyTime": "000000", "StudyID": "1", "AccessionNumber": "",
    "ReferringPhysicianName": "", "SeriesNumber": 1, "Manufacturer": "none",
    "FrameOfReferenceUID": FRAME, "SliceThickness": STEP,
}  # fmt: skip


def empty(path: Path, kind: str, modality: str, series: str) -> FileDataset:
    """A DICOM file without content, to be saved at `path`."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = kind
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
    file.SeriesInstanceUID, file.StudyInstanceUID, file.Modality = series, "1.2.3", modality
    return file


def dicom(path, values, position=None, number=1, series="1.2.3.4", **changes):
    """Write a DICOM file of 12 bits."""
    file = empty(path, CTImageStorage, "CT", series)
    file.InstanceNumber = number
    file.Rows, file.Columns = values.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 12, 11, 0
    file.RescaleSlope, file.RescaleIntercept = 1, 0
    file.PixelSpacing = SPACING
    if position is not None:
        file.ImagePositionPatient, file.ImageOrientationPatient = position, TURN
    for key, value in changes.items():
        setattr(file, key, value)
    file.PixelData = values.astype("<u2").tobytes()
    file.save_as(path, enforce_file_format=True)


def position(number: float) -> np.ndarray:
    """The position in mm of the first pixel of a slice."""
    return ORIGIN + STEP * number * np.cross(TURN[:3], TURN[3:])


def write_series(folder: Path, slices: np.ndarray, **changes) -> Path:
    """Write a series whose file names and instance numbers run against the positions."""
    folder.mkdir()
    for number, values in enumerate(slices):
        place = position(number).tolist()
        dicom(folder / f"{99 - number}.dcm", values, place, 100 - number, **PATIENT | changes)
    return folder


def in_mm(points, number: float) -> list[float]:
    """Positions of points (x, y) in pixels on a slice, as `ContourData`."""
    x, y = np.asarray(points, float).T
    across = np.outer(x * SPACING[1], TURN[:3]) + np.outer(y * SPACING[0], TURN[3:])
    return [float(f"{value:.9g}") for value in (position(number) + across).ravel()]


def write_rtstruct(path: Path, regions, frame: str = FRAME, kind: str = "CLOSED_PLANAR") -> Path:
    """Write an RTSTRUCT; `regions` are (name, [(slice number, points (x, y) in pixels)])."""
    file = empty(path, RTStructureSetStorage, "RTSTRUCT", "1.2.5")
    file.StructureSetROISequence, file.ROIContourSequence = pydicom.Sequence(), pydicom.Sequence()
    for number, (name, contours) in enumerate(regions, start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, frame
        drawn.ReferencedROINumber, drawn.ContourSequence = number, pydicom.Sequence()
        for slice_number, points in contours:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points)
            contour.ContourData = in_mm(points, slice_number)
            drawn.ContourSequence.append(contour)
        file.StructureSetROISequence.append(roi)
        file.ROIContourSequence.append(drawn)
    file.save_as(path, enforce_file_format=True)
    return path


def write_seg(path: Path, folder: Path, labels: np.ndarray, names, kind: str = "BINARY") -> Path:
    """Write labels (D, H, W) of the series as a SEG by highdicom.

    labels: label map, or (D, H, W, segments) where segments overlap.
    """
    import highdicom
    from pydicom.sr.codedict import codes

    files = [pydicom.dcmread(file) for file in sorted(folder.glob("*.dcm"), reverse=True)]
    segments = [
        highdicom.seg.SegmentDescription(
            number, name, codes.SCT.Organ, codes.SCT.Liver,
            highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, name in enumerate(names, start=1)
    ]  # fmt: skip
    file = highdicom.seg.Segmentation(
        files, labels.astype(np.uint8), kind, segments, generate_uid(), 2, generate_uid(), 1,
        "none", "none", "1", "1",
    )  # fmt: skip
    file.save_as(path)
    return path
