"""From the probability of each slice to one slice of the series, and the regression of predicted on true slices."""

import statistics
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SMOOTHED_SLICES = 3
"""Width of the moving average whose largest value decides where no slice is positive."""


@dataclass(frozen=True)
class Decision:
    """The decided centre as a position in the list of slices (halves are between two), and whether any was positive.

    `others`: centres of the other runs of positive slices, which a curve with one peak does not have.
    """

    centre: float
    detected: bool
    others: tuple[float, ...] = ()


@dataclass(frozen=True)
class Regression:
    """Least squares of y on x; None with fewer than two points or where x (for R2: x or y) is constant."""

    slope: float | None
    intercept: float | None
    r2: float | None


def decide(probability: npt.NDArray[np.float32], threshold: float) -> Decision:
    """One slice of a series.

    The centre of the longest run of slices with at least `threshold`, where a run may contain gaps of one slice; of
    equally long runs the one of higher summed probability, then the first. Without a positive slice the largest value
    of the moving average over three slices (shorter at the ends) decides, and the series counts as not detected.

    Args:
        probability: (slices,) in slice order.
    """
    positive = np.flatnonzero(probability >= threshold)
    if positive.size == 0:
        return Decision(float(np.argmax(smoothed(probability))), detected=False)
    runs = np.split(positive, np.flatnonzero(np.diff(positive) > 2) + 1)
    centres = [(int(run[0]) + int(run[-1])) / 2 for run in runs]
    best = max(range(len(runs)), key=lambda k: (runs[k][-1] - runs[k][0], probability[runs[k]].sum(dtype=np.float64)))
    return Decision(centres[best], detected=True, others=tuple(centres[:best] + centres[best + 1 :]))


def smoothed(probability: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Centred moving average over `SMOOTHED_SLICES` slices, over those that exist at the ends."""
    kernel = np.ones(SMOOTHED_SLICES)
    middle = slice(SMOOTHED_SLICES // 2, SMOOTHED_SLICES // 2 + len(probability))
    return np.asarray(
        np.convolve(probability, kernel)[middle] / np.convolve(np.ones(len(probability)), kernel)[middle],
        dtype=np.float64,
    )


def regression(x: npt.ArrayLike, y: npt.ArrayLike) -> Regression:
    """Least-squares line y = slope x + intercept and the squared correlation.

    Sums are exact before they are rounded: those of a BLAS depend on the processor.
    """
    a, b = np.asarray(x, dtype=np.float64).tolist(), np.asarray(y, dtype=np.float64).tolist()
    if len(a) < 2 or min(a) == max(a):
        return Regression(None, None, None)
    slope, intercept = statistics.linear_regression(a, b)
    r2 = None if min(b) == max(b) else statistics.correlation(a, b) ** 2
    return Regression(slope, intercept, r2)
