"""A real MLflow server that is killed during an upload, started again, backed up, destroyed and restored elsewhere."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
from services import BACKUP, Services, expected, folder, loaded, make, running, unset_settings

from hounsfield.components.register_model.config import Config
from hounsfield.components.register_model.run import run
from hounsfield.errors import InputError

pytestmark = [pytest.mark.services, pytest.mark.slow]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    unset_settings(monkeypatch)


def test_server_killed_in_the_middle_then_backup_and_restore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One life of a server: killed during an upload, started again, backed up, destroyed, restored elsewhere."""
    model, evaluation = make(tmp_path, seed=41)
    log_artifact = HttpArtifactRepository.log_artifact
    with folder() as data:
        with running(data) as up:
            config = Config(tracking_uri=up.uri)

            def killing(self: Any, local_file: str, artifact_path: str | None = None) -> None:
                if local_file.endswith("weights.safetensors"):
                    up.kill_mlflow()
                log_artifact(self, local_file, artifact_path)

            with monkeypatch.context() as patch:
                patch.setattr(HttpArtifactRepository, "log_artifact", killing)
                started = time.monotonic()
                with pytest.raises(InputError, match="stopped answering: repeat the step when it is back"):
                    run(config, model, evaluation)
                assert time.monotonic() - started < 60
            assert up.wait() == 1
            assert "mlflow ended with exit code -9" in (data / "up.log").read_text()
        with running(data, "--port", str(up.port)) as up:
            client = MlflowClient(up.uri)
            experiment = client.get_experiment_by_name("lung-tumour").experiment_id
            (open_run,) = client.search_runs([experiment])
            assert open_run.info.status == "RUNNING"
            assert client.search_registered_models() == []
            outcome = run(config, model, evaluation)
            (closed,) = client.search_runs([experiment])
            assert (closed.info.run_id, closed.info.status) == (outcome["run_id"], "FINISHED")
            assert closed.info.run_id == open_run.info.run_id
            assert len(client.search_logged_models([experiment])) == 1
            assert outcome["aliases"] == ["challenger", "champion"]
            before, _ = loaded(up, "models:/lung-tumour@champion", tmp_path)
            said = backup(up, "save", tmp_path / "saved")
            assert said.returncode == 0, said.stderr
            again = backup(up, "save", tmp_path / "saved")
            assert (again.returncode, again.stderr.splitlines()[-1][:6]) == (1, "error:")
            full = backup(up, "restore", tmp_path / "saved")
            assert "the database mlflow is not empty" in full.stderr
    np.testing.assert_allclose(before, expected(model), rtol=2e-6, atol=1e-7)

    with folder() as data, running(data, "--without-mlflow") as empty:
        restored = backup(empty, "restore", tmp_path / "saved")
        assert restored.returncode == 0, restored.stderr
        (tmp_path / "saved" / "registry.dump").write_bytes(b"changed")
        assert "was changed after it was saved" in backup(empty, "restore", tmp_path / "saved").stderr
        empty.stop()
        with running(data) as up:
            after, _ = loaded(up, "models:/lung-tumour@champion", tmp_path)
            version = MlflowClient(up.uri).get_model_version_by_alias("lung-tumour", "champion")
            assert (str(version.version), version.run_id) == ("1", outcome["run_id"])
            assert MlflowClient(up.uri).get_run(version.run_id).data.metrics["test_f1"] == 0.8
    np.testing.assert_array_equal(after, before)


def backup(up: Services, *arguments: Any) -> subprocess.CompletedProcess[str]:
    environment = os.environ | up.environment
    return subprocess.run([sys.executable, BACKUP, *arguments], env=environment, capture_output=True, text=True)
