"""Shared fixtures."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import running


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
def s3_endpoint() -> Iterator[str]:
    """Endpoint of a SeaweedFS server on the loopback with an empty bucket; credentials in `s3_server`."""
    with running() as endpoint:
        yield endpoint
