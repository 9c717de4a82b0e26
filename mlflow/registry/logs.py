"""What a run records: parameters, metrics by epoch, the figures and files of the evaluation, and the data set."""

import math
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Metric, Param

import hounsfield
from hounsfield.data import evaluation as evaluations
from hounsfield.data.model_store import CARD, HISTORY, PATIENTS, ModelCard

METRICS_AT_ONCE = 1000
BUILT_FROM = "HOUNSFIELD_COMMIT"
RUN_KEYS = {"epoch", "step"}


def flatten(value: Any, prefix: str = "") -> dict[str, float]:
    """Finite numbers of nested dictionaries, keys joined by `_`; texts, lists, booleans and nulls are left out."""
    if isinstance(value, dict):
        parts = [flatten(item, f"{prefix}{key}_") for key, item in value.items()]
        return {key: number for part in parts for key, number in part.items()}
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return {}
    return {metric_key(prefix.removesuffix("_")): float(value)}


def metric_key(key: str) -> str:
    """`key` with only the characters that MLflow admits."""
    return re.sub(r"[^\w\-. /]", "_", key)


def log_training(run_id: str, card: ModelCard, history: list[dict[str, float]]) -> None:
    """Parameters (those the run has not yet), the metrics of every epoch, and the data set."""
    client = MlflowClient()
    run = client.get_run(run_id)
    # Of the run's start, so that what is logged again after a break is the same metric and not another.
    now = run.info.start_time
    names = ("architecture", "image_size", "precision", "best_epoch", "training_patients", "parameter_count")
    parameters = card.parameters | {name: getattr(card, name) for name in names}
    parameters |= {f"window_{name}": value for name, value in card.window.items()}
    new = [Param(name, str(value)) for name, value in parameters.items() if name not in run.data.params]
    metrics = [
        Metric(metric_key(name), float(value), now, int(row.get("epoch", step)))
        for step, row in enumerate(history)
        for name, value in row.items()
        if name not in RUN_KEYS and isinstance(value, int | float)
    ]
    client.log_batch(run_id, params=new)
    for start in range(0, len(metrics), METRICS_AT_ONCE):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS_AT_ONCE])
    source = CodeDatasetSource({"dataset_hash": card.dataset_hash, "slice_set_hash": card.slice_set_hash})
    name, digest = f"{card.task} slices", card.slice_set_hash[:16]
    mlflow.log_input(MetaDataset(source, name, digest), "training")  # type: ignore[abstract]


def log_files(run_id: str, model: Path, evaluation: Path) -> None:
    """Report, figures, tables and metrics of the evaluation, and card, history and patients of the model."""
    client = MlflowClient()
    for name in (evaluations.REPORT, evaluations.METRICS, evaluations.CURVE, evaluations.PATIENTS):
        if (evaluation / name).is_file():
            client.log_artifact(run_id, str(evaluation / name), "evaluation")
    for figure in sorted((evaluation / evaluations.FIGURES).glob("*.png")):
        client.log_artifact(run_id, str(figure), f"evaluation/{evaluations.FIGURES}")
    for name in (CARD, HISTORY, PATIENTS):
        client.log_artifact(run_id, str(model / name), "training")


def log_figures(run_id: str, model_id: str, figures: dict[str, float]) -> None:
    """The figures of the evaluation, for the run and for the logged model."""
    now = MlflowClient().get_run(run_id).info.start_time
    metrics = [Metric(name, value, now, 0, model_id=model_id, run_id=run_id) for name, value in figures.items()]
    for start in range(0, len(metrics), METRICS_AT_ONCE):
        MlflowClient().log_batch(run_id, metrics=metrics[start : start + METRICS_AT_ONCE])


def git_commit() -> str:
    """HOUNSFIELD_COMMIT, which images have from their build, else the commit of the checkout that this code runs from.

    Empty when it is installed elsewhere or git is absent.
    """
    if said := os.environ.get(BUILT_FROM):
        return said
    root = Path(hounsfield.__file__).parent
    try:
        for command in (["ls-files", "--error-unmatch", "__init__.py"], ["rev-parse", "HEAD"]):
            answer = subprocess.run(["git", "-C", str(root), *command], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return answer.stdout.strip()
