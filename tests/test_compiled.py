"""Compiled pipelines as a cluster gets them: policy, golden files, Kubernetes resources."""

import difflib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from compiled_pods import component_of, documents, pods, tasks
from kubernetes_schemas import errors_of_resource
from kubernetes_validate import validate
from pod_security import restricted

from hounsfield.errors import InputError
from hounsfield.pipelines.catalog import PIPELINES
from hounsfield.pipelines.compile import compile_all
from hounsfield.pipelines.placement import Cluster
from hounsfield.pool import POOLS, mebibytes
from hounsfield.surroundings import CONFIG_MAP, PSEUDONYM_SECRET, S3_KEYS, S3_SECRET, S3_SETTINGS

GOLDEN = Path(__file__).parent / "golden"
RENEW = "hounsfield compile lung-tumour l3-slice --out tests/golden"
REGISTRY = "registry.example.org/team"
SECRETS = dict.fromkeys(S3_KEYS, S3_SECRET) | {"HOUNSFIELD_PSEUDONYM_KEY": PSEUDONYM_SECRET}
OUTSIDE = {"data-version", "update-dataset", "plan-retraining", "compare-models", "register-model"}
"""Steps that look at the data, the registry or a growing dataset, or change them."""
GROUP = re.compile(r"\[[a-z][a-z0-9-]+\] \S")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every pipeline compiled for each pool, as NAME@POOL."""
    found = {}
    for pool in ("nvidia", "cpu"):
        cluster = Cluster(registry=REGISTRY, pool=POOLS[pool], pull_secret="registry-login")
        for path in compile_all(tmp_path_factory.mktemp(pool), list(PIPELINES), cluster):
            found[f"{path.stem}@{pool}"] = path
    return found


CASES = [f"{name}@{pool}" for name in PIPELINES for pool in ("nvidia", "cpu")]


def environment(pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
    variables = pod["spec"]["containers"][0]["env"]
    names = [item["name"] for item in variables]
    assert len(names) == len(set(names)), "a variable is given twice"
    return {item["name"]: item for item in variables}


@pytest.mark.parametrize("case", CASES)
def test_pods_are_valid_and_keep_the_restricted_standard(case: str, compiled: dict[str, Path]) -> None:
    made = pods(compiled[case])
    assert len(made) >= 6
    for pod in made.values():
        validate(pod, "1.32", strict=True)
        assert restricted(pod["spec"]) == []
        security = pod["spec"]["containers"][0]["securityContext"]
        assert (security["runAsUser"], security["runAsGroup"]) == (10001, 10001)


@pytest.mark.parametrize("case", CASES)
def test_every_pod_has_requests_limits_deadline_and_scratch_space(case: str, compiled: dict[str, Path]) -> None:
    for label, pod in pods(compiled[case]).items():
        resources = pod["spec"]["containers"][0]["resources"]
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= resources[kind].keys(), label
        assert resources["requests"]["memory"] == resources["limits"]["memory"]
        assert 0 < pod["spec"]["activeDeadlineSeconds"] <= 14 * 24 * 3600
        mounts = {item["mountPath"]: item["name"] for item in pod["spec"]["containers"][0]["volumeMounts"]}
        volumes = {item["name"]: item["emptyDir"] for item in pod["spec"]["volumes"]}
        assert "medium" not in volumes[mounts["/tmp"]]
        if "/dev/shm" in mounts:
            shm = volumes[mounts["/dev/shm"]]
            assert shm["medium"] == "Memory"
            assert mebibytes(shm["sizeLimit"]) < mebibytes(resources["limits"]["memory"])


@pytest.mark.parametrize("case", CASES)
def test_only_trainings_are_on_the_pool(case: str, compiled: dict[str, Path]) -> None:
    pool = POOLS[case.partition("@")[2]]
    trained = 0
    for label, pod in pods(compiled[case]).items():
        spec, main = pod["spec"], pod["spec"]["containers"][0]
        trains = component_of(label) in ("train-unet", "train-l3")
        trained += trains
        extended = {name for name in main["resources"]["limits"] if "/" in name}
        assert extended == ({"nvidia.com/gpu"} if trains and pool.count else set())
        assert spec["nodeSelector"] == (pool.node_selector if trains else {})
        assert [item["key"] for item in spec["tolerations"]] == [
            item.key for item in (pool.tolerations if trains else ())
        ]
        assert ("/dev/shm" in {item["mountPath"] for item in main["volumeMounts"]}) == trains
        kind = "hounsfield-training-python" if trains else "hounsfield-python"
        assert main["image"] == f"{REGISTRY}/{kind}:0.1.0"
        assert spec["imagePullSecrets"] == [{"name": "registry-login"}]
    assert trained == (2 if case.startswith("retrain@") else 1)


@pytest.mark.parametrize("case", CASES)
def test_secrets_come_by_reference_to_the_steps_that_need_them(case: str, compiled: dict[str, Path]) -> None:
    for label, pod in pods(compiled[case]).items():
        variables = environment(pod)
        for name, item in variables.items():
            source = item.get("valueFrom", {})
            if name in SECRETS:
                assert source["secretKeyRef"]["name"] == SECRETS[name]
            else:
                assert "secretKeyRef" not in source
                assert name == "HOUNSFIELD_PULL_SECRET" or not re.search("KEY|SECRET|TOKEN|PASSWORD", name)
        for name in S3_SETTINGS:
            assert variables[name]["valueFrom"]["configMapKeyRef"]["optional"]
        for name in ("MLFLOW_TRACKING_URI", "HOUNSFIELD_CHECKPOINTS", "HOUNSFIELD_DATASETS"):
            reference = variables[name]["valueFrom"]["configMapKeyRef"]
            assert reference == {"name": CONFIG_MAP, "key": name, "optional": False}
        assert variables["AWS_ACCESS_KEY_ID"]["valueFrom"]["secretKeyRef"]["optional"]
        names_patients = component_of(label) in ("plan-ingest", "dicom-ingest", "update-dataset")
        assert ("HOUNSFIELD_PSEUDONYM_KEY" in variables) == names_patients
        assert variables["PYTHONUNBUFFERED"]["value"] == "1"
    text = compiled[case].read_text()
    images = re.findall(r"^ *image: (.+)$", text, re.MULTILINE)
    assert len(images) >= 6
    assert all(re.fullmatch(r"\S+:[0-9][\w.-]*", image) for image in images), "an image without a fixed tag"
    assert str(Path.home()) not in text
    assert str(Path(__file__).parents[1]) not in text


@pytest.mark.parametrize("case", CASES)
def test_tasks_have_titles_retries_and_caching_where_it_is_sound(case: str, compiled: dict[str, Path]) -> None:
    pipeline, settings = documents(compiled[case])
    seen = set()
    for name, task in tasks(pipeline["root"], pipeline["components"]):
        assert re.fullmatch("[A-Z][A-Za-z0-9 -]+", task["taskInfo"]["name"]), f"{name} has no title"
        component = component_of(task["componentRef"]["name"])
        retry = task["retryPolicy"]
        deadline = int(settings[task["executor"]]["activeDeadlineSeconds"])
        attempts = retry["maxRetryCount"] + 1
        preemptible = component in ("train-unet", "train-l3", "tune")
        assert attempts >= (7 if preemptible else 3)
        assert retry["backoffDuration"] == "60s"
        assert retry["backoffFactor"] == (1.0 if preemptible else 2.0)
        waits = sum(60 * retry["backoffFactor"] ** number for number in range(attempts - 1))
        assert waits <= 600, "a failure that no retry cures must show within minutes"
        assert int(retry["backoffMaxDuration"].removesuffix("s")) > attempts * deadline + waits
        cached = task.get("cachingOptions", {}).get("enableCache", False)
        parameters = task.get("inputs", {}).get("parameters", {})
        if component in OUTSIDE:
            assert not cached, f"{name} reads or changes what KFP's key does not show"
        else:
            assert cached, f"{name} follows from its inputs"
            assert "componentInputParameter" in parameters["code_version"]
        if component in ("plan-ingest", "dicom-ingest"):
            source = parameters["data_version"]
            came = source.get("taskOutputParameter", {}).get("producerTask"), source.get("componentInputParameter")
            assert came in (("data-version", None), (None, "pipelinechannel--data-version-Output"))
        seen.add(component)
    assert seen & {"register-model", "summarise-experiment"}
    assert pipeline["root"]["inputDefinitions"]["parameters"]["code_version"]["defaultValue"] == "0.1.0"


@pytest.mark.parametrize("name", PIPELINES)
def test_inputs_are_grouped_and_described_for_the_ui(name: str, compiled: dict[str, Path]) -> None:
    pipeline, _ = documents(compiled[f"{name}@nvidia"])
    groups = set()
    for key, item in pipeline["root"]["inputDefinitions"]["parameters"].items():
        assert GROUP.match(item.get("description", "")), key
        groups.add(item["description"].partition("]")[0])
        assert "defaultValue" in item, f"{key} has no default"
    assert len(groups) >= 4
    assert pipeline["pipelineInfo"]["displayName"]
    assert pipeline["pipelineInfo"]["description"].endswith(".")


@pytest.mark.parametrize("name", ["lung-tumour", "l3-slice"])
def test_golden_file(name: str, tmp_path: Path) -> None:
    (path,) = compile_all(tmp_path, [name], Cluster())
    golden = GOLDEN / path.name
    difference = difflib.unified_diff(
        golden.read_text().splitlines(), path.read_text().splitlines(), str(golden.name), "now", lineterm="", n=2
    )
    text = "\n".join(difference)
    assert not text, f"{text}\n\nif this is meant, renew the file:\n    {RENEW}"


def test_plain_pipelines_stay_plain(tmp_path: Path) -> None:
    before = compile_all(tmp_path / "before", list(PIPELINES))
    compile_all(tmp_path / "cluster", list(PIPELINES), Cluster())
    after = compile_all(tmp_path / "after", list(PIPELINES))
    for one, other in zip(before, after, strict=True):
        assert one.read_text() == other.read_text()
        assert "platforms" not in one.read_text()


@pytest.mark.parametrize("name", PIPELINES)
def test_kubernetes_resources_fit_their_definitions(name: str, tmp_path: Path, crds: Path) -> None:
    plain, path = compile_all(tmp_path, [name], Cluster(tag="0.2.0-RC1", namespace="ct"), kubernetes=True)
    pipeline, version = yaml.safe_load_all(path.read_text())
    for resource in (pipeline, version):
        assert errors_of_resource(resource, crds) == []
        assert resource["metadata"]["namespace"] == "ct"
    assert (pipeline["kind"], version["kind"]) == ("Pipeline", "PipelineVersion")
    assert version["spec"]["pipelineName"] == pipeline["metadata"]["name"] == name
    assert version["metadata"]["name"] == f"{name}-0-2-0-rc1"
    document, settings = documents(plain)
    assert version["spec"]["pipelineSpec"] == document
    assert version["spec"]["platformSpec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"] == settings
    version["spec"]["pipelineSpecs"] = version["spec"].pop("pipelineSpec")
    assert len(errors_of_resource(version, crds)) == 2


def test_kubernetes_resources_need_a_cluster(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cluster"):
        compile_all(tmp_path, ["l3-slice"], kubernetes=True)
