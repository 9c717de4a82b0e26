"""Runs a training by Lightning: devices, precision, progress, a checkpoint every epoch, and resuming after a kill."""

import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from torch import nn
from torch.multiprocessing.spawn import ProcessRaisedException

from hounsfield.data.slice_set import SliceSet
from hounsfield.errors import InputError, TrainingError
from hounsfield.losses import BatchLoss
from hounsfield.progress import Progress
from hounsfield.storage import sha256_bytes, write_json
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

    Continues from the last epoch that an earlier call with the same `identity`, slice set and code finished under
    `checkpoints`; call `discard` with the same arguments once the model is stored.

    Args:
        identity: what makes this training this training (its configuration): another one starts anew.
        devices: number of GPUs (of CPU processes where there is no GPU) that share every batch; "auto" is all GPUs.

    Raises:
        InputError: no training slice, or a checkpoint folder that cannot be written.
        TrainingError: the loss became NaN or infinite.
    """
    folder = checkpoint_folder(checkpoints, identity or {}, slices)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write checkpoints to {checkpoints}: {error.strerror}: choose a writable folder"
        ) from error
    with _quiet():
        chosen = _precision(precision, folder, network, plan, slices)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        trainee = Trainee(network, loss, slices, plan)
        trainee.batches(training=True)
        last = folder / LAST
        trainer = L.Trainer(
            accelerator="gpu" if torch.cuda.is_available() else "cpu",
            devices=devices,
            strategy="auto" if _device_count(devices) == 1 else "ddp_spawn",
            precision="bf16-mixed" if chosen == "bf16" else "32-true",
            max_epochs=plan.epochs,
            callbacks=[SaveEveryEpoch(last), ShowProgress(label)],
            deterministic="warn" if torch.cuda.is_available() else None,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            default_root_dir=folder,
        )
        try:
            trainer.fit(trainee, ckpt_path=last if last.is_file() else None, weights_only=True)
        except ProcessRaisedException as error:
            raise TrainingError(f"a training process failed: {str(error).strip().splitlines()[-1]}") from error
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


class SaveEveryEpoch(Checkpoint):
    """Replaces the checkpoint `path` atomically at the end of every epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        partial = self.path.with_suffix(".partial")
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            partial.replace(self.path)
        trainer.strategy.barrier()


class ShowProgress(Callback):
    """Reports steps with the mean loss of the epoch so far and the last validation F1."""

    def __init__(self, label: str) -> None:
        self.label = label
        self._progress: Progress | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            assert trainer.max_epochs is not None
            self._progress = Progress(self.label, trainer.max_epochs * int(trainer.num_training_batches))
            self._progress.__enter__()
            self._progress.advance(trainer.global_step)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if self._progress is not None:
            assert isinstance(pl_module, Trainee)
            self._progress.advance(1, pl_module.describe())

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.__exit__(None, None, None)
            self._progress = None


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
