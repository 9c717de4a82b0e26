"""The resources that the kustomize manifests make, for tests."""

import functools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

Resource = dict[str, Any]

MANIFESTS = Path(__file__).parents[1] / "manifests"
POOL_OF = {"local": "cpu", "onprem": "nvidia", "gke": "gke", "eks": "eks"}
"""By overlay, the profile of the pool that its trainings go to."""
OVERLAYS = tuple(POOL_OF)
NAMESPACE = "hounsfield"


def kustomize(folder: Path) -> list[Resource]:
    """The resources that `kubectl kustomize` makes of a folder; skips the test without kubectl."""
    if shutil.which("kubectl") is None:
        if os.environ.get("HOUNSFIELD_REQUIRE_REAL_DATA"):
            pytest.fail("kubectl is required here and is not on PATH")
        pytest.skip("kubectl is not on PATH: https://kubernetes.io/docs/tasks/tools/")
    made = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return list(yaml.safe_load_all(made.stdout))


def of_overlay(overlay: str) -> list[Resource]:
    """The resources of an overlay, a new copy each time."""
    return list(json.loads(_built(overlay)))


@functools.cache
def _built(overlay: str) -> str:
    return json.dumps(kustomize(MANIFESTS / "overlays" / overlay))


def of(resources: list[Resource], kind: str) -> dict[str, Resource]:
    """By name, the resources of a kind."""
    return {item["metadata"]["name"]: item for item in resources if item["kind"] == kind}
