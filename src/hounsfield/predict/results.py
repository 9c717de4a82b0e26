"""What is written about one series: figures as JSON, DICOM objects and pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from hounsfield.body import GREATEST_HEIGHT, LEAST_HEIGHT, TISSUES, Composition, composition, overlay
from hounsfield.data.series_store import SeriesRow
from hounsfield.errors import InputError
from hounsfield.evaluation.decision import decide
from hounsfield.evaluation.prediction import log_odds, probability
from hounsfield.predict import figures, objects
from hounsfield.predict.lesions import Lesion, components, largest, measure
from hounsfield.predict.model import USE, Predictor
from hounsfield.predict.series import Candidate, Volume

DICOM = "dicom"
SEGMENTATION, REPORT, KEY_SLICE = "segmentation.dcm", "report.dcm", "key-slice.dcm"
_DIGITS = 6


class UnpredictableError(Exception):
    """A result that cannot be trusted, with its reason code and sentence."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(f"{reason}: {sentence}")
        self.reason, self.sentence = reason, sentence


def tumour(
    candidate: Candidate, volume: Volume, scores: npt.NDArray[np.float32], predictor: Predictor, out: Path
) -> dict[str, Any]:
    """Write SEG, report and picture of the lesions of a series into `out`; returns its figures.

    Args:
        scores: log-odds (slice, row, column) on the grid of `volume`.

    Raises:
        ObjectError: the source headers do not allow a DICOM result.
        UnpredictableError: there are more lesions than a segmentation of ours holds.
    """
    mask = scores >= np.float32(log_odds(predictor.network.card.threshold))
    labelled, count = components(mask)
    if count > objects.MOST_SEGMENTS:
        raise UnpredictableError(
            "too-many-lesions",
            f"the network marks {count} separate regions (limit {objects.MOST_SEGMENTS}): "
            "the model does not fit this series",
        )
    lesions = measure(labelled, volume.row.spacing)
    (out / DICOM).mkdir()
    sources = candidate.headers()
    with objects.objects_of(sources):
        seg = None
        if lesions:
            on_source = candidate.to_source(labelled.astype(np.uint8)).astype(np.uint8, copy=False)
            seg = objects.segmentation(sources, on_source, count, candidate.series.grid.spacing, predictor)
            seg.save_as(out / DICOM / SEGMENTATION, enforce_file_format=True)
        report = objects.report(sources, seg, lesions, candidate.turn.grid(candidate.series.grid), predictor)
        report.save_as(out / DICOM / REPORT, enforce_file_format=True)
    longest = largest(lesions)
    if longest is not None:
        shown = sections_of(volume.hu, mask, lesions, longest)
        picture = figures.sections(shown, volume.row.spacing[1:], predictor.signature, figures.LUNG_AND_SOFT_TISSUE)
        (out / "largest-section.png").write_bytes(picture)
    return {
        "lesions": [_described(lesion, volume.positions_mm) for lesion in lesions],
        "total": {
            "lesions": count,
            "volume_ml": _rounded(sum(lesion.volume_ml for lesion in lesions)),
            "longest_axial_diameter_mm": _rounded(longest.diameters.longest_mm) if longest else 0.0,
            "perpendicular_mm": _rounded(longest.diameters.perpendicular_mm) if longest else 0.0,
        },
    }


def sections_of(
    hu: npt.NDArray[np.int16], mask: npt.NDArray[np.bool_], lesions: Sequence[Lesion], longest: Lesion
) -> list[figures.Section]:
    """The largest section of the mask and, where that is another slice, the one with the longest diameter."""
    largest_section = int(mask.sum(axis=(1, 2), dtype=np.int64).argmax())
    sizes = f"{longest.diameters.longest_mm:.1f} x {longest.diameters.perpendicular_mm:.1f} mm"
    titles = {largest_section: "the largest section"}
    titles[longest.slice] = f"{'' if longest.slice != largest_section else 'the largest section, '}{sizes}"
    return [
        figures.Section(
            hu[place],
            f"slice {place + 1} of {len(mask)}: {title}",
            mask[place],
            [lesion for lesion in lesions if lesion.slice == place],
        )
        for place, title in titles.items()
    ]


