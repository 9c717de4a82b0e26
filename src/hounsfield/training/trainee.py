"""The Lightning module of both tasks: a network, its loss, its data, and the record of every epoch."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import lightning.pytorch as L
import torch
from torch import nn

from hounsfield.data.slice_set import SliceSet
from hounsfield.data.splits import TRAIN, VAL
from hounsfield.errors import TrainingError
from hounsfield.losses import BatchLoss
from hounsfield.training.batches import Batch, Batches, Sampling
from hounsfield.training.metrics import Counts

Schedule = Literal["constant", "cosine", "one-cycle"]
Clipping = Literal["l2norm", "global-l2norm"]
Keep = Literal["best", "last"]

_WARM_UP = 0.1
"""Share of the steps in which the one-cycle schedule rises to the learning rate."""


@dataclass(frozen=True)
class Plan:
    """How to train. `gradient_threshold` None does not clip; `weight_decay` is coupled (added to the gradient)."""

    epochs: int
    batch_size: int
    learning_rate: float
    schedule: Schedule = "constant"
    weight_decay: float = 0.0
    gradient_threshold: float | None = None
    clipping: Clipping = "global-l2norm"
    threshold: float = 0.5
    seed: int = 0
    keep: Keep = "best"
    sampling: Sampling = field(default_factory=Sampling)


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


class Trainee(L.LightningModule):
    """Trains `network` and remembers metrics by epoch and the weights of the one to keep.

    The epoch whose weights are kept has the highest F1 on the validation patients (the lower loss decides between
    equals); with `keep` "last", or without validation patients, it is the last one.
    """

    def __init__(self, network: nn.Module, loss: BatchLoss, slices: SliceSet, plan: Plan) -> None:
        super().__init__()
        self.network, self.loss, self.plan = network, loss, plan
        self._path, self._train_rows, self._val_rows = slices.directory, slices.rows(TRAIN), slices.rows(VAL)
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Any] = {}
        self._batches: Batches | None = None
        self._logit_threshold = math.log(plan.threshold / (1 - plan.threshold))
        self._train, self._val = Counts(), Counts()

    def batches(self, training: bool) -> Batches:
        """This process's share of the batches of a split."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self._trainer else (0, 1)
        plan = self.plan
        if not training:
            return Batches(self._path, self._val_rows, plan.batch_size, rank=rank, world=world)
        return Batches(self._path, self._train_rows, plan.batch_size, plan.seed, plan.sampling, rank, world)

    def train_dataloader(self) -> Batches:
        self._batches = self.batches(training=True)
        return self._batches

    def val_dataloader(self) -> Any:
        return self.batches(training=False) if self._val_rows else []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        plan = self.plan
        return torch.optim.Adam(
            self.network.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay, fused=True
        )

    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        if self.plan.gradient_threshold is not None:
            clip_gradients(self.network, self.plan.gradient_threshold, self.plan.clipping)

    def on_train_epoch_start(self) -> None:
        assert self._batches is not None
        self._batches.epoch = self.current_epoch
        torch.manual_seed(self.plan.seed * 100_003 + self.current_epoch)
        self._train = Counts()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        assert self._batches is not None
        factor = learning_rate_factor(self.plan.schedule, self.global_step, self.plan.epochs * len(self._batches))
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.plan.learning_rate * factor

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        images, target = batch
        logits = self.network(images)
        self.loss.synchronised = self.trainer.world_size > 1
        loss: torch.Tensor = self.loss(logits, target)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss became {value} in epoch {self.current_epoch + 1}, step {batch_idx + 1}: "
                "use a lower learning rate, gradient clipping or precision fp32"
            )
        self._train.add(logits.detach(), target, value, self._logit_threshold)
        return loss

    def on_validation_epoch_start(self) -> None:
        self._val = Counts()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        images, target = batch
        if len(target) == 0:
            return
        logits = self.network(images)
        self.loss.synchronised = False
        self._val.add(logits, target, float(self.loss(logits, target)), self._logit_threshold)

    def on_train_epoch_end(self) -> None:
        reduce = self._sum_over_processes if self.trainer.world_size > 1 else None
        train = self._train.summary(reduce)
        record = {
            "epoch": float(self.current_epoch + 1),
            "train_loss": train["loss"],
            "train_accuracy": train["accuracy"],
        }
        if self._val_rows:
            record |= {f"val_{name}": value for name, value in self._val.summary(reduce).items()}
        self.history.append(record)
        if self._val_rows and self.plan.keep == "best":
            score = (record["val_f1"], -record["val_loss"])
        else:
            score = (0.0, float(self.current_epoch))
        if not self.best or score > tuple(self.best["score"]):
            state = {name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()}
            self.best = {"score": list(score), "epoch": self.current_epoch + 1, "state": state}

    def describe(self) -> str:
        """Where training stands, in a few words."""
        words = f"epoch {self.current_epoch + 1}/{self.plan.epochs} loss={self._train.mean_loss:.4f}"
        if self.history and "val_f1" in self.history[-1]:
            words += f" val_f1={self.history[-1]['val_f1']:.4f}"
        return words

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["trainee"] = {"history": self.history, "best": self.best}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history, self.best = checkpoint["trainee"]["history"], checkpoint["trainee"]["best"]

    def _sum_over_processes(self, values: list[float]) -> list[float]:
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return list(total.tolist())
