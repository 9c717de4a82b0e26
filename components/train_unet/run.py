"""Trains a segmentation network on a slice set of the lung-tumour task."""

from pathlib import Path
from typing import Any

from hounsfield.components.train_unet.config import Config

CLASSES = ["background", "tumour"]
PUBLISHED_CHANNELS = {"unet": 64, "segnet": 64, "enet": 16}


def run(
    config: Config,
    slices: Path,
    model: Path,
    checkpoints: Path | str | None = None,
    tuned: str = "",
    training: str = "",
) -> None:
    """Train on the slice set `slices` and write the model directory `model`.

    Args:
        checkpoints: folder of the checkpoints from which a killed training resumes; default (and for an empty string)
            `<model>.checkpoints`.
        tuned: JSON object of parameters that replace all others, as the step tune returns it; empty for none.
        training: JSON object of parameters that replace those of `config`; empty for none.

    Raises:
        InputError: the slice set is of another task or size, or has no training slice.
        TrainingError: the loss became NaN or infinite, or (OutOfMemory) memory did not suffice.
        Preempted: SIGTERM came; a checkpoint is saved.
    """
    from hounsfield.data.slice_set import SEGMENTATION, SliceSet
    from hounsfield.losses import build_loss
    from hounsfield.step import with_tuned
    from hounsfield.training.batches import Sampling
    from hounsfield.training.model import Architecture, train_model
    from hounsfield.training.trainee import Plan

    config = with_tuned(with_tuned(config, training), tuned)

    options: dict[str, Any] = {"base_channels": config.base_channels or PUBLISHED_CHANNELS[config.architecture]}
    if config.architecture != "enet":
        options["depth"] = config.depth
    if config.architecture == "unet":
        options["batch_norm"] = config.batch_norm
    train_model(
        Architecture(config.architecture, options),
        build_loss(config.loss, config.alpha, config.gamma, config.beta, config.smooth),
        SliceSet(slices, config.fold),
        SEGMENTATION,
        Plan(
            epochs=config.epochs,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            adam_beta2=config.adam_beta2,
            schedule=config.learning_rate_schedule,
            threshold=config.threshold,
            keep=config.keep,
            refit=config.refit,
            validation=config.validation,
            seed=config.seed,
            sampling=Sampling(negatives_per_positive=config.negatives_per_positive or None, augment=config.augment),
        ),
        CLASSES,
        config.model_dump(),
        model,
        checkpoints,
        label="train-unet",
        precision=config.precision,
        prior=config.prior,
    )
