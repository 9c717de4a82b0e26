"""register_model: what a run records, versions and aliases, injected runs, and MLflow that cannot be used."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest
from mlflow import MlflowClient
from tiny_models import HISTORY, tiny_evaluation, tiny_model

from hounsfield.components.register_model.config import Config
from hounsfield.components.register_model.run import run
from hounsfield.errors import ArtifactError, InputError
from hounsfield.registry import history, logs, policy, tracking

INJECTED = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "KFP_RUN_ID")


@pytest.fixture(autouse=True)
def no_injection(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in INJECTED:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("artifacts")
    model = tiny_model(folder)
    return model, tiny_evaluation(folder, model)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"


@pytest.fixture
def client(uri: str) -> Iterator[MlflowClient]:
    with tracking.recording(uri):
        yield MlflowClient()


def make(folder: Path, seed: int) -> tuple[Path, Path]:
    model = tiny_model(folder / str(seed), seed=seed)
    return model, tiny_evaluation(folder / str(seed), model)


def register(artifacts: tuple[Path, Path], uri: str, **config: Any) -> dict[str, Any]:
    return run(Config(tracking_uri=uri, **config), *artifacts)


def test_run_records_training_and_evaluation(artifacts: tuple[Path, Path], uri: str, client: MlflowClient) -> None:
    outcome = register(artifacts, uri, kfp_run_id="kfp-17")
    recorded = client.get_run(outcome["run_id"])
    assert recorded.info.status == "FINISHED"
    assert recorded.data.params["learning_rate"] == "0.001"
    assert recorded.data.params["window_lower"] == "-125.0"
    for name in ("train_loss", "val_f1"):
        history = [(item.step, item.value) for item in client.get_metric_history(outcome["run_id"], name)]
        assert sorted(history) == [(row["epoch"], row[name]) for row in HISTORY]
    tested = {name: value for name, value in recorded.data.metrics.items() if name.startswith("test_")}
    assert tested == {"test_f1": 0.8, "test_patients": 6, "test_pooled_recall": 0.75, "test_per_patient_dice_mean": 0.7}
    assert recorded.data.tags["dataset_hash"] == "d" * 64
    assert recorded.data.tags["evaluation_dataset_hash"] == "e" * 64
    assert recorded.data.tags["kfp_run_id"] == "kfp-17"
    assert [item.dataset.digest for item in recorded.inputs.dataset_inputs] == ["5" * 16]
    assert {item.path for item in client.list_artifacts(outcome["run_id"], "evaluation")} == {
        "evaluation/metrics.json",
        "evaluation/report.html",
        "evaluation/figures",
    }
    location = Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts" / "lung-tumour"
    assert client.get_experiment_by_name("lung-tumour").artifact_location == location.as_uri()


def test_aliases_of_successive_versions(
    artifacts: tuple[Path, Path], uri: str, client: MlflowClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / "result.json"
    first = run(Config(tracking_uri=uri, model_name="successive"), *artifacts, result)
    assert json.loads(result.read_text()) == first
    assert (first["model_uri"], first["aliases"]) == ("models:/successive/1", ["challenger", "champion"])
    second = register(make(tmp_path, 8), uri, model_name="successive")
    assert (second["version"], second["aliases"]) == (2, ["challenger"])
    assert int(client.get_model_version_by_alias("successive", "champion").version) == 1
    version = client.get_model_version("successive", "2")
    assert version.run_id == second["run_id"]
    assert version.tags["dataset_hash"] == "d" * 64
    assert version.tags["f1"] == "0.8"
    assert "Research use only" in version.description
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "registered successive version 1 (challenger, champion): models:/successive/1"
    assert len(lines) == 4

    client.delete_registered_model_alias("successive", "champion")
    assert register(make(tmp_path, 9), uri, model_name="successive")["aliases"] == ["challenger"]


def test_same_weights_are_registered_once(artifacts: tuple[Path, Path], uri: str, client: MlflowClient) -> None:
    first, again = (register(artifacts, uri, model_name="once") for _ in range(2))
    assert again == first
    assert len(client.search_model_versions("name='once'")) == 1


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_first_registrations_at_the_same_time_agree(client: MlflowClient, order: tuple[int, int]) -> None:
    name = f"race-{order[0]}"
    for _ in order:
        policy.register(name, "file:///nowhere", None, None, {}, "")
    for version in order:
        policy.assign_aliases(name, version)
    aliases = client.get_registered_model(name).aliases
    assert {alias: int(version) for alias, version in aliases.items()} == {"champion": 1, "challenger": 2}


def test_first_registrations_record_one_first_champion(client: MlflowClient) -> None:
    made = "first-at-once"
    for _ in range(6):
        policy.register(made, "file:///nowhere", None, None, {}, "")
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda version: policy.assign_aliases(made, version), range(1, 6 + 1)))
    events = history.read_events(client.get_registered_model(made).tags)
    assert [(item.key, item.to) for item in events] == [(history.FIRST_KEY, "1")]
    aliases = client.get_registered_model(made).aliases
    assert {alias: int(version) for alias, version in aliases.items()} == {"champion": 1, "challenger": 6}


def test_older_version_that_writes_late_leaves_the_newest_challenger(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = "late-writer"
    policy.register(made, "file:///nowhere", None, None, {}, "")
    original, overtaken = MlflowClient.set_registered_model_alias, []

    def late(self: MlflowClient, *arguments: str) -> None:
        if not overtaken:
            overtaken.append(True)
            policy.register(made, "file:///nowhere", None, None, {}, "")
            policy.assign_aliases(made, 2)
        original(self, *arguments)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", late)
    policy.assign_aliases(made, 1)
    aliases = client.get_registered_model(made).aliases
    assert {alias: int(version) for alias, version in aliases.items()} == {"champion": 1, "challenger": 2}


def test_champion_taken_away_on_purpose_is_not_given_back(client: MlflowClient) -> None:
    made = "taken-away"
    policy.register(made, "file:///nowhere", None, None, {}, "")
    history.move(made, 1, history.PROMOTE, "by hand, before any registration")
    client.delete_registered_model_alias(made, policy.CHAMPION)
    policy.assign_aliases(made, 1)
    assert policy.CHAMPION not in client.get_registered_model(made).aliases


@pytest.mark.parametrize("status", ["RUNNING", "FINISHED"])
def test_injected_run_is_adopted_and_left_to_its_owner(
    artifacts: tuple[Path, Path],
    uri: str,
    client: MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    status: str,
) -> None:
    owner = client.create_run(client.create_experiment(f"owner-{status}", artifact_location=tmp_path.as_uri()))
    client.log_param(owner.info.run_id, "loss", "the owner's")
    client.set_terminated(owner.info.run_id, status)
    monkeypatch.setenv("MLFLOW_RUN_ID", owner.info.run_id)
    outcome = register(artifacts, uri, model_name=f"adopted-{status}")
    assert outcome["run_id"] == owner.info.run_id
    recorded = client.get_run(owner.info.run_id)
    assert recorded.info.status == status
    assert recorded.data.params["loss"] == "the owner's"
    assert recorded.data.params["learning_rate"] == "0.001"
    assert recorded.data.metrics["test_f1"] == 0.8
    assert client.get_experiment_by_name(f"adopted-{status}") is None


def test_injected_run_that_is_not_there(
    artifacts: tuple[Path, Path], uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(InputError, match=r"MLFLOW_RUN_ID 0+ is no run"):
        register(artifacts, uri)


def test_injected_experiment_and_kfp_run(
    artifacts: tuple[Path, Path], uri: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    injected = client.create_experiment("injected", artifact_location=Path(uri[10:]).with_name("injected").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", injected)
    monkeypatch.setenv("KFP_RUN_ID", "kfp-18")
    monkeypatch.setenv("HOUNSFIELD_COMMIT", "c0ffee" * 6)
    recorded = client.get_run(register(artifacts, uri, model_name="elsewhere")["run_id"])
    assert recorded.info.experiment_id == injected
    assert recorded.data.tags["kfp_run_id"] == "kfp-18"
    assert client.get_model_version("elsewhere", "1").tags["git_commit"] == "c0ffee" * 6


def test_failed_run_is_marked(
    artifacts: tuple[Path, Path], uri: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="refused"):
        register(artifacts, uri, model_name="not/a:name", experiment="failing")
    failing = client.get_experiment_by_name("failing").experiment_id
    assert [item.info.status for item in client.search_runs([failing])] == ["FAILED"]


def test_deleted_experiment(artifacts: tuple[Path, Path], uri: str, client: MlflowClient, tmp_path: Path) -> None:
    client.delete_experiment(client.create_experiment("gone", artifact_location=tmp_path.as_uri()))
    with pytest.raises(InputError, match="gone is deleted"):
        register(artifacts, uri, model_name="gone", experiment="gone")


def test_server_that_refuses_or_hangs_is_one_clear_error(
    artifacts: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 2 * tracking.PROBE_SECONDS < 15
    monkeypatch.setattr(tracking, "PROBE_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        hanging = listening.getsockname()[1]
        started = time.monotonic()
        with pytest.raises(InputError, match=f"no MLflow server answers at http://127.0.0.1:{hanging}"):
            register(artifacts, f"http://user:secret@127.0.0.1:{hanging}")
        assert time.monotonic() - started < 5
    with pytest.raises(InputError, match="no MLflow server answers") as refused:
        register(artifacts, f"http://user:secret@127.0.0.1:{hanging}")
    assert "secret" not in str(refused.value)
    for database in (f"postgresql://user:secret@127.0.0.1:{hanging}/mlflow", f"mysql+pymysql://127.0.0.1:{hanging}/m"):
        with pytest.raises(InputError, match=rf"no database answers at 127\.0\.0\.1:{hanging}") as refused:
            register(artifacts, database)
        assert "secret" not in str(refused.value)


class Answering(BaseHTTPRequestHandler):
    """A server that is healthy, and answers every other request with `status` and `text`; None: not at all."""

    status: ClassVar[int | None] = None
    text: ClassVar[str] = ""

    def do_GET(self) -> None:
        if self.path != "/health" and self.status is None:
            time.sleep(3)
            return
        self.send_response(200 if self.path == "/health" else self.status or 200)
        self.end_headers()
        self.wfile.write(self.text.encode())

    def log_message(self, *_: Any) -> None:
        return


@pytest.mark.parametrize(
    ("status", "text", "sentence"),
    [
        (None, "", "no MLflow server answers at"),
        (500, "{}", r"answers with HTTP 500: see its log"),
        (401, "who is there?", r"refuses access \(HTTP 401\): set MLFLOW_TRACKING_USERNAME"),
        (403, "Invalid Host header - possible DNS rebinding attack detected", "MLFLOW_SERVER_ALLOWED_HOSTS"),
        (404, "<html>not here</html>", r"is no MLflow server \(HTTP 404, no JSON\)"),
        (200, "<html>a login page</html>", r"is no MLflow server \(HTTP 200, no JSON\)"),
    ],
)
def test_healthy_server_that_is_of_no_use_is_one_clear_error(
    artifacts: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, status: int | None, text: str, sentence: str
) -> None:
    monkeypatch.setattr(tracking, "PROBE_SECONDS", 1)
    monkeypatch.setattr(Answering, "status", status)
    monkeypatch.setattr(Answering, "text", text)
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        started = time.monotonic()
        with pytest.raises(InputError, match=sentence):
            register(artifacts, f"http://127.0.0.1:{server.server_port}")
        assert time.monotonic() - started < 5
        server.shutdown()


def test_database_that_cannot_be_used(artifacts: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    other.write_text("a text file, longer than the header")
    with pytest.raises(InputError, match="not a SQLite database"):
        register(artifacts, f"sqlite:///{other}")
    with pytest.raises(InputError, match="cannot write the MLflow database"):
        register(artifacts, f"sqlite:///{other}/below/mlflow.db")
    assert other.read_text() == "a text file, longer than the header"


def test_inputs_that_do_not_fit(artifacts: tuple[Path, Path], tmp_path: Path, uri: str) -> None:
    other = tiny_model(tmp_path / "other", "l3-slice")
    with pytest.raises(InputError, match=r"evaluates l3-slice, but .* is a lung-tumour model"):
        register((artifacts[0], tiny_evaluation(tmp_path, other)), uri)
    with pytest.raises(InputError, match="evaluates another model"):
        register((tiny_model(tmp_path, seed=8), artifacts[1]), uri)
    with pytest.raises(ArtifactError, match="expected a model"):
        register((artifacts[1], artifacts[1]), uri)
    with pytest.raises(ArtifactError, match="expected a evaluation"):
        register((artifacts[0], artifacts[0]), uri)


def test_flatten_keeps_finite_numbers() -> None:
    value = {"a": {"b": 1, "c (mm)": 2.5}, "none": None, "flag": True, "text": "x", "list": [1], "nan": float("nan")}
    assert logs.flatten(value, "test_") == {"test_a_b": 1.0, "test_a_c _mm_": 2.5}


@pytest.mark.slow
def test_two_processes_share_a_new_database(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hounsfield.components.register_model"]
    command += ["--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    processes = []
    for i in range(2):
        model, evaluation = make(tmp_path, i)
        paths = ["--model", str(model), "--evaluation", str(evaluation), "--result", str(tmp_path / f"{i}.json")]
        processes.append(subprocess.Popen(command + paths))
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    outcomes = [json.loads((tmp_path / f"{i}.json").read_text()) for i in range(2)]
    assert {outcome["version"] for outcome in outcomes} == {1, 2}
    with tracking.recording(f"sqlite:///{tmp_path}/mlflow.db"):
        aliases = MlflowClient().get_registered_model("lung-tumour").aliases
    assert {alias: int(version) for alias, version in aliases.items()} == {"champion": 1, "challenger": 2}


def test_tracking_uri_of_the_process_is_left_as_it_was(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for before in (None, "sqlite:///elsewhere.db"):
        if before:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", before)
        with tracking.recording(uri):
            pass
        assert os.environ.get("MLFLOW_TRACKING_URI") == before


def test_command_line_is_quiet_and_uses_the_current_folder(artifacts: tuple[Path, Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hounsfield.components.register_model"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    arguments = ["--model", str(artifacts[0]), "--evaluation", str(artifacts[1])]
    done = subprocess.run(command + arguments, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 2
    assert (tmp_path / "mlflow.db").is_file()
    assert (tmp_path / "mlartifacts").is_dir()
    assert not (tmp_path / "mlruns").exists()
    absent = subprocess.run(
        [*command, "--model", "absent", *arguments[2:]], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert absent.returncode == 2
    assert absent.stderr.startswith("error: absent is not a complete model")
    assert len(absent.stderr.splitlines()) == 1
