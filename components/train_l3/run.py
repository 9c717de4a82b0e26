"""Trains a classifier of axial slices (L3 or not) on a slice set of the l3-slice task."""

from pathlib import Path

from hounsfield.components.train_l3.config import Config

CLASSES = ["other", "L3"]


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
        InputError: the slice set is of another task, or has no training slice.
        TrainingError: the loss became NaN or infinite, or (OutOfMemory) memory did not suffice.
        Preempted: SIGTERM came; a checkpoint is saved.
    """
    from hounsfield.data.slice_set import DETECTION, SliceSet
    from hounsfield.losses import WeightedCrossEntropy
    from hounsfield.step import with_tuned
    from hounsfield.training.batches import Sampling
    from hounsfield.training.model import Architecture, train_model
    from hounsfield.training.trainee import Plan

    config = with_tuned(with_tuned(config, training), tuned)

    train_model(
        Architecture(config.architecture, {"base_channels": config.base_channels}),
        WeightedCrossEntropy(config.class_weight),
        SliceSet(slices, config.fold),
        DETECTION,
        Plan(
            epochs=config.epochs,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            schedule=config.learning_rate_schedule,
            weight_decay=config.l2,
            gradient_threshold=config.gradient_threshold,
            clipping=config.gradient_threshold_method,
            threshold=config.threshold,
            keep=config.keep,
            refit=config.refit,
            validation=config.validation,
            seed=config.seed,
            sampling=Sampling(oversampling=config.oversampling_rate, augment=config.augment),
        ),
        CLASSES,
        config.model_dump(),
        model,
        checkpoints,
        label="train-l3",
        precision=config.precision,
        initial_weights=config.initial_weights,
    )
