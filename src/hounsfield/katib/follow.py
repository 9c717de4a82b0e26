"""Carries an Experiment out: creates or adopts it, waits for its end, and finds out why nothing happens."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hounsfield.errors import InputError, Preempted
from hounsfield.katib.client import Cluster, Unreachable, brief, conditions, holds
from hounsfield.katib.experiment import CONTAINER
from hounsfield.katib.trials import TRIAL_LABEL, Decode, ended, job_of, rows
from hounsfield.pool import Pool
from hounsfield.search.objective import Objective
from hounsfield.search.study import FAILED, RUNNING, Trial

POLL = 10.0
"""Seconds between two looks at an Experiment."""
GONE_WITHIN = 120.0
"""Seconds in which a deleted Experiment must be gone."""
STUCK_IMAGES = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "CreateContainerConfigError")


@dataclass(frozen=True)
class Waiting:
    """How to wait: seconds without any sign of life after which the search is given up, and between two looks."""

    patience: float = 1800.0
    poll: float = POLL


@dataclass(frozen=True)
class Outcome:
    """The trials of a finished Experiment; `failure` says why Katib gave it up, empty when it did not."""

    trials: list[Trial]
    failure: str = ""


Observe = Callable[[Sequence[Trial]], None]


def carry_out(
    cluster: Cluster,
    experiment: dict[str, Any],
    pool: Pool,
    objective: Objective,
    decode: Decode,
    observe: Observe,
    waiting: Waiting,
    keep: bool,
) -> Outcome:
    """The trials of `experiment` once Katib has finished it; `observe` sees them whenever one has changed.

    An Experiment of the same name that runs or succeeded, such as one that this step left behind when it was
    preempted, is adopted; one that failed is replaced. When it ends, it is deleted unless `keep`; when it is given up
    because of the cluster, it is deleted in any case.

    Raises:
        InputError: the cluster cannot carry it out, or nobody does anything for `waiting.patience` seconds.
        Preempted: SIGTERM came; the Experiment goes on and is adopted by the next call.
    """
    name = experiment["metadata"]["name"]
    where = f"Katib Experiment {name} in namespace {cluster.namespace}"
    try:
        begun = "created" if _begin(cluster, experiment, waiting) else "found, going on with it"
        print(f"{where}: {begun}", flush=True)
        _follow(cluster, name, pool, objective, decode, observe, waiting)
    except Preempted:
        print(f"{where} goes on: the same step adopts it when it is started again", flush=True)
        raise
    except _GivenUp as error:
        raise InputError(f"{error}; {where} {_deleted(cluster, name)}") from error
    except Unreachable as error:
        raise InputError(f"{error}; if {where} was begun, it goes on: run the step again to adopt it") from error
    found = rows(cluster.trials(name), cluster.pods(name), objective, decode)
    done = [replace(trial, number=number) for number, trial in enumerate(t for t in found if t.state != RUNNING)]
    final = cluster.experiment(name)
    if not keep:
        cluster.delete(name)
    if final is None or not holds(final, "Failed"):
        return Outcome(done)
    still = f"{len(found) - len(done)} of its trials still run; " if len(found) > len(done) else ""
    look = f"{still}look at it with `kubectl describe experiment {name} -n {cluster.namespace}`"
    rest = look if keep else "deleted"
    return Outcome(done, f"{_failure(final, done)}; {where}: {rest}")


class _GivenUp(InputError):  # noqa: N818
    """The cluster cannot carry the Experiment out."""


def _deleted(cluster: Cluster, name: str) -> str:
    """Delete an Experiment that was given up, and say so."""
    try:
        cluster.delete(name)
    except InputError as error:
        return f"is still there ({error}): kubectl delete experiment {name} -n {cluster.namespace}"
    return "was deleted"


def _begin(cluster: Cluster, experiment: dict[str, Any], waiting: Waiting) -> bool:
    """Create the Experiment, unless one of its name is there and has not failed; whether it was created."""
    name = experiment["metadata"]["name"]
    found = cluster.experiment(name)
    if found is not None and (holds(found, "Failed") or found.metadata.deletion_timestamp):
        print(f"Katib Experiment {name} of an earlier call failed or is being deleted: replaced", flush=True)
        cluster.delete(name)
        begun = time.monotonic()
        while cluster.experiment(name) is not None:
            if time.monotonic() - begun > GONE_WITHIN:
                raise Unreachable(
                    f"Experiment {name} of an earlier call is not gone {GONE_WITHIN:.0f} s after deletion"
                )
            time.sleep(min(waiting.poll, 1.0))
        found = None
    return found is None and cluster.create(experiment)


def _follow(
    cluster: Cluster,
    name: str,
    pool: Pool,
    objective: Objective,
    decode: Decode,
    observe: Observe,
    waiting: Waiting,
) -> None:
    """Wait until Katib has finished the Experiment.

    Raises:
        _GivenUp: it is gone, cannot go on, or nothing happens.
        Unreachable: the API does not answer for as long.
    """
    seen: list[tuple[str, bool]] | None = None
    alive = time.monotonic()
    told = ""
    while True:
        try:
            experiment, trials = cluster.experiment(name), cluster.trials(name)
            pods = cluster.pods(name)
            trouble = Trouble() if experiment is None else diagnose(trials, pods, cluster.warnings(name), name, pool)
        except Unreachable as error:
            if time.monotonic() - alive > waiting.patience:
                raise
            told = _tell(str(error), told)
            time.sleep(waiting.poll)
            continue
        except InputError as error:
            raise _GivenUp(str(error)) from error
        if experiment is None:
            raise _GivenUp(f"somebody deleted Experiment {name} while it ran")
        now = [(trial.metadata.name, ended(trial)) for trial in trials]
        if now != seen or any(_is_training(pod) for pod in pods):
            alive = time.monotonic()
        if now != seen:
            observe(rows(trials, pods, objective, decode))
            seen = now
        if holds(experiment, "Succeeded") or holds(experiment, "Failed"):
            return
        if trouble.final:
            raise _GivenUp(trouble.text)
        if time.monotonic() - alive > waiting.patience:
            minutes = f"{waiting.patience / 60:.3g} minutes"
            raise _GivenUp(f"no trial began, trained or ended for {minutes}: {trouble.text}")
        told = _tell(trouble.text if trouble.certain else "", told)
        time.sleep(waiting.poll)


def _tell(text: str, told: str) -> str:
    if text and text != told:
        print(f"warning: {text}", flush=True)
    return text or told


@dataclass(frozen=True)
class Trouble:
    """What keeps an Experiment from going on: `final` when it does not cure itself, `certain` when it is known."""

    text: str = ""
    final: bool = False
    certain: bool = True


def diagnose(trials: Sequence[Any], pods: Sequence[Any], warnings: Sequence[str], name: str, pool: Pool) -> Trouble:
    """Why the trials of Experiment `name` do not train, as far as trials, pods and the cluster's warnings tell."""
    for warning in warnings:
        if "violates PodSecurity" in warning:
            return Trouble(
                f"pod security refuses pods of the search ({brief(warning)}): give Katib's own containers a security "
                "context in its ConfigMap katib-config, as manifests/components/katib-restricted does",
                final=True,
            )
    for pod in pods:
        if pod.status.phase == "Succeeded" and TRIAL_LABEL not in (pod.metadata.labels or {}):
            return Trouble(
                f"trial {job_of(pod)} ended, but Katib did not collect its metrics: label the namespace "
                "katib.kubeflow.org/metrics-collector-injection=enabled",
                final=True,
            )
    for pod in pods:
        for condition in pod.status.conditions or ():
            if condition.type == "PodScheduled" and condition.reason == "Unschedulable":
                return Trouble(_no_node(brief(condition.message), pool))
        for status in pod.status.container_statuses or ():
            stuck = status.state.waiting if status.state else None
            if stuck is not None and stuck.reason in STUCK_IMAGES:
                said = f"{stuck.reason}: {brief(stuck.message or status.image)}"
                return Trouble(
                    f"the pod of trial {job_of(pod)} cannot start ({said}): check image, registry and secrets"
                )
    for warning in reversed(warnings):
        if "exceeded quota" in warning:
            return Trouble(
                f"the namespace's ResourceQuota leaves no room for a trial ({brief(warning)}): lower parallel_trials, "
                f"choose a smaller pool than {pool.name}, or raise the quota"
            )
    said = f"the cluster's last warning is {brief(warnings[-1])}" if warnings else "the cluster has no warning"
    if not trials:
        return Trouble(
            f"Katib has made no trial yet, {said}; see its suggestion pods {name}-* and its controller's log"
        )
    return Trouble(said if warnings else "")


def _no_node(said: str, pool: Pool) -> str:
    labels = ", ".join(f"{key}={value}" for key, value in pool.node_selector.items()) or "none"
    wanted = f"{pool.count} {pool.accelerator}, " if pool.count else ""
    return (
        f"no node of pool {pool.name} takes a trial ({said}): it asks for {wanted}{pool.cpu} CPUs and {pool.memory} on "
        f"nodes labelled {labels}; choose another pool, or add nodes to this one"
    )


def _is_training(pod: Any) -> bool:
    statuses = (pod.status.container_statuses if pod.status else None) or ()
    return any(status.name == CONTAINER and status.state and status.state.running for status in statuses)


def _failure(experiment: Any, trials: Sequence[Trial]) -> str:
    """Why Katib gave an Experiment up."""
    failed = [trial for trial in trials if trial.state == FAILED]
    if failed:
        return f"{len(failed)} of {len(trials)} trials failed, the first: {failed[0].cause}"
    said = next((item.message for item in conditions(experiment) if item.type == "Failed"), "")
    return f"Katib gave the search up: {brief(said) or 'without a reason'}"
