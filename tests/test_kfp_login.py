"""Reaching and entering a Kubeflow Pipelines server, as users have it, through `hounsfield submit`."""

import json
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import kfp
import kfp_server
import pytest
from kfp_server import DATA, KfpServer, call
from kubernetes.config import kube_config

from hounsfield.pipelines import server as connection

api = kfp_server.api


def submitted(api: KfpServer, *arguments: str) -> tuple[int, str]:
    return call("submit", "lung-tumour", "--host", api.url, *DATA, *arguments)


@pytest.mark.parametrize(
    ("variable", "value", "header"),
    [
        ("HOUNSFIELD_KFP_TOKEN", "eyJ0oken", ("Authorization", "Bearer eyJ0oken")),
        ("HOUNSFIELD_KFP_COOKIE", "oauth2_proxy_kubeflow=s3ss10n", ("Cookie", "oauth2_proxy_kubeflow=s3ss10n")),
    ],
)
def test_credentials_of_the_environment(
    api: KfpServer, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, header: tuple[str, str]
) -> None:
    api.header = header
    monkeypatch.setenv(variable, value)
    assert submitted(api)[0] == 0
    monkeypatch.setenv(variable, f"old{value}=expired")
    api.header = (header[0], "something else")
    code, output = submitted(api)
    assert code == 2
    assert variable in output
    assert value not in output


@pytest.mark.parametrize("kind", ["401", "redirect", "page"])
def test_without_a_session_the_settings_are_named(api: KfpServer, kind: str) -> None:
    api.header, api.unauthenticated = ("Cookie", "x=1"), kind
    started = time.monotonic()
    code, output = submitted(api)
    assert code == 2
    assert "HOUNSFIELD_KFP_COOKIE, HOUNSFIELD_KFP_TOKEN or HOUNSFIELD_KFP_USER" in output
    assert time.monotonic() - started < 15
    assert "state=abc" not in output


