"""Why a file, series or case is not used: one code each, and the exception that carries it."""

from enum import StrEnum


class Reason(StrEnum):
    """Machine-readable reason; `MEANING` has the sentence for people."""

    NOT_DICOM = "not-dicom"
    UNREADABLE = "unreadable"
    NOT_CT = "not-ct"
    LOCALIZER = "localizer"
    NO_PIXELS = "no-pixels"
    NO_GEOMETRY = "no-geometry"
    NOT_HU = "not-hu"
    UNSUPPORTED_PIXELS = "unsupported-pixels"
    MULTI_FRAME = "multi-frame"
    DUPLICATE_SLICE = "duplicate-slice"
    CONFLICTING_SLICES = "conflicting-slices"
    INCONSISTENT_PATIENT = "inconsistent-patient"
    INCONSISTENT_SIZE = "inconsistent-size"
    INCONSISTENT_ORIENTATION = "inconsistent-orientation"
    TOO_FEW_SLICES = "too-few-slices"
    MISSING_SLICES = "missing-slices"
    IRREGULAR_SPACING = "irregular-spacing"
    GANTRY_TILT = "gantry-tilt"
    DUPLICATE_SERIES = "duplicate-series"
    AMBIGUOUS_IMAGE = "ambiguous-image"
    NOT_A_VOLUME = "not-a-volume"
    IMAGE_VOLUME = "image-volume"
    UNMATCHED_VOLUME = "unmatched-volume"
    SUPERSEDED_LABEL = "superseded-label"
    LABEL_WITHOUT_IMAGE = "label-without-image"
    NO_MATCHING_ROI = "no-matching-roi"
    AMBIGUOUS_LABEL = "ambiguous-label"
    LABEL_GEOMETRY = "label-geometry"
    EMPTY_LABEL = "empty-label"


MEANING = {
    Reason.NOT_DICOM: "neither DICOM nor a volume (NIfTI, NRRD, MHA)",
    Reason.UNREADABLE: "truncated or corrupt; a series with such a slice is not used either",
    Reason.NOT_CT: "DICOM of another kind than CT images and labels (MR, PET, dose, plan, report, directory)",
    Reason.LOCALIZER: "scout image of a CT examination",
    Reason.NO_PIXELS: "CT object without pixel data",
    Reason.NO_GEOMETRY: "position, orientation, pixel spacing or size is missing or impossible",
    Reason.NOT_HU: "rescale slope and intercept are missing, or the rescale type is another unit than HU",
    Reason.UNSUPPORTED_PIXELS: "pixel format or compression that cannot be decoded to exact values",
    Reason.MULTI_FRAME: "multi-frame (enhanced) CT; export its series as single slices",
    Reason.DUPLICATE_SLICE: "identical copy of a slice that is used",
    Reason.CONFLICTING_SLICES: "different slices at one position",
    Reason.INCONSISTENT_PATIENT: "one series with several patient identifiers",
    Reason.INCONSISTENT_SIZE: "rows, columns or pixel spacing change within the series",
    Reason.INCONSISTENT_ORIENTATION: "orientation changes within the series",
    Reason.TOO_FEW_SLICES: "fewer slices than --min-slices",
    Reason.MISSING_SLICES: "gap between slices",
    Reason.IRREGULAR_SPACING: "slice positions are not evenly spaced on one line",
    Reason.GANTRY_TILT: "slices are sheared: their positions do not run along the slice normal",
    Reason.DUPLICATE_SERIES: "the same series was given more than once",
    Reason.AMBIGUOUS_IMAGE: "the image of a case is not exactly one CT series",
    Reason.NOT_A_VOLUME: "not a three-dimensional scalar volume with a rectangular grid",
    Reason.IMAGE_VOLUME: "image volume found under --data; volumes are read through a cases file",
    Reason.UNMATCHED_VOLUME: "label volume whose case folder lacks exactly one series, of one patient, on its grid",
    Reason.SUPERSEDED_LABEL: "label that gives way to a DICOM label object, or to the label that the cases file names",
    Reason.LABEL_WITHOUT_IMAGE: "label whose CT series is absent or not used",
    Reason.NO_MATCHING_ROI: "label without the wanted region (--roi, --label-value)",
    Reason.AMBIGUOUS_LABEL: "several regions or label objects fit; choose with --roi or --label-value",
    Reason.LABEL_GEOMETRY: "label and image do not agree in geometry",
    Reason.EMPTY_LABEL: "label without a single voxel",
}


class UnusableError(Exception):
    """A file, series or case that cannot be used; `sentence` names no patient, path or identifier.

    `series` is the Series Instance UID of a faulty slice: its whole series is then not used.
    """

    def __init__(self, reason: Reason, sentence: str, series: str | None = None) -> None:
        super().__init__(f"{reason}: {sentence}")
        self.reason, self.sentence, self.series = reason, sentence, series
