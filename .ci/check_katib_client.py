"""Katib's client makes an Experiment beside KFP, without a cluster: what it would send is caught."""

import importlib.metadata
import sys
from typing import Any

import kfp.kubernetes  # noqa: F401
from kubeflow import katib
from kubernetes.client import ApiClient, Configuration

sent: dict[str, Any] = {}
client = katib.KatibClient(client_configuration=Configuration(host="http://127.0.0.1:9"), namespace="hounsfield")
client.custom_api.create_namespaced_custom_object = lambda *given, **_: (
    sent.update(ApiClient().sanitize_for_serialization(given[-1])) or {"metadata": sent["metadata"]}
)
client.tune(
    name="search",
    objective=lambda parameters: print(f"val_f1={parameters['alpha']}"),
    parameters={"alpha": katib.search.double(min=0.05, max=0.95)},
    objective_metric_name="val_f1",
    algorithm_name="bayesianoptimization",
    max_trial_count=3,
    base_image="hounsfield-training-python:0.1.0",
)
(alpha,) = sent["spec"]["parameters"]
assert (alpha["name"], alpha["feasibleSpace"]["min"], alpha["feasibleSpace"]["max"]) == ("alpha", "0.05", "0.95"), sent
assert sent["spec"]["algorithm"]["algorithmName"] == "bayesianoptimization", sent
assert sent["spec"]["maxTrialCount"] == 3, sent
versions = [f"{name} {importlib.metadata.version(name)}" for name in ("kfp", "kubeflow-katib", "protobuf")]
print(f"an Experiment was made by {', '.join(versions)} on Python {sys.version.split()[0]}")
