"""A trained model and its evaluation to an MLflow run and a registered model version."""

import os
from pathlib import Path
from typing import Any

from hounsfield.components.register_model.config import Config
from hounsfield.data import evaluation as evaluations
from hounsfield.data.model_store import WEIGHTS, read_card, read_history
from hounsfield.errors import InputError
from hounsfield.storage import read_manifest, sha256_bytes, write_json


def run(config: Config, model: Path, evaluation: Path, result: Path | None = None) -> dict[str, Any]:
    """Log `model` and `evaluation` to MLflow and register the model.

    Weights that are registered already are not registered again, unless an injected run waits for them.

    Returns:
        `model_uri` (models:/NAME/VERSION), `name`, `version`, `aliases`, `run_id` and `tracking_uri`; also written to
        `result` as JSON when given.

    Raises:
        ArtifactError: `model` or `evaluation` is not complete.
        InputError: the evaluation is of another model or task, or MLflow cannot be reached or refuses.
    """
    model, evaluation = Path(model), Path(evaluation)
    card, history = read_card(model), read_history(model)
    measured = evaluations.read_metrics(evaluation)
    manifest = read_manifest(evaluation)
    if measured.get("task", card.task) != card.task:
        raise InputError(f"{evaluation} evaluates {measured['task']}, but {model} is a {card.task} model")
    weights_hash = sha256_bytes((model / WEIGHTS).read_bytes())
    if manifest.get("model_hash", weights_hash) != weights_hash:
        raise InputError(f"{evaluation} evaluates another model than {model}: evaluate this one")

    from hounsfield.registry import logs, packaging, policy, tracking

    summary = measured.pop("summary", {})
    settings = ("model", "window")
    detailed = {key: value for key, value in measured.items() if key not in settings}
    figures = logs.flatten(summary | detailed, f"{measured.get('split') or 'test'}_")
    headline = {key: f"{value:.4g}" for key, value in logs.flatten(summary).items()}
    name = config.model_name or card.task
    experiment = config.experiment or ("" if os.environ.get("MLFLOW_EXPERIMENT_ID") else name)
    origin = {
        "dataset_hash": card.dataset_hash,
        "slice_set_hash": card.slice_set_hash,
        "code_version": card.code_version,
        "task": card.task,
        policy.MODEL_HASH: weights_hash,
    }
    tags = origin | {"evaluation_dataset_hash": str(manifest.get("dataset_hash", ""))}
    if kfp_run := config.kfp_run_id or os.environ.get("KFP_RUN_ID"):
        tags["kfp_run_id"] = kfp_run
    if commit := logs.git_commit():
        tags["git_commit"] = commit
    with tracking.recording(config.tracking_uri) as uri:
        version = None if os.environ.get("MLFLOW_RUN_ID") else policy.find(name, weights_hash)
        known = version is not None
        if version is None:
            with tracking.open_run(experiment, uri, f"{name} {card.architecture}", tags) as run_id:
                logs.log_training(run_id, card, history)
                logs.log_files(run_id, model, evaluation)
                info = packaging.log_model(model, card)
                logs.log_figures(run_id, info.model_id, figures)
                version = policy.register(
                    name, info.model_uri, info.model_id, run_id, origin | headline, packaging.describe(card, headline)
                )
        aliases = policy.assign_aliases(name, int(version.version))
    outcome = {
        "model_uri": f"models:/{name}/{version.version}",
        "name": name,
        "version": int(version.version),
        "aliases": aliases,
        "run_id": version.run_id,
        "tracking_uri": uri,
    }
    if result is not None:
        write_json(Path(result), outcome)
    done = "already registered:" if known else "registered"
    print(f"{done} {name} version {version.version} ({', '.join(aliases)}): {outcome['model_uri']}")
    print(f"MLflow run {version.run_id} at {tracking.shown(uri)}", flush=True)
    return outcome
