"""Tiny valid CT series, segmentations and structure sets for the tests of ingest."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    RTStructureSetStorage,
    SegmentationStorage,
    generate_uid,
)

PATIENT_ID = "MRN-7731-SECRET"
PATIENT_NAME = "Roentgen^Wilhelmina"
BIRTH_DATE = "19450327"
ISSUER = "Spital-Wuerzburg"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

Change = Callable[[FileDataset, int], None]


def phantom(shape: tuple[int, int, int] = (6, 20, 16), seed: int = 0) -> npt.NDArray[np.int16]:
    """Random HU (slices, rows, columns), no two slices alike."""
    return np.random.default_rng(seed).integers(-1000, 1500, shape).astype(np.int16)


def _file(path: Path, sop_class: str, syntax: str = ExplicitVRLittleEndian) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = syntax
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    dataset.PatientID, dataset.PatientName, dataset.PatientBirthDate = PATIENT_ID, PATIENT_NAME, BIRTH_DATE
    dataset.IssuerOfPatientID = ISSUER
    dataset.StudyInstanceUID, dataset.StudyDate = generate_uid(entropy_srcs=["study"]), "20200101"
    return dataset


def write_series(
    folder: Path,
    hu: npt.NDArray[np.int16],
    *,
    series: str | None = None,
    frame_of_reference: str = "1.2.3.4.5",
    orientation: Sequence[float] = AXIAL,
    origin: Sequence[float] = (-40.0, -30.0, 100.0),
    step: Sequence[float] | None = None,
    spacing: tuple[float, float, float] = (2.5, 0.8, 0.8),
    change: Change | None = None,
    save: Callable[[FileDataset, Path], None] | None = None,
    patient: str | None = None,
) -> list[FileDataset]:
    """Write HU (slices, rows, columns) as CT Image Storage, slice k at origin + k*step (default: along the normal).

    File names and InstanceNumber are in another order than the slices. `change(dataset, k)` edits a slice first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    uid = series or generate_uid()
    normal = np.cross(orientation[:3], orientation[3:])
    along = np.array(step if step is not None else normal * spacing[0])
    written = []
    for k, plane in enumerate(hu):
        number = (k * 7 + 3) % 101
        path = folder / f"{number:03d}"
        dataset = _file(path, CTImageStorage)
        dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = uid, frame_of_reference
        dataset.Manufacturer, dataset.SliceThickness, dataset.InstanceNumber = "ACME", spacing[0], number
        if patient is not None:
            dataset.PatientID = patient
        dataset.ImagePositionPatient = [float(f"{value:.6f}") for value in np.array(origin) + k * along]
        dataset.ImageOrientationPatient = [float(value) for value in orientation]
        dataset.PixelSpacing = list(spacing[1:])
        dataset.Rows, dataset.Columns = plane.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = "1", "-1024", "HU"
        dataset.PixelData = (plane.astype(np.int32) + 1024).astype("<u2").tobytes()
        if change is not None:
            change(dataset, k)
        (save or _save)(dataset, path)
        written.append(dataset)
    return written


def _save(dataset: FileDataset, path: Path) -> None:
    dataset.save_as(path, enforce_file_format=True)


def write_seg(
    path: Path, slices: Sequence[FileDataset], segments: dict[str, npt.NDArray[Any]], references: bool = True
) -> None:
    """Write a binary SEG whose frames are the non-empty slices of each segment, last slice first."""
    dataset = _file(path, SegmentationStorage)
    dataset.Modality, dataset.SegmentationType, dataset.SeriesInstanceUID = "SEG", "BINARY", generate_uid()
    dataset.FrameOfReferenceUID = slices[0].FrameOfReferenceUID
    if references:
        reference = Dataset()
        reference.SeriesInstanceUID = slices[0].SeriesInstanceUID
        dataset.ReferencedSeriesSequence = DicomSequence([reference])
    shared, measures, plane = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = slices[0].PixelSpacing
    plane.ImageOrientationPatient = slices[0].ImageOrientationPatient
    shared.PixelMeasuresSequence = DicomSequence([measures])
    shared.PlaneOrientationSequence = DicomSequence([plane])
    dataset.SharedFunctionalGroupsSequence = DicomSequence([shared])
    dataset.SegmentSequence, frames, bits = DicomSequence(), DicomSequence(), []
    for number, (name, mask) in enumerate(segments.items(), start=1):
        segment = Dataset()
        segment.SegmentNumber, segment.SegmentLabel = number, name
        dataset.SegmentSequence.append(segment)
        for k in reversed(range(len(mask))):
            if not mask[k].any() and mask.any():
                continue
            frame, identification, position = Dataset(), Dataset(), Dataset()
            identification.ReferencedSegmentNumber = number
            position.ImagePositionPatient = slices[k].ImagePositionPatient
            frame.SegmentIdentificationSequence = DicomSequence([identification])
            frame.PlanePositionSequence = DicomSequence([position])
            frames.append(frame)
            bits.append(mask[k].astype(bool).reshape(-1))
    dataset.PerFrameFunctionalGroupsSequence, dataset.NumberOfFrames = frames, len(frames)
    dataset.Rows, dataset.Columns = slices[0].Rows, slices[0].Columns
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit = dataset.PixelRepresentation = 0
    packed = np.packbits(np.concatenate(bits), bitorder="little").tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    _save(dataset, path)


def write_rtstruct(
    path: Path, slices: Sequence[FileDataset], regions: dict[str, list[npt.NDArray[np.float64]]]
) -> None:
    """Write a structure set; `regions` maps ROI names to closed planar contours (points, 3) in mm."""
    dataset = _file(path, RTStructureSetStorage)
    dataset.Modality, dataset.SeriesInstanceUID = "RTSTRUCT", generate_uid()
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = slices[0].SeriesInstanceUID
    study.RTReferencedSeriesSequence = DicomSequence([series])
    frame.FrameOfReferenceUID = slices[0].FrameOfReferenceUID
    frame.RTReferencedStudySequence = DicomSequence([study])
    dataset.ReferencedFrameOfReferenceSequence = DicomSequence([frame])
    dataset.StructureSetROISequence, dataset.ROIContourSequence = DicomSequence(), DicomSequence()
    for number, (name, contours) in enumerate(regions.items(), start=1):
        region, item = Dataset(), Dataset()
        region.ROINumber, region.ROIName = number, name
        dataset.StructureSetROISequence.append(region)
        item.ReferencedROINumber, item.ContourSequence = number, DicomSequence()
        for points in contours:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
            contour.ContourData = [round(float(value), 6) for value in points.reshape(-1)]
            item.ContourSequence.append(contour)
        dataset.ROIContourSequence.append(item)
    _save(dataset, path)
