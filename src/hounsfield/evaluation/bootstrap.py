"""Two models on the same patients: the difference of a figure, with a paired bootstrap over the patients.

A resample draws as many patients as there are, with replacement, and takes both models on them: what it needs is only
how often each patient was drawn. The interval is the percentile interval (Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, chapter 13). With one seed the draws are those of `scipy.stats.bootstrap(..., paired=True)`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from hounsfield.errors import InputError

CONFIDENCE = 0.95
BINS = 2000
"""Of the histograms that are resampled."""
CHUNK = 500
"""Resamples at once."""
FINE_BINS = 1 << 16
_HALF = FINE_BINS // 2
_SMALLEST = np.int32(0x35800000)  # bits of 2^-20
_DROPPED_BITS = np.int32(13)

Floats = npt.NDArray[np.float64]
Counted = npt.NDArray[np.uint32]


class Figure(Protocol):
    """A figure of two models, challenger first, on patients that can be drawn again."""

    @property
    def patients(self) -> int:
        """How many patients there are to draw."""

    def of(self, weights: Floats) -> Floats:
        """Of both models (2, resamples) when patient p counts `weights[r, p]` times; NaN where it is undefined."""

    def among(self, chosen: npt.NDArray[np.bool_]) -> Self:
        """The figure of some of the patients."""


@dataclass(frozen=True)
class MeanFigure:
    """A mean over cases, of which a patient has none, one or several.

    Attributes:
        totals: (2, patients) float64, sum over the patient's cases; challenger first.
        cases: (patients,) float64, how many there are.
    """

    totals: Floats
    cases: Floats

    @property
    def patients(self) -> int:
        return int(self.cases.size)

    def of(self, weights: Floats) -> Floats:
        cases = weights @ self.cases
        sums = self.totals @ weights.T
        return np.divide(sums, cases, out=np.full_like(sums, np.nan), where=cases > 0)

    def among(self, chosen: npt.NDArray[np.bool_]) -> "MeanFigure":
        return MeanFigure(self.totals[:, chosen], self.cases[chosen])


@dataclass(frozen=True)
class PooledPrecision:
    """Average precision over the pixels (or slices) of all drawn patients, from histograms that add.

    All scores of a bin are one threshold, as equal scores are in scikit-learn's `average_precision_score`.

    Attributes:
        negatives: (models, patients, bins) float64, pixels by score from high to low; of two models, challenger first.
            Their bins need not be the same.
        positives: likewise.
    """

    negatives: Floats
    positives: Floats

    @property
    def patients(self) -> int:
        return int(self.positives.shape[1])

    def of(self, weights: Floats) -> Floats:
        found = np.full((len(self.positives), len(weights)), np.nan)
        for model in range(len(self.positives)):
            positives = weights @ self.positives[model]
            hits = positives.cumsum(axis=1)
            marked = (weights @ self.negatives[model]).cumsum(axis=1) + hits
            gained = np.divide(positives * hits, marked, out=np.zeros_like(hits), where=marked > 0).sum(axis=1)
            np.divide(gained, hits[:, -1], out=found[model], where=hits[:, -1] > 0)
        return found

    def among(self, chosen: npt.NDArray[np.bool_]) -> "PooledPrecision":
        return PooledPrecision(self.negatives[:, chosen], self.positives[:, chosen])


@dataclass(frozen=True)
class Difference:
    """A figure of both models, and challenger minus champion with its 95 % interval; undefined is None.

    `resamples` are those in which the figure was defined for both.
    """

    challenger: float | None
    champion: float | None
    difference: float | None
    low: float | None
    high: float | None
    patients: int
    resamples: int


def paired_difference(figure: Figure, resamples: int, seed: int) -> Difference:
    """The difference of a figure, and its paired percentile-bootstrap interval."""
    patients = figure.patients
    if patients == 0:
        return Difference(None, None, None, None, None, 0, 0)
    challenger, champion = figure.of(np.ones((1, patients)))[:, 0]
    differences = np.concatenate([both[0] - both[1] for both in map(figure.of, drawn(patients, resamples, seed))])
    differences = differences[~np.isnan(differences)]
    low, high = ends(differences) if differences.size else (None, None)
    return Difference(
        challenger=_known(challenger),
        champion=_known(champion),
        difference=_known(challenger - champion),
        low=low,
        high=high,
        patients=patients,
        resamples=int(differences.size),
    )


def drawn(patients: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each patient is drawn, (at most CHUNK, patients) float64 at a time."""
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, CHUNK):
        rows = min(CHUNK, resamples - start)
        picked = generator.integers(0, patients, (rows, patients))
        places = picked + patients * np.arange(rows)[:, None]
        yield np.bincount(places.ravel(), minlength=rows * patients).reshape(rows, patients).astype(np.float64)


