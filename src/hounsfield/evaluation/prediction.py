"""Log-odds of the images of a slice set, batch by batch."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from hounsfield.data.slice_set import SliceSet

Scores = npt.NDArray[np.float32]
Predict = Callable[[npt.NDArray[np.generic]], Scores]
"""Images of a slice set (N, H, W), uint8 or float32, to log-odds (N, H, W) for segmentation or (N,) for detection."""


def log_odds(probability: float) -> float:
    """Of a probability between 0 and 1, both excluded."""
    return math.log(probability) - math.log1p(-probability)


def probability(scores: Scores) -> Scores:
    """Sigmoid of log-odds, without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * scores)), dtype=np.float32)


def predict_rows(
    slices: SliceSet, rows: Sequence[int], predict: Predict, batch_size: int
) -> Iterator[tuple[Sequence[int], Scores]]:
    """Rows of the slice set in batches, with their log-odds."""
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        yield batch, predict(slices.gather("image", batch))


def rows_by(slices: SliceSet, name: str, splits: Sequence[str]) -> dict[str, list[int]]:
    """Rows of the splits by `patient` or `series`, each series in slice order, keys sorted."""
    groups: dict[str, list[int]] = {}
    for row in slices.rows(*splits):
        groups.setdefault(getattr(slices.index[row], name), []).append(row)
    for members in groups.values():
        members.sort(key=lambda row: (slices.index[row].series, slices.index[row].slice))
    return dict(sorted(groups.items()))
