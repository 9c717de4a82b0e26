"""What KFP's MLflow plugin is configured with, and that it means the server of the steps."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
import yaml

MANIFESTS = Path(__file__).parents[1] / "manifests"
PLUGIN = MANIFESTS / "components" / "kfp-mlflow-plugin"
SETTINGS = {
    "workspacesEnabled", "authType", "credentialSecretRef", "experimentDescription", "defaultExperimentName",
    "kfpBaseURL", "kfpRunURLPathTemplate", "mlflowBaseURL", "mlflowUIPathPrefix", "injectUserEnvVars",
}  # fmt: skip
"""Fields of MLflowPluginSettings in KFP 2.17.0; the API server ignores others silently."""
API_SERVER = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: ml-pipeline, namespace: kubeflow}
spec:
  selector: {matchLabels: {app: ml-pipeline}}
  template:
    metadata: {labels: {app: ml-pipeline}}
    spec:
      containers:
        - name: ml-pipeline-api-server
          image: ghcr.io/kubeflow/kfp-api-server:2.17.0
          volumeMounts: [{name: other, mountPath: /other}]
      volumes: [{name: other, emptyDir: {}}]
"""


@pytest.fixture(scope="module")
def resources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The component applied to a Deployment with the names of KFP's own."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    folder = tmp_path_factory.mktemp("kfp")
    shutil.copytree(PLUGIN, folder / "plugin")
    (folder / "api-server.yaml").write_text(API_SERVER)
    (folder / "kustomization.yaml").write_text("resources: [api-server.yaml]\ncomponents: [plugin]\n")
    built = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return {item["kind"]: item for item in yaml.safe_load_all(built.stdout)}


def test_api_server_reads_the_configuration(resources: dict[str, Any]) -> None:
    pod = resources["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (mount,) = [item for item in container["volumeMounts"] if item["mountPath"] == "/config/config.json"]
    (volume,) = [item for item in pod["volumes"] if item["name"] == mount["name"]]
    assert volume["configMap"]["name"] == resources["ConfigMap"]["metadata"]["name"]
    assert resources["ConfigMap"]["metadata"]["name"] != "kfp-api-server-config", "no hash: a change would not roll out"
    assert mount["subPath"] in resources["ConfigMap"]["data"]
    assert len(container["volumeMounts"]) == len(pod["volumes"]) == 2
    configuration = json.loads(resources["ConfigMap"]["data"]["config.json"])
    assert configuration["DBConfig"]["MySQLConfig"]["DBName"] == "mlpipeline"


def test_plugin_means_the_server_of_the_steps() -> None:
    plugin = json.loads((PLUGIN / "config.json").read_text())["plugins"]["mlflow"]
    assert set(plugin) <= {"endpoint", "timeout", "tls", "settings"}
    assert set(plugin["settings"]) <= SETTINGS
    assert plugin["settings"]["injectUserEnvVars"] is True
    shared = dict(line.split("=", 1) for line in (MANIFESTS / "base" / "hounsfield.env").read_text().split())
    assert plugin["endpoint"] == shared["MLFLOW_TRACKING_URI"]
    arguments = yaml.safe_load((MANIFESTS / "base" / "mlflow" / "deployment.yaml").read_text())
    (container,) = arguments["spec"]["template"]["spec"]["containers"]
    (allowed,) = [text for text in container["args"] if text.startswith("--allowed-hosts=")]
    assert urlparse(plugin["endpoint"]).netloc in allowed.removeprefix("--allowed-hosts=").split(",")
