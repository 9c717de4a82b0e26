"""Decides whether a model has to be trained again, with which parameters, and hands out the data to train it on."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from hounsfield.components.plan_retraining.config import Config
from hounsfield.data.dataset import Dataset
from hounsfield.data.series_store import SeriesStoreWriter
from hounsfield.dicom.montage import write_page
from hounsfield.errors import InputError
from hounsfield.step import StepConfig, parse
from hounsfield.storage import atomic_directory

RETRAIN, CURRENT = "retrain", "current"
OF_ONE_RUN: dict[str, Any] = {"fold": -1, "run_name": "", "validation": "val"}
"""Parameters of a champion that belong to an experiment, not to the next training."""


class Plan(NamedTuple):
    """`retrain` or `current`, and the JSON object of the training's parameters.

    `Output` is called so because KFP's local runner finds an operand of a condition under no other name.
    """

    Output: str
    training: str


def run(config: Config, dataset: str, version: str, training: str, store: Path) -> Plan:
    """Compare a version of `dataset` with the registered models, and write it as the series store `store` if none of
    them was trained on it.

    Args:
        training: JSON object of parameters that replace those of the champion or, without one, the step's defaults.

    Raises:
        ArtifactError: there is no such version, or its voxels are missing.
        InputError: MLflow cannot be reached or refuses, or a parameter that the training does not have or allow.
    """
    from hounsfield.registry import champion, tracking

    source = Dataset(dataset)
    tables = source.tables(int(version))
    name = config.model_name or config.task
    given = _object(training)
    with tracking.recording(config.tracking_uri):
        current = champion.trained_on(name, tables.dataset_hash)
        reigning = champion.champion_of(name)
        inherited = champion.card_of(reigning).parameters if reigning and not current else {}
    if current is not None:
        print(
            f"nothing to do: version {current.version} of {name} was trained on version {version} of the dataset, "
            f"{tables.manifest['series']} series with the hash {tables.dataset_hash[:12]}",
            flush=True,
        )
        return Plan(CURRENT, "{}")
    step = _training_step(config.task)
    usable = {key: value for key, value in inherited.items() if key in step.model_fields}
    parameters = parse(step, usable | OF_ONE_RUN | given)
    with atomic_directory(store) as directory:
        writer = SeriesStoreWriter(directory)
        writer.take_rows(tables, {row.key for row in tables.series})
        writer.rejected += tables.rejected
        source.take_volumes(int(version), writer)
        write_page(writer)
        writer.finish(**{key: tables.manifest[key] for key in ("config", "key")})
    by = f"the parameters of champion {name} version {reigning.version}" if reigning else "the given parameters"
    print(f"to train on {len(writer.series)} series of version {version}, with {by}; store: {store}", flush=True)
    return Plan(RETRAIN, json.dumps(parameters.model_dump(), sort_keys=True))


def _training_step(task: str) -> type[StepConfig]:
    from hounsfield.components.train_l3.config import Config as ResNet
    from hounsfield.components.train_unet.config import Config as UNet

    return UNet if task == "lung-tumour" else ResNet


def _object(training: str) -> dict[str, Any]:
    try:
        values = json.loads(training.strip() or "{}")
    except ValueError as error:
        raise InputError(f"--training: expected a JSON object, came {training!r}: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f'--training: expected a JSON object such as {{"epochs": 10}}, came {training!r}')
    return values
