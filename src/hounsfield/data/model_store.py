"""A trained model on disk: `weights.safetensors`, `card.json` and the manifest. Nothing is ever unpickled.

manifest.json         kind, version, task
weights.safetensors   state of the network, float32
card.json             `ModelCard`
history.json          one object per epoch: epoch and its metrics
patients.json         keys of the patients that the training saw: `trained_on`, and `chosen_by` for the kept epoch
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from hounsfield.errors import ArtifactError
from hounsfield.storage import read_manifest, write_json, write_manifest

KIND = "model"
VERSION = 1
WEIGHTS = "weights.safetensors"
CARD = "card.json"
HISTORY = "history.json"
PATIENTS = "patients.json"


class ModelCard(BaseModel):
    """What is needed to rebuild the network and to know where it came from."""

    model_config = ConfigDict(extra="forbid")

    task: str
    architecture: str
    architecture_options: dict[str, Any]
    """Keyword arguments of `hounsfield.models.build`."""
    parameters: dict[str, Any]
    """The training step's configuration, with the tuned parameters in place."""
    window: dict[str, Any]
    """`hounsfield.windowing.Window`: the preprocessing contract."""
    image_size: list[int]
    """Rows and columns of the training images."""
    classes: list[str]
    threshold: float
    dataset_hash: str
    slice_set_hash: str
    training_patients: int
    parameter_count: int
    precision: str
    best_epoch: int
    metrics: dict[str, float]
    """Of the kept epoch: `train_*`, and `val_*` on the patients of the split that chose it, if there was one."""
    code_version: str


def write_model(
    directory: Path,
    card: ModelCard,
    state: dict[str, Any],
    history: list[dict[str, float]],
    patients: dict[str, list[str]] | None = None,
) -> None:
    """Write weights (torch state dict), card, history, patients and, last, the manifest into an existing directory."""
    from safetensors.torch import save

    (directory / WEIGHTS).write_bytes(save({name: value.contiguous() for name, value in state.items()}))
    write_json(directory / CARD, card.model_dump())
    write_json(directory / HISTORY, history)
    write_json(directory / PATIENTS, patients or {"trained_on": [], "chosen_by": []})
    write_manifest(directory, KIND, VERSION, task=card.task)


def read_card(directory: Path) -> ModelCard:
    """The card of a model directory.

    Raises:
        ArtifactError: the directory holds no complete model.
    """
    read_manifest(Path(directory), KIND, VERSION)
    try:
        return ModelCard.model_validate_json((Path(directory) / CARD).read_text())
    except (OSError, ValidationError) as error:
        raise ArtifactError(f"{directory}/{CARD} cannot be read: {error}: train again") from error


def read_history(directory: Path) -> list[dict[str, float]]:
    """Metrics by epoch."""
    history: list[dict[str, float]] = json.loads((Path(directory) / HISTORY).read_text())
    return history


def read_patients(directory: Path) -> set[str]:
    """Keys of all patients that the training saw.

    Raises:
        ArtifactError: the model does not say.
    """
    try:
        seen: dict[str, list[str]] = json.loads((Path(directory) / PATIENTS).read_text())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{directory}/{PATIENTS} cannot be read ({error}): train again") from error
    return {key for keys in seen.values() for key in keys}
