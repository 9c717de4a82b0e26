"""Figures over the rows of an evaluation's table of patients, with 95 % intervals.

Patients are resampled, each with all of its series, 10,000 times with a fixed seed; the ends are percentiles (Efron and
Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). Where all patients agree on a rate, resampling would
say that it is certain: there the interval is the exact binomial one over patients (Clopper and Pearson 1934).
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import DegenerateDataWarning, binomtest, bootstrap

from hounsfield.evaluation.bootstrap import BINS, Counted, PooledPrecision, coarse, drawn, ends

RESAMPLES, BATCH, SEED = 10_000, 500, 0
THIN_MM, MEDIUM_MM = 1.5, 3.0
Interval = tuple[float, float]
Row = dict[str, Any]
Terms = Callable[[Row], tuple[float, float] | None]
"""A row's part of numerator and denominator of a figure that is a ratio of sums; None where the row has no part."""


@dataclass(frozen=True)
class Estimate:
    """A figure over some patients: its value, None where undefined, and its interval, or the `reason` for none."""

    value: float | None
    interval: Interval | None
    reason: str = ""


def estimate(
    name: str, rows: Sequence[Row], scores: Mapping[str, Counted] | None = None, vertebra_mm: float = np.inf
) -> Estimate:
    """The figure `name` of metrics.json over `rows` of the table of patients.

    Args:
        scores: histograms of the patients, for the pooled average precision.
        vertebra_mm: length from which an error counts in `vertebra_error_rate`.
    """
    if name == POOLED:
        own = sorted({row["patient"] for row in rows})
        return pooled_precision([scores[patient] for patient in own] if scores else [])
    terms = FIGURES[name] if name in FIGURES else share(lambda row: bool(row["error_mm"] >= vertebra_mm))
    by_patient: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if (pair := terms(row)) is not None:
            by_patient.setdefault(row["patient"], []).append(pair)
    sums = np.array([np.sum(pairs, axis=0) for pairs in by_patient.values()]).reshape(-1, 2)
    over, under = sums[:, 0], sums[:, 1]
    if not under.any():
        return Estimate(None, None, "undefined")
    value = float(over.sum() / under.sum())
    if len(sums) == 1:
        return Estimate(value, None, "1 patient")
    if name in RATES and value in (0, 1):
        exact = binomtest(round(value * len(sums)), len(sums)).proportion_ci()
        return Estimate(value, (float(exact.low), float(exact.high)))
    if under.all() and np.ptp(over / under) == 0:
        return Estimate(value, None, f"the same in all {len(sums)} patients")
    interval = ratio_interval(over, under)
    if not np.isfinite(interval).all():
        return Estimate(value, None, "undefined in some resamples")
    return Estimate(value, interval)


def pooled_precision(scores: Sequence[Counted]) -> Estimate:
    """The average precision over the pixels or slices of patients together, from their fine histograms."""
    if not scores:
        return Estimate(None, None, "scores are not kept by patient")
    negatives, positives = coarse(np.stack(scores), BINS)
    figure = PooledPrecision(negatives[None], positives[None])
    value = float(figure.of(np.ones((1, len(scores))))[0, 0])
    if np.isnan(value):
        return Estimate(None, None, "undefined")
    if len(scores) == 1:
        return Estimate(value, None, "1 patient")
    resampled = np.concatenate([figure.of(weights)[0] for weights in drawn(len(scores), RESAMPLES, SEED)])
    if np.isnan(resampled).any():
        return Estimate(value, None, "undefined in some resamples")
    return Estimate(value, ends(resampled))


def ratio_interval(numerators: npt.NDArray[Any], denominators: npt.NDArray[Any]) -> Interval:
    """95 % percentile-bootstrap interval of the ratio of the sums of two arrays (N,), drawn in pairs."""

    def ratio(over: npt.NDArray[Any], under: npt.NDArray[Any], axis: int) -> npt.NDArray[Any]:
        with np.errstate(invalid="ignore", divide="ignore"):
            result: npt.NDArray[Any] = over.sum(axis) / under.sum(axis)
        return result

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)
        found = bootstrap(
            (numerators, denominators), ratio, paired=True, vectorized=True, method="percentile", batch=BATCH,
            n_resamples=RESAMPLES, rng=np.random.default_rng(SEED),
        ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)


def mean_of(column: str) -> Terms:
    """Value and 1 where a row has the column."""
    return lambda row: None if row.get(column) is None else (float(row[column]), 1.0)


def share(of: Callable[[Row], bool]) -> Terms:
    """Among the series with a labelled slice."""
    return lambda row: None if row.get("true_slice") is None else (float(of(row)), 1.0)


def counts(weights: tuple[int, int, int]) -> Terms:
    """`weights[0]` true positives over as many, plus weighted false positives and false negatives."""
    positive, fp, fn = weights
    return lambda row: (
        None
        if row.get("tp") is None
        else (positive * row["tp"], positive * row["tp"] + fp * row["fp"] + fn * row["fn"])
    )


POOLED = "average_precision"
VERTEBRA = "vertebra_error_rate"
RATES = ("detection_rate", VERTEBRA)
FIGURES: dict[str, Terms] = {
    "dice_per_patient_mean": mean_of("dice"),
    "dice_mean": mean_of("dice"),
    "precision_mean": mean_of("precision"),
    "recall_mean": mean_of("recall"),
    "average_precision_mean": mean_of("average_precision"),
    "slice_error_mean": mean_of("error_slices"),
    "slice_error_mm_mean": mean_of("error_mm"),
    "detection_rate": share(lambda row: bool(row["detected"])),
    "f1": counts((2, 1, 1)),
    "precision": counts((1, 1, 0)),
    "recall": counts((1, 0, 1)),
}


def groups(rows: Sequence[Row]) -> dict[str, dict[str, list[Row]]]:
    """The rows by kind of subgroup and name of the group: site of the tumour, and distance of the slices."""
    found: dict[str, dict[str, list[Row]]] = {}
    for row in sorted(rows, key=lambda row: (row.get("subgroup") or "", row.get("slice_spacing_mm") or 0.0)):
        if row.get("subgroup"):
            found.setdefault("tumour site", {}).setdefault(row["subgroup"], []).append(row)
        if row.get("slice_spacing_mm"):
            name = spacing_group(row["slice_spacing_mm"])
            found.setdefault("slice distance", {}).setdefault(name, []).append(row)
    return found


def spacing_group(millimetres: float) -> str:
    """`0 to 1.5 mm`, `1.5 to 3 mm` (upper ends included) or `over 3 mm`."""
    if millimetres <= THIN_MM:
        return f"0 to {THIN_MM:g} mm"
    return f"{THIN_MM:g} to {MEDIUM_MM:g} mm" if millimetres <= MEDIUM_MM else f"over {MEDIUM_MM:g} mm"
