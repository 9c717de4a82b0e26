"""The reigning model of a name, back from MLflow as a model directory, and the alias when another takes its place."""

import json
import shutil
import time
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
from hounsfield.evaluation import card as cards
from hounsfield.registry import history
from hounsfield.registry.logs import flatten
from hounsfield.registry.policy import CHAMPION
from hounsfield.storage import write_manifest

GATE = "gate"
"""Tag of a version, set when its registration is complete: what became of it."""
ROLLED_BACK = (
    "not promoted: it was rolled back to version {} on {}; promote it by hand if that no longer counts. Compared: {}"
)
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
    client, now = MlflowClient(), int(time.time() * 1000)
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


def log_again(version: ModelVersion, directory: Path, comparison: Comparison, card: str) -> None:
    """Let a later comparison of a registered version take the place of the one before: in its run, and as `card`.

    The champion's comparison with itself says nothing, and changes nothing. A description that somebody edited stays.
    """
    if comparison.champion_version in ("", str(version.version)):
        return
    log_comparison(str(version.run_id), directory, comparison)
    before = mlflow.artifacts.load_text(f"runs:/{version.run_id}/{cards.MODEL_CARD}")
    mlflow.log_text(card, cards.MODEL_CARD, run_id=version.run_id)
    if version.description == cards.description(before):
        MlflowClient().update_model_version(version.name, version.version, cards.description(card))


def settle(name: str, version: int, comparison: Comparison | None, step: str = "") -> None:
    """Move the alias champion to `version` where its comparison says so, and mark the registration as complete.

    A champion that came after the comparison stays, and the gate does not bring back what a rollback left. Without a
    comparison to judge by, a verdict from before stays.

    Args:
        step: what acts, such as a KFP run.
    """
    client = MlflowClient()
    reigning = champion_of(name)
    reigns = reigning is not None and int(reigning.version) == version
    outcome = client.get_model_version(name, str(version)).tags.get(GATE) or ("champion" if reigns else "not compared")
    promote = False
    if comparison is not None and comparison.champion_version != str(version) and reigning is not None and not reigns:
        outcome = f"{'promoted' if comparison.promote else 'not promoted'}: {comparison.reason}"
        if comparison.promote and (left := history.left_by_rollback(name, version)) is not None:
            outcome = ROLLED_BACK.format(left.to, left.time[:10], comparison.reason)
        elif comparison.promote:
            promote = True
            now = history.move(name, version, history.GATE, comparison.reason, comparison.champion_version, step)
            if now != version:
                outcome = TOO_LATE.format(now)
    history.write(client.set_model_version_tag, name, str(version), GATE, outcome)
    # The verdict of another gate may have become untrue by this move, as may this one's by another's: whoever writes
    # last has then seen both.
    for loser, winner in history.overtaken(name, version).items() if promote else ():
        history.write(client.set_model_version_tag, name, loser, GATE, TOO_LATE.format(winner))
