"""The Kubernetes API as a search needs it: Experiments and Trials through Katib's client, and what pods and events say.

Katib's client raises RuntimeError for everything; the HTTP status behind it, from which a user can learn what to
change, is that of the error it was raised for.
"""

import json
import logging
import multiprocessing
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from kubernetes.client import ApiException, CoreV1Api
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError

from hounsfield.errors import HounsfieldError, InputError
from hounsfield.surroundings import PIPELINES_ACCOUNT

T = TypeVar("T")
INSTALL = "pip install --no-deps kubeflow-katib==0.19.0 kubeflow-training==1.9.0"
TIMEOUT = 30
"""Seconds for one request."""


class Unreachable(InputError):  # noqa: N818
    """The API server did not answer, cannot now, or does not take the credentials: worth another try."""


class Cluster:
    """Katib in one namespace of a cluster: the one this process runs in, or that of the kube-config.

    Raises:
        InputError: Katib's client is not installed, or there is neither a cluster around here nor a kube-config.
    """

    def __init__(self, namespace: str, config_file: str | None = None) -> None:
        try:
            from kubeflow.katib import KatibClient
        except ImportError as error:
            raise InputError(
                f"the backend katib needs Katib's client ({error}), which the image hounsfield-python has: "
                f"install it with `{INSTALL}` or set backend to embedded"
            ) from error
        self.namespace = namespace
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        try:
            self._katib = KatibClient(config_file=config_file or os.environ.get("KUBECONFIG"), namespace=namespace)
        except (ConfigException, OSError) as error:
            raise InputError(
                f"no cluster to search on ({error}): run inside of one, set KUBECONFIG, or set backend to embedded"
            ) from error
        self._core: CoreV1Api = self._katib.core_api

    def experiment(self, name: str) -> Any | None:
        """The Experiment `name` as Katib's model, None when there is none."""
        return self._call("get", lambda: self._katib.get_experiment(name, timeout=TIMEOUT), absent=name)

    def create(self, experiment: dict[str, Any]) -> bool:
        """Create the Experiment; False when one of that name was there."""
        try:
            self._katib.create_experiment(experiment)
        except Exception as error:
            cause = cause_of(error)
            if isinstance(cause, ApiException) and cause.status == 409:
                return False
            raise self._explain(cause, "create") from error
        return True

    def delete(self, name: str) -> None:
        """Delete the Experiment and with it its trials and their pods; nothing happens when there is none."""
        self._call("delete", lambda: self._katib.delete_experiment(name), absent=name)

    def trials(self, name: str) -> list[Any]:
        """The Trials of the Experiment `name` as Katib's models, oldest first."""
        found = self._call("list", lambda: self._katib.list_trials(name, timeout=TIMEOUT)) or []
        return sorted(found, key=lambda trial: (str(trial.metadata.creation_timestamp), trial.metadata.name))

    def pods(self, name: str) -> list[Any]:
        """The pods of the trials of Experiment `name`."""
        selector = f"app.kubernetes.io/instance={name}"
        found = self._call(
            "list",
            lambda: self._core.list_namespaced_pod(self.namespace, label_selector=selector, _request_timeout=TIMEOUT),
            of="pods",
        )
        return list(found.items) if found else []

    def warnings(self, name: str) -> list[str]:
        """The warnings that the cluster noted about the Experiment `name`, its trials, pods and suggestions."""
        found = self._call(
            "list",
            lambda: self._core.list_namespaced_event(
                self.namespace, field_selector="type=Warning", _request_timeout=TIMEOUT
            ),
            of="events",
        )
        own = [event for event in (found.items if found else []) if (event.involved_object.name or "").startswith(name)]
        own.sort(key=lambda event: str(event.last_timestamp or event.event_time or event.metadata.creation_timestamp))
        return [f"{event.reason}: {event.message}" for event in own]

    def _call(self, verb: str, call: Callable[[], T], absent: str = "", of: str = "experiments") -> T | None:
        """The answer of `call`; None when the object named `absent` does not exist."""
        try:
            return call()
        except Exception as error:
            cause = cause_of(error)
            if absent and isinstance(cause, ApiException) and cause.status == 404 and absent in str(cause.body):
                return None
            raise self._explain(cause, verb, of) from error

    def _explain(self, error: BaseException, verb: str, of: str = "experiments") -> HounsfieldError:
        """One sentence about a failed request: what is missing or wrong on the cluster, and what to change."""
        if isinstance(error, HounsfieldError):
            return error
        if isinstance(error, HTTPError | OSError | multiprocessing.TimeoutError):
            host = self._core.api_client.configuration.host
            return Unreachable(f"the Kubernetes API at {host} does not answer ({brief(error)}): is the cluster up?")
        if not isinstance(error, ApiException):
            return InputError(
                f"Katib's client cannot {verb} {of} of this cluster ({brief(error)}): is it Katib 0.16 on?"
            )
        said = message_of(error)
        match error.status:
            case 401:
                return Unreachable(
                    f"the Kubernetes API refused the credentials ({said}): the token has expired or is not of this "
                    "cluster; log in again, or check the kube-config"
                )
            case 403 if "quota" in said:
                return InputError(
                    f"namespace {self.namespace} has no room for the search ({said}): raise its ResourceQuota or lower "
                    "parallel_trials"
                )
            case 403:
                return InputError(
                    f"the cluster forbids to {verb} {of} in namespace {self.namespace} ({said}): bind ServiceAccount "
                    f"{PIPELINES_ACCOUNT} to the Role {PIPELINES_ACCOUNT} of manifests/, or run the step under it"
                )
            case 404 if of == "experiments":
                return InputError(
                    f"this cluster has no Katib, or no namespace {self.namespace} ({said}): install Katib, or set "
                    "backend to embedded to search in the step itself"
                )
            case 400 | 422:
                return InputError(f"Katib refused the Experiment: {said}")
            case status if status == 429 or status >= 500:
                return Unreachable(f"the Kubernetes API cannot {verb} {of} now (HTTP {status}: {said})")
        return InputError(f"the Kubernetes API could not {verb} {of} (HTTP {error.status}: {said})")


def cause_of(error: BaseException) -> BaseException:
    """What Katib's client was given before it raised its own error."""
    return error if isinstance(error, ApiException) or error.__context__ is None else error.__context__


def message_of(error: ApiException) -> str:
    """The sentence in the body of an error of the Kubernetes API."""
    try:
        return brief(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return brief(error.reason or error.body or "no message")


def brief(value: object, most: int = 300) -> str:
    """`value` on one line of at most `most` characters."""
    text = " ".join(str(value).split())
    return text if len(text) <= most else f"{text[:most]}..."


def conditions(thing: Any) -> Sequence[Any]:
    """The conditions of an Experiment or Trial that hold."""
    status = thing.status
    return [item for item in (status.conditions if status else None) or () if item.status == "True"]


def holds(thing: Any, condition: str) -> bool:
    """Whether `condition` (Succeeded, Failed, Running, ...) holds for an Experiment or Trial."""
    return any(item.type == condition for item in conditions(thing))
