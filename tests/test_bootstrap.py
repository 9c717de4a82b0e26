"""Paired bootstrap and resampled average precision: scipy and scikit-learn on the same drawn patients."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score

from hounsfield.errors import InputError
from hounsfield.evaluation.bootstrap import (
    FINE_BINS,
    FineHistogram,
    Floats,
    MeanFigure,
    PooledPrecision,
    coarse,
    fine_bins,
    paired_difference,
)

PATIENTS = 24


def scipy_interval(statistic: object, data: Sequence[Floats], seed: int, resamples: int) -> tuple[float, float]:
    drawn = stats.bootstrap(
        data, statistic, paired=True, vectorized=False, n_resamples=resamples, batch=500, method="percentile",
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return drawn.confidence_interval.low, drawn.confidence_interval.high


def test_bootstrap_of_a_mean_is_that_of_scipy() -> None:
    generator = np.random.default_rng(5)
    both = generator.uniform(0.3, 0.9, (2, PATIENTS))
    found = paired_difference(MeanFigure(both, np.ones(PATIENTS)), 10_000, seed=3)
    low, high = scipy_interval(lambda new, old: new.mean() - old.mean(), (both[0], both[1]), 3, 10_000)
    assert found.difference == pytest.approx(both[0].mean() - both[1].mean(), abs=1e-12)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)
    unpaired = stats.bootstrap(both, lambda a, b, axis: a.mean(axis) - b.mean(axis), method="percentile", rng=3)
    assert abs(found.low - unpaired.confidence_interval.low) > 1e-3  # type: ignore[operator]


def test_bootstrap_of_a_mean_over_cases_is_that_of_scipy() -> None:
    """Patients with none, one or three cases: a resample's mean is over its cases, not over its patients."""
    generator = np.random.default_rng(6)
    cases = generator.choice([0.0, 1.0, 3.0], PATIENTS)
    totals = generator.uniform(0, 9, (2, PATIENTS)) * cases
    found = paired_difference(MeanFigure(totals, cases), 2000, seed=1)
    low, high = scipy_interval(
        lambda new, old, count: (new.sum() - old.sum()) / count.sum(), (totals[0], totals[1], cases), 1, 2000
    )
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)


def pixels(seed: int, patients: int = 12, size: int = 300) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Scores (2, patients, size) of a better and a worse model, and truth (patients, size)."""
    generator = np.random.default_rng(seed)
    truth = generator.random((patients, size)) < generator.uniform(0, 0.2, (patients, 1))
    truth[0] = False
    signal = truth * np.array([3.0, 2.0])[:, None, None] - 2
    return (signal + generator.normal(0, 1.5, (2, patients, size))).astype(np.float32), truth


def pooled(scores: npt.NDArray[np.float32], truth: npt.NDArray[np.bool_], bins: int) -> PooledPrecision:
    kept = []
    for own in scores:
        histograms = [FineHistogram() for _ in own]
        for histogram, row, labels in zip(histograms, own, truth, strict=True):
            histogram.update(row[:100], labels[:100])
            histogram.update(row[100:], labels[100:])
        kept.append(coarse(np.stack([histogram.counts for histogram in histograms]), bins))
    width = max(negatives.shape[1] for negatives, _ in kept)
    negatives, positives = (
        np.stack([np.pad(pair[place], ((0, 0), (0, width - pair[place].shape[1]))) for pair in kept])
        for place in range(2)
    )
    return PooledPrecision(negatives, positives)


def test_bootstrap_of_average_precision_is_that_of_scipy() -> None:
    """Scores on a grid that the bins keep: scikit-learn on the pixels of the drawn patients is the same statistic."""
    scores, truth = pixels(1, patients=8)
    scores = np.round(scores * 4) / 4

    def statistic(rows: Floats) -> float:
        drawn = rows.astype(int)
        new, old = (average_precision_score(truth[drawn].ravel(), own[drawn].ravel()) for own in scores)
        return float(new - old)

    found = paired_difference(pooled(scores, truth, 1 << 15), 1000, seed=2)
    low, high = scipy_interval(statistic, (np.arange(8.0),), 2, 1000)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)
    for own, value in zip(scores, (found.challenger, found.champion), strict=True):
        assert value == pytest.approx(average_precision_score(truth.ravel(), own.ravel()), abs=1e-12)


def test_coarse_bins_keep_average_precision_close() -> None:
    scores, truth = pixels(2, patients=30, size=3000)
    exact = [average_precision_score(truth.ravel(), own.ravel()) for own in scores]
    errors = {}
    for bins in (50, 2000):
        figure = pooled(scores, truth, bins)
        assert figure.positives.shape[2] <= bins
        assert figure.positives.sum() == 2 * truth.sum()
        assert figure.negatives.sum() == 2 * (~truth).sum()
        errors[bins] = np.abs(figure.of(np.ones((1, 30)))[:, 0] - exact).max()
    assert errors[2000] < 1e-3 < errors[50]


def test_fine_bins_follow_the_order_of_the_scores() -> None:
    generator = np.random.default_rng(0)
    scores = np.sort(generator.normal(0, 1, 5000) * 10.0 ** generator.integers(-8, 6, 5000)).astype(np.float32)
    ordered = np.concatenate([np.float32([-np.inf]), scores, np.float32([np.inf])])
    bins = fine_bins(ordered)
    assert (np.diff(bins) >= 0).all()
    assert (bins[0], bins[-1]) == (0, FINE_BINS - 1)
    zero = fine_bins(np.float32([-0.0, 0.0, 1e-30, -1e-30]))
    assert zero[0] == zero[1] == zero[2] == zero[3] + 1
    with pytest.raises(InputError, match="NaN"):
        FineHistogram().update(np.float32([np.nan]), np.array([True]))


def test_resamples_without_a_tumour_are_left_out() -> None:
    totals, cases = np.array([[0.9, 0.0, 0.0], [0.5, 0.0, 0.0]]), np.array([1.0, 0.0, 0.0])
    found = paired_difference(MeanFigure(totals, cases), 3000, seed=0)
    assert found.low == found.high == pytest.approx(0.4)
    assert found.resamples / 3000 == pytest.approx(1 - (2 / 3) ** 3, abs=0.03)
    nobody = paired_difference(MeanFigure(totals, np.zeros(3)), 1000, seed=0)
    assert (nobody.difference, nobody.low, nobody.resamples) == (None, None, 0)
    without = PooledPrecision(np.ones((2, 3, 4)), np.zeros((2, 3, 4)))
    assert paired_difference(without, 1000, seed=0).challenger is None