def ends(values: Floats) -> tuple[float, float]:
    """The percentiles between which `CONFIDENCE` of the values lie."""
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


class FineHistogram:
    """Pixels (or slices) of one patient by score, (2, FINE_BINS) uint32: negatives, then positives, low scores first.

    The bin of a score is its sign and 32 powers of two from 2^-20, each divided into 1024 equal parts.
    Smaller magnitudes share the first bin of their sign, larger ones the last.
    """

    def __init__(self) -> None:
        self.counts: Counted = np.zeros((2, FINE_BINS), dtype=np.uint32)

    def update(self, scores: npt.NDArray[np.float32], truth: npt.NDArray[np.bool_]) -> None:
        """Count scores (log-odds, float32 of any shape) with their labels (bool, same shape).

        Raises:
            InputError: a score is NaN.
        """
        if np.isnan(scores).any():
            raise InputError("a score is NaN: the network's weights or input are not finite, train or convert again")
        places = fine_bins(scores.ravel()) + FINE_BINS * truth.ravel()
        self.counts += np.bincount(places, minlength=2 * FINE_BINS).reshape(2, FINE_BINS).astype(np.uint32)


def fine_bins(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """The bin of each score, in the order of the scores."""
    bits = np.ascontiguousarray(scores).view(np.int32)
    magnitude = bits & np.int32(0x7FFFFFFF)
    place = np.clip((magnitude - _SMALLEST) >> _DROPPED_BITS, 0, _HALF - 1).astype(np.int64)
    places: npt.NDArray[np.int64] = np.where((bits < 0) & (magnitude > 0), _HALF - 1 - place, _HALF + place)
    return places


def coarse(histograms: npt.NDArray[np.uint32], bins: int) -> tuple[Floats, Floats]:
    """Negatives and positives (patients, at most `bins`) of fine histograms, from high scores to low.

    Neighbouring bins are merged where the pooled precision-recall curve moves least: the cuts are evenly spaced along
    its length, and everything below the last positive is one bin.

    Args:
        histograms: (patients, 2, FINE_BINS) uint32, as `FineHistogram` keeps them.
    """
    pooled = histograms.sum(axis=0, dtype=np.int64)[:, ::-1]
    occupied = np.flatnonzero(pooled.sum(axis=0))
    kept = histograms[:, :, FINE_BINS - 1 - occupied].astype(np.float64)
    hits = pooled[1, occupied].cumsum()
    if not occupied.size or hits[-1] == 0:
        merged = kept.sum(axis=2, keepdims=True)
        return merged[:, 0], merged[:, 1]
    precision = hits / pooled[:, occupied].sum(axis=0).cumsum()
    moved = np.abs(np.diff(hits / hits[-1], prepend=0.0)) + np.abs(np.diff(precision, prepend=precision[0]))
    moved[hits - pooled[1, occupied] == hits[-1]] = 0.0
    path = moved.cumsum()
    places = np.minimum((path * ((bins - 1) / path[-1])).astype(np.int64), bins - 2)
    places[hits - pooled[1, occupied] == hits[-1]] = bins - 1
    starts = np.flatnonzero(np.diff(places, prepend=-1))
    merged = np.add.reduceat(kept, starts, axis=2)
    return merged[:, 0], merged[:, 1]
