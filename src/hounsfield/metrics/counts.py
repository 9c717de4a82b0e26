"""Precision, recall and F1 from integer counts, and the spread of a figure over patients. Undefined is None."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt


def ratio(numerator: float, denominator: float) -> float | None:
    """Their quotient, None when the denominator is 0."""
    return None if denominator == 0 else numerator / denominator


@dataclass(frozen=True)
class Counts:
    """Pixels (or slices) by truth and prediction.

    Precision is None when nothing is predicted, recall when nothing is true, F1 = 2TP/(2TP+FP+FN) when neither is.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    @classmethod
    def of(cls, predicted: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> Self:
        """Counts of two boolean arrays of one shape."""
        tp = int(np.count_nonzero(predicted & truth))
        fp = int(np.count_nonzero(predicted)) - tp
        fn = int(np.count_nonzero(truth)) - tp
        return cls(tp, fp, fn, truth.size - tp - fp - fn)

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def precision(self) -> float | None:
        return ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float | None:
        return ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float | None:
        return ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def dice(self) -> float | None:
        """F1 of a case that has a truth; None where the truth is empty, which is not averaged over patients."""
        return self.f1 if self.tp + self.fn else None


@dataclass(frozen=True)
class Spread:
    """Mean, sample standard deviation (n - 1) and median of the `n` defined values."""

    n: int
    mean: float | None
    sd: float | None
    median: float | None
    minimum: float | None
    maximum: float | None

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread":
        """Over the values that are not None."""
        known = np.array([value for value in values if value is not None], dtype=np.float64)
        if known.size == 0:
            return cls(0, None, None, None, None, None)
        sd = float(known.std(ddof=1)) if known.size > 1 else None
        return cls(
            int(known.size), float(known.mean()), sd, float(np.median(known)), float(known.min()), float(known.max())
        )
