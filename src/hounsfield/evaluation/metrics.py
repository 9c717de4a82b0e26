"""The figures of an evaluation as the JSON of metrics.json; undefined ones are None."""

from typing import Any

from hounsfield.data.tumour_site import SITES
from hounsfield.evaluation.agreement import audit_metrics
from hounsfield.evaluation.detection import Detection
from hounsfield.evaluation.segmentation import Segmentation
from hounsfield.metrics.counts import Counts, Spread, ratio
from hounsfield.metrics.histogram import ScoreHistogram

WIDE_INTERVAL = 1e-4
FEW_PATIENTS = 10


def pooled_metrics(counts: Counts, histogram: ScoreHistogram, unit: str) -> dict[str, Any]:
    """Precision, recall, F1 at the threshold and average precision over all pixels or slices (`unit`)."""
    average = histogram.average_precision()
    return {
        "unit": unit,
        "precision": counts.precision,
        "recall": counts.recall,
        "f1": counts.f1,
        "average_precision": None if average is None else average.value,
        "average_precision_interval": None if average is None else [average.lower, average.upper],
        "prevalence": ratio(histogram.positives, histogram.positives + histogram.negatives),
        "tp": counts.tp,
        "fp": counts.fp,
        "fn": counts.fn,
        "tn": counts.tn,
    }


def spread_metrics(name: str, spread: Spread) -> dict[str, float | None]:
    """`name_mean`, `name_sd` (n - 1), `name_median`, `name_min`, `name_max`."""
    return {
        f"{name}_mean": spread.mean,
        f"{name}_sd": spread.sd,
        f"{name}_median": spread.median,
        f"{name}_min": spread.minimum,
        f"{name}_max": spread.maximum,
    }


def segmentation_metrics(result: Segmentation) -> dict[str, Any]:
    """`summary`, `pooled`, `per_patient`, `subgroups` and `audit` of a segmentation."""
    pooled = pooled_metrics(result.pooled, result.histogram, "pixel")
    with_tumour = [patient for patient in result.patients if patient.dice is not None]
    without = [patient for patient in result.patients if patient.dice is None]
    per_patient: dict[str, Any] = {
        "patients_with_tumour": len(with_tumour),
        "patients_without_tumour": len(without),
        "false_positive_patients": sum(patient.fp > 0 for patient in without),
        **spread_metrics("dice", result.dice),
    }
    for name in ("precision", "recall", "average_precision"):
        per_patient |= spread_metrics(name, Spread.of(getattr(patient, name) for patient in with_tumour))
    summary = {
        **{name: pooled[name] for name in ("f1", "precision", "recall", "average_precision")},
        "dice_per_patient_mean": per_patient["dice_mean"],
    }
    return {
        "summary": summary,
        "pooled": pooled,
        "per_patient": per_patient,
        "subgroups": {site: site_metrics(result.of_site(site)) for site in SITES},
        "audit": audit_metrics(pooled, result.dice, "patient"),
    }


def site_metrics(result: Segmentation) -> dict[str, Any]:
    """`patients`, pooled figures and Dice per patient of one subgroup."""
    pooled = pooled_metrics(result.pooled, result.histogram, "pixel")
    return {
        "patients": len(result.patients),
        **{name: pooled[name] for name in ("f1", "precision", "recall", "average_precision")},
        "dice_mean": result.dice.mean,
        "dice_sd": result.dice.sd,
    }


def detection_metrics(result: Detection, vertebra_mm: float) -> dict[str, Any]:
    """`summary`, `pooled`, `per_patient` and `audit` of a slice detection."""
    pooled = pooled_metrics(result.pooled, result.histogram, "slice")
    line = result.line
    per_patient = {
        "series_with_label": len(result.labelled),
        "series_without_label": len(result.series) - len(result.labelled),
        "detected": sum(series.detected for series in result.labelled),
        "detection_rate": result.detection_rate,
        **spread_metrics("slice_error", result.error_slices),
        **spread_metrics("slice_error_mm", result.error_mm),
        "vertebra_mm": vertebra_mm,
        "vertebra_error_rate": result.rate_from(vertebra_mm),
        "r2": line.r2,
        "slope": line.slope,
        "intercept": line.intercept,
    }
    summary = {
        **{name: per_patient[name] for name in ("slice_error_mean", "slice_error_sd", "slice_error_mm_mean")},
        "detection_rate": per_patient["detection_rate"],
        **{name: pooled[name] for name in ("f1", "precision", "recall", "average_precision")},
    }
    own = Spread.of(Counts(series.tp, series.fp, series.fn, series.tn).dice for series in result.series)
    return {
        "summary": summary,
        "pooled": pooled,
        "per_patient": per_patient,
        "audit": audit_metrics(pooled, own, "series"),
    }


def caveats(metrics: dict[str, Any]) -> list[str]:
    """Sentences on what limits the figures of a complete `metrics`."""
    found = []
    pooled, model = metrics["pooled"], metrics["model"]
    if metrics["dataset_hash"] != model["dataset_hash"]:
        found.append("The model was trained on another dataset: the figures show how it transfers to this one.")
    elif metrics["slice_set_hash"] != model["slice_set_hash"]:
        found.append(
            "The model was trained on another slice set of this dataset, whose split may differ: "
            "some of these patients may be known to it."
        )
    elif metrics["split"] != "test":
        found.append(
            f"Split {metrics['split']}: the model was fitted to or chosen by patients of it, so the figures flatter it."
        )
    elif model["validation"] == "test":
        found.append("Optimistic: the test patients chose the epoch or the parameters of this model.")
    if metrics["patients"] < FEW_PATIENTS:
        found.append(f"Only {counted(metrics['patients'], 'patient')}: a single one can move every figure noticeably.")
    if pooled["average_precision"] is None:
        found.append(f"No {pooled['unit']} is positive: recall and average precision are undefined.")
    else:
        lower, upper = pooled["average_precision_interval"]
        if upper - lower > WIDE_INTERVAL:
            found.append(f"The average precision is known to lie in [{lower:.5f}, {upper:.5f}] only.")
    if pooled["precision"] is None:
        found.append(f"No {pooled['unit']} reaches the threshold: precision is undefined.")
    without = metrics["per_patient"].get("patients_without_tumour", 0)
    if without:
        wrong = metrics["per_patient"]["false_positive_patients"]
        found.append(
            f"{counted(without, 'patient')} without a labelled tumour, and so without a Dice: "
            f"{wrong} with false-positive pixels."
        )
    if "subgroups" in metrics:
        known = sum(site["patients"] for site in metrics["subgroups"].values())
        unknown = metrics["per_patient"]["patients_with_tumour"] - known
        if unknown:
            found.append(f"{counted(unknown, 'patient')} whose tumour's site is unknown: in neither subgroup.")
    without = metrics["per_patient"].get("series_without_label", 0)
    if without:
        found.append(f"{without} series without a labelled slice, and so without a slice error.")
    return found


def counted(count: int, noun: str) -> str:
    """`1 patient`, `1,200 patients`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def window_text(window: dict[str, Any]) -> str:
    """`[-125, 225] HU, 8 bits` and the like."""
    parts = [f"[{window['lower']:g}, {window['upper']:g}] HU"]
    if window["stretch"] != "none":
        parts.append("histogram stretch of each slice")
    parts.append(f"{window['bits']} bits" if window["bits"] else "float32")
    return ", ".join(parts)
