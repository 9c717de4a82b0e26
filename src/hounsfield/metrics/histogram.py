"""Average precision in one pass and bounded memory, from histograms that add.

Scores are log-odds. The bin of a score is an order-preserving 20-bit integer: its sign, and the upper 19 bits of its
float32 magnitude counted from 2^-20, that is 32 powers of two up to 2^12 with 14 bits after the leading one. Smaller
magnitudes share the first bin of their sign, larger ones the last. A bin also remembers whether all its scores were one
and the same value: it is then a single threshold and exact, as for every bfloat16 score in the range. Of the other bins
only the order inside is unknown, so the best and the worst order bound the average precision from both sides.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from hounsfield.errors import InputError
from hounsfield.metrics.counts import Counts

BINS = 1 << 20
_HALF = BINS // 2
_DROPPED_BITS = 9
_SMALLEST = 0x35800000  # bits of 2^-20
_MAGNITUDE, _INFINITY = np.uint32(0x7FFFFFFF), np.int32(0x7F800000)
_EMPTY, _MIXED = np.uint32(0xFFFFFFFF), np.uint32(0xFFFFFFFE)  # bits of NaN, which no score has

Floats = npt.NDArray[np.float64]
Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def _compiled(kernel: Kernel) -> Kernel:
    """Compile with Numba, keeping the machine code on disk where a folder for it can be written."""
    compiled: Any
    try:
        compiled = numba.njit(cache=True)(kernel)
    except RuntimeError:  # no folder can be written: read-only installation without a home directory
        compiled = numba.njit(kernel)
    return cast(Kernel, compiled)


@_compiled
def _bin(bits: Any) -> Any:
    """The bin of the bits (uint32) of a float32 that is neither NaN nor -0.0. In 32-bit integers, which is faster."""
    place = (np.int32(bits & _MAGNITUDE) - np.int32(_SMALLEST)) >> np.int32(_DROPPED_BITS)
    place = min(max(place, np.int32(0)), np.int32(_HALF - 1))
    negative = np.int32(bits) >> np.int32(31)  # 0 or -1: x ^ -1 is -1 - x
    return np.uint32((place ^ negative) + np.int32(_HALF))


@_compiled
def _fill(scores: Any, labels: Any, negatives: Any, positives: Any, values: Any) -> bool:
    """Count scores given as the bits of float32; False at the first NaN."""
    for i in range(scores.size):
        bits = scores[i]
        magnitude = np.int32(bits & _MAGNITUDE)
        if magnitude > _INFINITY:
            return False
        if magnitude == 0:  # -0.0 equals 0.0
            bits = np.uint32(0)
        place = _bin(bits)
        if labels[i]:
            positives[place] += 1
        else:
            negatives[place] += 1
        known = values[place]
        if known != _MIXED and known != bits:
            values[place] = bits if known == _EMPTY else _MIXED
    return True


@_compiled
def _average_precision(counts: Any, single: Any) -> tuple[float, float, float]:
    """Lower bound, estimate and upper bound times the number of positives; bins from high scores to low."""
    lower = value = upper = 0.0
    tp = fp = 0.0
    for i in range(counts.shape[1]):
        negatives, positives = counts[0, i], counts[1, i]
        if positives:
            ends = tp + positives
            if single[i] or negatives + positives == 1:
                term = positives * ends / (ends + fp + negatives)
                lower += term
                value += term
                upper += term
            else:
                worst = even = 0.0
                step = negatives / positives
                for k in range(1, positives + 1):
                    worst += (tp + k) / (tp + k + fp + negatives)
                    even += (tp + k) / (tp + k + fp + step * (k - 0.5))
                lower += worst
                value += even
                upper += positives * ends / (ends + fp)
        tp += positives
        fp += negatives
    return lower, value, upper


@dataclass(frozen=True)
class AveragePrecision:
    """Average precision with bounds that hold for the scores themselves, whatever their order inside the bins."""

    value: float
    lower: float
    upper: float

    @property
    def width(self) -> float:
        return self.upper - self.lower


@dataclass(frozen=True)
class Curve:
    """Points of the precision-recall curve, highest threshold first; every array has the same length."""

    log_odds: Floats
    precision: Floats
    recall: Floats
    false_positive_rate: Floats

    @property
    def threshold(self) -> Floats:
        """Probability, the sigmoid of the log-odds."""
        return 0.5 * (1.0 + np.tanh(0.5 * self.log_odds))


class ScoreHistogram:
    """Positives and negatives by score. 20 MB, however many scores it has seen."""

    def __init__(self) -> None:
        self._counts = np.zeros((2, BINS), dtype=np.int64)
        self._values = np.full(BINS, _EMPTY, dtype=np.uint32)

    @property
    def negatives(self) -> int:
        return int(self._counts[0].sum())

    @property
    def positives(self) -> int:
        return int(self._counts[1].sum())

    def update(self, scores: npt.NDArray[np.float32], labels: npt.NDArray[Any]) -> None:
        """Count scores.

        Args:
            scores: float32 of any shape, higher for more likely positive; log-odds never saturate, probabilities do.
                Infinities are scores like others.
            labels: bool or uint8 of the same shape, not 0 where positive.

        Raises:
            InputError: a score is NaN. The histogram is then unusable.
        """
        if scores.shape != labels.shape or scores.dtype != np.float32 or labels.dtype not in (np.bool_, np.uint8):
            raise InputError(
                f"scores {scores.dtype} {scores.shape} and labels {labels.dtype} {labels.shape}: "
                "expected float32 and bool or uint8 of one shape"
            )
        bits = np.ascontiguousarray(scores).reshape(-1).view(np.uint32)
        flags = np.ascontiguousarray(labels).reshape(-1).view(np.uint8)
        if not _fill(bits, flags, self._counts[0], self._counts[1], self._values):
            raise InputError("a score is NaN: the network's weights or input are not finite, train or convert again")

    def merge(self, other: "ScoreHistogram") -> None:
        """Add the counts of `other`, as if its scores had been counted here."""
        self._counts += other._counts
        differs = (other._values != _EMPTY) & (self._values != other._values)
        self._values[differs] = np.where(self._values[differs] == _EMPTY, other._values[differs], _MIXED)

    def __add__(self, other: "ScoreHistogram") -> "ScoreHistogram":
        total = ScoreHistogram()
        total.merge(self)
        total.merge(other)
        return total

    def average_precision(self) -> AveragePrecision | None:
        """Step-wise area under the precision-recall curve, equal scores being one threshold (as in scikit-learn).

        Exact, with an interval of zero width, where no bin holds two different values. Otherwise scores are taken to
        be spread evenly inside a bin, and the interval is certain. None without a positive.
        """
        bins = self._occupied()
        lower, value, upper = _average_precision(self._counts[:, bins], self._values[bins] != _MIXED)
        positives = self.positives
        if positives == 0:
            return None
        return AveragePrecision(value / positives, lower / positives, upper / positives)

    def curve(self, points: int = 1000) -> Curve:
        """At most `points` points, evenly spaced along the curve; the first and the last threshold are kept."""
        bins = self._occupied()
        fp, tp = self._counts[:, bins].cumsum(axis=1, dtype=np.float64)
        precision = tp / np.maximum(tp + fp, 1)
        recall = tp / max(self.positives, 1)
        if bins.size > points:
            path = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(recall), np.diff(precision)))])
            kept = np.searchsorted(path, np.linspace(0, path[-1], points - 1))
            kept = np.unique(np.append(kept, bins.size - 1))
            bins, fp, precision, recall = bins[kept], fp[kept], precision[kept], recall[kept]
        return Curve(self._smallest_score(bins), precision, recall, fp / max(self.negatives, 1))

    def at_threshold(self, probability: float) -> Counts:
        """Counts when scores (log-odds) of at least `probability` are positive.

        Exact at 0.5, which is the edge of a bin; elsewhere a bin that the threshold divides counts as positive.
        """
        score = np.float32(math.log(probability) - math.log1p(-probability)) + np.float32(0)
        first = int(_bin(score.view(np.uint32)))
        fp, tp = (int(count) for count in self._counts[:, first:].sum(axis=1))
        return Counts(tp, fp, self.positives - tp, self.negatives - fp)

    def _occupied(self) -> npt.NDArray[np.intp]:
        """Bins with a score, from high scores to low."""
        return np.flatnonzero(self._values != _EMPTY)[::-1]

    def _smallest_score(self, bins: npt.NDArray[np.intp]) -> Floats:
        """The only score of a bin, or the lower edge of a bin of several."""
        upper = bins >= _HALF
        place = np.where(upper, bins - _HALF, _HALF - bins)
        edge = ((place << _DROPPED_BITS) + _SMALLEST).astype(np.uint32).view(np.float32)
        edge = np.where(upper, np.where(place == 0, 0, edge), np.where(bins == 0, -np.inf, -edge))
        values = self._values[bins]
        return np.where(values == _MIXED, edge, values.view(np.float32)).astype(np.float64)
