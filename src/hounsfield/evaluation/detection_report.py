"""The report of a slice detection."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from hounsfield.data.slice_set import SliceSet
from hounsfield.evaluation import figures
from hounsfield.evaluation.detection import Detection, SeriesResult
from hounsfield.evaluation.report import Page, ReportWriter, mean_sd, number, tile, worst_and_best

LEGEND = "The slices as the network sees them, brightened for display, and the probability of every slice."
COLUMNS = ["series", "error, slices", "error, mm", "predicted", "true", "detected", "L3 slices", "highest probability"]


def write_detection_report(
    directory: Path, metrics: dict[str, Any], card: str, result: Detection, slices: SliceSet, cases: int
) -> None:
    """Write report.html, which ends with the model card `card` (Markdown), and figures/*.png."""
    writer = ReportWriter(directory)
    pooled, own = metrics["pooled"], metrics["per_patient"]
    page = Page(
        title="L3 slice detection: evaluation",
        meaning=meaning(metrics),
        tiles=[
            {"name": "slice error, mean ± SD", "value": mean_sd(own, "slice_error", ".2f")},
            {"name": "slice error in mm, mean ± SD", "value": mean_sd(own, "slice_error_mm", ".1f")},
            tile("detection rate", own["detection_rate"], ".1%"),
            tile(f"errors of a vertebra or more ({own['vertebra_mm']:g} mm)", own["vertebra_error_rate"], ".1%"),
            tile("slice-level F1", pooled["f1"]),
            tile("slice-level AP", pooled["average_precision"]),
        ],
        comparison={
            "title": "Per series and per slice, side by side",
            "columns": ["per series", "", "per slice", ""],
            "rows": comparison(pooled, own),
        },
        audit=metrics["audit"]["sentences"],
        listing={
            "title": "Series, worst first",
            "columns": COLUMNS,
            "rows": [cells(series) for series in worst_first(result)],
            "note": "Slice numbers count from 0 at the inferior end; a half lies between two slices.",
        },
    )
    writer.curve(page, metrics, result.histogram)
    if result.ranked:
        true = [series.true_slice for series in result.labelled if series.true_slice is not None]
        figure = figures.slice_scatter(true, [series.predicted_slice for series in result.labelled], result.line)
        caption = "Predicted against true slice number. Ideal: slope 1, intercept 0, R² 1."
        writer.plot(page, "slice_scatter", figure, caption)
        errors = [series.error_mm for series in result.ranked if series.error_mm is not None]
        detected = [series.detected for series in result.ranked]
        figure = figures.error_by_series(errors, detected, own["vertebra_mm"], own["slice_error_mm_mean"])
        writer.plot(page, "slice_error", figure, "Distance between the predicted and the true centre of L3.")
    for name, chosen in worst_and_best(result.ranked, cases).items():
        shown = (case(slices, series, result, metrics["threshold"]) for series in chosen)
        writer.case_group(page, name, LEGEND, False, shown)
    writer.write(page, metrics, card)


def meaning(metrics: dict[str, Any]) -> list[str]:
    """What the figures mean."""
    return [
        "The slice error is the distance between the predicted and the true centre of L3. The predicted one is the "
        "centre of the longest run of positive slices (gaps of one allowed). Where none is positive, the largest "
        "smoothed probability decides; the series counts as not detected, and its error still counts.",
        "Slice-level figures treat each slice as L3 or not. Average precision (AP) is the area under their "
        "precision-recall curve; a useless model has an AP of "
        f"{number(metrics['pooled']['prevalence'])}, the share of L3 slices.",
    ]


def comparison(pooled: dict[str, Any], own: dict[str, Any]) -> list[list[str]]:
    """Rows of the table of figures per series and per slice."""
    line = " / ".join([number(own["r2"]), number(own["slope"]), number(own["intercept"], ".2f")])
    left = [
        ("Slice error: mean ± SD", mean_sd(own, "slice_error", ".2f")),
        ("Slice error: median", number(own["slice_error_median"], ".2f")),
        ("Error in mm: mean ± SD", mean_sd(own, "slice_error_mm", ".1f")),
        ("Error in mm: median", number(own["slice_error_mm_median"], ".1f")),
        ("R² / slope / intercept", line),
    ]
    right = [
        ("Precision", number(pooled["precision"])),
        ("Recall", number(pooled["recall"])),
        ("F1", number(pooled["f1"])),
        ("Average precision", number(pooled["average_precision"])),
        ("TP / FP / FN", f"{pooled['tp']} / {pooled['fp']} / {pooled['fn']}"),
    ]
    return [[*series, *slice_level] for series, slice_level in zip(left, right, strict=True)]


def worst_first(result: Detection) -> list[SeriesResult]:
    """By error in mm, then those without a label."""
    return result.ranked + [series for series in result.series if series.error_mm is None]


def cells(series: SeriesResult) -> list[str]:
    """One row of the table of series."""
    return [
        series.series,
        number(series.error_slices, "g"),
        number(series.error_mm, ".1f"),
        f"{series.predicted_slice:g}",
        number(series.true_slice, "g"),
        "yes" if series.detected else "no",
        f"{series.labelled_slices} of {series.slices}",
        number(series.largest_probability),
    ]


def case(slices: SliceSet, series: SeriesResult, result: Detection, threshold: float) -> tuple[Figure, str]:
    """Predicted and true slice of a labelled series with the probability of every slice, and a caption."""
    assert series.true_row is not None
    assert series.true_slice is not None
    rows = result.rows[series.series]
    item = slices.index[series.true_row]
    figure = figures.slice_pair(
        slices.image(series.predicted_row),
        slices.image(series.true_row),
        (item.spacing_row, item.spacing_column),
        [slices.index[row].slice for row in rows],
        result.probabilities[series.series],
        [slices.index[row].slice for row in rows if slices.index[row].positive],
        (series.predicted_slice, series.true_slice),
        threshold,
    )
    caption = (
        f"Series {series.series}: error {number(series.error_slices, 'g')} slices, "
        f"{number(series.error_mm, '.1f')} mm{'' if series.detected else ', not detected'}."
    )
    return figure, caption
