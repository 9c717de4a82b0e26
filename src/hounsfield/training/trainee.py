"""A training at one moment: a network, its loss, its data, where it stands, and the record of every epoch."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from hounsfield.data.slice_set import SliceSet
from hounsfield.data.splits import TEST, TRAIN, VAL
from hounsfield.errors import TrainingError
from hounsfield.losses import BatchLoss
from hounsfield.training.batches import Batches, Sampling
from hounsfield.training.metrics import Counts

Schedule = Literal["constant", "cosine", "one-cycle"]
Clipping = Literal["l2norm", "global-l2norm"]
Keep = Literal["best", "last"]

_WARM_UP = 0.1
"""Share of the steps in which the one-cycle schedule rises to the learning rate."""


ADVICE = "use a lower learning rate, gradient clipping or precision fp32"


@dataclass(frozen=True)
class Plan:
    """How to train.

    `gradient_threshold` None does not clip; `weight_decay` is coupled (added to the gradient). `refit` trains on the
    validation patients as well and keeps the last epoch; otherwise split `validation` chooses it.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    schedule: Schedule = "constant"
    adam_beta2: float = 0.999
    weight_decay: float = 0.0
    gradient_threshold: float | None = None
    clipping: Clipping = "global-l2norm"
    threshold: float = 0.5
    seed: int = 0
    keep: Keep = "best"
    refit: bool = False
    validation: Literal["val", "test"] = "val"
    sampling: Sampling = field(default_factory=Sampling)


def rows_of(slices: SliceSet, plan: Plan) -> tuple[list[int], list[int]]:
    """Rows that are trained on and rows that choose the epoch."""
    if plan.refit:
        return slices.rows(TRAIN, VAL), []
    return slices.rows(TRAIN), slices.rows(VAL if plan.validation == "val" else TEST)


def learning_rate_factor(schedule: Schedule, step: int, steps: int) -> float:
    """Share of the learning rate at `step` of `steps`: constant, falling as half a cosine to 0, or the same after a
    linear rise over the first tenth."""
    if schedule == "constant":
        return 1.0
    rise = round(_WARM_UP * steps) if schedule == "one-cycle" else 0
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def clip_gradients(network: nn.Module, threshold: float, clipping: Clipping) -> None:
    """Scale gradients down to an L2 norm of `threshold`: `l2norm` each parameter tensor by its own norm,
    `global-l2norm` all of them by the norm of the whole gradient."""
    parameters = [parameter for parameter in network.parameters() if parameter.grad is not None]
    if clipping == "global-l2norm":
        nn.utils.clip_grad_norm_(parameters, threshold)
        return
    for parameter in parameters:
        nn.utils.clip_grad_norm_(parameter, threshold)


class Trainee:
    """Trains `network`: how many epochs and steps are done, metrics by epoch and the weights of the one to keep.

    The epoch whose weights are kept has the highest F1 on the validation patients (the lower loss decides between
    equals); with `keep` "last", or without validation patients, it is the last one. What a step does is a function of
    `state_dict`, the weights and the optimiser's state alone: orders, augmentation and dropout are drawn anew from
    (seed, epoch, step).
    """

    def __init__(self, network: nn.Module, loss: BatchLoss, slices: SliceSet, plan: Plan) -> None:
        self.network, self.loss, self.plan = network, loss, plan
        self.path, self.shape = slices.directory, slices.shape
        self.train_rows, self.val_rows = rows_of(slices, plan)
        self.logit_threshold = math.log(plan.threshold / (1 - plan.threshold))
        self.epoch = self.step = 0
        """Finished epochs, and finished steps of the current one."""
        self.counts = Counts()
        """Of the finished steps of the current epoch, on this process."""
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Any] = {}

    def batches(self, training: bool, rank: int = 0, world: int = 1) -> Batches:
        """Share of process `rank` of `world` in the batches of training or validation."""
        plan = self.plan
        if not training:
            return Batches(self.path, self.val_rows, plan.batch_size, rank=rank, world=world)
        return Batches(self.path, self.train_rows, plan.batch_size, plan.seed, plan.sampling, rank, world)

    def optimiser(self) -> torch.optim.Optimizer:
        """Adam with L2 regularisation added to the gradient."""
        plan = self.plan
        return torch.optim.Adam(
            self.network.parameters(),
            lr=plan.learning_rate,
            betas=(0.9, plan.adam_beta2),
            weight_decay=plan.weight_decay,
            fused=True,
        )

    def draw_from(self, rank: int) -> None:
        """Seed torch's generators for the next step of process `rank`."""
        entropy = np.random.SeedSequence([self.plan.seed, self.epoch, self.step, rank])
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))

    def learning_rate(self, steps: int) -> float:
        """Of the next step, with `steps` steps in an epoch."""
        plan = self.plan
        return plan.learning_rate * learning_rate_factor(
            plan.schedule, self.epoch * steps + self.step, plan.epochs * steps
        )

    def check(self, value: float) -> None:
        """Raise a TrainingError that says where `value`, the loss of the next step, became NaN or infinite."""
        if not math.isfinite(value):
            raise TrainingError(f"the loss became {value} in epoch {self.epoch + 1}, step {self.step + 1}: {ADVICE}")

    def finish_epoch(self, train: Counts, validation: dict[str, float]) -> None:
        """Record the epoch, keep its weights if they are the ones to keep, and go on to the next.

        Args:
            train: counts of all processes.
            validation: metrics on the validation rows, empty without any.

        Raises:
            TrainingError: a weight is NaN or infinite.
        """
        if not all(bool(parameter.isfinite().all()) for parameter in self.network.parameters()):
            raise TrainingError(f"a weight became NaN or infinite in epoch {self.epoch + 1}: {ADVICE}")
        summary = train.summary()
        self.epoch += 1
        record = {"epoch": float(self.epoch), "train_loss": summary["loss"], "train_accuracy": summary["accuracy"]}
        record |= {f"val_{name}": value for name, value in validation.items()}
        self.history.append(record)
        if validation and self.plan.keep == "best":
            score = [record["val_f1"], -record["val_loss"]]
        else:
            score = [0.0, float(self.epoch)]
        if not self.best or score > self.best["score"]:
            state = {name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()}
            self.best = {"score": score, "epoch": self.epoch, "state": state}
        self.step, self.counts = 0, Counts()

    def describe(self) -> str:
        """Where training stands, in a few words."""
        words = f"epoch {self.epoch + 1}/{self.plan.epochs} loss={self.counts.mean_loss:.4f}"
        if self.history and "val_f1" in self.history[-1]:
            words += f" val_f1={self.history[-1]['val_f1']:.4f}"
        return words

    def state_dict(self) -> dict[str, Any]:
        """Where training stands, without weights; plain numbers, lists, dictionaries and tensors."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "counts": self.counts.state_dict(),
            "history": self.history,
            "best": self.best,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.epoch, self.step = state["epoch"], state["step"]
        self.history, self.best = state["history"], state["best"]
        self.counts.load_state_dict(state["counts"])
