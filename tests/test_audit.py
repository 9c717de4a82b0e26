"""The audit of F1, precision and recall, on printed tables, computed figures and simulated averages."""

from decimal import Decimal

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from hounsfield.evaluation.agreement import audit_metrics
from hounsfield.experiments.printed import TABLE_1, TABLE_2
from hounsfield.metrics.audit import audit
from hounsfield.metrics.counts import Spread


def test_table_1_has_two_impossible_rows():
    verdicts = {row.run: audit(row.precision, row.recall, row.f1, whole=100).verdict for row in TABLE_1}
    assert {run for run, verdict in verdicts.items() if verdict == "impossible"} == {"E-Net+CL", "U-Net+BL"}
    assert {run for run, verdict in verdicts.items() if verdict == "consistent"} == {"U-Net+CL"}
    assert len(verdicts) == 9
    assert set(verdicts.values()) == {"impossible", "consistent", "not pooled"}
    assert audit("88.91", "76.49", "83.35", whole=100).verdict == "impossible"  # the recall that the text gives


def test_table_1_differences_are_those_of_the_specification():
    recomputed = {row.run: round(audit(row.precision, row.recall, row.f1).f1_recomputed, 2) for row in TABLE_1}
    assert list(recomputed.values()) == [68.26, 71.45, 72.66, 66.50, 68.96, 67.66, 81.06, 88.42, 88.78]
    enet = audit("57.81", "85.43", "67.03", whole=100)
    assert enet.f1_difference == pytest.approx(67.03 - 2 * 57.81 * 85.43 / (57.81 + 85.43))
    assert enet.sentence.startswith("Not a pooled triple: F1 is 1.9 below")
    assert audit("55.17", "87.47", "68.32").sentence.startswith("Impossible: F1 is 0.66 above")


def test_printed_tables_are_those_of_the_papers():
    assert [row.loss for row in TABLE_1] == ["BL", "FL", "CL"] * 3
    assert all(row.gamma == "" for row in TABLE_1 if row.loss == "BL")
    best = max(TABLE_1, key=lambda row: Decimal(row.ap))
    assert (best.run, best.alpha, best.gamma, best.beta) == ("U-Net+CL", "0.25", "4", "0.7")
    assert [(row.mean, row.sd) for row in TABLE_2[-2:]] == [("1.68", "1.43"), ("0.68", "1.26")]


@pytest.mark.parametrize(
    ("precision", "recall", "f1", "verdict"),
    [
        ("0.50", "0.50", "0.50", "consistent"),
        ("0.50", "0.50", "0.51", "consistent"),  # 0.505, 0.505 and 0.505
        ("0.50", "0.50", "0.52", "impossible"),
        ("0.50", "0.50", "0.48", "not pooled"),
        ("0.500", "0.500", "0.510", "impossible"),
        ("0.90", "0.90", "0.80", "not pooled"),
        ("0.90", "0.90", "0.78", "impossible"),  # below P + R - 1
        (0.5, 0.5, 0.5 + 1e-12, "consistent"),
        (0.5, 0.5, 0.501, "impossible"),
        (0.0, 0.0, 0.0, "consistent"),
        (0.0, 0.3, 0.1, "impossible"),
        (None, 0.0, 0.0, "undefined"),
    ],
)
def test_verdicts(precision, recall, f1, verdict):
    found = audit(precision, recall, f1)
    assert found.verdict == verdict
    assert found.sentence


def test_every_rounded_pooled_triple_is_consistent():
    random = np.random.default_rng(0)
    for tp, fp, fn in random.integers(1, 4000, (2000, 3)):
        figures = tp / (tp + fp), tp / (tp + fn), 2 * tp / (2 * tp + fp + fn)
        assert audit(*figures).verdict == "consistent"
        assert audit(*(f"{100 * value:.2f}" for value in figures), whole=100).verdict == "consistent"


def test_averages_over_images_are_never_impossible():
    """Oracle: scikit-learn per image, averaged, over easy, hard, empty and missed images, with and without weights."""
    random = np.random.default_rng(1)
    verdicts = []
    for _ in range(40):
        images = int(random.integers(2, 6))
        skill, share = random.uniform(0, 1, 2)
        per_image = []
        for _ in range(images):
            truth = random.random(30) < share
            guess = np.where(random.random(30) < skill, truth, random.random(30) < random.random())
            measures = (precision_score, recall_score, f1_score)
            per_image.append([measure(truth, guess, zero_division=0) for measure in measures])
        weights = random.dirichlet(np.ones(images)) if random.random() < 0.5 else None
        means = np.average(per_image, axis=0, weights=weights)
        verdicts.append(audit(*(float(mean) for mean in means)).verdict)
        assert audit(*(f"{mean:.3f}" for mean in means)).verdict != "impossible"
    assert "impossible" not in verdicts
    assert verdicts.count("not pooled") > 25


def test_means_of_any_precisions_and_recalls_are_never_impossible():
    random = np.random.default_rng(2)
    for _ in range(3000):
        p, r = random.choice([random.random((2, 3)), random.integers(0, 2, (2, 3)), random.beta(0.2, 0.2, (2, 3))])
        f1 = np.divide(2 * p * r, p + r, out=np.zeros(3), where=p + r > 0)
        assert audit(float(p.mean()), float(r.mean()), float(f1.mean())).verdict in ("consistent", "not pooled")


def test_both_bounds_are_attained_by_averages():
    assert audit(0.5, 0.5, 0.0).verdict == "not pooled"  # images (1, 0) and (0, 1)
    assert audit(0.5, 0.5, 0.0).f1_difference == -0.5
    assert audit(0.75, 0.75, 0.5).verdict == "not pooled"  # the same, and twice (1, 1)
    assert audit(0.75, 0.75, 0.499).verdict == "impossible"


@pytest.mark.parametrize(
    ("f1", "values", "agree", "words"),
    [
        (0.70, [0.69, 0.70], True, "agree within 0.02"),
        (0.82, [0.9, 0.5], False, "a large tumour weighs more"),
        (0.40, [0.9, 0.8], False, "false-positive pixel"),
        (None, [0.9], None, "cannot be compared"),
    ],
)
def test_pooled_and_mean(f1, values, agree, words):
    own = Spread.of(values)
    found = audit_metrics({"precision": f1, "recall": f1, "f1": f1}, own, "patient")
    assert found["pooled_and_mean_agree"] is agree
    assert words in found["sentences"][1]
    if f1 is not None:
        assert found["pooled_minus_mean"] == pytest.approx(f1 - np.mean(values))
        assert found["verdict"] == "consistent"
