"""The servers of the manifests start with their arguments, and roles suffice for what our clients ask."""

import contextlib
import json
import re
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import s3_server
import yaml
from kfp_server import KfpServer
from overlays import NAMESPACE, OVERLAYS, Resource, of, of_overlay
from s3_server import serving

from hounsfield.errors import HounsfieldError


def server_arguments(resources: list[Resource]) -> list[str]:
    """Arguments of the MLflow server, its variables filled in as Kubernetes does."""
    [container] = of(resources, "Deployment")["mlflow"]["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["mlflow", "server"]
    data = of(resources, "ConfigMap")[NAMESPACE]["data"]
    return [re.sub(r"\$\((\w+)\)", lambda found: data[found[1]], argument) for argument in container["args"]]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_mlflow_takes_its_arguments_and_answers_to_its_name(overlay: str) -> None:
    from mlflow.cli import server
    from mlflow.server.security_utils import is_allowed_host_header

    resources = of_overlay(overlay)
    values = server.make_context("server", server_arguments(resources)).params
    assert values["artifacts_destination"].startswith("s3://")
    assert values["serve_artifacts"] is True
    hosts = values["allowed_hosts"].split(",")
    uri = of(resources, "ConfigMap")[NAMESPACE]["data"]["MLFLOW_TRACKING_URI"]
    for host in (urlsplit(uri).netloc, "mlflow:5000", "localhost:8080"):
        assert is_allowed_host_header(hosts, host), host
    for host in ("evil.example.org", "mlflow.hounsfield.svc.evil.example.org:5000"):
        assert not is_allowed_host_header(hosts, host), host


def test_the_s3_server_starts_with_its_arguments_and_makes_its_buckets(tmp_path: Path) -> None:
    resources = of_overlay("local")
    container = of(resources, "StatefulSet")["s3"]["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["weed"]
    (tmp_path / "data").mkdir()
    (tmp_path / "tmp").mkdir()
    data = of(resources, "ConfigMap")[NAMESPACE]["data"]
    buckets = {urlsplit(value).netloc for value in data.values() if value.startswith("s3://")}
    assert len(buckets) == 2
    arguments = [argument.replace("=/data", f"={tmp_path}/data") for argument in container["args"]]
    with serving(arguments, tmp_path / "tmp", {"HOME": str(tmp_path / "tmp")}, buckets) as endpoint:
        probe = endpoint + container["readinessProbe"]["httpGet"]["path"]
        with urllib.request.urlopen(probe, timeout=5) as answer:
            assert answer.status == 200
    assert {path.name for path in tmp_path.iterdir()} == {"data", "tmp"}


def test_the_s3_server_of_the_tests_moves_from_a_port_that_was_taken(
    s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = s3_server.free_ports
    taken = int(s3_endpoint.rpartition(":")[2])
    first = [[taken, *found(4)]]
    monkeypatch.setattr(s3_server, "free_ports", lambda count: first.pop() if first else found(count))
    with serving(["mini", f"-dir={tmp_path}", "-ip=127.0.0.1", "-bucket=other"], tmp_path, {}, {"other"}) as endpoint:
        assert endpoint != s3_endpoint
    assert first == []


VERBS = {"GET": ("list", "get"), "POST": ("create", "create"), "DELETE": ("deletecollection", "delete")}
"""By HTTP method, the verb on a collection and on one object."""


@contextlib.contextmanager
def recording_api() -> Iterator[tuple[str, set[tuple[str, str, str]]]]:
    """Address of a Kubernetes API that has nothing, and the (group, resource, verb) asked of it so far."""
    asked: set[tuple[str, str, str]] = set()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            _, kind, *parts = urlsplit(self.path).path.split("/")
            group = "" if kind == "api" else parts[0]
            resource, *name = parts[parts.index("namespaces") + 2 :]
            asked.add((group, resource, VERBS[self.command][bool(name)]))
            body: dict[str, Any] = {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": []}
            if name or self.command == "POST":
                body = {"kind": "Status", "code": 404, "message": f"{resource} {' '.join(name)} not found"}
            data = json.dumps(body).encode()
            self.send_response(body.get("code", 200))
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = answer  # noqa: N815

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def test_the_role_of_steps_suffices_for_a_search_and_holds_no_more_of_katib(tmp_path: Path) -> None:
    pytest.importorskip("kubeflow.katib")
    from hounsfield.katib.client import Cluster

    with recording_api() as (address, asked):
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": {"server": address}}],
            "users": [{"name": "me", "user": {"token": "none"}}],
            "contexts": [{"name": "it", "context": {"cluster": "here", "user": "me"}}],
            "current-context": "it",
        }
        (tmp_path / "config").write_text(yaml.safe_dump(config))
        cluster = Cluster(NAMESPACE, str(tmp_path / "config"))
        body = {"apiVersion": "kubeflow.org/v1beta1", "kind": "Experiment", "metadata": {"name": "lung"}}
        for call in (
            lambda: cluster.experiment("lung"),
            lambda: cluster.create(body),
            lambda: cluster.trials("lung"),
            lambda: cluster.pods("lung"),
            lambda: cluster.warnings("lung"),
            lambda: cluster.delete("lung"),
        ):
            with contextlib.suppress(HounsfieldError):
                call()
    role = granted("hounsfield-pipelines")
    assert asked <= role
    katib = {item for item in role if item[0] == "kubeflow.org"}
    assert katib == {item for item in asked if item[0] == "kubeflow.org"}


def granted(role: str) -> set[tuple[str, str, str]]:
    """(group, resource, verb) that a Role grants on objects of any name."""
    return {
        (group, resource, verb)
        for rule in of(of_overlay("local"), "Role")[role]["rules"]
        if "resourceNames" not in rule
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_role_of_submitting_is_what_submit_and_schedule_ask_of_kfp() -> None:
    """The tests of both commands run against a server that has these operations and no others."""
    kinds = {"pipeline": "pipelines", "experiment": "experiments", "run": "runs", "recurring_run": "jobs"}
    needed = set()
    for name in vars(KfpServer):
        found = re.fullmatch(
            r"(list|get|create|upload|delete|enable|disable)_(recurring_run|run|experiment|pipeline)(_version)?s?", name
        )
        if found:
            verb = {"upload": "create"}.get(found[1], found[1])  # as KFP's API server asks
            needed.add(("pipelines.kubeflow.org", kinds[found[2]], verb))
    assert len(needed) > 10
    assert granted("hounsfield-submit") == needed
