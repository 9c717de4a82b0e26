"""`hounsfield train-job`: a training on several nodes, as a TrainJob of Kubeflow Trainer."""

import json
import re
from typing import Any

import yaml

from hounsfield.cli.tune import TRAINING, split_settings
from hounsfield.errors import InputError
from hounsfield.katib.experiment import GRACE, flag
from hounsfield.pipelines.placement import Cluster
from hounsfield.pool import RESTRICTED_CONTAINER, RESTRICTED_POD
from hounsfield.remote import is_remote
from hounsfield.step import parse
from hounsfield.storage import sha256_bytes
from hounsfield.surroundings import TRIALS_ACCOUNT, training_environment

RUNTIME = "torch-distributed"
"""The ClusterTrainingRuntime that Kubeflow Trainer installs for torchrun; its Job and its container are `NODE`."""
NODE = "node"
MODULES = {"lung-tumour": "train_unet", "l3-slice": "train_l3"}


def train_job(
    task: str, slices: str, model: str, nodes: int, cluster: Cluster, settings: list[str], name: str = ""
) -> dict[str, Any]:
    """The TrainJob that trains on the slice set `slices` and writes `model`, both on S3, by `nodes` nodes of the pool.

    Every node runs one process an accelerator, all of them share every batch, and the first writes. A node that is
    lost restarts the job from the newest checkpoint.

    Raises:
        InputError: a location that is not on S3, no node, a setting that the training does not have, or a bad name.
    """
    for option, location in (("--slices", slices), ("--model", model)):
        if not is_remote(location):
            raise InputError(f"{option} {location}: nodes share no disk, expected s3://bucket/key")
    if nodes < 1:
        raise InputError(f"--nodes {nodes}: expected at least 1")
    config = TRAINING[task]
    values = parse(config, split_settings({"training": config}, settings)["training"]).model_dump(exclude_unset=True)
    pool, processes = cluster.pool, max(1, cluster.pool.count)
    arguments = [
        "-m",
        f"hounsfield.components.{MODULES[task]}",
        f"--slices={slices}",
        f"--out={model}",
        *(flag(key, value) for key, value in values.items()),
    ]
    name = name or f"{task}-{sha256_bytes(json.dumps([arguments, nodes]).encode())[:12]}"
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name):
        raise InputError(f"--name {name}: expected at most 63 small letters, digits and -, beginning with a letter")
    istio = {"sidecar.istio.io/inject": "false"}
    pod = {
        "serviceAccountName": TRIALS_ACCOUNT,
        "terminationGracePeriodSeconds": GRACE,
        "securityContext": RESTRICTED_POD,
        **pool.scheduling(),
        "volumes": [{"name": "tmp", "emptyDir": {}}, pool.shm_volume()],
        "containers": [
            {
                "name": NODE,
                "securityContext": RESTRICTED_CONTAINER,
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, pool.shm_mount()],
            }
        ],
    }
    if cluster.pull_secret:
        pod["imagePullSecrets"] = [{"name": cluster.pull_secret}]
    patched = {"name": NODE, "template": {"spec": {"template": {"metadata": {"labels": istio}, "spec": pod}}}}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {
            "name": name,
            "namespace": cluster.namespace,
            "labels": {"app.kubernetes.io/name": "hounsfield", "app.kubernetes.io/component": "training"},
        },
        "spec": {
            "runtimeRef": {"name": RUNTIME},
            "trainer": {
                "image": cluster.training_image,
                "command": ["torchrun"],
                "args": arguments,
                "numNodes": nodes,
                "numProcPerNode": processes,
                "resourcesPerNode": pool.resources(),
                "env": training_environment(),
            },
            "runtimePatches": [
                {
                    "manager": "hounsfield",
                    "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [patched]}}},
                }
            ],
        },
    }


def print_train_job(job: dict[str, Any]) -> None:
    """Write the TrainJob as YAML to the standard output, for kubectl apply."""
    print(yaml.safe_dump(json.loads(json.dumps(job)), sort_keys=False, width=120), end="", flush=True)
