"""Steps in containers, against an engine that records what it is asked."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import pytest
from docker.errors import APIError, ImageNotFound, NotFound

from hounsfield.components.images import CPU_IMAGE, TRAINING_IMAGE
from hounsfield.errors import InputError
from hounsfield.pipelines import child, containers, tasks
from hounsfield.pipelines.catalog import PIPELINES
from hounsfield.pipelines.local import Watcher, run_pipeline
from hounsfield.pool import USER

ORDER = {"inputs": {"parameterValues": {"fold": 1}}, "outputs": {"outputFile": "/out/run/train-unet/out.json"}}
COMMAND = ["sh", "-c", "work", "--executor_input", json.dumps(ORDER), "--function_to_execute", "train_unet"]


class Task:
    """A container that prints `chunks` and ends with `code`."""

    def __init__(self, chunks: list[bytes], code: int, fails: Exception | None = None) -> None:
        self.chunks, self.code, self.fails = chunks, code, fails
        self.calls: list[str] = []

    def start(self) -> None:
        self.calls.append("start")
        if self.fails:
            raise self.fails

    def logs(self, stream: bool, follow: bool) -> Iterator[bytes]:
        assert (stream, follow) == (True, True)
        for chunk in self.chunks:
            if chunk == b"BREAK":
                raise ConnectionError("broken pipe")
            yield chunk

    def wait(self) -> dict[str, int]:
        return {"StatusCode": self.code}

    def exec_run(self, command: list[str]) -> None:
        self.calls.append(" ".join(command))

    def remove(self, force: bool) -> None:
        assert force
        self.calls.append("remove")
        if self.calls.count("remove") > 1:
            raise NotFound("removed before")


class Engine:
    """The part of docker.DockerClient that is used."""

    def __init__(self, *made: Task, **info: Any) -> None:
        self.tasks, self.created, self.described = list(made), [], info
        self.here: set[str] = set()
        self.elsewhere: set[str] = set()
        self.pulled: list[str] = []
        self.containers = SimpleNamespace(create=self.create, list=lambda all, filters: self.tasks)
        self.images = SimpleNamespace(get=self.get, pull=self.pull)

    def create(self, **options: Any) -> Task:
        self.created.append(options)
        return self.tasks[len(self.created) - 1]

    def get(self, image: str) -> None:
        if image not in self.here:
            raise ImageNotFound("no such image")

    def pull(self, image: str) -> None:
        if image not in self.elsewhere:
            raise APIError("denied")
        self.pulled.append(image)

    def info(self) -> dict[str, Any]:
        return self.described

    def ping(self) -> bool:
        return True

    def close(self) -> None:
        pass


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    found = Engine()
    monkeypatch.setattr(docker, "from_env", lambda: found)
    monkeypatch.setattr(docker, "DockerClient", lambda base_url: found)
    monkeypatch.setattr(containers, "find_engine", lambda: "unix:///engine.sock")
    from kfp.local import docker_task_handler

    monkeypatch.setattr(docker_task_handler, "run_docker_container", docker_task_handler.run_docker_container)
    monkeypatch.setattr(tasks, "_stopping", threading.Event())
    yield found
    assert not tasks._running


def run(engine: Engine, image: str = CPU_IMAGE, registry: str = "", gpus: bool = False, **options: Any) -> int:
    return containers.run_container(engine, image, COMMAND, {}, registry=registry, gpus=gpus, **options)


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix(tasks.EVENT)) for line in text.split("\n")[:-1]]


def test_lines_and_exit_code_come_through_and_nothing_is_left(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    task = Task([b"epo", b"ch 1\nepoch 2 \xc3", b"\xa9\nepoch 3"], 3)
    engine.tasks = [task]
    assert run(engine, environment={"A": "1"}, user="7:7") == 3
    assert engine.created == [
        {"image": CPU_IMAGE, "command": COMMAND, "volumes": {}, "environment": {"A": "1"}, "user": "7:7"}
    ]
    assert task.calls == ["start", "remove"]
    start, *lines, end = events(capsys.readouterr().out)
    assert (start["start"], start["label"]) == ("train-unet", "")
    assert [line["line"] for line in lines] == ["epoch 1", "epoch 2 é", "epoch 3"]
    assert end["end"] == 3


def test_a_killed_container_is_out_of_memory(
    engine: Engine, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    engine.tasks = [Task([b"epoch 1\n"], 137)]
    assert run(engine) == 4
    watcher = Watcher("lung-tumour", quiet=True)
    for line in capsys.readouterr().out.split("\n")[:-1]:
        watcher.read(line)
    failure = watcher.failure(tmp_path / "run.log")
    assert type(failure).__name__ == "OutOfMemory"
    assert "lung-tumour · train-unet: the container was killed" in str(failure)
    assert "batch_size" in str(failure)


@pytest.mark.parametrize(
    ("task", "sentence", "calls"),
    [
        (Task([], 0, APIError("no space left")), "does not run hounsfield-python:0.1.0: no space", ["start", "remove"]),
        (Task([b"one\n", b"BREAK"], 0), "no longer answers", ["start", "remove"]),
    ],
)
def test_what_the_engine_refuses_is_one_line_and_exit_code_two(
    engine: Engine, capsys: pytest.CaptureFixture[str], task: Task, sentence: str, calls: list[str]
) -> None:
    engine.tasks = [task]
    assert run(engine) == 2
    assert task.calls == calls
    (error,) = [event["line"] for event in events(capsys.readouterr().out) if "error: " in event.get("line", "")]
    assert sentence in error


def test_registry_and_gpus(engine: Engine) -> None:
    engine.tasks = [Task([], 0) for _ in range(3)]
    assert run(engine, registry="registry.example.org/team/", gpus=True) == 0
    assert run(engine, TRAINING_IMAGE, gpus=True) == 0
    assert run(engine, TRAINING_IMAGE, gpus=False) == 0
    cpu, gpu, without = engine.created
    assert cpu["image"] == f"registry.example.org/team/{CPU_IMAGE}"
    assert "device_requests" not in cpu
    assert "device_requests" not in without
    assert gpu["device_requests"][0]["Capabilities"] == [["gpu"]]


def test_tasks_of_a_loop_share_the_cores_and_tell_their_fold(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.tasks = [Task([], 0)]
    thread = threading.Thread(target=run, args=(engine,))
    thread.start()
    thread.join()
    assert engine.created[0]["environment"] == {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // 2))}
    assert events(capsys.readouterr().out)[0]["label"] == "fold 1"


def test_stopping_ends_the_container_and_starts_no_more(engine: Engine) -> None:
    task = Task([], 75)
    engine.tasks = [task, Task([], 0)]
    original = task.logs

    def logs(stream: bool, follow: bool) -> Iterator[bytes]:
        yield from original(stream, follow)
        tasks.stop()

    task.logs = logs  # type: ignore[method-assign]
    assert run(engine) == 75
    assert task.calls == ["start", "sh -c kill -TERM -1", "remove", "remove"]
    assert run(engine) == 75
    assert len(engine.created) == 1


def test_sigterm_removes_what_was_created(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    monkeypatch.setattr(os, "_exit", left.append)
    engine.tasks = [Task([], 0)]
    child.stop("docker", signal.SIGTERM, None)
    assert left == [75]
    assert engine.tasks[0].calls == ["remove"]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nothing but a pseudonym key in the environment; returns the temporary folder of the run."""
    for name in [name for name in os.environ if name.startswith(containers.PASSED)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOUNSFIELD_PSEUDONYM_KEY", "test")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    return scratch


def mounts(runner: Any) -> dict[str, tuple[str, bool]]:
    """Source and read-only flag by target."""
    listed = runner.container_run_args["mounts"]
    return {mount["Target"]: (mount["Source"], bool(mount.get("ReadOnly"))) for mount in listed}


def test_a_local_run_gets_no_network_and_only_its_own_folders(
    engine: Engine, environment: Path, tmp_path: Path
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    (data / "a").mkdir(parents=True)
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"")
    inputs = {
        "data": f"{data},{data / 'a'}",
        "cases": "",
        "initial_weights": f"file://{weights}",
        "checkpoints": str(tmp_path / "kept"),
        "tracking_uri": f"sqlite:///{out / 'mlflow.db'}",
        "epochs": 3,
        "loss": "cl",
    }
    runner = containers.docker_runner(inputs, out, "")
    given = runner.container_run_args
    assert mounts(runner) == {
        "/tmp": (str(environment), False),
        str(data): (str(data), True),
        str(weights): (str(weights), True),
        str(out): (str(out), False),
        str(tmp_path / "kept"): (str(tmp_path / "kept"), False),
    }
    assert given["network_mode"] == "none"
    assert given["environment"] == {"HOUNSFIELD_PSEUDONYM_KEY": "test"}
    assert (given["read_only"], given["cap_drop"]) == (True, ["ALL"])
    assert "no-new-privileges" in given["security_opt"]
    own = os.getuid()
    assert given["user"] == (f"{own}:{os.getgid()}" if own else f"{USER}:{USER}")
    assert (out / "artifacts").stat().st_uid == (own or USER)


def test_a_rootless_engine_runs_as_the_caller(engine: Engine, environment: Path, tmp_path: Path) -> None:
    engine.described = {"SecurityOptions": ["name=seccomp,profile=default", "name=rootless"]}
    assert containers.docker_runner({}, tmp_path / "out", "").container_run_args["user"] == "0:0"
    assert (tmp_path / "out").stat().st_uid == os.getuid()


@pytest.mark.parametrize(
    ("inputs", "variables", "network"),
    [
        ({"data": "s3://bucket/ct"}, {"AWS_ENDPOINT_URL": "http://127.0.0.1:8333"}, "host"),
        ({"tracking_uri": "http://mlflow:5000"}, {}, "host"),
        ({"tracking_uri": "sqlite:////tmp/mlflow.db", "initial_weights": "file:///nowhere"}, {}, "none"),
    ],
)
def test_the_network_is_there_when_something_is_remote(
    engine: Engine,
    environment: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    inputs: dict[str, str],
    variables: dict[str, str],
    network: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    given = containers.docker_runner(inputs, tmp_path / "out", "").container_run_args
    assert given["network_mode"] == network
    assert given["environment"] == variables | {"HOUNSFIELD_PSEUDONYM_KEY": "test"}


def test_files_that_variables_name_are_there(
    engine: Engine, environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "hospital.crt"
    bundle.write_text("")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    assert mounts(containers.docker_runner({}, tmp_path / "out", ""))[str(bundle)] == (str(bundle), True)


def test_the_folders_of_a_cases_file_are_there(engine: Engine, environment: Path, tmp_path: Path) -> None:
    for folder in ("table", "table/ct", "images/one", "labels"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "labels" / "one.nii").write_bytes(b"")
    cases = tmp_path / "table" / "cases.csv"
    cases.write_text(f"image,label\n../images/one,{tmp_path}/labels/one.nii\nct,\n")
    found = mounts(containers.docker_runner({"cases": str(cases)}, tmp_path / "out", ""))
    read_only = {Path(target).resolve() for target, (_, flag) in found.items() if flag}
    assert read_only == {tmp_path / "table", tmp_path / "images" / "one", tmp_path / "labels"}


def test_the_key_of_this_machine_is_that_of_the_containers(
    engine: Engine, environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOUNSFIELD_PSEUDONYM_KEY")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    runner = containers.docker_runner({}, tmp_path / "out", "")
    key = (tmp_path / "config" / "hounsfield" / "pseudonym.key").read_text().strip()
    assert runner.container_run_args["environment"]["HOUNSFIELD_PSEUDONYM_KEY"] == key


def test_images_are_looked_for_before_anything_runs(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = PIPELINES["l3-slice"]
    engine.here = {CPU_IMAGE}
    with pytest.raises(InputError, match=f"{TRAINING_IMAGE} is not on this machine: run `make images`"):
        containers.prepare(pipeline, "")
    with pytest.raises(InputError, match=r"neither on this machine nor can it be pulled: check --registry .*denied"):
        containers.prepare(pipeline, "registry.example.org/team")
    remote = {f"registry.example.org/team/{image}" for image in (CPU_IMAGE, TRAINING_IMAGE)}
    engine.elsewhere = remote
    assert containers.prepare(pipeline, "registry.example.org/team") == "unix:///engine.sock"
    assert set(engine.pulled) == remote
    engine.here = {CPU_IMAGE, TRAINING_IMAGE}
    assert containers.prepare(pipeline, "") == "unix:///engine.sock"


def test_without_an_engine_the_run_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(InputError, match=r"no container engine answers at unix://.*/none.sock: start Docker"):
        run_pipeline("l3-slice", {}, tmp_path / "out", quiet=True, runner="docker")


def test_the_socket_of_podman_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(containers, "DEFAULT_SOCKET", str(tmp_path / "docker.sock"))
    monkeypatch.setattr(containers, "PODMAN_SOCKETS", ("{XDG_RUNTIME_DIR}/podman/podman.sock",))
    assert containers.find_engine() == f"unix://{tmp_path}/docker.sock"
    (tmp_path / "podman").mkdir()
    (tmp_path / "podman" / "podman.sock").touch()
    assert containers.find_engine() == f"unix://{tmp_path}/podman/podman.sock"
