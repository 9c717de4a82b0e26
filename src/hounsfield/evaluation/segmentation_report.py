"""The report of a segmentation."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hounsfield.data.slice_set import SliceSet
from hounsfield.evaluation import figures
from hounsfield.evaluation.prediction import Predict, log_odds
from hounsfield.evaluation.report import UNDEFINED, Page, ReportWriter, mean_sd, number, tile, worst_and_best
from hounsfield.evaluation.segmentation import PatientResult, Segmentation

LEGEND = "The slice with the largest tumour: whole, enlarged, and enlarged with the outlines."
COLUMNS = ["patient", "site", "Dice", "precision", "recall", "AP", "tumour, ml", "predicted, ml", "slices with tumour"]


def write_segmentation_report(
    directory: Path,
    metrics: dict[str, Any],
    card: str,
    result: Segmentation,
    slices: SliceSet,
    predict: Predict,
    cases: int,
) -> None:
    """Write report.html, which ends with the model card `card` (Markdown), and figures/*.png.

    Slices of the shown cases are predicted again, one at a time.
    """
    writer = ReportWriter(directory)
    pooled, own = metrics["pooled"], metrics["per_patient"]
    page = Page(
        title="Lung-tumour segmentation: evaluation",
        meaning=meaning(metrics),
        tiles=[
            tile("pooled F1", pooled["f1"]),
            tile("average precision", pooled["average_precision"]),
            tile("pooled precision", pooled["precision"]),
            tile("pooled recall", pooled["recall"]),
            {"name": "Dice per patient, mean ± SD", "value": mean_sd(own, "dice")},
            {"name": "patients with a tumour", "value": str(own["patients_with_tumour"])},
        ],
        comparison={
            "title": "Pooled and per patient, side by side",
            "columns": ["", "pooled pixels", "per patient: mean ± SD", "median", "lowest", "highest"],
            "rows": [
                [name, number(pooled[key]), mean_sd(own, own_key)]
                + [number(own[f"{own_key}_{part}"]) for part in ("median", "min", "max")]
                for name, key, own_key in (
                    ("F1 / Dice", "f1", "dice"),
                    ("Precision", "precision", "precision"),
                    ("Recall", "recall", "recall"),
                    ("Average precision", "average_precision", "average_precision"),
                )
            ],
        },
        audit=metrics["audit"]["sentences"],
        subgroups=subgroup_table(metrics["subgroups"]),
        listing={
            "title": "Patients, worst first",
            "columns": COLUMNS,
            "rows": [cells(patient) for patient in worst_first(result)],
            "note": "Dice has no value where the truth is empty; such patients are not part of the mean. "
            "Precision has no value where nothing is predicted.",
        },
    )
    writer.curve(page, metrics, result.histogram)
    dice = [patient.dice for patient in result.ranked if patient.dice is not None]
    if dice:
        figure = figures.dice_by_patient(dice, pooled["f1"], own["dice_mean"])
        caption = "Dice of each patient with a tumour at the threshold, beside the pooled F1."
        writer.plot(page, "dice_per_patient", figure, caption)
    for name, chosen in worst_and_best(result.ranked, cases).items():
        shown = (case(slices, patient, predict, metrics["threshold"]) for patient in chosen)
        writer.case_group(page, name, LEGEND, True, shown)
    writer.write(page, metrics, card)


def meaning(metrics: dict[str, Any]) -> list[str]:
    """What the figures mean."""
    rows, columns = metrics["image_size"]
    return [
        "Pooled figures count every pixel of all patients together, so large tumours weigh most. Dice is calculated "
        "for each patient and then averaged, so every patient weighs the same. The two answer different questions and "
        "are not interchangeable.",
        "Average precision (AP) is the area under the precision-recall curve over all thresholds; a useless model has "
        f"an AP of {number(metrics['pooled']['prevalence'], '.4f')}, the share of tumour pixels. Counts are of images "
        f"of {rows} x {columns} pixels, without post-processing.",
    ]


def subgroup_table(subgroups: dict[str, Any]) -> dict[str, Any]:
    """One row per site of the tumour."""
    return {
        "title": "By site of the tumour",
        "columns": ["site", "patients", "pooled F1", "precision", "recall", "AP", "Dice per patient, mean ± SD"],
        "rows": [
            [site, str(own["patients"])]
            + [number(own[name]) for name in ("f1", "precision", "recall", "average_precision")]
            + [mean_sd(own, "dice")]
            for site, own in subgroups.items()
        ],
        "note": "The site is found from mask and lung field of the CT, not read by an expert. A patient with several "
        "tumours counts as chest-wall when any of them is attached to the chest wall. Patients without a tumour, or "
        "without a lung field in the images, are in neither group.",
    }


def worst_first(result: Segmentation) -> list[PatientResult]:
    """By Dice, then those without a tumour by false-positive pixels."""
    without = [patient for patient in result.patients if patient.dice is None]
    return result.ranked + sorted(without, key=lambda patient: (-patient.fp, patient.patient))


def cells(patient: PatientResult) -> list[str]:
    """One row of the table of patients."""
    return [
        patient.patient,
        patient.subgroup or UNDEFINED,
        number(patient.dice),
        number(patient.precision),
        number(patient.recall),
        number(patient.average_precision),
        f"{patient.truth_ml:.1f}",
        f"{patient.predicted_ml:.1f}",
        f"{patient.tumour_slices} of {patient.slices}",
    ]


def case(slices: SliceSet, patient: PatientResult, predict: Predict, threshold: float) -> tuple[Figure, str]:
    """Truth and prediction on the shown slice of a patient, with a caption."""
    row = patient.shown_row
    item = slices.index[row]
    scores = predict(slices.gather("image", [row]))[0]
    figure = figures.tumour_overlay(
        np.asarray(slices.image(row)),
        np.asarray(slices.mask(row)) > 0,
        scores >= np.float32(log_odds(threshold)),
        (item.spacing_row, item.spacing_column),
    )
    caption = (
        f"Patient {patient.patient}, slice {item.slice}: Dice of the patient {number(patient.dice)}, "
        f"tumour {patient.truth_ml:.1f} ml, predicted {patient.predicted_ml:.1f} ml."
    )
    return figure, caption
