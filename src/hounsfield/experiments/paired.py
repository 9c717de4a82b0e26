"""Two methods on the same patients: mean difference with a bootstrap interval, and Wilcoxon's signed-rank test."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 9999


def compare(control: Mapping[int, Mapping[str, float]], proposed: Mapping[int, Mapping[str, float]]) -> dict[str, Any]:
    """Proposed minus control over the patients that have an error in both.

    The unit is the patient: with several seeds, the mean of a patient's differences. Positive is worse.

    Args:
        control: error by seed and patient.
        proposed: likewise.

    Returns:
        the fields of `difference`, and `by_seed` with those of each seed that both have.
    """
    by_seed = {
        seed: {patient: proposed[seed][patient] - own for patient, own in errors.items() if patient in proposed[seed]}
        for seed, errors in sorted(control.items())
        if seed in proposed
    }
    pooled: dict[str, list[float]] = {}
    for own in by_seed.values():
        for patient, value in own.items():
            pooled.setdefault(patient, []).append(value)
    return difference([float(np.mean(values)) for _, values in sorted(pooled.items())]) | {
        "by_seed": {str(seed): difference([own[key] for key in sorted(own)]) for seed, own in by_seed.items()}
    }


def difference(values: list[float]) -> dict[str, Any]:
    """Mean difference, its 95 % percentile-bootstrap interval, the two-sided p of Wilcoxon's signed-rank test, and how
    many patients are better (below 0), equal and worse; what is undefined is None."""
    sample = np.asarray(values, dtype=np.float64)
    interval = p = None
    if sample.size > 1:
        drawn = stats.bootstrap(
            (sample,), np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, method="percentile", rng=0
        )
        interval = [float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)]
    if np.any(sample):
        p = float(stats.wilcoxon(sample).pvalue)
    return {
        "patients": int(sample.size),
        "mean_difference": float(sample.mean()) if sample.size else None,
        "interval": interval,
        "wilcoxon_p": p,
        "better": int(np.count_nonzero(sample < 0)),
        "equal": int(np.count_nonzero(sample == 0)),
        "worse": int(np.count_nonzero(sample > 0)),
    }
