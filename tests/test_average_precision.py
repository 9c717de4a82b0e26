"""Average precision from histograms against scikit-learn on the same scores."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve

from hounsfield.errors import InputError
from hounsfield.metrics.histogram import AveragePrecision, ScoreHistogram


def histogram(scores, labels) -> ScoreHistogram:
    made = ScoreHistogram()
    made.update(np.asarray(scores, dtype=np.float32), np.asarray(labels, dtype=bool))
    return made


def average(scores, labels) -> AveragePrecision:
    found = histogram(scores, labels).average_precision()
    assert found is not None
    return found


def bfloat16(scores):
    """Round toward zero to the upper 16 bits of float32, the precision of bfloat16."""
    return (np.asarray(scores, dtype=np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)


def sample(seed, prevalence=0.02, size=200_000, scale=1.0):
    generator = np.random.default_rng(seed)
    labels = generator.random(size) < prevalence
    scores = (generator.normal(size=size) * 2 + labels * 4 - 3) * scale
    return scores.astype(np.float32), labels


@pytest.mark.parametrize("scale", [1e-3, 0.3, 1.0, 30.0])
@pytest.mark.parametrize("prevalence", [0.001, 0.03, 0.5])
def test_interval_contains_scikit_learn_and_value_is_close(scale, prevalence):
    scores, labels = sample(1, prevalence, scale=scale)
    expected = average_precision_score(labels, scores)
    found = average(scores, labels)
    assert found.lower - 1e-12 <= expected <= found.upper + 1e-12
    assert found.lower <= found.value <= found.upper
    assert found.value == pytest.approx(expected, abs=1e-5)
    assert found.width < 1e-4


@pytest.mark.parametrize("seed", range(3))
def test_bfloat16_scores_are_exact(seed):
    scores, labels = sample(seed)
    scores = bfloat16(scores)
    found = average(scores, labels)
    assert found.width == 0
    assert found.value == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


def test_heavy_ties_are_exact():
    generator = np.random.default_rng(3)
    labels = generator.random(50_000) < 0.1
    scores = np.round(generator.normal(size=50_000) + labels).astype(np.float32)
    found = average(scores, labels)
    assert found.width == 0
    assert found.value == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


def test_interval_holds_for_adversarial_order_inside_one_bin():
    base = np.float32(1.0)
    steps = np.arange(64, dtype=np.uint32)
    scores = (base.view(np.uint32) + steps).view(np.float32)
    for labels in (steps < 32, steps >= 32, steps % 2 == 0, steps == 0, steps == 63):
        found = average(scores, labels)
        assert found.width > 0
        assert found.lower - 1e-12 <= average_precision_score(labels, scores) <= found.upper + 1e-12
    assert average(scores, steps >= 32).upper == pytest.approx(1.0)


def test_worked_by_hand():
    # thresholds 3: 1/1, 2: 1/2, 1: 2/3 -> AP = 1/2 * 1 + 1/2 * 2/3
    assert average([3, 2, 1, 0], [1, 0, 1, 0]).value == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([1, 2, 3], [1, 1, 1], 1.0),
        ([5, 5, 5, 5], [1, 0, 0, 0], 0.25),
        ([0.0, -0.0], [1, 0], 0.5),
        ([np.inf, np.inf, -np.inf], [1, 0, 1], 0.5 * 0.5 + 0.5 * 2 / 3),
        ([3e38, -3e38], [0, 1], 0.5),
    ],
)
def test_degenerate_scores(scores, labels, expected):
    found = average(scores, labels)
    assert (found.lower, found.value, found.upper) == pytest.approx((expected,) * 3)


def test_without_a_positive_it_is_undefined():
    assert histogram([1, 2], [0, 0]).average_precision() is None
    assert ScoreHistogram().average_precision() is None


def test_nan_is_an_error():
    with pytest.raises(InputError, match="NaN"):
        histogram([1, np.nan], [0, 1])
    with pytest.raises(InputError, match="expected float32"):
        ScoreHistogram().update(np.zeros(2), np.zeros(2, dtype=bool))


def test_parts_add_to_the_whole():
    scores, labels = sample(5)
    scores[::7] = bfloat16(scores[::7])
    whole = histogram(scores, labels)
    parts = [histogram(scores[i::3], labels[i::3]) for i in range(3)]
    total = parts[0] + parts[1] + parts[2]
    assert total.average_precision() == whole.average_precision()
    assert (total.positives, total.negatives) == (whole.positives, whole.negatives)
    assert total.positives == labels.sum()
    batches = ScoreHistogram()
    for i in range(3):
        batches.merge(parts[i])
    assert batches.average_precision() == whole.average_precision()


def test_shapes_and_strides_do_not_matter():
    scores, labels = sample(6, size=6_000)
    images, masks = scores.reshape(10, 20, 30), labels.reshape(10, 20, 30)
    turned = ScoreHistogram()
    turned.update(images.transpose(2, 0, 1), masks.transpose(2, 0, 1).astype(np.uint8))
    assert turned.average_precision() == histogram(scores, labels).average_precision()


def test_masks_may_hold_255():
    found = ScoreHistogram()
    found.update(np.float32([1, 0]), np.uint8([255, 0]))
    assert (found.positives, found.negatives) == (1, 1)


def test_counts_at_threshold():
    scores, labels = sample(7)
    found = histogram(scores, labels).at_threshold(0.5)
    positive = scores >= 0
    assert found.tp == (positive & labels).sum()
    assert found.fp == (positive & ~labels).sum()
    assert found.fn == (~positive & labels).sum()
    assert found.tn == (~positive & ~labels).sum()
    assert histogram([1, -1], [1, 0]).at_threshold(0.9).tp == 0
    edge = histogram([0.0, -0.0, -1e-30, 1e-30], [1, 1, 1, 1]).at_threshold(0.5)
    assert (edge.tp, edge.fn) == (3, 1)


def test_curve_of_few_scores_is_scikit_learns():
    scores, labels = sample(8, prevalence=0.2, size=400)
    scores = bfloat16(scores)
    curve = histogram(scores, labels).curve()
    precision, recall, threshold = precision_recall_curve(labels, scores)
    np.testing.assert_allclose(curve.precision[::-1], precision[:-1])
    np.testing.assert_allclose(curve.recall[::-1], recall[:-1])
    np.testing.assert_allclose(curve.log_odds[::-1], threshold)
    np.testing.assert_allclose(curve.threshold, 1 / (1 + np.exp(-curve.log_odds)))


def test_curve_of_many_scores_lies_on_scikit_learns():
    scores, labels = sample(9)
    curve = histogram(scores, labels).curve(500)
    assert 200 < len(curve.recall) <= 500
    assert curve.recall[-1] == 1
    assert curve.false_positive_rate[-1] == 1
    assert (np.diff(curve.recall) >= 0).all()
    assert (np.diff(curve.log_odds) < 0).all()
    for k in range(0, len(curve.recall), 25):
        positive = scores >= curve.log_odds[k]
        assert curve.recall[k] == pytest.approx((positive & labels).sum() / labels.sum(), abs=1e-3)
        assert curve.precision[k] == pytest.approx((positive & labels).sum() / positive.sum(), abs=1e-3)
    trapezoid_free = np.sum(np.diff(curve.recall, prepend=0) * curve.precision)
    assert trapezoid_free == pytest.approx(average_precision_score(labels, scores), abs=5e-3)
