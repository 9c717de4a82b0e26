"""Trains a segmentation network on a slice set of the lung-tumour task."""

from pathlib import Path

from hounsfield.components.train_unet.config import Config

CLASSES = ["background", "tumour"]


def run(config: Config, slices: Path, model: Path, checkpoints: Path | str | None = None) -> None:
    """Train on the slice set `slices` and write the model directory `model`.

    Args:
        checkpoints: folder of the checkpoints from which a killed training resumes; default (and for an empty string)
            `<model>.checkpoints`.

    Raises:
        InputError: the slice set is of another task or size, or has no training slice.
        TrainingError: the loss became NaN or infinite.
    """
    from hounsfield.data.slice_set import SEGMENTATION, SliceSet
    from hounsfield.losses import build_loss
    from hounsfield.training.batches import Sampling
    from hounsfield.training.model import Architecture, train_model
    from hounsfield.training.trainee import Plan

    options = {"base_channels": config.base_channels, "depth": config.depth, "batch_norm": config.batch_norm}
    train_model(
        Architecture(config.architecture, options),
        build_loss(config.loss, config.alpha, config.gamma, config.beta, config.smooth),
        SliceSet(slices),
        SEGMENTATION,
        Plan(
            epochs=config.epochs,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            schedule=config.learning_rate_schedule,
            threshold=config.threshold,
            keep=config.keep,
            seed=config.seed,
            sampling=Sampling(negatives_per_positive=config.negatives_per_positive or None, augment=config.augment),
        ),
        CLASSES,
        config.model_dump(),
        model,
        Path(checkpoints) if checkpoints else None,
        label="train-unet",
        precision=config.precision,
    )
