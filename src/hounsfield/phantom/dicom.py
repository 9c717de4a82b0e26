"""Scans as files: CT Image Storage series, DICOM SEG and NIfTI labels, the same bytes for the same seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

from hounsfield.phantom.scanner import LOWEST_HU, Scan

_VENDORS = (
    ("Hounsfield Synthetic", "Phantom 64"),
    ("Virtual Imaging Works", "Virtua CT 128"),
    ("Example Medical", "Simulator One"),
)
_TIME = "120000"
_ORIENTATION = ["1", "0", "0", "0", "1", "0"]


def identifier(region: str, seed: int, number: int) -> str:
    """Patient ID, such as CHEST-7-0001: cohorts of different seeds are different patients."""
    return f"{region.upper()}-{seed}-{number:04d}"


class Subject:
    """Names, identifiers and dates of one synthetic patient, all derived from region, seed and number."""

    def __init__(self, region: str, seed: int, number: int, sex: str, age: int) -> None:
        self.region, self.seed, self.number, self.sex, self.age = region, seed, number, sex, age
        self.identifier = identifier(region, seed, number)
        self.name = f"Phantom^{region.capitalize()} {number:04d}"
        self.date = f"2024{1 + number % 12:02d}{1 + (seed + number) % 28:02d}"

    def uid(self, *what: str) -> str:
        """A valid UID for a part of this patient's study."""
        return str(generate_uid(entropy_srcs=["hounsfield phantom", self.identifier, *what]))


def write_series(folder: Path, subject: Subject, scan: Scan) -> list[Dataset]:
    """Write one CT Image Storage file per slice; returns the data sets from inferior to superior."""
    folder.mkdir(parents=True)
    datasets: list[Dataset] = []
    count = len(scan.hu)
    for index in range(count):
        dataset = _slice(subject, scan, index)
        name = f"{dataset.InstanceNumber:04d}.dcm"
        dataset.save_as(folder / name, enforce_file_format=True)
        datasets.append(dataset)
    return datasets


def position(scan: Scan, index: int) -> tuple[float, float, float]:
    """DICOM coordinates in mm of the first voxel of a slice."""
    s = scan.settings
    half = (scan.hu.shape[2] - 1) / 2 * s.pixel
    x, y, z = s.position
    return round(x - half, 4), round(y - half, 4), round(z + index * s.spacing, 3)


def _slice(subject: Subject, scan: Scan, index: int) -> FileDataset:
    s = scan.settings
    count, rows, columns = scan.hu.shape
    sop = subject.uid("slice", str(index))
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = UID(sop)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    d = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    chest = subject.region == "chest"
    vendor, model = _VENDORS[s.vendor]
    level, width = (50, 350) if chest else (40, 400)
    d.SpecificCharacterSet = "ISO_IR 192"
    d.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    d.InstanceCreationDate = d.StudyDate = d.SeriesDate = d.AcquisitionDate = d.ContentDate = subject.date
    d.InstanceCreationTime = d.StudyTime = d.SeriesTime = d.AcquisitionTime = d.ContentTime = _TIME
    d.SOPClassUID, d.SOPInstanceUID = CTImageStorage, UID(sop)
    d.AccessionNumber, d.Modality, d.Manufacturer = "", "CT", vendor
    d.ManufacturerModelName, d.DeviceSerialNumber, d.SoftwareVersions = model, "0", "1"
    d.InstitutionName, d.ReferringPhysicianName = "Synthetic data, no patient", ""
    d.StudyDescription = f"Synthetic {subject.region} CT"
    d.SeriesDescription = f"{subject.region.capitalize()} {s.thickness:g} mm {s.kernel.lower()}"
    d.PatientName, d.PatientID, d.PatientBirthDate = subject.name, subject.identifier, ""
    d.PatientSex, d.PatientAge = subject.sex, f"{subject.age:03d}Y"
    d.BodyPartExamined = "CHEST" if chest else "ABDOMEN"
    d.ScanOptions, d.KVP, d.ProtocolName = "HELICAL", str(s.kvp), f"Synthetic {subject.region}"
    d.SliceThickness, d.SpacingBetweenSlices = f"{s.thickness:g}", f"{s.spacing:g}"
    d.ReconstructionDiameter = f"{s.pixel * columns:.1f}"
    d.ConvolutionKernel = s.kernel
    d.PatientPosition = "FFS" if s.feet_first else "HFS"
    d.StudyInstanceUID, d.SeriesInstanceUID = subject.uid("study"), subject.uid("series")
    d.StudyID, d.SeriesNumber, d.AcquisitionNumber = "1", 2, 1
    d.InstanceNumber = count - index if s.descending else index + 1
    place = position(scan, index)
    d.ImagePositionPatient = [f"{value:.10g}" for value in place]
    d.ImageOrientationPatient = _ORIENTATION
    d.FrameOfReferenceUID, d.PositionReferenceIndicator = subject.uid("frame of reference"), ""
    d.SliceLocation = f"{place[2]:.10g}"
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.Rows, d.Columns = rows, columns
    d.PixelSpacing = [f"{s.pixel:.10g}"] * 2
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 16, 15, 1
    d.WindowCenter, d.WindowWidth = str(level), str(width)
    d.RescaleIntercept, d.RescaleSlope, d.RescaleType = str(LOWEST_HU), "1", "HU"
    d.PixelData = (scan.hu[index] - np.int16(LOWEST_HU)).astype("<i2").tobytes()
    return d


def write_seg(path: Path, subject: Subject, scan: Scan, images: list[Dataset]) -> None:
    """Write the mask as a binary DICOM SEG with one segment, 1 "Tumour", on the slices that show it."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    segment = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label="Tumour",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
    )
    seg = hd.seg.Segmentation(
        source_images=images,
        pixel_array=scan.mask,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[segment],
        series_instance_uid=subject.uid("seg series"),
        series_number=3,
        sop_instance_uid=subject.uid("seg"),
        instance_number=1,
        manufacturer=_VENDORS[0][0],
        manufacturer_model_name=_VENDORS[0][1],
        software_versions="1",
        device_serial_number="0",
        content_label="TUMOUR",
        series_description="Tumour",
    )
    _fix(seg, subject)
    seg.save_as(path, enforce_file_format=True)


def _fix(seg: Any, subject: Subject) -> None:
    """Replace the clock and the random identifiers that highdicom puts in."""
    for keyword in ("InstanceCreationDate", "ContentDate", "SeriesDate"):
        setattr(seg, keyword, subject.date)
    for keyword in ("InstanceCreationTime", "ContentTime", "SeriesTime"):
        setattr(seg, keyword, _TIME)
    for item in seg.get("ContributingEquipmentSequence", ()):
        item.ContributionDateTime = f"{subject.date}{_TIME}"
    dimensions = subject.uid("seg dimensions")
    for item in (*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions


def write_nifti(path: Path, scan: Scan) -> None:
    """Write the mask as ITK-SNAP does: uint8 labels (1 = L3) on the grid of the series."""
    import SimpleITK as sitk

    image: Any = sitk.GetImageFromArray(scan.mask)
    image.SetSpacing((scan.settings.pixel, scan.settings.pixel, scan.settings.spacing))
    image.SetOrigin(position(scan, 0))
    sitk.WriteImage(image, str(path), useCompression=True)
