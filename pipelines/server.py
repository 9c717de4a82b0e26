"""A Kubeflow Pipelines server: connects, uploads, runs and schedules, with errors as sentences."""

import contextlib
import hashlib
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kfp
import kfp_server_api as api  # type: ignore[import-untyped]
import urllib3
from kfp_server_api.rest import RESTClientObject  # type: ignore[import-untyped]

from hounsfield import __version__
from hounsfield.errors import InputError
from hounsfield.pipelines.login import COOKIE, SECONDS, Credentials, credentials

IN_CLUSTER = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
PORT_FORWARD = "kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80, then --host http://localhost:8080"
PAGE = 100


class Refused(InputError):  # noqa: N818
    """The server answered with an error; `status` is that of HTTP, and 401 for a login page in place of an answer."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Unreachable(InputError):  # noqa: N818
    """The server did not answer in time."""


@dataclass(frozen=True)
class Version:
    """A pipeline version on the server; `created` is False where it was already there."""

    pipeline_id: str
    version_id: str
    name: str
    created: bool


class _Http(RESTClientObject):  # type: ignore[misc]
    """Requests with a time limit, without a walk to a login page, and with errors as `Refused` or `Unreachable`."""

    def __init__(self, configuration: Any, used: Credentials) -> None:
        configuration.retries = urllib3.Retry(total=1, redirect=False, backoff_factor=0.5)
        super().__init__(configuration)
        self._used, self._server = used, configuration.host

    def request(self, method: str, url: str, **options: Any) -> Any:
        options["_request_timeout"] = SECONDS
        try:
            response = super().request(method, url, **options)
        except api.ApiException as error:
            raise self._refused(error) from None
        except urllib3.exceptions.HTTPError as error:
            reason = getattr(error, "reason", None) or error
            if "CERTIFICATE_VERIFY_FAILED" in str(reason):
                raise Unreachable(
                    f"the certificate of {self._server} is not trusted: set REQUESTS_CA_BUNDLE to the file of your "
                    "organisation's certificate authority"
                ) from error
            raise Unreachable(
                f"no answer from {self._server} ({type(reason).__name__}): check --host or KF_PIPELINES_ENDPOINT; from "
                f"outside of the cluster, {PORT_FORWARD}"
            ) from error
        if "json" not in response.urllib3_response.headers.get("content-type", ""):
            raise self._needs_login()
        return response

    def _needs_login(self) -> Refused:
        return Refused(
            f"{self._server} answered with a page instead of the API: the session is missing or expired: renew "
            f"{self._used.setting}, or check that --host ends as the UI's address does, such as /pipeline",
            401,
        )

    def _refused(self, error: Any) -> Refused:
        status, said = error.status, self._used.hide(_message(error.body))
        location = error.headers.get("location", "") if error.headers else ""
        if 300 <= status < 400:
            here, there = urlsplit(self._server), urlsplit(location)
            if there.hostname == here.hostname and (there.scheme, here.scheme) == ("https", "http"):
                return Refused(f"{self._server} moved to https: give --host https://{here.netloc}{here.path}", status)
            return self._needs_login()
        if "exceeded quota" in said:
            return Refused(f"a quota of the namespace is used up: free or raise its ResourceQuota ({said})", status)
        if status == 401:
            return Refused(
                f"{self._server} does not accept the credentials, which may be expired: renew {self._used.setting} "
                f"({said})",
                status,
            )
        if status == 403:
            return Refused(
                f"{self._server} does not allow this: check --namespace, your rights in it, and {self._used.setting} "
                f"({said})",
                status,
            )
        if status == 404 and not _is_json(error.body):
            return Refused(f"{self._server} has no Kubeflow Pipelines API: check the path of --host", status)
        return Refused(f"{self._server}: {said} (HTTP status {status})", status)


def _is_json(body: bytes | str | None) -> bool:
    try:
        return isinstance(json.loads(body or ""), dict)
    except ValueError:
        return False


def _message(body: bytes | str | None) -> str:
    """What an error's body says, shortened."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body or ""
    if _is_json(text):
        found = json.loads(text)
        text = str(found.get("message") or found.get("error_message") or found.get("error") or "no reason given")
    elif "<" in text:
        text = "a web page"
    return " ".join(text.split())[:400] or "no reason given"


class _Client(kfp.Client):  # type: ignore[misc]
    """kfp's client with `_Http`, and without files written to the home directory."""

    def __init__(self, used: Credentials, **arguments: Any) -> None:
        self._used = used
        self.health: Any = None
        super().__init__(**used.arguments, **arguments)
        if self.health is None:
            self.get_kfp_healthz()

    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
        """Ask once; the constructor of kfp asks through here, as soon as its services are there."""
        if self.health is None:
            shared = self._healthz_api.api_client
            shared.rest_client = _Http(shared.configuration, self._used)
            self.health = self._healthz_api.healthz_service_get_healthz()
        return self.health

    def set_user_namespace(self, namespace: str) -> None:
        """Remember it for this client only."""
        self._context_setting["namespace"] = namespace


