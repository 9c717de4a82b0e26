"""Both tasks through a real MLflow server on PostgreSQL and S3: proxied, direct, broken off, backed up, refused."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import services
from mlflow import MlflowClient
from mlflow.entities import Param, Run
from mlflow.exceptions import MlflowException
from services import Services, expected, folder, loaded, make, running, slices, unset_settings
from test_history import move_at_once

from hounsfield.components.register_model.component import register_model
from hounsfield.components.register_model.config import Config
from hounsfield.components.register_model.run import run
from hounsfield.components.tune.component import tune
from hounsfield.components.tune.config import Config as TuneConfig
from hounsfield.errors import InputError
from hounsfield.registry import history, policy, tracking
from hounsfield.registry.search_log import log_search
from hounsfield.search.objective import Objective
from hounsfield.search.result import Result
from hounsfield.search.space import space_for
from hounsfield.search.study import Trial

pytestmark = [pytest.mark.services, pytest.mark.slow]

TASKS = ("lung-tumour", "l3-slice")
REGISTER = [sys.executable, "-m", "hounsfield.components.register_model"]


@pytest.fixture(scope="module")
def server() -> Iterator[Services]:
    with folder() as data, running(data, "--allowed-hosts", "mlflow.hounsfield.svc:*") as up:
        yield up


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    unset_settings(monkeypatch)


def status(url: str, host: str) -> int:
    request = urllib.request.Request(url, headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("task", TASKS)
def test_registers_and_loads_proxied_and_direct(server: Services, task: str, tmp_path: Path) -> None:
    model, evaluation = make(tmp_path, task)
    outcome = run(Config(tracking_uri=server.uri), model, evaluation)
    assert (outcome["model_uri"], outcome["aliases"]) == (f"models:/{task}/1", ["challenger", "champion"])
    probabilities = expected(model)
    proxied, connections = loaded(
        server, f"models:/{task}@champion", tmp_path, MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD="false", S3_CLOSED="1"
    )
    assert connections == 0
    np.testing.assert_allclose(proxied, probabilities, rtol=2e-6, atol=1e-7)
    presigned, connections = loaded(server, f"models:/{task}@champion", tmp_path)
    assert connections > 0
    np.testing.assert_array_equal(presigned, proxied)
    with tracking.recording(server.uri):
        client = MlflowClient()
        recorded = client.get_run(outcome["run_id"])
        (found,) = client.search_model_versions(f"name='{task}' and tags.dataset_hash='{'d' * 64}'")
        files = {item.path for item in client.list_artifacts(outcome["run_id"], "evaluation")}
    assert recorded.info.artifact_uri.startswith("mlflow-artifacts:/")
    assert recorded.data.metrics["test_f1"] == 0.8
    assert (found.version, found.run_id, found.tags["f1"]) == ("1", outcome["run_id"], "0.8")
    assert "evaluation/report.html" in files


def test_artifacts_straight_to_s3_with_credentials(
    server: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An experiment located in S3: the client writes and reads there itself, as a server without proxy wants it."""
    credentials = {name: text for name, text in server.environment.items() if name.startswith("AWS_")}
    for name, text in credentials.items():
        monkeypatch.setenv(name, text)
    with tracking.recording(server.uri):
        MlflowClient().create_experiment("direct", artifact_location="s3://mlflow/direct")
    model, evaluation = make(tmp_path, seed=11)
    config = Config(tracking_uri=server.uri, model_name="direct", experiment="direct")
    outcome = run(config, model, evaluation)
    predicted, connections = loaded(server, outcome["model_uri"], tmp_path, **credentials)
    assert connections > 0
    np.testing.assert_allclose(predicted, expected(model), rtol=2e-6, atol=1e-7)

    wrong = {**os.environ, "AWS_SECRET_ACCESS_KEY": "wrong"}
    model, evaluation = make(tmp_path, seed=12)
    refused = subprocess.run(
        [
            *REGISTER,
            "--tracking-uri",
            server.uri,
            "--experiment",
            "direct",
            "--model",
            model,
            "--evaluation",
            evaluation,
        ],
        env=wrong,
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert "SignatureDoesNotMatch" in refused.stderr
    assert "AWS_" in refused.stderr


def test_hosts_that_are_not_allowed(server: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = f"{server.uri}/api/2.0/mlflow/experiments/search?max_results=1"
    assert status(search, f"127.0.0.1:{server.port}") == 200
    assert status(search, "mlflow.hounsfield.svc:5000") == 200
    assert status(search, "mlflow.elsewhere.example") == 403
    assert status(f"{server.uri}/health", "mlflow.elsewhere.example") == 200

    lookup = socket.getaddrinfo

    def named(host: str, *rest: Any, **more: Any) -> Any:
        return lookup("127.0.0.1" if host == "mlflow.elsewhere.example" else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", named)
    elsewhere = f"http://mlflow.elsewhere.example:{server.port}"
    with pytest.raises(InputError, match="refuses that host name: add it to MLFLOW_SERVER_ALLOWED_HOSTS"):
        run(Config(tracking_uri=elsewhere, model_name="elsewhere"), *make(tmp_path))


def test_two_registrations_at_once(server: Services, tmp_path: Path) -> None:
    processes = []
    for seed in (1, 2):
        model, evaluation = make(tmp_path, seed=seed)
        paths = ["--model", str(model), "--evaluation", str(evaluation), "--result", str(tmp_path / f"{seed}.json")]
        processes.append(subprocess.Popen([*REGISTER, "--tracking-uri", server.uri, "--model-name", "at-once", *paths]))
    assert [process.wait(timeout=180) for process in processes] == [0, 0]
    outcomes = [json.loads((tmp_path / f"{seed}.json").read_text()) for seed in (1, 2)]
    assert {outcome["version"] for outcome in outcomes} == {1, 2}
    with tracking.recording(server.uri):
        aliases = MlflowClient().get_registered_model("at-once").aliases
        events = history.read_events(MlflowClient().get_registered_model("at-once").tags)
    assert {alias: int(version) for alias, version in aliases.items()} == {"champion": 1, "challenger": 2}
    assert [(event.action, event.to) for event in events] == [(history.FIRST, "1")]


def test_champion_moved_by_several_processes_at_once(server: Services) -> None:
    """On PostgreSQL, whose writers do not wait for each other as SQLite's do."""
    client, name, versions = MlflowClient(server.uri), "moved-at-once", "23456"
    client.create_registered_model(name)
    for _ in range(6):
        client.create_model_version(name, "s3://nowhere/model")
    with tracking.recording(server.uri):
        policy.assign_aliases(name, 6)
    move_at_once(server.uri, name, versions)
    model = client.get_registered_model(name)
    first, *moves = history.read_events(model.tags)
    assert (first.action, first.to) == (history.FIRST, "1")
    assert sorted(event.to for event in moves) == list(versions)
    assert str(model.aliases["champion"]) == moves[-1].to == history.course([first, *moves]).champion


class Plugin:
    """The calls of KFP 2.17's API server, driver and launcher to MLflow for a run with one task."""

    def __init__(self, uri: str, component: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.client, self.inputs = MlflowClient(uri), component.component_spec.inputs
        name = component.component_spec.name
        self.experiment = self.client.create_experiment(f"kfp-{name}")
        self.parent = self.create_run("nightly", {"kfp.pipeline_run_id": "17"})
        self.task = self.create_run(name, {"mlflow.parentRunId": self.parent})
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", self.experiment)
        monkeypatch.setenv("MLFLOW_RUN_ID", self.task)

    def create_run(self, name: str, tags: dict[str, str]) -> str:
        return str(self.client.create_run(self.experiment, run_name=name, tags=tags).info.run_id)

    def end(self, given: dict[str, Any]) -> Run:
        """The launcher logs the inputs of the task as JSON, all or nothing, and ends its run."""
        values = [Param(name, json.dumps(given[name])) for name in self.inputs if name in given]
        assert len(values) > 3
        self.client.log_batch(self.task, params=values)
        self.client.set_terminated(self.task, "FINISHED")
        assert self.client.get_run(self.parent).info.status == "RUNNING"
        recorded = self.client.get_run(self.task)
        assert recorded.data.tags["mlflow.parentRunId"] == self.parent
        return recorded


def test_registration_adopts_the_run_of_kfps_plugin_and_is_retried_in_it(
    server: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = Plugin(server.uri, register_model, monkeypatch)
    client, artifacts, config = plugin.client, make(tmp_path, seed=21), Config(model_name="adopted", kfp_run_id="17")
    with monkeypatch.context() as patch:
        patch.setattr(policy, "register", lambda *_: (_ for _ in ()).throw(MlflowException("the pod was lost")))
        with pytest.raises(InputError, match="the pod was lost"):
            run(config, *artifacts)
    client.set_terminated(plugin.task, "FAILED")
    first, again = (run(config, *artifacts) for _ in range(2))
    assert first == again
    assert (first["run_id"], first["version"]) == (plugin.task, 1)
    assert len(client.search_model_versions("name='adopted'")) == 1
    assert len(client.search_logged_models([plugin.experiment])) == 1
    assert client.get_run(plugin.task).info.status == "FAILED"
    recorded = plugin.end(config.model_dump() | {"code_version": "0.1.0"})
    assert recorded.data.tags["kfp_run_id"] == "17"
    assert recorded.data.params["learning_rate"] == "0.001"
    assert [len(client.get_metric_history(plugin.task, name)) for name in ("train_loss", "test_f1")] == [2, 1]
    assert len(client.search_runs([plugin.experiment])) == 2


def test_search_adopts_the_run_of_kfps_plugin(
    server: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = Plugin(server.uri, tune, monkeypatch)
    config = TuneConfig(trials=2, search_seed=7)
    setting = {"alpha": 0.5, "loss": "bl"}
    trials = [
        Trial(number, setting, "complete", score, -score, "", -1, 0, 1e9, 5.0, {"val_average_precision": score})
        for number, score in enumerate((0.4, 0.6))
    ]
    space, objective = space_for(config.task, ""), Objective("average_precision")
    result = Result(space, objective, config.strategy, False, -1, config.search_seed, trials, trials[1])
    for name in ("report.html", "best.json", "trials.parquet", "figures/history.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    for _ in range(2):
        assert log_search(result, tmp_path, "identity", "", "") == plugin.task
    recorded = plugin.end(config.model_dump())
    assert recorded.data.metrics["search_best"] == 0.6
    runs = plugin.client.search_runs([plugin.experiment])
    nested = [item for item in runs if item.data.tags.get("mlflow.parentRunId") == plugin.task]
    assert sorted(item.data.metrics["objective"] for item in nested) == [0.4, 0.6]
    assert len(runs) == 4


def test_run_of_another_server_is_not_adopted(
    server: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    outcome = run(Config(tracking_uri=server.uri, model_name="own"), *make(tmp_path, seed=22))
    assert outcome["run_id"] != "0" * 32


def test_wrong_credentials_of_the_server_for_s3(server: Services, tmp_path: Path) -> None:
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("MLFLOW_", "AWS_"))}
    environment |= server.environment | {
        "AWS_SECRET_ACCESS_KEY": "wrong",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    del environment["MLFLOW_TRACKING_URI"]
    port = server.port + 1
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    with (tmp_path / "log").open("w") as log:
        other = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + services.SECONDS_TO_START
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert time.monotonic() < until, (tmp_path / "log").read_text()
            time.sleep(0.3)
        config = Config(tracking_uri=f"http://127.0.0.1:{port}", model_name="no-credentials")
        started = time.monotonic()
        with pytest.raises(InputError, match=r"cannot read or write its artifacts: .*MLFLOW_ARTIFACTS_DESTINATION"):
            run(config, *make(tmp_path, seed=31))
        assert time.monotonic() - started < 60
    finally:
        os.killpg(other.pid, 15)
        other.wait(30)
    with tracking.recording(server.uri):
        assert not MlflowClient().search_registered_models("name='no-credentials'")


def answers(url: str) -> bool:
    try:
        return status(url, "localhost") == 200
    except OSError:
        return False


@pytest.mark.parametrize("task", TASKS)
def test_pipeline_through_the_server(
    server: Services, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_end_to_end import SMALL, cohort

    from hounsfield.cli.run import run_task

    monkeypatch.setenv("HOUNSFIELD_PSEUDONYM_KEY", "test")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    region, settings = SMALL[task]
    name = f"{task}-pipeline"
    cases = cohort(region, tmp_path / "data")
    finished, figures = run_task(task, [], cases, tmp_path / "out", [*settings, "epochs=1", f"model_name={name}"])
    assert finished.outputs["model_uri"] == f"models:/{name}/1"
    with tracking.recording(server.uri):
        predicted = mlflow.pyfunc.load_model(f"models:/{name}@champion").predict(slices())
    assert np.isfinite(predicted).all()
    client = MlflowClient(server.uri)
    recorded = client.get_run(client.get_model_version(name, "1").run_id)
    assert recorded.data.metrics["test_patients"] == figures["patients"] == 1
    assert not (tmp_path / "out" / "mlflow.db").exists()
