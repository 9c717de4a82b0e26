"""The audit of an evaluation: F1 against precision and recall, and pooled figures against those per patient."""

from typing import Any, Literal

from hounsfield.metrics.audit import Audit, audit
from hounsfield.metrics.counts import Spread

CLOSE = 0.02
"""Pooled F1 and the mean over patients (series) agree when they differ by at most this."""


def audit_metrics(pooled: dict[str, Any], own: Spread, unit: Literal["patient", "series"]) -> dict[str, Any]:
    """`audit` of metrics.json.

    Args:
        pooled: pooled `precision`, `recall` and `f1`.
        own: Dice of each patient with a tumour, or F1 over the slices of each labelled series.
    """
    checked = audit(pooled["precision"], pooled["recall"], pooled["f1"])
    f1, mean = pooled["f1"], own.mean
    difference = None if f1 is None or mean is None else f1 - mean
    return {
        "verdict": checked.verdict,
        "f1_recomputed": checked.f1_recomputed,
        "f1_difference": checked.f1_difference,
        "pooled_f1": f1,
        "mean_f1": mean,
        "mean_over": unit,
        "pooled_minus_mean": difference,
        "pooled_and_mean_agree": None if difference is None else abs(difference) <= CLOSE,
        "sentences": [f"{recomputed(checked)}{checked.sentence}", agreement(f1, own, unit)],
    }


def recomputed(checked: Audit) -> str:
    """The recomputed F1 in words, for the sentence that follows."""
    return (
        ""
        if checked.f1_recomputed is None
        else f"F1 recomputed from precision and recall: {checked.f1_recomputed:.6f}. "
    )


def agreement(f1: float | None, own: Spread, unit: Literal["patient", "series"]) -> str:
    """Whether pooled F1 and the mean over patients or series agree, and why they may not."""
    name, noun = ("Dice per patient", "patients") if unit == "patient" else ("F1 per series", "series")
    if f1 is None or own.mean is None:
        return f"Pooled F1 and mean {name} cannot be compared: one of them is undefined."
    sizes = f"Pooled F1 {f1:.3f} and mean {name} {own.mean:.3f} ({own.n} {noun})"
    difference = f1 - own.mean
    if abs(difference) <= CLOSE:
        return f"{sizes} agree within {CLOSE:g}: they differ by {abs(difference):.3f}."
    if unit == "patient":
        why = (
            "a large tumour weighs more in the pooled figure, a small one as much as any in the mean"
            if difference > 0
            else "a large tumour, and every false-positive pixel in a patient without a tumour, weighs more in the "
            "pooled figure than in the mean"
        )
    else:
        why = (
            "a series with many labelled slices weighs more in the pooled figure, and false-positive slices of a "
            "series without a label count only there"
        )
    return (
        f"{sizes} do not agree: they differ by {abs(difference):.3f}, as they can: {why}. Neither stands for the other."
    )