def l3(
    candidate: Candidate, volume: Volume, scores: npt.NDArray[np.float32], predictor: Predictor, out: Path
) -> dict[str, Any]:
    """Write curve and, when L3 was found, its slice as PNG and as key object selection; returns the figures.

    Between two slices the more probable one is taken.

    Args:
        scores: log-odds (slices,).

    Raises:
        ObjectError: the source headers do not allow a DICOM result.
    """
    chances, threshold = probability(scores), predictor.network.card.threshold
    decision = decide(chances, threshold)
    around = int(np.floor(decision.centre)), int(np.ceil(decision.centre))
    index = max(around, key=lambda k: float(chances[k])) if decision.detected else None
    picture = figures.curve(chances, threshold, index, predictor.signature, len(decision.others))
    (out / "probability.png").write_bytes(picture)
    described: dict[str, Any] = {
        "found": index is not None,
        "highest_probability": _rounded(float(chances.max())),
        "probability": [_rounded(float(value)) for value in chances],
    }
    if index is None:
        return described
    sources = candidate.headers()
    at = len(sources) - 1 - index if candidate.turn.flip[0] else index
    number = instance_number(sources[at])
    title = f"L3: slice {index + 1} of {len(volume.hu)}{'' if number is None else f', image {number}'}"
    spacing = volume.row.spacing[1:]
    picture = figures.sections([figures.Section(volume.hu[index], title)], spacing, predictor.signature)
    (out / "slice.png").write_bytes(picture)
    (out / DICOM).mkdir()
    with objects.objects_of(sources):
        selection = objects.key_slice(sources, sources[at], title, predictor)
        selection.save_as(out / DICOM / KEY_SLICE, enforce_file_format=True)
    described["body_composition"] = areas(volume.hu[index], spacing, sources[at], predictor, out)
    place: dict[str, Any] = {"slice": index + 1, "slices": len(volume.hu)}
    place["position_mm"] = _rounded(volume.positions_mm[index])
    place["other_places"] = [float(centre) + 1 for centre in decision.others]
    if number is not None:
        place["instance_number"] = number
    return {**described, **place, "slice_probability": _rounded(float(chances[index]))}


def instance_number(header: Dataset) -> int | None:
    """The number by which viewers show an image within its series; None when it is missing or is none."""
    try:
        return int(header.InstanceNumber)
    except (AttributeError, TypeError, ValueError):
        return None


def areas(
    hu: npt.NDArray[np.int16], spacing: Sequence[float], header: Dataset, predictor: Predictor, out: Path
) -> dict[str, Any]:
    """Areas at L3 with an overlay in `out`; a slice that cannot be measured gives the reason among the doubts.

    Args:
        hu: (row, column), rows from front to back, columns from right to left.
        spacing: edges of a pixel in mm (row to row, column to column).
        header: of the slice; the patient's height is looked for in it.
    """
    try:
        given = float(header.get("PatientSize") or 0)
    except (TypeError, ValueError):
        given = 0.0
    height = given if LEAST_HEIGHT <= given <= GREATEST_HEIGHT else None
    edges = spacing[0], spacing[1]
    try:
        result = composition(hu, edges, height)
    except InputError as error:
        nothing = dict.fromkeys(TISSUES)
        result = Composition(nothing, {}, [str(error)])
    else:
        (out / "body-composition.png").write_bytes(overlay(hu, edges, result, predictor.signature))
    found = result.to_dict()
    if given and height is None:
        found["notes"] = [
            f"The patient's height in the header, {given:g} m, cannot be (expected {LEAST_HEIGHT} to {GREATEST_HEIGHT} "
            "m): no skeletal muscle index."
        ]
    return found


def described(task: str, row: SeriesRow, predictor: Predictor, figures_of_task: dict[str, Any]) -> dict[str, Any]:
    """The content of `result.json`: nothing in it names patient, study or image."""
    return {
        "task": task,
        "series": row.key,
        "patient": row.patient,
        "image": {
            "slices": row.slices,
            "rows": row.rows,
            "columns": row.columns,
            "spacing_mm": list(row.spacing),
            "flags": row.flags,
            "pixel_sha256": row.pixel_sha256,
        },
        "provenance": predictor.provenance(),
        "use": USE,
        **figures_of_task,
    }


def _described(lesion: Lesion, positions: list[float]) -> dict[str, Any]:
    return {
        "lesion": lesion.number,
        "voxels": lesion.voxels,
        "volume_ml": _rounded(lesion.volume_ml),
        "longest_axial_diameter_mm": _rounded(lesion.diameters.longest_mm),
        "perpendicular_mm": _rounded(lesion.diameters.perpendicular_mm),
        "slice": lesion.slice + 1,
        "position_mm": positions[lesion.slice],
        "first_slice": lesion.first_slice + 1,
        "last_slice": lesion.last_slice + 1,
    }


def _rounded(value: float) -> float:
    return round(value, _DIGITS)
