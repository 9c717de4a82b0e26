"""The loop of training: steps, validation and checkpoints, in every process of a training alike."""

import copy
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning.fabric import Fabric

from hounsfield.errors import TrainingError
from hounsfield.metrics.histogram import ScoreHistogram
from hounsfield.progress import Progress
from hounsfield.training.checkpoints import LAST, Checkpoints, write_checkpoint
from hounsfield.training.failures import Preemption, memory_errors
from hounsfield.training.metrics import Counts
from hounsfield.training.trainee import ADVICE, Trainee, clip_gradients

SECONDS_BETWEEN_CHECKPOINTS = 60.0
"""Longest time that a killed training loses, but for the step or validation it is in."""


def fit(fabric: Fabric, trainee: Trainee, checkpoints: Checkpoints, label: str, preemption: Preemption | None) -> bool:
    """Train to the end in this process, from the first one's checkpoint if it has any; False when preempted before.

    Args:
        preemption: tells of SIGTERM; None opens one of this process's own.

    Raises:
        TrainingError: the loss or a weight became NaN or infinite.
        OutOfMemory: memory did not suffice.
    """
    own: AbstractContextManager[Preemption] = nullcontext(preemption) if preemption else Preemption()
    with own as told, memory_errors(trainee.plan.batch_size, trainee.shape):
        return _Loop(fabric, trainee, checkpoints, told).run(label)


class _Loop:
    def __init__(self, fabric: Fabric, trainee: Trainee, checkpoints: Checkpoints, preemption: Preemption) -> None:
        self.fabric, self.trainee, self.checkpoints, self.preemption = fabric, trainee, checkpoints, preemption
        rank, world = fabric.global_rank, fabric.world_size
        if world > 1:  # spawned processes receive one network in shared memory
            trainee.network = copy.deepcopy(trainee.network)
        saved = checkpoints.read() if fabric.is_global_zero else None
        if world > 1:
            saved = fabric.broadcast(saved)
        if saved:
            trainee.load_state_dict(saved["trainee"])
            trainee.network.load_state_dict(saved["network"])
        if rank > 0:
            trainee.counts = Counts()
        optimiser = trainee.optimiser()
        self.network, self.optimiser = fabric.setup(trainee.network, optimiser)
        if saved:
            optimiser.load_state_dict(saved["optimiser"])
        self.training = trainee.batches(True, rank, world)
        self.validation = trainee.batches(False, rank, world) if trainee.val_rows else None
        self._saved_at = time.monotonic()

    def run(self, label: str) -> bool:
        trainee, steps = self.trainee, len(self.training)
        with Progress(label, trainee.plan.epochs * steps) as progress:
            if self.fabric.is_global_zero and trainee.epoch + trainee.step:
                progress.advance(trainee.epoch * steps + trainee.step)
            while trainee.epoch < trainee.plan.epochs:
                if not self._train(progress):
                    return False
                validation = self._validate()
                if validation is None:
                    return False
                trainee.finish_epoch(trainee.counts.total_of(self._sum), validation)
                self._save()
        return True

    def _train(self, progress: Progress) -> bool:
        """Take the remaining steps of this epoch; False when preempted."""
        self.network.train()
        self.training.epoch = self.trainee.epoch
        for batch in self.training.since(self.trainee.step):
            images, target = self.fabric.to_device(batch)
            self._step(images, target)
            if self.fabric.is_global_zero:
                progress.advance(1, self.trainee.describe())
            due = time.monotonic() - self._saved_at >= SECONDS_BETWEEN_CHECKPOINTS
            preempted, due = self._agree(self.preemption.requested, due)
            if preempted or due:
                self._save()
            if preempted:
                return False
        return True

    def _step(self, images: torch.Tensor, target: torch.Tensor) -> None:
        trainee, plan = self.trainee, self.trainee.plan
        trainee.draw_from(self.fabric.global_rank)
        for group in self.optimiser.param_groups:
            group["lr"] = trainee.learning_rate(len(self.training))
        self.optimiser.zero_grad()
        logits = self.network(images)
        trainee.loss.synchronised = self.fabric.world_size > 1
        loss = trainee.loss(logits, target)
        value = float(loss.detach())
        trainee.check(value)
        self.fabric.backward(loss)
        if plan.gradient_threshold is not None:
            clip_gradients(trainee.network, plan.gradient_threshold, plan.clipping)
        self.optimiser.step()
        trainee.counts.add(logits.detach(), target, value, trainee.logit_threshold)
        trainee.step += 1

    def _validate(self) -> dict[str, float] | None:
        """Metrics of all processes on the validation rows, empty without any; None when preempted."""
        if self.validation is None:
            return {}
        trainee, counts, scores = self.trainee, Counts(), ScoreHistogram()
        trainee.network.eval()
        trainee.loss.synchronised = False
        with torch.no_grad():
            for batch in self.validation:
                images, target = self.fabric.to_device(batch)
                if len(target):
                    self._score(images, target, counts, scores)
                [preempted] = self._agree(self.preemption.requested)
                if preempted:
                    self._save()
                    return None
        average_precision = self._merged(scores).average_precision()
        metrics = counts.total_of(self._sum).summary()
        if average_precision is not None:
            metrics["average_precision"] = average_precision.value
        return metrics

    def _score(self, images: torch.Tensor, target: torch.Tensor, counts: Counts, scores: ScoreHistogram) -> None:
        """Count a validation batch by its log-odds z1 - z0."""
        with self.fabric.autocast():
            logits = self.trainee.network(images)
        logits = logits.float()
        odds = logits[:, 1] - logits[:, 0]
        if odds.isnan().any():
            raise TrainingError(f"an output became NaN in the validation of epoch {self.trainee.epoch + 1}: {ADVICE}")
        counts.add(logits, target, float(self.trainee.loss(logits, target)), self.trainee.logit_threshold)
        scores.update(odds.cpu().numpy(), target.cpu().numpy())

    def _save(self) -> None:
        trainee = self.trainee
        state = trainee.state_dict() | {"counts": trainee.counts.total_of(self._sum).state_dict()}
        if self.fabric.is_global_zero:
            network, optimiser = trainee.network.state_dict(), self.optimiser.state_dict()
            whole = {"trainee": state, "network": network, "optimiser": optimiser}
            write_checkpoint(self.checkpoints.last, whole)
            self.checkpoints.keep(LAST)
        self.fabric.barrier()
        self._saved_at = time.monotonic()

    def _agree(self, *flags: bool) -> list[bool]:
        """Each flag, true if it is true in any process."""
        return [count > 0 for count in self._sum([float(flag) for flag in flags])]

    def _sum(self, values: list[float]) -> list[float]:
        """Each value summed over the processes."""
        if self.fabric.world_size == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.fabric.device)
        torch.distributed.all_reduce(total)
        return list(total.tolist())

    def _merged(self, scores: ScoreHistogram) -> ScoreHistogram:
        if self.fabric.world_size == 1:
            return scores
        parts: list[Any] = [None] * self.fabric.world_size
        torch.distributed.all_gather_object(parts, scores)
        total = ScoreHistogram()
        for part in parts:
            total.merge(part)
        return total
