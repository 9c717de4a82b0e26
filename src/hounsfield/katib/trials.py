"""Trials of a finished or running Experiment as rows of a search, with the cause of every failure."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from hounsfield.errors import InputError, TrainingError
from hounsfield.katib.client import brief, conditions, holds
from hounsfield.katib.experiment import CONTAINER, KILLED
from hounsfield.search.objective import Objective
from hounsfield.search.space import Parameters
from hounsfield.search.study import COMPLETE, FAILED, RUNNING, Trial
from hounsfield.step import EXIT_BAD_INPUT, EXIT_OUT_OF_MEMORY, EXIT_TRAINING_FAILED

TRIAL_LABEL = "katib.kubeflow.org/trial"
"""Label that Katib's webhook puts on the pods whose metrics it collects."""
JOB_LABEL = "batch.kubernetes.io/job-name"
ENDED = ("Succeeded", "Failed", "Killed", "EarlyStopped", "MetricsUnavailable")
MEANING = {
    EXIT_BAD_INPUT: "bad input: its data or an argument cannot be used",
    EXIT_TRAINING_FAILED: "the training failed: its loss became NaN or infinite",
    EXIT_OUT_OF_MEMORY: "out of memory: lower the batch size or the image size",
    KILLED: "killed for want of memory: raise the memory of the pool",
}
Decode = Callable[[dict[str, str]], Parameters]
"""From the texts that Katib assigned to the parameters of the trial."""


def rows(trials: Sequence[Any], pods: Sequence[Any], objective: Objective, decode: Decode) -> list[Trial]:
    """A row per Trial of Katib, in its order; those that have not ended are `running`."""
    return [row(number, trial, pods, objective, decode) for number, trial in enumerate(trials)]


def row(number: int, trial: Any, pods: Sequence[Any], objective: Objective, decode: Decode) -> Trial:
    """Trial `number` of a search, from Katib's Trial and its pods."""
    metrics = metrics_of(trial)
    state, cause, score = RUNNING, "", None
    parameters: Parameters = {}
    try:
        parameters = decode({item.name: item.value for item in trial.spec.parameter_assignments or ()})
        if holds(trial, "Succeeded"):
            score = objective.read(metrics)
            state = COMPLETE
        elif ended(trial):
            state, cause = FAILED, cause_of_failure(trial, pods)
    except (InputError, TrainingError) as error:
        state, cause = FAILED, str(error)
    own = [pod for pod in pods if job_of(pod) == trial.metadata.name]
    status = trial.status
    start, end = (status.start_time, status.completion_time) if status else (None, None)
    return Trial(
        number=number,
        parameters=parameters,
        state=state,
        score=score,
        value=None if score is None else objective.value(score),
        cause=cause,
        same_as=-1,
        interruptions=len(own),
        started=start.timestamp() if start else 0.0,
        seconds=(end - start).total_seconds() if start and end and state != RUNNING else 0.0,
        metrics=metrics,
    )


def ended(trial: Any) -> bool:
    """Whether Katib has closed the Trial."""
    return any(holds(trial, condition) for condition in ENDED)


def metrics_of(trial: Any) -> dict[str, float]:
    """The last value of every metric that Katib collected."""
    observation = trial.status.observation if trial.status else None
    found: dict[str, float] = {}
    for metric in (observation.metrics if observation else None) or ():
        try:
            value = float(metric.latest)
        except (TypeError, ValueError):
            continue
        if math.isfinite(value):
            found[metric.name] = value
    return found


def cause_of_failure(trial: Any, pods: Sequence[Any]) -> str:
    """Why the Trial failed: the last words of its container, or what the exit code or Katib says."""
    name = trial.metadata.name
    for pod in reversed([pod for pod in pods if job_of(pod) == name]):
        end = termination(pod)
        if end is not None and end.exit_code:
            if end.reason == "OOMKilled":
                return MEANING[KILLED]
            if end.message:
                return brief(end.message.removeprefix("error: "))
    said = next((str(item.message) for item in conditions(trial) if item.type in ENDED), "")
    if holds(trial, "MetricsUnavailable"):
        return "no usable metric came from its log: the training ended without printing one, see the log of its pod"
    code = re.search(r"exit code (\d+)", said)
    if code and int(code[1]) in MEANING:
        return MEANING[int(code[1])]
    if "DeadlineExceeded" in said or "longer than specified deadline" in said:
        return "it took longer than trial_hours, waiting for nodes included"
    return brief(said.removeprefix("Trial has failed. Job message: ")) or "Katib gave no reason"


def job_of(pod: Any) -> str:
    """Name of the Job of a pod, which is that of its Trial."""
    return str((pod.metadata.labels or {}).get(JOB_LABEL, ""))


def termination(pod: Any) -> Any | None:
    """How the training's container of a pod ended; None while it runs."""
    for status in (pod.status.container_statuses if pod.status else None) or ():
        if status.name == CONTAINER and status.state and status.state.terminated:
            return status.state.terminated
    return None
