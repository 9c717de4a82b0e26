"""A search in MLflow: one parent run with report and figures, one nested run per trial and per repeat of the winner."""

import json
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from hounsfield.registry import tracking
from hounsfield.registry.logs import metric_key
from hounsfield.search.result import BEST, FIGURES, REPORT, TRIALS, Result
from hounsfield.search.space import Parameters
from hounsfield.search.study import FAILED, Trial

STUDY, TRIAL = "hounsfield.search", "hounsfield.trial"
"""Tags: identity of the study, on the parent run; identity and name of the trial, on a nested one."""


def log_search(result: Result, tuning: Path, identity: str, experiment: str, tracking_uri: str) -> str:
    """Log a finished search; trials of it that are logged already are not logged again. Returns the parent run's id.

    Raises:
        InputError: MLflow cannot be reached or refuses.
    """
    task = result.space.task
    with (
        tracking.recording(tracking_uri) as uri,
        tracking.open_run(
            experiment, task, uri, f"{task} search", {STUDY: identity}, f"tags.`{STUDY}` = '{identity}'"
        ) as parent,
    ):
        client = MlflowClient()
        run = client.get_run(parent)
        nested = client.search_runs(
            [run.info.experiment_id], f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}'", max_results=10_000
        )
        logged = {child.data.tags.get(TRIAL, "") for child in nested}
        best = result.best
        named: list[tuple[str, Trial, Parameters]] = [(f"trial {trial.number}", trial, {}) for trial in result.trials]
        if best is not None and len(result.repeats) > 1:
            named += [
                (f"trial {best.number}, seed {again.parameters['seed']}", again, best.parameters)
                for again in result.repeats
            ]
        for name, trial, others in named:
            if f"{identity} {name}" not in logged:
                tags = {MLFLOW_PARENT_RUN_ID: parent, TRIAL: f"{identity} {name}", "state": trial.state}
                _log_trial(client, run.info.experiment_id, name, trial, others, tags)
        _log_parent(client, parent, result, tuning)
    return parent


def _log_trial(
    client: MlflowClient, experiment: str, name: str, trial: Trial, others: Parameters, tags: dict[str, str]
) -> None:
    """A nested run: parameters, metrics, state and cause, with the trial's own start and end."""
    start = int(trial.started * 1000)
    end = start + int(trial.seconds * 1000)
    if trial.cause:
        tags["cause"] = trial.cause
    if trial.same_as >= 0:
        tags["same_as"] = f"trial {trial.same_as}"
    run = client.create_run(experiment, start_time=start, tags=tags, run_name=name)
    values = trial.metrics | ({} if trial.score is None else {"objective": trial.score})
    client.log_batch(
        run.info.run_id,
        metrics=[Metric(metric_key(key), value, end, 0) for key, value in values.items()],
        params=[Param(key, str(value)) for key, value in (others | trial.parameters).items()],
    )
    client.set_terminated(run.info.run_id, "FAILED" if trial.state == FAILED else "FINISHED", end)


def _log_parent(client: MlflowClient, parent: str, result: Result, tuning: Path) -> None:
    """What was searched, the best so far as metrics and tags, and the report, tables and figures."""
    known = client.get_run(parent).data.params
    described = {
        "search_space": result.space.name,
        "search_strategy": result.strategy,
        "search_objective": result.objective.name,
        "search_seed": str(result.seed),
        "search_optimistic": str(result.optimistic),
    }
    spread = result.spread
    figures = {
        "search_trials": float(len(result.trials)),
        "search_failed": float(sum(trial.state == FAILED for trial in result.trials)),
        "search_best": result.best.score if result.best else None,
        "search_best_mean": spread.mean,
        "search_best_sd": spread.sd,
    }
    now = max(int((trial.started + trial.seconds) * 1000) for trial in result.trials)
    client.log_batch(
        parent,
        metrics=[Metric(name, value, now, len(result.trials)) for name, value in figures.items() if value is not None],
        params=[Param(name, value) for name, value in described.items() if name not in known],
        tags=[RunTag("search_parameters", json.dumps(result.parameters, sort_keys=True))],
    )
    for name in (REPORT, BEST, TRIALS):
        client.log_artifact(parent, str(tuning / name), "search")
    client.log_artifacts(parent, str(tuning / FIGURES), f"search/{FIGURES}")
