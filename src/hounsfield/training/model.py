"""From a slice set to a model directory: what the training steps of both tasks share."""

import copy
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hounsfield import __version__, models
from hounsfield.data.model_store import ModelCard, write_model
from hounsfield.data.slice_set import SliceSet
from hounsfield.errors import InputError
from hounsfield.losses import BatchLoss
from hounsfield.models.resnet import ResNet
from hounsfield.storage import atomic_directory, check_replaceable
from hounsfield.surroundings import CHECKPOINTS
from hounsfield.training.checkpoints import Checkpoints
from hounsfield.training.failures import memory_errors
from hounsfield.training.fit import PrecisionChoice, train
from hounsfield.training.initial_weights import load_initial_weights
from hounsfield.training.trainee import Plan, rows_of


@dataclass(frozen=True)
class Architecture:
    """A network of `hounsfield.models` by name, with the keyword arguments of its builder."""

    name: str
    options: dict[str, Any]


def train_model(
    architecture: Architecture,
    loss: BatchLoss,
    slices: SliceSet,
    task: str,
    plan: Plan,
    classes: list[str],
    parameters: dict[str, Any],
    model: Path,
    checkpoints: Path | str | None,
    label: str,
    precision: PrecisionChoice,
    initial_weights: str = "",
    prior: float = 0.0,
) -> None:
    """Train a fresh network and write it, with its card, as the model directory `model`.

    `parameters` is the configuration of the step: it goes into the card and decides whether checkpoints fit. Without
    `checkpoints` they go to HOUNSFIELD_CHECKPOINTS, else beside the model. Of several processes the first writes. With
    `initial_weights`, a file or URI, the network begins with those; with `prior`, at that foreground probability.

    Raises:
        InputError: a slice set of another task, without training slices or of a size that the network cannot take.
        TrainingError: the loss became NaN or infinite, or (OutOfMemory) memory did not suffice.
        Preempted: SIGTERM came; a checkpoint is saved.
    """
    if slices.task != task:
        raise InputError(f"{slices.directory} is a slice set for {slices.task}, expected one for {task}")
    training, choosing = rows_of(slices, plan)
    if not training:
        raise InputError(f"{slices.directory} has no training slice: use more patients or smaller val and test shares")
    check_replaceable(model)
    torch.manual_seed(plan.seed)
    checkpoints = checkpoints or os.environ.get(CHECKPOINTS) or model.with_name(f"{model.name}.checkpoints")
    with memory_errors(plan.batch_size, slices.shape):
        network = models.build(architecture.name, **architecture.options)
        check_size(network, slices.shape)
        if initial_weights:
            if not isinstance(network, ResNet):
                raise InputError(f"initial weights are for residual networks: {architecture.name} is none, give none")
            taken = load_initial_weights(network, initial_weights)
            print(f"initial weights: {taken} tensors of {initial_weights}", flush=True)
        if prior:
            models.set_prior(network, prior)
        outcome = train(network, loss, slices, plan, checkpoints, label, precision, parameters)
    if outcome is None:
        return
    with atomic_directory(model) as directory:
        card = ModelCard(
            task=task,
            architecture=architecture.name,
            architecture_options=architecture.options,
            parameters=parameters,
            window=slices.window.to_dict(),
            image_size=list(slices.shape),
            classes=classes,
            threshold=plan.threshold,
            dataset_hash=slices.dataset_hash,
            slice_set_hash=str(slices.manifest["hash"]),
            training_patients=len({slices.index[row].patient for row in training}),
            parameter_count=models.parameter_count(network),
            precision=outcome.precision,
            best_epoch=outcome.best_epoch,
            metrics=outcome.metrics,
            code_version=__version__,
        )
        seen = {"trained_on": training, "chosen_by": choosing}
        patients = {name: sorted({slices.index[row].patient for row in rows}) for name, rows in seen.items()}
        write_model(directory, card, outcome.state, outcome.history, patients)
    Checkpoints.of(checkpoints, parameters, slices).discard()
    for name, value in sorted(outcome.metrics.items()):
        print(f"{name}={value:.4f}")
    print(f"kept epoch {outcome.best_epoch} of {plan.epochs}, {outcome.precision}; model: {model}", flush=True)


def check_size(network: nn.Module, shape: tuple[int, int]) -> None:
    """Send a shape (rows, columns) without pixels through the network, so that a size it cannot take fails at once.

    Raises:
        InputError: the network's own sentence about the size.
    """
    copy.deepcopy(network).to("meta").eval()(torch.empty(1, 1, *shape, device="meta"))
