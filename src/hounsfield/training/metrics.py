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

    def state_dict(self) -> dict[str, float]:
        """The counts by name."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on counting from `state`."""
        vars(self).update(state)

    @property
    def mean_loss(self) -> float:
        return self.loss / max(self.images, 1)

    def total_of(self, reduce: Callable[[list[float]], list[float]]) -> "Counts":
        """The counts of all processes; `reduce` sums a list of numbers over them."""
        total = Counts()
        total.load_state_dict(dict(zip(vars(self), reduce([float(v) for v in vars(self).values()]), strict=True)))
        return total

    def summary(self) -> dict[str, float]:
        """`loss` (mean over images), `accuracy`, `precision`, `recall` and `f1`; a ratio of nothing is 0."""
        tp, fp, fn = self.true_positive, self.false_positive, self.false_negative
        total, loss, images = self.total, self.loss, self.images
        return {
            "loss": loss / max(images, 1),
            "accuracy": (total - fp - fn) / max(total, 1),
            "precision": tp / max(tp + fp, 1),
            "recall": tp / max(tp + fn, 1),
            "f1": 2 * tp / max(2 * tp + fp + fn, 1),
        }
