"""Pooled counts at one threshold, cheap enough to be kept during training."""

from collections.abc import Callable

import torch


class Counts:
    """Running counts of true and false predictions and of the loss; one process's part can be summed with others'."""

    def __init__(self) -> None:
        self.true_positive = self.false_positive = self.false_negative = self.total = 0
        self.loss, self.images = 0.0, 0

    def add(self, logits: torch.Tensor, target: torch.Tensor, loss: float, logit_threshold: float) -> None:
        """Count a batch: logits (N, 2, ...), target (N, ...) of 0 and 1, and its mean loss."""
        predicted = logits[:, 1] - logits[:, 0] > logit_threshold
        truth = target.bool()
        overlap = int((predicted & truth).sum())
        self.true_positive += overlap
        self.false_positive += int(predicted.sum()) - overlap
        self.false_negative += int(truth.sum()) - overlap
        self.total += truth.numel()
        self.loss += loss * len(target)
        self.images += len(target)

    @property
    def mean_loss(self) -> float:
        return self.loss / max(self.images, 1)

    def summary(self, reduce: Callable[[list[float]], list[float]] | None = None) -> dict[str, float]:
        """`loss` (mean over images), `accuracy`, `precision`, `recall` and `f1`; a ratio of nothing is 0.

        `reduce` sums a list of numbers over processes.
        """
        values = [self.true_positive, self.false_positive, self.false_negative, self.total, self.loss, self.images]
        tp, fp, fn, total, loss, images = reduce([float(v) for v in values]) if reduce else values
        return {
            "loss": loss / max(images, 1),
            "accuracy": (total - fp - fn) / max(total, 1),
            "precision": tp / max(tp + fp, 1),
            "recall": tp / max(tp + fn, 1),
            "f1": 2 * tp / max(2 * tp + fp + fn, 1),
        }
