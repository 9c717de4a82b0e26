"""The few elements of a DICOM file that ingest needs, read once, by the quick walk or by pydicom."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from hounsfield.dicom.walk import walk

Values = Mapping[str, Any]
_PIXEL_DATA = 0x7FE00010
_UNDEFINED = 0xFFFFFFFF
_KEYWORDS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "Modality",
    "ImageType",
    "PatientID",
    "IssuerOfPatientID",
    "FrameOfReferenceUID",
    "Manufacturer",
    "SliceThickness",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "SamplesPerPixel",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "ModalityLUTSequence",
    "LossyImageCompression",
    "ReferencedSeriesSequence",
    "ReferencedFrameOfReferenceSequence",
)
_TAGS: dict[BaseTag, str] = {Tag(keyword): keyword for keyword in _KEYWORDS}
_WANTED: dict[int, str] = {int(tag): dictionary_VR(tag).split()[0] for tag in _TAGS}
_NAMES: dict[int, str] = {int(tag): keyword for tag, keyword in _TAGS.items()}
uid = lru_cache(maxsize=64)(UID)


@dataclass(frozen=True, slots=True)
class Elements:
    """Values by keyword, transfer syntax, and where the value of Pixel Data lies.

    `pixels` is (offset, length), None without Pixel Data; the length is -1 when encapsulated, the offset too inside a
    deflated data set.
    """

    values: Values
    syntax: UID
    pixels: tuple[int, int] | None


def read_elements(stream: BinaryIO) -> Elements:
    """Read the header of an open DICOM file.

    Raises:
        Exception: of many types, as pydicom does on corrupt bytes.
    """
    quick = walk(stream, _WANTED)
    if quick is not None:
        values, syntax, pixels = quick
        return Elements({_NAMES[tag]: value for tag, value in values.items()}, uid(syntax), pixels)
    stream.seek(0)
    dataset = pydicom.dcmread(stream, force=True, stop_before_pixels=True, specific_tags=list(_TAGS))
    known = uid(str(dataset.file_meta.get("TransferSyntaxUID", "")) or _guessed_syntax(dataset))
    slow = {keyword: dataset[keyword].value for keyword in _KEYWORDS if keyword in dataset}
    return Elements(slow, known, _pixels(stream, known))


def _guessed_syntax(dataset: Dataset) -> str:
    """Transfer syntax of a file without meta information, by how pydicom could read it."""
    implicit, little = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return pydicom.uid.ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _pixels(stream: BinaryIO, syntax: UID) -> tuple[int, int] | None:
    """Offset and length of the value of Pixel Data, at whose tag pydicom has stopped."""
    if syntax == DeflatedExplicitVRLittleEndian:
        return -1, -1
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    start = stream.tell()
    element = stream.read(12)
    if len(element) < 12:
        return None
    group, number = struct.unpack(f"{order}HH", element[:4])
    if (group << 16 | number) != _PIXEL_DATA:
        return None
    long = not syntax.is_implicit_VR and element[4:6] in (b"OW", b"OB", b"UN")
    length = struct.unpack(f"{order}I", element[8:12] if long else element[4:8])[0]
    return start + (12 if long else 8), -1 if length == _UNDEFINED else length
