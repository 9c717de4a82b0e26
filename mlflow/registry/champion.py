"""The reigning model of a name, back from MLflow as a model directory, and the alias when another takes its place."""

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from hounsfield.data.comparison import COMPARISON, PAGE, Comparison
from hounsfield.data.model_store import CARD, HISTORY, PATIENTS, WEIGHTS, ModelCard
from hounsfield.data.model_store import KIND as MODEL
from hounsfield.data.model_store import VERSION as MODEL_VERSION
from hounsfield.errors import ArtifactError
from hounsfield.registry import history
from hounsfield.registry.logs import flatten
from hounsfield.registry.policy import CHAMPION
from hounsfield.storage import write_manifest

GATE = "gate"
"""Tag of a version, set when its registration is complete: what became of it."""
TOO_LATE = "not promoted: version {} became champion after the comparison"


def champion_of(name: str) -> ModelVersion | None:
    """The champion of the registered model `name`, if there is one."""
    try:
        return MlflowClient().get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def trained_on(name: str, dataset_hash: str) -> ModelVersion | None:
    """The newest completely registered version of `name` that was trained on this dataset, if there is one."""
    found = MlflowClient().search_model_versions(f"name='{name}' and tags.`dataset_hash`='{dataset_hash}'")
    return max((item for item in found if GATE in item.tags), key=lambda item: int(item.version), default=None)


def card_of(version: ModelVersion) -> ModelCard:
    """The card of a registered version."""
    return ModelCard.model_validate_json(mlflow.artifacts.load_text(f"runs:/{version.run_id}/training/{CARD}"))


def fetch(version: ModelVersion, folder: Path, names: tuple[str, ...] = (WEIGHTS, CARD, HISTORY, PATIENTS)) -> Path:
    """The files `names` of a registered version, weights and card among them, as the model directory `folder`.

    Raises:
        ArtifactError: the version was registered without one of them.
    """
    folder.mkdir(parents=True)
    with TemporaryDirectory(prefix="hounsfield-champion-") as scratch:
        places = [
            Path(mlflow.artifacts.download_artifacts(uri, dst_path=f"{scratch}/{number}"))
            for number, uri in enumerate(
                (f"models:/{version.name}/{version.version}", f"runs:/{version.run_id}/training")
            )
        ]
        for name in names:
            found = next((path for place in places for path in place.rglob(name)), None)
            if found is None:
                raise ArtifactError(
                    f"version {version.version} of {version.name} was registered without {name}: "
                    "train and register it again, or move the alias champion"
                )
            shutil.copyfile(found, folder / name)
    write_manifest(folder, MODEL, MODEL_VERSION, task=json.loads((folder / CARD).read_text())["task"])
    return folder


def log_comparison(run_id: str, directory: Path, comparison: Comparison) -> None:
    """Figures of the champion, the differences with the ends of their 95 % intervals, the verdict and its page."""
    client = MlflowClient()
    now = client.get_run(run_id).info.start_time
    figures = flatten(comparison.champion, "champion_")
    for name, found in comparison.figures.items():
        ends = {"": found["difference"], "_low": found["low"], "_high": found["high"]}
        figures |= {f"difference_{name}{end}": value for end, value in ends.items() if value is not None}
    client.log_batch(
        run_id,
        metrics=[Metric(key, value, now, 0) for key, value in figures.items()],
        tags=[RunTag("compared_with", comparison.champion_version), RunTag("verdict", comparison.reason)],
    )
    for name in (COMPARISON, PAGE):
        if (directory / name).exists():
            client.log_artifact(run_id, str(directory / name), "comparison")


def settle(name: str, version: int, comparison: Comparison | None) -> None:
    """Move the alias champion to `version` where its comparison says so, and mark the registration as complete.

    A champion that came after the comparison stays.
    """
    client, outcome = MlflowClient(), "not compared"
    reigning = champion_of(name)
    promote = False
    if comparison is not None and reigning is not None and int(reigning.version) != version:
        promote = comparison.promote
        outcome = f"{'promoted' if promote else 'not promoted'}: {comparison.reason}"
        compared_with = comparison.champion_version
        if promote and (now := history.move(name, version, history.GATE, comparison.reason, compared_with)) != version:
            outcome = TOO_LATE.format(now)
    elif reigning is not None and int(reigning.version) == version:
        outcome = "champion"
    history.write(client.set_model_version_tag, name, str(version), GATE, outcome)
    # The verdict of another gate may have become untrue by this move, as may this one's by another's: whoever writes
    # last has then seen both.
    for loser, winner in history.overtaken(name, version).items() if promote else ():
        history.write(client.set_model_version_tag, name, loser, GATE, TOO_LATE.format(winner))
