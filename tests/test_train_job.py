"""`hounsfield train-job`: valid for Kubeflow Trainer, confined, on the pool, and a command that torchrun runs."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_schemas import errors_of_resource
from pod_security import hardened, restricted

from hounsfield.cli.main import app
from hounsfield.cli.train_job import train_job
from hounsfield.components.train_unet.__main__ import Arguments, work
from hounsfield.errors import InputError
from hounsfield.pipelines.placement import Cluster
from hounsfield.pool import POOLS
from hounsfield.step import command_line

SLICES, MODEL = "s3://ct/slices", "s3://ct/model"


def made(task: str = "lung-tumour", **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"slices": SLICES, "model": MODEL, "nodes": 2, "cluster": Cluster(), "settings": []}
    return train_job(task, **(values | changes))


def pod(job: dict[str, Any]) -> dict[str, Any]:
    """The pod's specification as Trainer puts it together from the patch and `trainer`."""
    [patch] = job["spec"]["runtimePatches"]
    [node] = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    spec: dict[str, Any] = node["template"]["spec"]["template"]["spec"]
    trainer = job["spec"]["trainer"]
    own = {"image": trainer["image"], "resources": trainer["resourcesPerNode"], "env": trainer["env"]}
    return spec | {"automountServiceAccountToken": False, "containers": [spec["containers"][0] | own]}


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("task", ["lung-tumour", "l3-slice"])
def test_is_valid_for_trainer_and_confined(task: str, pool: str, crds: Path) -> None:
    job = made(task, cluster=Cluster(pool=POOLS[pool], registry="registry.example.org/team", pull_secret="pull"))
    assert errors_of_resource(job, crds) == []
    assert restricted(pod(job)) == []
    assert hardened(pod(job)) == []
    limits = job["spec"]["trainer"]["resourcesPerNode"]["limits"]
    assert limits.get("nvidia.com/gpu") == (None if pool == "cpu" else "1")
    assert pod(job)["nodeSelector"] == POOLS[pool].node_selector
    assert not [item for item in job["spec"]["trainer"]["env"] if "value" in item]


def test_schema_finds_what_is_wrong(crds: Path) -> None:
    job = made()
    job["spec"]["trainer"]["numNodes"] = "two"
    job["spec"]["trainer"]["gpus"] = 1
    assert len(errors_of_resource(job, crds)) == 2


def test_every_accelerator_has_a_process() -> None:
    job = made(cluster=Cluster(pool=POOLS["nvidia"].model_copy(update={"count": 4})), nodes=3)
    assert (job["spec"]["trainer"]["numNodes"], job["spec"]["trainer"]["numProcPerNode"]) == (3, 4)


def test_arguments_are_those_of_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    job = made(settings=["epochs=7", "augment=true", "alpha=0.5", "run-name=two nodes"])
    words = job["spec"]["trainer"]["args"]
    assert words[:2] == ["-m", "hounsfield.components.train_unet"]
    given: list[Arguments] = []
    command_line(Arguments, given.append, "train-unet", words[2:])
    [arguments] = given
    assert (arguments.epochs, arguments.augment, arguments.alpha) == (7, True, 0.5)
    assert (arguments.run_name, str(arguments.slices), str(arguments.out)) == ("two nodes", SLICES, MODEL)
    assert callable(work)


def test_same_arguments_same_name() -> None:
    assert made()["metadata"]["name"] == made()["metadata"]["name"]
    assert made()["metadata"]["name"] != made(settings=["epochs=7"])["metadata"]["name"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"slices": "/data/slices"}, "--slices /data/slices: nodes share no disk"),
        ({"model": "model"}, "--model model: nodes share no disk"),
        ({"settings": ["epoch=1"]}, "did you mean epochs"),
        ({"settings": ["epochs=0"]}, "--epochs"),
        ({"name": "Two Nodes"}, "--name Two Nodes: expected"),
    ],
)
def test_bad_input_is_named(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        made(**changes)


def test_command_prints_yaml(capsys: pytest.CaptureFixture[str], crds: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        app(["train-job", "l3-slice", "--slices", SLICES, "--model", MODEL, "--nodes", "4", "--pool", "gke"])
    assert ended.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert errors_of_resource(printed, crds) == []
    assert printed["spec"]["trainer"]["numNodes"] == 4
