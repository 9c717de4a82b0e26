"""Runs a training from a slice set to an outcome: devices, precision, and checkpoints from which it resumes."""

import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric import Fabric
from torch import nn
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from hounsfield.data.slice_set import SliceSet
from hounsfield.errors import InputError, OutOfMemory, Preempted, TrainingError
from hounsfield.losses import BatchLoss
from hounsfield.storage import sha256_bytes, write_json
from hounsfield.training.failures import Preemption
from hounsfield.training.loop import fit
from hounsfield.training.probe import Precision, faster_precision
from hounsfield.training.trainee import Plan, Trainee

PrecisionChoice = Literal["auto", "fp32", "bf16"]
LAST = "last.ckpt"


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
    checkpoints: Path,
    label: str,
    precision: PrecisionChoice = "auto",
    identity: dict[str, Any] | None = None,
    devices: int | Literal["auto"] = "auto",
) -> Outcome:
    """Train `network` on the training patients of `slices`, on every GPU there is, else the CPU.

    Continues from the last step that an earlier call with the same `identity`, slice set and code saved under
    `checkpoints`, and then ends as if it had never been interrupted; call `discard` with the same arguments once the
    model is stored.

    Args:
        identity: what makes this training this training (its configuration): another one starts anew.
        devices: number of GPUs (of CPU processes where there is no GPU) that share every batch; "auto" is all GPUs.

    Raises:
        InputError: no training slice, or a checkpoint folder that cannot be written.
        TrainingError: the loss became NaN or infinite.
        OutOfMemory: of a process of several; of this one it stays as it was raised.
        Preempted: SIGTERM came; a checkpoint is saved.
    """
    folder = checkpoint_folder(checkpoints, identity or {}, slices)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write checkpoints to {checkpoints}: {error.strerror}: choose a writable folder"
        ) from error
    chosen = _precision(precision, folder, network, plan, slices)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trainee = Trainee(network, loss, slices, plan)
    trainee.batches(training=True)
    last, count = folder / LAST, _device_count(devices)
    with _quiet(), _deterministic(), Preemption(forward=count > 1) as preemption:
        fabric = Fabric(
            accelerator="gpu" if torch.cuda.is_available() else "cpu",
            devices=count,
            strategy="auto" if count == 1 else "ddp_spawn",
            precision="bf16-mixed" if chosen == "bf16" else "32-true",
        )
        own = preemption if count == 1 else None
        work = partial(fit, trainee=trainee, checkpoint=last, label=label, preemption=own)
        try:
            finished = fabric.launch(work)
        except (ProcessRaisedException, ProcessExitedException) as error:
            if preemption.requested:
                raise Preempted from error
            raise _failure_of_a_process(error) from error
    if not finished:
        raise Preempted
    record = torch.load(last, map_location="cpu", weights_only=True)["trainee"]
    best, history = record["best"], record["history"]
    metrics = {name: value for name, value in history[best["epoch"] - 1].items() if name != "epoch"}
    return Outcome(best["state"], best["epoch"], metrics, history, chosen)


def checkpoint_folder(checkpoints: Path, identity: dict[str, Any], slices: SliceSet) -> Path:
    """Folder under `checkpoints` of the training with this configuration, slice set and code."""
    from hounsfield import __version__

    what = {"identity": identity, "slice_set": slices.manifest["hash"], "code": __version__}
    return checkpoints / sha256_bytes(json.dumps(what, sort_keys=True).encode())[:16]


def discard(checkpoints: Path, identity: dict[str, Any], slices: SliceSet) -> None:
    """Remove the checkpoints of a training whose model is stored."""
    shutil.rmtree(checkpoint_folder(checkpoints, identity, slices), ignore_errors=True)
    if checkpoints.is_dir() and not any(checkpoints.iterdir()):
        checkpoints.rmdir()


def _failure_of_a_process(error: ProcessRaisedException | ProcessExitedException) -> TrainingError:
    """The error of one of several training processes, of which only the text is left."""
    last = str(error).strip().splitlines()[-1]
    kind, _, message = last.partition(": ")
    known = {f"{one.__module__}.{one.__qualname__}": one for one in (TrainingError, OutOfMemory)}
    if kind in known:
        return known[kind](message)
    return TrainingError(f"a training process failed: {last}")


def _precision(wanted: PrecisionChoice, folder: Path, network: nn.Module, plan: Plan, slices: SliceSet) -> Precision:
    """The precision asked for; "auto" is probed once per training and remembered for its resumption."""
    if wanted != "auto":
        return wanted
    remembered = folder / "precision.json"
    if remembered.is_file():
        value: Precision = json.loads(remembered.read_text())["precision"]
        return value
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = faster_precision(network, plan.batch_size, slices.shape, device)
    write_json(remembered, {"precision": chosen})
    return chosen


def _device_count(devices: int | Literal["auto"]) -> int:
    return (torch.cuda.device_count() or 1) if devices == "auto" else devices


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
