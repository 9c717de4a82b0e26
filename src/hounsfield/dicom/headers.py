"""One look at every file: a CT slice, a label object, a volume file, or a reason for leaving it out."""

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    RTStructureSetStorage,
    SegmentationStorage,
)

from hounsfield.dicom.elements import Elements, Values, read_elements
from hounsfield.dicom.reasons import Reason, UnusableError

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
LABEL_MAP_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.7"
_SEGMENTATIONS = (SegmentationStorage, LABEL_MAP_SEGMENTATION)
_MULTI_FRAME = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)


@dataclass(frozen=True)
class InputFile:
    """A file to look at: where it lies now, and its name relative to what the user gave (hashed into path keys)."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class SliceHeader:
    """What a CT slice's header says. Positions in mm (LPS); `offset` and `length` locate the value of Pixel Data.

    `series` is the Series Instance UID, or the folder's name where it is missing.
    """

    file: InputFile
    series: str
    sop: str
    patient: tuple[str, ...]
    frame_of_reference: str
    syntax: UID
    offset: int
    length: int
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    position: tuple[float, float, float]
    orientation: tuple[float, ...]
    pixel_spacing: tuple[float, float]
    slope: float
    intercept: float
    rescale_type: str
    padding: int | None
    padding_limit: int | None
    manufacturer: str
    thickness: float | None
    lossy: bool


@dataclass(frozen=True)
class LabelHeader:
    """A DICOM label object and what it refers to."""

    file: InputFile
    kind: str
    """`seg` or `rtstruct`."""
    series: frozenset[str]
    frame_of_reference: str


@dataclass(frozen=True)
class VolumeFile:
    """A NIfTI, NRRD or MetaImage file."""

    file: InputFile


Header = SliceHeader | LabelHeader | VolumeFile


def is_volume_name(name: str) -> bool:
    """Whether the file name is that of a NIfTI, NRRD or MetaImage volume."""
    return name.lower().endswith(VOLUME_SUFFIXES)


def read_header(file: InputFile) -> Header:
    """Classify one file.

    Raises:
        UnusableError: the file is not used, with the reason.
    """
    try:
        with file.path.open("rb", buffering=0) as stream:
            start = stream.read(132)
            if start[128:132] != b"DICM" and not _plausible(start):
                if is_volume_name(file.name):
                    return VolumeFile(file)
                raise UnusableError(Reason.NOT_DICOM, "the file is neither DICOM nor a NIfTI, NRRD or MHA volume")
            return _classify(file, read_elements(stream))
    except (UnusableError, MemoryError):
        raise
    except (OSError, InvalidDicomError) as error:
        raise UnusableError(Reason.UNREADABLE, "the file cannot be read") from error
    except Exception as error:  # pydicom raises many types on corrupt bytes
        raise UnusableError(Reason.UNREADABLE, f"the header is corrupt ({type(error).__name__})") from error


def _plausible(start: bytes) -> bool:
    """Whether a file without preamble begins like a data set: a tag of group 0002 or 0008 in either byte order."""
    if len(start) < 16:
        return False
    for order in "<>":
        group, element, length = struct.unpack(f"{order}HHI", start[:8])
        explicit = start[4:6].isalpha() and start[4:6].isupper()
        if group in (0x0002, 0x0008) and element <= 0x0100 and (explicit or length < 1024):
            return True
    return False


def _classify(file: InputFile, elements: Elements) -> Header:
    dataset = elements.values
    sop_class = str(dataset.get("SOPClassUID", ""))
    if sop_class in _SEGMENTATIONS:
        return LabelHeader(file, "seg", frozenset(_seg_series(dataset)), str(dataset.get("FrameOfReferenceUID", "")))
    if sop_class == RTStructureSetStorage:
        return LabelHeader(file, "rtstruct", *_rtstruct_references(dataset))
    if sop_class in _MULTI_FRAME:
        raise UnusableError(Reason.MULTI_FRAME, "multi-frame CT is not read: export the series as single slices")
    if sop_class != CTImageStorage and not (not sop_class and dataset.get("Modality") == "CT"):
        raise UnusableError(Reason.NOT_CT, "the object is neither a CT image nor a label object")
    if "LOCALIZER" in (dataset.get("ImageType") or ()):
        raise UnusableError(Reason.LOCALIZER, "the image is a localizer")
    series = str(dataset.get("SeriesInstanceUID") or "") or f"folder {PurePosixPath(file.name).parent}"
    try:
        return _slice(file, series, elements)
    except UnusableError as error:
        raise UnusableError(error.reason, error.sentence, series) from error


def _seg_series(dataset: Values) -> Iterable[str]:
    for item in dataset.get("ReferencedSeriesSequence") or ():
        yield str(item.get("SeriesInstanceUID", ""))


def _rtstruct_references(dataset: Values) -> tuple[frozenset[str], str]:
    frames = list(dataset.get("ReferencedFrameOfReferenceSequence") or ())
    series = {
        str(item.SeriesInstanceUID)
        for frame in frames
        for study in frame.get("RTReferencedStudySequence") or ()
        for item in study.get("RTReferencedSeriesSequence") or ()
        if "SeriesInstanceUID" in item
    }
    return frozenset(series), str(frames[0].get("FrameOfReferenceUID", "")) if frames else ""


def _slice(file: InputFile, series: str, elements: Elements) -> SliceHeader:
    dataset = elements.values
    if not elements.syntax.is_transfer_syntax:
        raise UnusableError(Reason.UNSUPPORTED_PIXELS, "the transfer syntax is unknown")
    if elements.pixels is None:
        raise UnusableError(Reason.NO_PIXELS, "the CT image has no pixel data, or ends before them")
    slope, intercept = _number(dataset, "RescaleSlope"), _number(dataset, "RescaleIntercept")
    if "ModalityLUTSequence" in dataset or not slope or intercept is None:
        raise UnusableError(Reason.NOT_HU, "the slice has no rescale slope and intercept to Hounsfield units")
    rescale_type = str(dataset.get("RescaleType") or "HU").strip()
    if rescale_type not in ("HU", "US"):
        raise UnusableError(Reason.NOT_HU, f"the pixel values are of rescale type {rescale_type}, not HU")
    try:
        position, orientation, spacing = (
            tuple(float(value) for value in dataset.get(keyword) or ())
            for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
        )
        rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    except (TypeError, ValueError) as error:
        raise UnusableError(Reason.NO_GEOMETRY, "position, orientation or pixel spacing is not a number") from error
    finite = all(math.isfinite(value) for value in (*position, *orientation, *spacing))
    if (len(position), len(orientation), len(spacing)) != (3, 6, 2) or not finite or rows <= 0 or columns <= 0:
        raise UnusableError(Reason.NO_GEOMETRY, "position, orientation, pixel spacing or size is missing")
    if min(spacing) <= 0:
        raise UnusableError(Reason.NO_GEOMETRY, f"pixel spacing {spacing[0]:g}x{spacing[1]:g} mm is not positive")
    allocated, stored = int(dataset.get("BitsAllocated") or 0), int(dataset.get("BitsStored") or 0)
    if allocated not in (8, 16) or not 0 < stored <= allocated or dataset.get("SamplesPerPixel", 1) != 1:
        raise UnusableError(Reason.UNSUPPORTED_PIXELS, f"{allocated} bits allocated, {stored} stored: expected 8 or 16")
    high_bit = int(dataset.get("HighBit", stored - 1))
    if not stored - 1 <= high_bit < allocated:
        raise UnusableError(Reason.UNSUPPORTED_PIXELS, f"high bit {high_bit} does not fit {stored} of {allocated} bits")
    offset, length = elements.pixels
    if length >= 0 and (length < rows * columns * allocated // 8 or offset + length > file.path.stat().st_size):
        raise UnusableError(Reason.UNREADABLE, "a slice is truncated: it has fewer pixels than rows times columns")
    return SliceHeader(
        file=file,
        series=series,
        sop=str(dataset.get("SOPInstanceUID", "")),
        patient=_patient(dataset, series),
        frame_of_reference=str(dataset.get("FrameOfReferenceUID", "")),
        syntax=elements.syntax,
        offset=offset,
        length=length,
        rows=rows,
        columns=columns,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high_bit,
        signed=dataset.get("PixelRepresentation") == 1,
        position=(position[0], position[1], position[2]),
        orientation=orientation,
        pixel_spacing=(spacing[0], spacing[1]),
        slope=slope,
        intercept=intercept,
        rescale_type=rescale_type,
        padding=_integer(dataset, "PixelPaddingValue"),
        padding_limit=_integer(dataset, "PixelPaddingRangeLimit"),
        manufacturer=str(dataset.get("Manufacturer") or "").strip(),
        thickness=_number(dataset, "SliceThickness"),
        lossy=dataset.get("LossyImageCompression") == "01",
    )


def _patient(dataset: Values, series: str) -> tuple[str, ...]:
    """The patient's identifiers; without a Patient ID the study, or else the series, stands for the patient."""
    identifier = str(dataset.get("PatientID") or "").strip()
    if identifier:
        issuer = str(dataset.get("IssuerOfPatientID") or "").strip()
        return ("patient", identifier, issuer) if issuer else ("patient", identifier)
    return "study", str(dataset.get("StudyInstanceUID") or series)


def _number(dataset: Values, keyword: str) -> float | None:
    try:
        value = float(dataset.get(keyword, ""))
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _integer(dataset: Values, keyword: str) -> int | None:
    value = dataset.get(keyword)
    if isinstance(value, bytes):
        return int.from_bytes(value[:2], "little")
    return int(value) if isinstance(value, int | float) else None
