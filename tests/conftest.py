"""Shared fixtures."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import ACCESS, SECRET, running


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real CT volumes with labels made by others; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("HOUNSFIELD_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "MANIFEST.tsv").is_file():
        if os.environ.get("HOUNSFIELD_REQUIRE_REAL_DATA"):
            pytest.fail(f"the real CT data is required here and is not at {folder}")
        pytest.skip(f"real CT data is not at {folder}: set HOUNSFIELD_REAL_DATA")
    return folder


@pytest.fixture(scope="session")
def crds() -> Path:
    """Folder of the published schemas of Kubeflow's resources and APIs; see `kubernetes_schemas`."""
    folder = Path(os.environ.get("HOUNSFIELD_CRDS", Path(__file__).parents[2] / "shared" / "crds"))
    if not (folder / "kfp-pipelines.yaml").is_file():
        if os.environ.get("HOUNSFIELD_REQUIRE_REAL_DATA"):
            pytest.fail(f"the schemas of Kubeflow are required here and are not at {folder}")
        pytest.skip(f"the schemas of Kubeflow are not at {folder}: set HOUNSFIELD_CRDS")
    return folder


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Endpoint of a SeaweedFS server on the loopback with an empty bucket; credentials in `s3_server`."""
    with running() as endpoint:
        yield endpoint


@pytest.fixture
def s3_environment(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment of a user of that server, with a temporary directory of its own."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