def test_dex_login_with_name_and_password(api: KfpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    api.header, api.unauthenticated = ("Cookie", "oauth2_proxy_kubeflow=s3ss10n"), "redirect"
    api.password = "pa55word"
    monkeypatch.setenv("HOUNSFIELD_KFP_USER", "ada@example.org")
    code, output = submitted(api)
    assert (code, "HOUNSFIELD_KFP_PASSWORD" in output) == (2, True)
    monkeypatch.setenv("HOUNSFIELD_KFP_PASSWORD", "pa55word")
    code, output = submitted(api)
    assert code == 0, output
    monkeypatch.setenv("HOUNSFIELD_KFP_PASSWORD", "wr0ng")
    code, output = submitted(api)
    assert code == 2
    assert "was refused: check HOUNSFIELD_KFP_USER and HOUNSFIELD_KFP_PASSWORD" in output
    assert "wr0ng" not in output
    assert "s3ss10n" not in output


def test_a_session_that_ends_while_waiting_is_renewed_by_another_login(
    api: KfpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.header, api.unauthenticated, api.password = ("Cookie", "session=first"), "redirect", "pa55word"
    monkeypatch.setenv("HOUNSFIELD_KFP_USER", "ada@example.org")
    monkeypatch.setenv("HOUNSFIELD_KFP_PASSWORD", "pa55word")

    def states(run: dict[str, Any], asked: int) -> None:
        api.header = ("Cookie", "session=second")
        if asked == 2:
            kfp_server.finish(run)

    api.run_states = states
    code, output = submitted(api)
    assert (code, "succeeded" in output) == (0, True), output


def test_a_server_that_moved_to_https_says_so(api: KfpServer) -> None:
    api.header, api.unauthenticated = ("Cookie", "x=1"), "https"
    code, output = submitted(api)
    assert (code, f"moved to https: give --host {api.url.replace('http:', 'https:')}" in output) == (2, True)


def test_a_cookie_and_namespace_of_kfps_context_are_used(api: KfpServer) -> None:
    context = Path(kfp.Client._LOCAL_KFP_CONTEXT)
    context.parent.mkdir()
    context.write_text(json.dumps({"namespace": "radiology", "client_authentication_cookie": "session=abc"}))
    api.header, api.namespaces = ("Cookie", "session=abc"), ("radiology",)
    code, output = submitted(api)
    assert code == 0, output
    (experiment,) = api.experiments.values()
    assert experiment["namespace"] == "radiology"
    context.write_text("{")
    code, output = submitted(api)
    assert (code, "is not JSON: repair or delete it" in output) == (2, True)


def test_contradicting_or_homeless_credentials(api: KfpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUNSFIELD_KFP_TOKEN", "t0ken")
    code, output = call("submit", "lung-tumour", *DATA)
    assert (code, "HOUNSFIELD_KFP_TOKEN is set but no server: give --host" in output) == (2, True)
    monkeypatch.setenv("HOUNSFIELD_KFP_COOKIE", "a=b")
    code, output = submitted(api)
    assert (code, "are both set" in output) == (2, True)


def test_a_token_path_that_is_not_there(api: KfpServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "none"))
    code, output = submitted(api)
    assert (code, "KF_PIPELINES_SA_TOKEN_PATH names" in output) == (2, True)


def test_inside_the_cluster_the_service_and_a_mounted_token_are_used(
    api: KfpServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("projected\n")
    api.header = ("Authorization", "Bearer projected")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(connection, "IN_CLUSTER", api.url)
    code, output = call("submit", "lung-tumour", *DATA)
    assert code == 0, output
    assert "set KF_PIPELINES_UI_ENDPOINT" in output
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", "https://kubeflow.example.org/pipeline")
    code, output = call("submit", "lung-tumour", *DATA)
    assert "https://kubeflow.example.org/pipeline/#/runs/details/" in output


def test_a_kubeconfig_leads_through_the_kubernetes_api(
    api: KfpServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    api.header = ("Authorization", "Bearer of-kubectl")
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": api.url}}],
        "users": [{"name": "ada", "user": {"token": "of-kubectl"}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "ada"}}],
    }  # fmt: skip
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    code, output = call("submit", "lung-tumour", *DATA)
    assert code == 0, output
    assert len(api.runs) == 1


# Several users


def test_several_users_need_a_namespace_they_may_use(api: KfpServer) -> None:
    api.namespaces = ("radiology",)
    code, output = submitted(api)
    assert (code, "name your profile's namespace by --namespace" in output) == (2, True)
    code, output = submitted(api, "--namespace", "oncology")
    assert (code, "check --namespace" in output) == (2, True)
    assert api.runs == api.pipelines == {}
    assert submitted(api, "--namespace", "radiology")[0] == 0
    assert [item["namespace"] for item in (*api.experiments.values(), *api.pipelines.values())] == ["radiology"] * 2


def test_home_stays_untouched(api: KfpServer, tmp_path: Path) -> None:
    api.namespaces = ("radiology",)
    assert submitted(api, "--namespace", "radiology")[0] == 0
    assert not (tmp_path / "kfp").exists()


# Servers that are not there


def test_an_address_where_nothing_listens(api: KfpServer) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    started = time.monotonic()
    code, output = call("submit", "lung-tumour", *DATA, "--host", url)
    assert code == 2
    assert f"no answer from {url}" in output
    assert "KF_PIPELINES_ENDPOINT" in output
    assert "port-forward" in output
    assert time.monotonic() - started < 15


@pytest.mark.slow
def test_an_address_that_swallows_connections_is_given_up_within_15_seconds(api: KfpServer) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        others = [socket.socket() for _ in range(4)]
        for other in others:
            other.setblocking(False)
            other.connect_ex(full.getsockname())
        started = time.monotonic()
        code, output = call("submit", "l3-slice", *DATA, "--host", f"http://127.0.0.1:{full.getsockname()[1]}")
        assert (code, "no answer from" in output) == (2, True)
        assert time.monotonic() - started < 15
        for other in others:
            other.close()


def test_no_server_named_at_all(api: KfpServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    code, output = call("submit", "lung-tumour", *DATA)
    assert (code, "no Kubeflow Pipelines server is named: give --host" in output) == (2, True)


def test_a_certificate_of_an_own_authority(api: KfpServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run(
        [*command.split(), "-keyout", tmp_path / "key", "-out", tmp_path / "ca.crt"], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ca.crt", tmp_path / "key")
    with kfp_server.listening(api, context) as url:
        code, output = call("submit", "lung-tumour", *DATA, "--host", url)
        assert (code, "is not trusted: set REQUESTS_CA_BUNDLE" in output) == (2, True), output
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.crt"))
        code, output = call("submit", "lung-tumour", *DATA, "--host", url)
        assert code == 0, output


def test_a_path_without_the_api(api: KfpServer) -> None:
    code, output = call("submit", "lung-tumour", *DATA, "--host", f"{api.url}/ui")
    assert (code, "has no Kubeflow Pipelines API: check the path of --host" in output) == (2, True)


def test_a_password_in_the_address_is_refused(api: KfpServer) -> None:
    code, output = call("submit", "lung-tumour", *DATA, "--host", "http://ada:pa55@kubeflow.example.org")
    assert (code, "pa55" in output) == (2, False)
