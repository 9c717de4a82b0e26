"""A registered version by its URI, as a model directory."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from hounsfield.data.model_store import CARD, WEIGHTS
from hounsfield.errors import InputError
from hounsfield.registry.champion import fetch
from hounsfield.registry.tracking import SQLITE, recording, shown

MODELS = "models:/"
_ALIAS = re.compile(r"models:/(?P<name>[^/@]+)@(?P<alias>[^/@]+)")
_VERSION = re.compile(r"models:/(?P<name>[^/@]+)/(?P<version>\d+)")
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


@dataclass(frozen=True)
class Pulled:
    """A model directory with the name and version it has in the registry."""

    directory: Path
    name: str
    version: str


@contextmanager
def pulled(uri: str, tracking_uri: str) -> Iterator[Pulled]:
    """The model of `models:/NAME@ALIAS` or `models:/NAME/VERSION`, weights and card, in a folder that is gone after the
    block.

    `tracking_uri` is that of `hounsfield.registry.tracking.recording`; a database that does not exist is not made.

    Raises:
        InputError: the URI is none, nothing answers at the tracking URI, or there is no such model, alias or version.
        ArtifactError: the version was registered without weights or card.
    """
    place = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"
    if place.startswith(SQLITE) and not Path(place.removeprefix(SQLITE)).is_file():
        raise InputError(f"there is no MLflow database at {place}: give the server's address as --tracking-uri")
    with TemporaryDirectory(prefix="hounsfield-model-") as scratch:
        with recording(tracking_uri) as resolved:
            version = find_version(uri, shown(resolved))
            directory = fetch(version, Path(scratch) / "model", (WEIGHTS, CARD))
        yield Pulled(directory, version.name, str(version.version))


def find_version(uri: str, place: str) -> ModelVersion:
    """The version that a model URI names, at the current tracking URI, which messages call `place`.

    Raises:
        InputError: the URI is none, or there is no such model, alias or version.
    """
    match = _ALIAS.fullmatch(uri) or _VERSION.fullmatch(uri)
    if match is None:
        raise InputError(f"--model {uri}: expected models:/NAME@ALIAS, models:/NAME/VERSION or a model folder")
    client, name = MlflowClient(), match["name"]
    try:
        if "alias" in match.groupdict():
            return client.get_model_version_by_alias(name, match["alias"])
        return client.get_model_version(name, match["version"])
    except MlflowException as error:
        if error.error_code not in _ABSENT:
            raise
    try:
        aliases = ", ".join(sorted(client.get_registered_model(name).aliases)) or "none"
    except MlflowException:
        names = ", ".join(sorted(model.name for model in client.search_registered_models(max_results=20))) or "none"
        raise InputError(f"there is no model {name} at {place}; registered there: {names}: change --model") from None
    raise InputError(f"model {name} at {place} has no such version or alias ({uri}); its aliases: {aliases}")
