"""A trained model and its evaluation to an MLflow run and a registered model version."""

import os
from pathlib import Path
from typing import Any

from hounsfield.components.register_model.config import Config
from hounsfield.data import evaluation as evaluations
from hounsfield.data.comparison import read_comparison
from hounsfield.data.model_store import WEIGHTS, read_card, read_history
from hounsfield.errors import InputError
from hounsfield.storage import read_manifest, sha256_bytes, write_json


def run(
    config: Config, model: Path, evaluation: Path, result: Path | None = None, comparison: Path | None = None
) -> dict[str, Any]:
    """Log `model` and `evaluation` to MLflow, register the model and, as its `comparison` says, make it champion.

    Weights that are registered already are not registered again, unless an injected run waits for them. A registration
    that was broken off goes on in the run that it left open.

    Returns:
        `model_uri` (models:/NAME/VERSION), `name`, `version`, `aliases`, `run_id` and `tracking_uri`; also written to
        `result` as JSON when given.

    Raises:
        ArtifactError: `model`, `evaluation` or `comparison` is not complete.
        InputError: the evaluation or comparison is of another model or task, or MLflow cannot be reached or refuses.
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

    compared = read_comparison(comparison) if comparison is not None else None
    if compared is not None and compared.model_hash != weights_hash:
        raise InputError(f"{comparison} compares another model than {model}: compare this one")

    import mlflow

    from hounsfield.evaluation import card as cards
    from hounsfield.registry import champion, logs, packaging, policy, tracking

    commit, tested_on = logs.git_commit(), str(manifest.get("dataset_hash", ""))
    summary = measured.get("summary", {})
    apart = ("model", "window", "summary")
    detailed = {key: value for key, value in measured.items() if key not in apart}
    figures = logs.flatten(summary | detailed, f"{measured.get('split') or 'test'}_")
    headline = {key: f"{value:.4g}" for key, value in logs.flatten(summary).items()}
    name = config.model_name or card.task
    origin = {
        "dataset_hash": card.dataset_hash,
        "slice_set_hash": card.slice_set_hash,
        "code_version": card.code_version,
        "task": card.task,
        policy.MODEL_HASH: weights_hash,
    }
    tags = origin | {"evaluation_dataset_hash": tested_on}
    if kfp_run := config.kfp_run_id or os.environ.get("KFP_RUN_ID", ""):
        tags["kfp_run_id"] = kfp_run
    step = f"KFP run {kfp_run}" if kfp_run else ""
    if commit:
        tags["git_commit"] = origin["git_commit"] = commit
    with tracking.recording(config.tracking_uri) as uri:
        version = policy.find(name, weights_hash, os.environ.get("MLFLOW_RUN_ID", ""))
        known = version is not None
        commit = version.tags.get("git_commit", "") if version is not None else commit
        described = cards.markdown(card, measured, evaluation, commit, compared)
        if version is None:
            left_open = f"tags.{policy.MODEL_HASH} = '{weights_hash}' and attributes.status = 'RUNNING'"
            title = f"{name} {card.architecture}"
            with tracking.open_run(config.experiment, name, uri, title, tags, left_open) as run_id:
                logs.log_training(run_id, card, history)
                logs.log_files(run_id, model, evaluation)
                mlflow.log_text(described, cards.MODEL_CARD, run_id=run_id)
                model_id = packaging.log_model(model, card, run_id, {policy.MODEL_HASH: weights_hash})
                logs.log_figures(run_id, model_id, figures)
                if comparison is not None and compared is not None:
                    champion.log_comparison(run_id, comparison, compared)
                version = policy.register(
                    name, f"models:/{model_id}", model_id, run_id, origin | headline, cards.description(described)
                )
        elif comparison is not None and compared is not None:
            champion.log_again(version, comparison, compared, described)
        policy.assign_aliases(name, int(version.version), step)
        champion.settle(name, int(version.version), compared, step)
        aliases = policy.aliases_of(name, int(version.version))
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