class Server:
    """A connection. Every method raises Refused or Unreachable (both InputError), never an exception of kfp's."""

    def __init__(self, host: str = "", namespace: str = "") -> None:
        """Connect to `host`, or to what KF_PIPELINES_ENDPOINT, this cluster or the kubeconfig name.

        Raises:
            InputError: no server is named, none answers, the credentials are refused, or `namespace` is missing.
        """
        host = host or os.environ.get("KF_PIPELINES_ENDPOINT", "")
        if not host and os.environ.get("KUBERNETES_SERVICE_HOST"):
            host = IN_CLUSTER
        if host and "://" not in host:
            host = f"https://{host}"
        if "@" in urlsplit(host).netloc:
            raise InputError(f"--host must not hold a name or password: set {COOKIE} or a token instead")
        host = host.rstrip("/")
        said = io.StringIO()
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(said):
            warnings.simplefilter("ignore")
            try:
                self.client = _Client(
                    credentials(host), host=host or None, ssl_ca_cert=os.environ.get("REQUESTS_CA_BUNDLE") or None
                )
            except (Refused, Unreachable) as error:
                if "Failed to load kube config" in said.getvalue():
                    raise InputError(
                        "no Kubeflow Pipelines server is named: give --host or set KF_PIPELINES_ENDPOINT; from outside "
                        f"of the cluster, {PORT_FORWARD}"
                    ) from error
                raise
            except json.JSONDecodeError as error:
                raise InputError(f"{kfp.Client._LOCAL_KFP_CONTEXT} is not JSON: repair or delete it") from error
        self.namespace = namespace or self.client.get_user_namespace() or ""
        if self.client.health.multi_user and not self.namespace:
            raise InputError("this Kubeflow serves several users: name your profile's namespace by --namespace")
        self._ui = os.environ.get("KF_PIPELINES_UI_ENDPOINT", host if host != IN_CLUSTER else "").rstrip("/")

    def link(self, kind: str, identifier: str) -> str:
        """Where the UI shows it; `kind` is runs or recurringrun."""
        page = f"/#/{kind}/details/{identifier}"
        hint = "" if self._ui else "  (the UI's address: set KF_PIPELINES_UI_ENDPOINT)"
        return f"{self._ui}{page}{hint}"

    def version(self, pipeline: str, description: str, document: Path) -> Version:
        """Upload `document` as a version of `pipeline`, both created where they are missing.

        A version is named by the package's version and the document's hash, so that an unchanged document is not
        uploaded twice. A pipeline that was created for a version that failed is deleted again.
        """
        name = f"{__version__}-{hashlib.sha256(document.read_bytes()).hexdigest()[:12]}"
        found = self._only(self.client.list_pipelines, "pipelines", pipeline, namespace=self.namespace)
        created = not found
        if created:
            body = api.V2beta1Pipeline(
                name=pipeline, display_name=pipeline, description=description, namespace=self.namespace
            )
            found = self.client.pipelines.pipeline_service_create_pipeline(body)
        identifier = found.pipeline_id
        known = None if created else self._version(identifier, name)
        if known:
            return Version(identifier, known.pipeline_version_id, name, created=False)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                made = self.client.upload_pipeline_version(str(document), name, pipeline_id=identifier)
        except BaseException as error:
            if isinstance(error, Refused) and error.status == 409 and (known := self._version(identifier, name)):
                return Version(identifier, known.pipeline_version_id, name, created=False)
            if created:
                with contextlib.suppress(InputError):
                    self.client.delete_pipeline(identifier)
            raise
        return Version(identifier, made.pipeline_version_id, name, created=True)

    def version_name(self, reference: Any) -> str:
        """Name of the pipeline version that a run or schedule refers to."""
        if reference is None or not reference.pipeline_version_id:
            return "the latest" if reference else "none"
        try:
            found = self.client.get_pipeline_version(reference.pipeline_id, reference.pipeline_version_id)
        except Refused as error:
            if error.status == 404:
                return "deleted"
            raise
        return str(found.display_name or found.name)

    def experiment(self, name: str) -> str:
        """Identifier of the experiment `name`, which is created where it is missing."""
        with contextlib.redirect_stdout(io.StringIO()):
            made = self.client.create_experiment(name, namespace=self.namespace or None)
        return str(made.experiment_id)

    def experiment_name(self, identifier: str) -> str:
        """Name of the experiment with that identifier."""
        return str(self.client.get_experiment(experiment_id=identifier).display_name)

    def run(self, name: str, version: Version, experiment: str, inputs: dict[str, Any], service_account: str) -> str:
        """Start a run; returns its identifier."""
        with contextlib.redirect_stdout(io.StringIO()):
            started = self.client.run_pipeline(
                experiment_id=experiment,
                job_name=name,
                params=inputs,
                pipeline_id=version.pipeline_id,
                version_id=version.version_id,
                service_account=service_account or None,
            )
        return str(started.run_id)

    def schedules(self, name: str = "") -> list[Any]:
        """Recurring runs of the namespace, or those of this `name`, the oldest first."""
        items = self._all(self.client.list_recurring_runs, "recurring_runs", name, namespace=self.namespace)
        return sorted(items, key=lambda item: (item.created_at, item.recurring_run_id))

    def delete_schedule(self, identifier: str) -> None:
        """Delete a recurring run; runs that it has started go on, which the server's default would end."""
        self.client.recurring_runs.recurring_run_service_delete_recurring_run(identifier, propagation_policy="ORPHAN")

    def _version(self, pipeline_id: str, name: str) -> Any:
        return self._only(self.client.list_pipeline_versions, "pipeline_versions", name, pipeline_id=pipeline_id)

    def _only(self, listing: Callable[..., Any], field: str, name: str, **arguments: Any) -> Any:
        return next(iter(self._all(listing, field, name, **arguments)), None)

    def _all(self, listing: Callable[..., Any], field: str, name: str, **arguments: Any) -> Iterator[Any]:
        """The items of all pages, only those of display name `name` unless that is empty."""
        predicate = {"operation": "EQUALS", "key": "display_name", "string_value": name}
        wanted = {"filter": json.dumps({"predicates": [predicate]})} if name else {}
        token = ""
        while True:
            page = listing(page_size=PAGE, page_token=token, **wanted, **arguments)
            yield from getattr(page, field) or []
            token = page.next_page_token
            if not token:
                return
