"""Runs a training from a slice set to an outcome: devices, precision, and checkpoints from which it resumes."""

import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from hounsfield.data.slice_set import SliceSet
from hounsfield.errors import OutOfMemory, Preempted, TrainingError
from hounsfield.inference import best_device
from hounsfield.losses import BatchLoss
from hounsfield.storage import write_json
from hounsfield.training.checkpoints import PRECISION, Checkpoints
from hounsfield.training.devices import Devices
from hounsfield.training.failures import Preemption
from hounsfield.training.loop import fit
from hounsfield.training.probe import Precision, faster_precision
from hounsfield.training.trainee import Plan, Trainee

PrecisionChoice = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class Outcome:
    """A finished training: weights and metrics of the best epoch (numbered from 1) and the record of all."""

    state: dict[str, torch.Tensor]
    best_epoch: int
    metrics: dict[str, float]
    history: list[dict[str, float]]
    precision: Precision


def train(
    network: nn.Module,
    loss: BatchLoss,
    slices: SliceSet,
    plan: Plan,
    checkpoints: Path | str,
    label: str,
    precision: PrecisionChoice = "auto",
    identity: dict[str, Any] | None = None,
    devices: int | Literal["auto"] = "auto",
) -> Outcome | None:
    """Train `network` on the training patients of `slices`, on every GPU there is, else the CPU.

    Under torchrun the processes that it started on one or many machines share every batch; all but the first get None.

    Continues from the last step that an earlier call with the same `identity`, slice set and code saved under
    `checkpoints`, a folder or an s3:// prefix, and then ends as if it had never been interrupted; call
    `Checkpoints.discard` once the model is stored.

    Args:
        identity: what makes this training this training (its configuration): another one starts anew.
        devices: number of GPUs (of CPU processes where there is no GPU) that share every batch; "auto" is all GPUs.

    Raises:
        InputError: no training slice, or a checkpoint folder that cannot be written.
        TrainingError: the loss became NaN or infinite.
        OutOfMemory: of a process of several; of this one it stays as it was raised.
        Preempted: SIGTERM came; a checkpoint is saved.
    """
    kept = Checkpoints.of(checkpoints, identity or {}, slices)
    here = Devices.here(devices)
    if here.leader:
        kept.open()
    chosen = _precision(precision, kept, network, plan, slices, here)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trainee = Trainee(network, loss, slices, plan)
    trainee.batches(training=True)
    with _quiet(), _deterministic(), Preemption(forward=here.spawned) as preemption:
        own = None if here.spawned else preemption
        work = partial(fit, trainee=trainee, checkpoints=kept, label=label, preemption=own)
        try:
            finished = here.fabric(chosen).launch(work)
        except (ProcessRaisedException, ProcessExitedException) as error:
            if preemption.requested:
                raise Preempted from error
            raise _failure_of_a_process(error) from error
    if not finished:
        raise Preempted
    saved = kept.read() if here.leader else None
    if saved is None:
        return None
    best, history = saved["trainee"]["best"], saved["trainee"]["history"]
    metrics = {name: value for name, value in history[best["epoch"] - 1].items() if name != "epoch"}
    return Outcome(best["state"], best["epoch"], metrics, history, chosen)


def _failure_of_a_process(error: ProcessRaisedException | ProcessExitedException) -> TrainingError:
    """The error of one of several training processes, of which only the text is left."""
    last = str(error).strip().splitlines()[-1]
    kind, _, message = last.partition(": ")
    known = {f"{one.__module__}.{one.__qualname__}": one for one in (TrainingError, OutOfMemory)}
    if kind in known:
        return known[kind](message)
    return TrainingError(f"a training process failed: {last}")


def _precision(
    wanted: PrecisionChoice, kept: Checkpoints, network: nn.Module, plan: Plan, slices: SliceSet, here: Devices
) -> Precision:
    """The precision asked for; "auto" is probed once per training and remembered for its resumption.

    Processes of several machines do not probe, since each could choose another: they take bf16 where GPUs have it.
    """
    if wanted != "auto":
        return wanted
    if here.launched:
        return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "fp32"
    remembered = kept.folder / PRECISION
    if remembered.is_file():
        value: Precision = json.loads(remembered.read_text())["precision"]
        return value
    device = best_device()
    chosen = faster_precision(network, plan.batch_size, slices.shape, device)
    write_json(remembered, {"precision": chosen})
    kept.keep(PRECISION)
    return chosen


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's banners and hints to its developers out of the log; errors still show."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _deterministic() -> Iterator[None]:
    """Have CUDA use deterministic algorithms wherever it has them."""
    if not torch.cuda.is_available():
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
