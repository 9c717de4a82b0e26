"""A Kubeflow Pipelines API server for tests, built from the published description of its API.

Every request and every answer is validated (`kfp_description`). What the description does not say, such as unique
names, inputs of a pipeline and namespaces, follows the rules of the server's own code.
"""

import json
import re
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import kfp
import pytest
import typer.testing
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from kfp_description import Description, Failure

from hounsfield.cli import submit
from hounsfield.cli.main import app
from hounsfield.errors import HounsfieldError
from hounsfield.pipelines.compile import compile_all
from hounsfield.pipelines.placement import Cluster

KUBERNETES_PROXY = "/api/v1/namespaces/kubeflow/services/ml-pipeline:http/proxy/"
LOGIN = "<html><body>Log in to Your Account</body></html>"
COMPILED: dict[tuple[str, str], bytes] = {}
DATA = ["--data", "s3://hospital/ct"]
ENVIRONMENT = (
    "HOUNSFIELD_KFP_TOKEN", "HOUNSFIELD_KFP_COOKIE", "HOUNSFIELD_KFP_USER", "HOUNSFIELD_KFP_PASSWORD",
    "KF_PIPELINES_ENDPOINT", "KF_PIPELINES_UI_ENDPOINT", "KF_PIPELINES_SA_TOKEN_PATH", "KUBERNETES_SERVICE_HOST",
    "REQUESTS_CA_BUNDLE", "KUBECONFIG",
)  # fmt: skip


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass
class KfpServer:
    """State, and what tests set: who may enter, what fails, how runs go."""

    description: Description
    url: str = ""
    namespaces: tuple[str, ...] = ()
    """Namespaces of the user; empty for a server without users."""
    header: tuple[str, str] | None = None
    """Name and value that every request needs."""
    unauthenticated: str = "401"
    """What others get: 401, a redirect to a login page or to https, or that page itself."""
    password: str = ""
    """Dex's password for ada@example.org; the session's cookie is `header`."""
    before: Callable[[str], None] = lambda operation: None
    """Called with every operation's name; may raise Failure."""
    run_states: Callable[[dict[str, Any], int], None] = lambda run, asked: finish(run)
    """Changes a run when it is asked for, the n-th time."""
    pipelines: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    recurring: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    """Names of the operations that were carried out."""
    deleted_with: list[str] = field(default_factory=list)
    most_enabled: int = 0
    """The largest number of enabled recurring runs of one name at any time."""

    def answer(self, name: str, path: dict[str, str], query: dict[str, str], body: Any, file: bytes) -> Any:
        self.before(name)
        handler = getattr(self, re.sub(r"(?<!^)(?=[A-Z])", "_", name.rpartition("_")[2]).lower(), None)
        self.log.append(name.rpartition("_")[2])
        if handler is None:
            raise Failure(501, f"{name} is not served here")
        arguments = {"path": path, "query": query, "body": body, "file": file}
        result = handler(**{key: arguments[key] for key in handler.__code__.co_varnames[1:] if key in arguments})
        enabled = [item["display_name"] for item in self.recurring.values() if item["status"] == "ENABLED"]
        self.most_enabled = max([self.most_enabled, *(enabled.count(item) for item in enabled)])
        return result

    def enter(self, namespace: str) -> str:
        """The namespace that counts."""
        if not self.namespaces:
            return ""
        if not namespace:
            raise Failure(400, "An experiment cannot have an empty namespace in multi-user mode")
        if namespace not in self.namespaces:
            raise Failure(403, f"User 'ada@example.org' is not authorized with reason: (namespace {namespace})")
        return namespace

    def get_healthz(self) -> Any:
        return {"multi_user": bool(self.namespaces), "pipeline_store": "database"}

    def list_pipelines(self, query: dict[str, str]) -> Any:
        namespace = self.enter(query.get("namespace", "")) if query.get("namespace") else ""
        found = [item for item in self.pipelines.values() if item.get("namespace", "") == namespace]
        return page("pipelines", found, query)

    def create_pipeline(self, body: dict[str, Any]) -> Any:
        namespace = self.enter(body.get("namespace", ""))
        same = [i for i in self.pipelines.values() if (i["name"], i["namespace"]) == (body["name"], namespace)]
        if same:
            raise Failure(409, f"Already exist error: pipeline {body['name']}")
        return keep(self.pipelines, "pipeline_id", body | {"namespace": namespace})

    def delete_pipeline(self, path: dict[str, str]) -> Any:
        del self.pipelines[path["pipeline_id"]]
        return {}

    def list_pipeline_versions(self, path: dict[str, str], query: dict[str, str]) -> Any:
        found = [item for item in self.versions.values() if item["pipeline_id"] == path["pipeline_id"]]
        return page("pipeline_versions", found, query)

    def get_pipeline_version(self, path: dict[str, str]) -> Any:
        return get(self.versions, path["pipeline_version_id"])

    def upload_pipeline_version(self, query: dict[str, str], file: bytes) -> Any:
        get(self.pipelines, query["pipelineid"])
        if any((i["pipeline_id"], i["name"]) == (query["pipelineid"], query["name"]) for i in self.versions.values()):
            raise Failure(409, "Failed to create a pipeline version")
        documents = [item for item in yaml.safe_load_all(file) if item]
        spec = next(item for item in documents if "pipelineInfo" in item)
        try:
            json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
            for other in documents:
                if other is not spec:
                    json_format.ParseDict(other, pipeline_spec_pb2.PlatformSpec())
        except json_format.ParseError as error:
            raise Failure(400, f"invalid v2 pipeline spec: {error}") from error
        version = {"pipeline_id": query["pipelineid"], "name": query["name"], "display_name": query["name"]}
        return keep(self.versions, "pipeline_version_id", version | {"pipeline_spec": {"pipeline_spec": spec}})

    def list_experiments(self, query: dict[str, str]) -> Any:
        namespace = self.enter(query.get("namespace", ""))
        found = [item for item in self.experiments.values() if item["namespace"] == namespace]
        return page("experiments", found, query)

    def create_experiment(self, body: dict[str, Any]) -> Any:
        namespace = self.enter(body.get("namespace", ""))
        return keep(self.experiments, "experiment_id", body | {"namespace": namespace})

    def get_experiment(self, path: dict[str, str]) -> Any:
        return get(self.experiments, path["experiment_id"])

    def create_run(self, body: dict[str, Any]) -> Any:
        get(self.experiments, body["experiment_id"])
        self.check_inputs(body)
        return keep(self.runs, "run_id", body | {"state": "PENDING"})

    def get_run(self, path: dict[str, str]) -> Any:
        run = get(self.runs, path["run_id"])
        self.asked[run["run_id"]] = self.asked.get(run["run_id"], 0) + 1
        self.run_states(run, self.asked[run["run_id"]])
        return run

    def list_recurring_runs(self, query: dict[str, str]) -> Any:
        namespace = self.enter(query.get("namespace", ""))
        found = [item for item in self.recurring.values() if item["namespace"] == namespace]
        return page("recurringRuns", found, query)

    def create_recurring_run(self, body: dict[str, Any]) -> Any:
        experiment = get(self.experiments, body["experiment_id"])
        self.check_inputs(body)
        concurrency = int(body.get("max_concurrency", 0))
        if not 1 <= concurrency <= 10:
            raise Failure(400, "Max concurrency of a recurring run must be at least 1 and at most 10.")
        cron = body["trigger"].get("cron_schedule", {}).get("cron")
        if cron is not None and len(cron.split()) not in (5, 6):
            raise Failure(400, f"Schedule cron is not a supported format: Expected 5 to 6 fields: {cron}")
        status = {"ENABLE": "ENABLED", "DISABLE": "DISABLED"}[body["mode"]]
        made = body | {"max_concurrency": str(concurrency), "namespace": experiment["namespace"], "status": status}
        return keep(self.recurring, "recurring_run_id", made)

    def enable_recurring_run(self, path: dict[str, str]) -> Any:
        get(self.recurring, path["recurring_run_id"]).update(status="ENABLED", mode="ENABLE")
        return {}

    def disable_recurring_run(self, path: dict[str, str]) -> Any:
        get(self.recurring, path["recurring_run_id"]).update(status="DISABLED", mode="DISABLE")
        return {}

    def delete_recurring_run(self, path: dict[str, str], query: dict[str, str]) -> Any:
        get(self.recurring, path["recurring_run_id"])
        del self.recurring[path["recurring_run_id"]]
        self.deleted_with.append(query.get("propagation_policy", ""))
        return {}

    def check_inputs(self, body: dict[str, Any]) -> None:
        """The server's own rules for the inputs of a run."""
        version = get(self.versions, body["pipeline_version_reference"]["pipeline_version_id"])
        known = version["pipeline_spec"]["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]
        given = body.get("runtime_config", {}).get("parameters", {})
        types = {"STRING": str, "BOOLEAN": bool, "NUMBER_INTEGER": (int, float), "NUMBER_DOUBLE": (int, float)}
        for name, value in given.items():
            if name not in known:
                raise Failure(400, f"parameter {name} is not defined in the pipeline")
            kind = known[name]["parameterType"]
            if not isinstance(value, types[kind]) or (isinstance(value, bool) and kind != "BOOLEAN"):
                raise Failure(400, f"input parameter {name} requires type {kind}")
        for name, item in known.items():
            if name not in given and not item.get("isOptional") and "defaultValue" not in item:
                raise Failure(400, f"parameter {name} is not optional, yet has neither default value nor value")


def get(items: dict[str, dict[str, Any]], identifier: str) -> dict[str, Any]:
    if identifier not in items:
        raise Failure(404, f"ResourceNotFoundError: {identifier} not found")
    return items[identifier]


def keep(items: dict[str, dict[str, Any]], key: str, value: dict[str, Any]) -> dict[str, Any]:
    identifier = str(uuid.uuid4())
    items[identifier] = value | {key: identifier, "created_at": now()}
    return items[identifier]


def page(name: str, items: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
    """One page of the items that the filter lets through."""
    for predicate in json.loads(query.get("filter") or "{}").get("predicates", []):
        if predicate["operation"] not in (1, "EQUALS") or predicate["key"] != "display_name":
            raise Failure(400, f"filter {predicate} is not served here")
        value = predicate.get("string_value") or predicate["stringValue"]
        items = [item for item in items if item["display_name"] == value]
    start, size = int(query.get("page_token") or 0), int(query.get("page_size") or 20)
    answer: dict[str, Any] = {name: items[start : start + size], "total_size": len(items)}
    return answer | ({"next_page_token": str(start + size)} if start + size < len(items) else {})


def task(run: dict[str, Any], name: str, state: str, message: str = "") -> dict[str, Any]:
    """A task's details as the server gives them: an error only in the history of states."""
    history: dict[str, Any] = {"update_time": now(), "state": state}
    if message:
        history["error"] = {"code": 13, "message": message}
    return {
        "run_id": run["run_id"], "task_id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)), "display_name": name,
        "create_time": now(), "start_time": now(), "end_time": "1970-01-01T00:00:00Z", "state": state,
        "execution_id": "0", "state_history": [history], "child_tasks": [{"pod_name": f"lung-tumour-abcde-{name}"}],
    }  # fmt: skip


def details(run: dict[str, Any], **states: str | tuple[str, str]) -> None:
    """Set the run's tasks, with those that the engine adds around them."""
    tasks = [
        task(run, "lung-tumour-abcde", "RUNNING"),
        task(run, "root", "RUNNING"),
        task(run, "root-driver", "SUCCEEDED"),
    ]
    for name, state in states.items():
        known = (state,) if isinstance(state, str) else state
        tasks += [task(run, name.replace("_", "-"), *known), task(run, f"{name.replace('_', '-')}-driver", "SUCCEEDED")]
    run["run_details"] = {"task_details": tasks}


def finish(run: dict[str, Any], state: str = "SUCCEEDED") -> None:
    run.update(state=state, finished_at=now())


def handler(server: KfpServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            pass

        def send(self, status: int, body: str, kind: str, **headers: str) -> None:
            self.send_response(status)
            for name, value in ({"Content-Type": kind, "Content-Length": str(len(body.encode()))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        def serve(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            address = urlsplit(self.path.removeprefix(KUBERNETES_PROXY))
            if address.path.startswith(("/dex/", "/oauth2/")) or address.path in ("", "/"):
                self.dex(address.path, dict(parse_qsl(raw.decode())))
                return
            if not address.path.startswith("/apis/"):
                self.send(404, "<html>404 page not found</html>", "text/html")
                return
            if server.header and server.header[1] not in (self.headers.get(server.header[0]) or ""):
                self.stranger()
                return
            operation: dict[str, Any] = {
                "responses": {"default": {"schema": {"$ref": "#/definitions/googleRpcStatus"}}}
            }
            try:
                operation, path = server.description.find(self.command, address.path)
                query = dict(parse_qsl(address.query, keep_blank_values=True))
                body, files = self.parsed(raw)
                server.description.check_request(operation, query, body, files)
                file = next(iter(files.values()), b"")
                status, answer = 200, server.answer(operation["operationId"], path, query, body, file)
            except Failure as error:
                status, answer = error.status, error.body
            server.description.check_answer(operation, status, answer)
            self.send(status, json.dumps(answer), "application/json")

        def parsed(self, raw: bytes) -> tuple[Any, dict[str, bytes]]:
            kind = self.headers.get("Content-Type", "")
            if not kind.startswith("multipart/form-data"):
                return (json.loads(raw) if raw else None), {}
            message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + raw)
            files = {}
            for part in message.iter_parts():  # type: ignore[attr-defined]
                files[part.get_param("name", header="content-disposition")] = part.get_payload(decode=True)
            return None, files

        def stranger(self) -> None:
            if server.unauthenticated == "redirect":
                self.send(302, "", "text/html", Location="/dex/auth?client_id=kubeflow&state=abc")
            elif server.unauthenticated == "https":
                self.send(301, "", "text/html", Location=server.url.replace("http:", "https:") + self.path)
            elif server.unauthenticated == "page":
                self.send(200, LOGIN, "text/html")
            else:
                self.send(401, "Jwt is expired", "text/plain")

        def dex(self, path: str, form: dict[str, str]) -> None:
            cookie = server.header[1] if server.header else ""
            if path == "/dex/auth":
                self.send(200, LOGIN, "text/html")
            elif path == "/dex/auth/local":
                if self.command == "POST" and form == {"login": "ada@example.org", "password": server.password}:
                    self.send(303, "", "text/html", Location="/oauth2/callback?code=1")
                else:
                    self.send(200, LOGIN, "text/html")
            elif path == "/oauth2/callback":
                self.send(302, "", "text/html", Location="/", **{"Set-Cookie": f"{cookie}; Path=/"})
            elif cookie and cookie not in (self.headers.get("Cookie") or ""):
                self.send(302, "", "text/html", Location="/dex/auth?client_id=kubeflow&state=abc")
            else:
                self.send(200, "<html>Kubeflow</html>", "text/html")

        do_GET = do_POST = do_DELETE = do_PATCH = serve  # noqa: N815

    return Handler


@contextmanager
def listening(server: KfpServer, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve on the loopback, with TLS where a context is given; yields the address."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler(server))
    if context:
        http.socket = context.wrap_socket(http.socket, server_side=True)
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http{'s' if context else ''}://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()


def compile_once(out: Path, names: list[str], cluster: Cluster) -> list[Path]:
    """`compile_all`, which gives the same document for the same cluster, once for each."""
    (name,) = names
    key = (name, cluster.model_dump_json())
    if key not in COMPILED:
        COMPILED[key] = compile_all(out, names, cluster)[0].read_bytes()
    document = out / f"{name}.yaml"
    document.write_bytes(COMPILED[key])
    return [document]


@pytest.fixture
def api(crds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpServer]:
    """A server, in an environment without credentials."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(kfp.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "kfp" / "context.json"))
    monkeypatch.setattr(submit, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(submit, "compile_all", compile_once)
    server = KfpServer(Description(crds / "kfp-v2beta1.swagger.json"))
    with listening(server) as server.url:
        yield server


def call(*arguments: str) -> tuple[int, str]:
    """Exit code and output; an error of ours counts as one line, as `main` prints it."""
    result = typer.testing.CliRunner().invoke(app, arguments)
    if isinstance(result.exception, HounsfieldError):
        return 2, f"{result.output}error: {result.exception}"
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output
