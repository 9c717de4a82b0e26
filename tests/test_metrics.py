"""Counts, spreads, the slice decision and the regression, against worked examples, scikit-learn and scipy."""

import numpy as np
import pytest
from scipy.stats import linregress
from sklearn.metrics import confusion_matrix, f1_score, precision_score, recall_score

from hounsfield.evaluation.decision import Regression, decide, regression, smoothed
from hounsfield.evaluation.prediction import log_odds, probability
from hounsfield.metrics.counts import Counts, Spread


@pytest.mark.parametrize("seed", range(4))
def test_counts_agree_with_scikit_learn(seed):
    generator = np.random.default_rng(seed)
    truth, predicted = generator.random((2, 300)) < [[0.1], [0.3]]
    counts = Counts.of(predicted, truth)
    tn, fp, fn, tp = confusion_matrix(truth, predicted).ravel()
    assert counts == Counts(int(tp), int(fp), int(fn), int(tn))
    assert counts.precision == pytest.approx(precision_score(truth, predicted))
    assert counts.recall == pytest.approx(recall_score(truth, predicted))
    assert counts.f1 == pytest.approx(f1_score(truth, predicted))
    assert counts.dice == counts.f1


def test_undefined_figures_are_none():
    assert Counts(tn=5).precision is None
    assert Counts(tn=5).recall is None
    assert Counts(tn=5).f1 is None
    assert Counts(fp=3).f1 == 0
    assert Counts(fp=3).dice is None
    assert Counts(fn=3).dice == 0
    assert Counts(fn=3).precision is None


def test_pooled_f1_is_not_the_mean_of_dice():
    large, small = Counts(tp=900, fp=50, fn=50), Counts(tp=1, fp=9, fn=9)
    assert (large + small).f1 == pytest.approx(2 * 901 / (2 * 901 + 59 + 59))
    assert Spread.of([large.dice, small.dice]).mean == pytest.approx((1800 / 1900 + 2 / 20) / 2)


def test_spread():
    assert Spread.of([1.0, None, 3.0, 8.0]) == Spread(3, 4.0, pytest.approx(np.std([1, 3, 8], ddof=1)), 3.0, 1.0, 8.0)
    assert Spread.of([2.0]) == Spread(1, 2.0, None, 2.0, 2.0, 2.0)
    assert Spread.of([None]) == Spread(0, None, None, None, None, None)


@pytest.mark.parametrize(
    ("positive", "centre"),
    [
        ("..###....", 3.0),
        ("..####...", 3.5),
        (".#..###..", 5.0),
        ("##.##....", 2.0),
        ("##..##...", 0.5),
        ("#.#.#..##", 2.0),
        (".......##", 7.5),
    ],
)
def test_decision_is_the_centre_of_the_longest_run(positive, centre):
    values = np.array([0.9 if mark == "#" else 0.1 for mark in positive], dtype=np.float32)
    decision = decide(values, 0.5)
    assert decision.detected
    assert decision.centre == centre


@pytest.mark.parametrize(
    ("positive", "others"), [("..###....", ()), ("#.#.#..##", (7.5,)), ("##...#...###.....##", (0.5, 5.0, 17.5))]
)
def test_other_runs_are_told(positive, others):
    values = np.array([0.9 if mark == "#" else 0.1 for mark in positive], dtype=np.float32)
    assert decide(values, 0.5).others == others


def test_of_equal_runs_the_surer_one_decides():
    values = np.array([0.6, 0.6, 0.1, 0.1, 0.9, 0.9], dtype=np.float32)
    assert decide(values, 0.5).centre == 4.5
    assert decide(np.array([0.5, 0.4], dtype=np.float32), 0.5).centre == 0


def test_without_a_positive_slice_the_smoothed_maximum_decides():
    values = np.array([0.45, 0.0, 0.0, 0.2, 0.3, 0.2, 0.0], dtype=np.float32)
    decision = decide(values, 0.5)
    assert not decision.detected
    assert decision.centre == 4
    np.testing.assert_allclose(smoothed(values)[[0, 4, 6]], [0.225, 0.7 / 3, 0.1], rtol=1e-6)
    assert decide(np.array([0.2], dtype=np.float32), 0.5).centre == 0
    np.testing.assert_allclose(smoothed(values[:2]), [0.225, 0.225], rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_regression_agrees_with_scipy(seed):
    generator = np.random.default_rng(seed)
    x = generator.uniform(20, 90, 30)
    y = 0.97 * x + 1.5 + generator.normal(size=30)
    expected = linregress(x, y)
    found = regression(x, y)
    assert found.slope == pytest.approx(expected.slope)
    assert found.intercept == pytest.approx(expected.intercept)
    assert found.r2 == pytest.approx(expected.rvalue**2)


def test_regression_of_degenerate_points():
    assert regression([3.0], [4.0]) == Regression(None, None, None)
    assert regression([3.0, 3.0], [4.0, 5.0]) == Regression(None, None, None)
    assert regression([3.0, 4.0], [5.0, 5.0]) == Regression(0.0, 5.0, None)


def test_probability_does_not_overflow():
    scores = np.array([-1000, -1, 0, 1, 1000], dtype=np.float32)
    np.testing.assert_allclose(probability(scores), [0, 1 / (1 + np.e), 0.5, 1 / (1 + 1 / np.e), 1], rtol=1e-6)
    assert log_odds(0.5) == 0
    assert probability(np.float32([log_odds(0.2)]))[0] == pytest.approx(0.2)
