"""The reigning model of a name, back from MLflow as a model directory, and whether another takes its place."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from hounsfield.data.comparison import COMPARISON, Comparison
from hounsfield.data.model_store import CARD, HISTORY, PATIENTS, WEIGHTS, ModelCard
from hounsfield.data.model_store import KIND as MODEL
from hounsfield.data.model_store import VERSION as MODEL_VERSION
from hounsfield.errors import ArtifactError
from hounsfield.registry.logs import flatten
from hounsfield.registry.policy import CHAMPION
from hounsfield.storage import write_manifest

GATE = "gate"
"""Tag of a version, set when its registration is complete: what became of it."""
HEADLINE = {"lung-tumour": "average_precision", "l3-slice": "f1"}
"""The figure of the evaluation's summary by which models of a task are compared; higher is better."""


@dataclass(frozen=True)
class Verdict:
    """Whether the challenger becomes the champion, by which figure, and why; `difference` is None without a champion
    or where a figure is undefined."""

    promote: bool
    metric: str
    difference: float | None
    reason: str


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


def fetch(version: ModelVersion, folder: Path) -> Path:
    """Weights, card, history and patients of a registered version as the model directory `folder`.

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
        for name in (WEIGHTS, CARD, HISTORY, PATIENTS):
            found = next((path for place in places for path in place.rglob(name)), None)
            if found is None:
                raise ArtifactError(
                    f"version {version.version} of {version.name} was registered without {name}: "
                    "train and register it again, or move the alias champion"
                )
            shutil.copyfile(found, folder / name)
    write_manifest(folder, MODEL, MODEL_VERSION, task=json.loads((folder / CARD).read_text())["task"])
    return folder


def verdict(task: str, challenger: dict[str, Any], champion: dict[str, Any] | None) -> Verdict:
    """Whether a model whose evaluation has the summary `challenger` takes the place of one with `champion`.

    It does when the task's headline figure, on the same patients, is not worse. Without a champion there is no place to
    take: the first version of a name becomes champion by `hounsfield.registry.policy.assign_aliases`.
    """
    metric = HEADLINE[task]
    if champion is None:
        return Verdict(False, metric, None, "there is no champion to compare with")
    new, old = challenger.get(metric), champion.get(metric)
    if new is None:
        return Verdict(False, metric, None, f"its {metric} is undefined on these patients")
    if old is None:
        return Verdict(True, metric, None, f"the {metric} of the champion is undefined on these patients")
    how = "not worse than" if new >= old else "worse than"
    return Verdict(new >= old, metric, new - old, f"{metric} {new:.4f} is {how} {old:.4f}")


def log_comparison(run_id: str, directory: Path, comparison: Comparison) -> None:
    """Figures of the champion, the difference and the verdict."""
    client = MlflowClient()
    now = client.get_run(run_id).info.start_time
    figures = flatten(comparison.champion, "champion_")
    if comparison.difference is not None:
        figures[f"difference_{comparison.metric}"] = comparison.difference
    client.log_batch(
        run_id,
        metrics=[Metric(key, value, now, 0) for key, value in figures.items()],
        tags=[RunTag("compared_with", comparison.champion_version), RunTag("verdict", comparison.reason)],
    )
    client.log_artifact(run_id, str(directory / COMPARISON), "comparison")


def settle(name: str, version: int, comparison: Comparison | None) -> None:
    """Move the alias champion to `version` where its comparison says so, and mark the registration as complete.

    A champion that came after the comparison stays.
    """
    client, outcome = MlflowClient(), "not compared"
    reigning = champion_of(name)
    if comparison is not None and reigning is not None and int(reigning.version) != version:
        outcome = f"{'promoted' if comparison.promote else 'not promoted'}: {comparison.reason}"
        if comparison.promote and str(reigning.version) != comparison.champion_version:
            outcome = f"not promoted: version {reigning.version} became champion after the comparison"
        elif comparison.promote:
            client.set_registered_model_alias(name, CHAMPION, str(version))
    elif reigning is not None and int(reigning.version) == version:
        outcome = "champion"
    client.set_model_version_tag(name, str(version), GATE, outcome)
