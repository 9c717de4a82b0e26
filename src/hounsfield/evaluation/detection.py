"""Slice detection: one decided slice per series against the labelled ones, and every slice as a classification."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hounsfield.data.slice_set import SliceSet
from hounsfield.evaluation.bootstrap import Counted, FineHistogram
from hounsfield.evaluation.decision import Regression, decide, regression
from hounsfield.evaluation.prediction import Predict, Scores, predict_rows, probability, rows_by
from hounsfield.metrics.counts import Counts, Spread, ratio
from hounsfield.metrics.histogram import ScoreHistogram
from hounsfield.progress import Progress


@dataclass(frozen=True)
class SeriesResult:
    """One series. Slice numbers index its volume, from inferior to superior; halves lie between two slices.

    `true_slice` is the middle of the first and the last labelled slice, None (with both errors) without a label.
    """

    patient: str
    series: str
    slices: int
    labelled_slices: int
    detected: bool
    predicted_slice: float
    true_slice: float | None
    error_slices: float | None
    error_mm: float | None
    largest_probability: float
    tp: int
    fp: int
    fn: int
    tn: int
    predicted_row: int
    true_row: int | None
    """Rows of the slice set nearest to the predicted and the true centre."""


@dataclass(frozen=True)
class Detection:
    """Slices of all series together, and each series."""

    pooled: Counts
    histogram: ScoreHistogram
    series: list[SeriesResult]
    rows: dict[str, list[int]]
    probabilities: dict[str, Scores]
    """Per series, in slice order: rows of the slice set, and their probabilities."""
    scores: dict[str, Counted]
    """Per patient: slices by score, (2, FINE_BINS) uint32, see `FineHistogram`."""

    @property
    def labelled(self) -> list[SeriesResult]:
        return [series for series in self.series if series.true_slice is not None]

    @property
    def error_slices(self) -> Spread:
        """|predicted - true| in slices over the labelled series, detected or not."""
        return Spread.of(series.error_slices for series in self.series)

    @property
    def error_mm(self) -> Spread:
        """|predicted - true| in mm along the slice axis over the labelled series, detected or not."""
        return Spread.of(series.error_mm for series in self.series)

    @property
    def detection_rate(self) -> float | None:
        """Share of the labelled series with at least one positive slice."""
        return ratio(sum(series.detected for series in self.labelled), len(self.labelled))

    def rate_from(self, length_mm: float) -> float | None:
        """Share of the labelled series whose error is `length_mm` or more."""
        errors = [series.error_mm for series in self.labelled if series.error_mm is not None]
        return ratio(sum(error >= length_mm for error in errors), len(errors))

    @property
    def line(self) -> Regression:
        """Predicted on true slice number; ideal: slope 1, intercept 0, R2 1."""
        return regression(
            [series.true_slice for series in self.labelled if series.true_slice is not None],
            [series.predicted_slice for series in self.labelled],
        )

    @property
    def ranked(self) -> list[SeriesResult]:
        """Labelled series, largest error in mm first."""
        known = [(-series.error_mm, series.series, series) for series in self.series if series.error_mm is not None]
        return [series for _, _, series in sorted(known, key=lambda item: item[:2])]


def evaluate_detection(
    slices: SliceSet, splits: Sequence[str], predict: Predict, threshold: float, batch_size: int
) -> Detection:
    """Evaluate every series of the splits; beyond a batch, memory holds a number per slice and 0.5 MB a patient.

    Args:
        threshold: probability at and above which a slice is positive.

    Raises:
        InputError: the network gives NaN.
    """
    groups = rows_by(slices, "series", splits)
    histogram = ScoreHistogram()
    pooled = Counts()
    results: list[SeriesResult] = []
    probabilities: dict[str, Scores] = {}
    fine: defaultdict[str, FineHistogram] = defaultdict(FineHistogram)
    with Progress("evaluate", sum(map(len, groups.values()))) as progress:
        for series, rows in groups.items():
            parts = []
            for batch, scores in predict_rows(slices, rows, predict, batch_size):
                parts.append(scores)
                progress.advance(len(batch))
            scores = np.concatenate(parts)
            truth = np.array([slices.index[row].positive for row in rows])
            histogram.update(scores, truth)
            fine[slices.index[rows[0]].patient].update(scores, truth)
            probabilities[series] = probability(scores)
            counts = Counts.of(probabilities[series] >= threshold, truth)
            pooled += counts
            results.append(_series_result(slices, rows, probabilities[series], truth, threshold, counts))
    counts_by_patient = {patient: fine[patient].counts for patient in sorted(fine)}
    return Detection(pooled, histogram, results, groups, probabilities, counts_by_patient)


def _series_result(
    slices: SliceSet,
    rows: list[int],
    probabilities: Scores,
    truth: npt.NDArray[np.bool_],
    threshold: float,
    counts: Counts,
) -> SeriesResult:
    items = [slices.index[row] for row in rows]
    places = np.arange(len(rows))
    numbers, positions = [item.slice for item in items], [item.position_mm for item in items]
    decision = decide(probabilities, threshold)
    predicted_slice = float(np.interp(decision.centre, places, numbers))
    true_slice = error_slices = error_mm = true_row = None
    labelled = np.flatnonzero(truth)
    if labelled.size:
        centre = (int(labelled[0]) + int(labelled[-1])) / 2
        true_slice = float(np.interp(centre, places, numbers))
        error_slices = abs(predicted_slice - true_slice)
        error_mm = float(abs(np.interp(decision.centre, places, positions) - np.interp(centre, places, positions)))
        true_row = rows[int(centre)]
    return SeriesResult(
        patient=items[0].patient,
        series=items[0].series,
        slices=len(rows),
        labelled_slices=int(labelled.size),
        detected=decision.detected,
        predicted_slice=predicted_slice,
        true_slice=true_slice,
        error_slices=error_slices,
        error_mm=error_mm,
        largest_probability=float(probabilities.max()),
        tp=counts.tp,
        fp=counts.fp,
        fn=counts.fn,
        tn=counts.tn,
        predicted_row=rows[int(decision.centre)],
        true_row=true_row,
    )
