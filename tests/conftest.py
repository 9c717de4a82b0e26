"""Shared fixtures."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real CT volumes with labels made by others; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("HOUNSFIELD_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "MANIFEST.tsv").is_file():
        if os.environ.get("HOUNSFIELD_REQUIRE_REAL_DATA"):
            pytest.fail(f"the real CT data is required here and is not at {folder}")
        pytest.skip(f"real CT data is not at {folder}: set HOUNSFIELD_REAL_DATA")
    return folder
