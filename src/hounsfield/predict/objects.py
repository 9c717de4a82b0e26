"""Results as DICOM objects: segmentation, structured report (TID 1500) and key object selection, made with highdicom.

They refer to the source images and therefore carry the identifiers of patient and study, as a PACS needs them: keep
them where the source images are kept.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from hounsfield.dicom.geometry import Floats, Grid
from hounsfield.dicom.ingest import discreet
from hounsfield.predict.lesions import Lesion, largest
from hounsfield.predict.model import USE, Predictor

MANUFACTURER = "Hounsfield"
MOST_SEGMENTS = 255
MILLILITRE = Code("mL", "UCUM", "milliliter")
_SERIES = {"segmentation": 9101, "report": 9102, "key-slice": 9103}
_EMPTY_ALLOWED = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
_LONG_STRING = 64


class ObjectError(Exception):
    """The headers of the source images do not allow a DICOM result; the message quotes no value of theirs."""


@contextmanager
def objects_of(sources: Sequence[Dataset]) -> Iterator[None]:
    """Make DICOM objects that refer to `sources` inside the block, without log lines that quote their headers.

    Type 2 elements that `sources` lack are added to them, empty, as the standard allows.

    Raises:
        ObjectError: highdicom or pydicom refused the values of the headers.
    """
    logger = logging.getLogger("highdicom")
    before = logger.level, logger.propagate
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with discreet():
            for source in sources:
                for keyword in _EMPTY_ALLOWED:
                    if keyword not in source:
                        setattr(source, keyword, "")
                if source.PatientSex not in ("", "M", "F", "O"):
                    source.PatientSex = ""
            yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ObjectError(
            f"the headers of the source images do not allow a DICOM result ({type(error).__name__} of highdicom): "
            "check that they conform to CT Image Storage"
        ) from error
    finally:
        logger.setLevel(before[0])
        logger.propagate = before[1]


def segmentation(
    sources: Sequence[Dataset], lesions: npt.NDArray[np.uint8], count: int, spacing: Floats, predictor: Predictor
) -> Any:
    """Binary DICOM SEG with a segment for each of `count` lesions, called Neoplasm 1, 2, ...; frames without any are
    left out.

    Args:
        sources: headers of the source images in the order of the slices.
        lesions: (slice, row, column) uint8 on the grid of `sources`, 0 outside and 1..`count`.
        spacing: edges of a voxel in mm in the order of the axes.
    """
    provenance = predictor.provenance()
    algorithm = hd.AlgorithmIdentificationSequence(
        name=_short(predictor.name),
        family=codes.cid7162.ArtificialIntelligence,
        version=_short(predictor.version),
        source=MANUFACTURER,
        parameters={name: str(value) for name, value in provenance.items()},
    )
    return hd.seg.Segmentation(
        source_images=sources,
        pixel_array=lesions,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            hd.seg.SegmentDescription(
                segment_number=number,
                segment_label=f"Neoplasm {number}",
                segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
                segmented_property_type=codes.SCT.Neoplasm,
                algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=algorithm,
                tracking_uid=str(hd.UID()),
                tracking_id=f"Neoplasm {number}",
            )
            for number in range(1, count + 1)
        ],
        pixel_measures=hd.PixelMeasuresSequence(
            pixel_spacing=[float(value) for value in spacing[1:]],
            slice_thickness=float(spacing[0]),
            spacing_between_slices=float(spacing[0]),
        ),
        content_label="NEOPLASM",
        content_description=_short(USE),
        **_series("segmentation"),
        **_equipment(predictor, "Neoplasm"),
    )


def report(sources: Sequence[Dataset], seg: Any, lesions: Sequence[Lesion], grid: Grid, predictor: Predictor) -> Any:
    """Structured report (TID 1500): of every lesion the volume in mL, which refers to its segment of `seg`, and under
    the same tracking UID the longest axial diameter and its perpendicular in mm with their lines in patient
    coordinates, which a group about a segment may not have; then the volume of all and the largest diameters.

    Args:
        seg: None where there is no lesion.
        grid: on which the `lesions` were measured.
    """
    algorithm = sr.AlgorithmIdentification(
        name=predictor.name,
        version=predictor.version,
        parameters=[f"{name}={value}" for name, value in predictor.provenance().items()],
        family=codes.cid7162.ArtificialIntelligence,
        manufacturer=MANUFACTURER,
    )
    frame_of_reference = str(sources[0].FrameOfReferenceUID)
    groups: list[Any] = []
    for lesion in lesions:
        tracking = sr.TrackingIdentifier(
            uid=seg.SegmentSequence[lesion.number - 1].TrackingUID, identifier=f"Neoplasm {lesion.number}"
        )
        groups.append(
            sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=tracking,
                referenced_segment=sr.ReferencedSegment(
                    seg.SOPClassUID,
                    seg.SOPInstanceUID,
                    lesion.number,
                    source_series=sr.SourceSeriesForSegmentation(sources[0].SeriesInstanceUID),
                ),
                finding_type=codes.SCT.Neoplasm,
                algorithm_id=algorithm,
                measurements=[sr.Measurement(codes.SCT.Volume, lesion.volume_ml, MILLILITRE)],
            )
        )
        groups.append(
            sr.MeasurementsAndQualitativeEvaluations(
                tracking_identifier=tracking,
                finding_type=codes.SCT.Neoplasm,
                algorithm_id=algorithm,
                measurements=_diameters(lesion, grid, frame_of_reference),
            )
        )
    longest = largest(lesions)
    volume = sr.Measurement(codes.SCT.Volume, sum(lesion.volume_ml for lesion in lesions), MILLILITRE)
    groups.append(
        sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(uid=str(hd.UID()), identifier="All neoplasms"),
            finding_type=codes.SCT.Neoplasm,
            algorithm_id=algorithm,
            measurements=[
                volume,
                *(_diameters(longest, grid, frame_of_reference, codes.SCT.Maximum) if longest else []),
            ],
        )
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=_device(predictor)),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
        referenced_images=sources,
    )
    return sr.Comprehensive3DSR(
        evidence=[*sources, *([] if seg is None else [seg])],
        content=content,
        is_complete=True,
        **_series("report"),
        **_equipment(predictor, "Neoplasm measurements"),
    )


def _diameters(lesion: Lesion, grid: Grid, frame_of_reference: str, derivation: Code | None = None) -> list[Any]:
    """Both diameters of a lesion in mm with their lines."""
    found = lesion.diameters
    return [
        sr.Measurement(
            name,
            length,
            codes.UCUM.Millimeter,
            derivation=derivation,
            referenced_coordinates=[
                sr.CoordinatesForMeasurement3D(
                    sr.GraphicTypeValues3D.POLYLINE,
                    grid.points([(lesion.slice, *point) for point in line]),
                    frame_of_reference,
                )
            ],
        )
        for name, length, line in (
            (codes.SCT.LongAxis, found.longest_mm, found.longest),
            (codes.SCT.PerpendicularAxis, found.perpendicular_mm, found.perpendicular),
        )
    ]


def key_slice(sources: Sequence[Dataset], chosen: Dataset, text: str, predictor: Predictor) -> Any:
    """Key object selection that points at the image `chosen` among `sources`, with `text` and the model in words."""
    provenance = ", ".join(f"{name} {value}" for name, value in predictor.provenance().items())
    content = hd.ko.KeyObjectSelection(
        document_title=codes.DCM.OfInterest,
        referenced_objects=[chosen],
        observer_device_context=_device(predictor),
        description=f"{text}. {USE} {provenance}",
    )
    return hd.ko.KeyObjectSelectionDocument(
        evidence=[chosen], content=content, **_series("key-slice"), **_equipment(predictor, "L3 slice")
    )


def _series(kind: str) -> dict[str, Any]:
    return {
        "series_instance_uid": str(hd.UID()),
        "series_number": _SERIES[kind],
        "sop_instance_uid": str(hd.UID()),
        "instance_number": 1,
    }


def _equipment(predictor: Predictor, what: str) -> dict[str, Any]:
    """General Equipment module: the model with its hash; our version, the data set and the model's version."""
    provenance = predictor.provenance()
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": _short(predictor.name),
        "software_versions": (
            _short(f"hounsfield {provenance['code_version']}"),
            _short(provenance["dataset_hash"]),
            _short(f"model {predictor.version}"),
        ),
        "device_serial_number": predictor.weights_sha256,
        "series_description": _short(f"{what}: research use only"),
    }


def _device(predictor: Predictor) -> Any:
    """The model as the device that observed; its UID is made of its weights."""
    attributes = sr.DeviceObserverIdentifyingAttributes(
        uid=generate_uid(entropy_srcs=["hounsfield model", predictor.weights_sha256]),
        name=_short(f"{predictor.name} {predictor.version}"),
        manufacturer_name=MANUFACTURER,
        model_name=_short(predictor.name),
        serial_number=predictor.weights_sha256,
    )
    return sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=attributes)


def _short(text: str) -> str:
    """`text` as a value of Long String: ASCII, no backslash, 64 characters."""
    return text.encode("ascii", "replace").decode().replace("\\", "/")[:_LONG_STRING]
