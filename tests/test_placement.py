"""Placement: what a cluster's settings change, and what they leave alone."""

from pathlib import Path
from typing import Any

import pytest
from compiled_pods import documents, pods, tasks
from kfp import compiler, dsl
from typer.testing import CliRunner

from hounsfield.cli.main import app
from hounsfield.components.describe import described
from hounsfield.components.images import CPU_IMAGE, TRAINING_IMAGE, reference
from hounsfield.components.train_l3.config import Config as Train
from hounsfield.components.tune.config import Config as Tune
from hounsfield.errors import InputError
from hounsfield.pipelines.catalog import PIPELINES
from hounsfield.pipelines.compile import compile_all
from hounsfield.pipelines.placement import Cluster, on_cluster, threads
from hounsfield.pool import POOLS, Pool
from hounsfield.step import parse


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def list_data() -> str:
    """Made up: works out a version of data."""
    return "1"


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def dicom_ingest(store: dsl.Output[dsl.Dataset], data: str = "", data_version: str = "", code_version: str = ""):
    """Made up: has the name and the inputs of the step that reads DICOM."""


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def train_l3(store: dsl.Input[dsl.Dataset], code_version: str = "") -> float:
    """Made up: has the name of a training."""
    return 0.0


@dsl.pipeline(name="nested")
def nested(code_version: str = ""):
    """Made up: a pipeline used as a step."""
    list_data()


def compiled(pipeline: Any, folder: Path) -> Path:
    path = folder / "compiled.yaml"
    compiler.Compiler().compile(pipeline, str(path))
    return path


def environment(pod: dict[str, Any]) -> dict[str, Any]:
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in pod["spec"]["containers"][0]["env"]}


def test_tasks_in_loops_and_conditions_are_placed(tmp_path: Path) -> None:
    @dsl.pipeline(name="made-up", display_name="Made up")
    def made_up(data: str = "", code_version: str = ""):
        """A pipeline with a loop and a condition."""
        listed = list_data()
        ingested = dicom_ingest(data=data, data_version=listed.output, code_version=code_version)
        with dsl.ParallelFor([1, 2]), dsl.If(listed.output == "1"):
            train_l3(store=ingested.outputs["store"], code_version=code_version)

    path = compiled(on_cluster(made_up, Cluster(pool="gke")), tmp_path)
    made = pods(path)
    training = made["exec-train-l3"]["spec"]
    assert training["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert training["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert made["exec-list-data"]["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "2", "memory": "4Gi"}
    pipeline, _ = documents(path)
    assert pipeline["pipelineInfo"] == {
        "name": "made-up", "displayName": "Made up", "description": "A pipeline with a loop and a condition.",
    }  # fmt: skip
    assert caching(path) == {"list-data": False, "dicom-ingest": True, "train-l3": True}


def caching(path: Path) -> dict[str, bool]:
    pipeline, _ = documents(path)
    return {
        name: task.get("cachingOptions", {}).get("enableCache", False)
        for name, task in tasks(pipeline["root"], pipeline["components"])
    }


def test_ingest_is_cached_by_a_version_that_a_task_works_out(tmp_path: Path) -> None:
    @dsl.pipeline(name="made-up")
    def made_up(data: str = "", cases: str = "", data_version: str = ""):
        dicom_ingest(data=data, data_version=data_version)

    path = compiled(on_cluster(made_up, Cluster()), tmp_path)
    assert caching(path) == {"data-version": False, "dicom-ingest": True}
    pipeline, _ = documents(path)
    dag = pipeline["root"]["dag"]["tasks"]
    assert dag["data-version"]["inputs"]["parameters"] == {
        "data": {"componentInputParameter": "data"},
        "cases": {"componentInputParameter": "cases"},
        "given": {"componentInputParameter": "data_version"},
    }
    assert dag["dicom-ingest"]["inputs"]["parameters"]["data_version"]["taskOutputParameter"] == {
        "outputParameterKey": "Output", "producerTask": "data-version",
    }  # fmt: skip


@pytest.mark.parametrize("given", ["typed", "constant", "left"])
def test_ingest_is_not_cached_without_a_version_of_its_data(given: str, tmp_path: Path) -> None:
    @dsl.pipeline(name="made-up")
    def made_up(data: str = "", version: str = ""):
        values = {"typed": {"data_version": version}, "constant": {"data_version": "1"}, "left": {}}
        dicom_ingest(data=data, **values[given])

    assert caching(compiled(on_cluster(made_up, Cluster()), tmp_path)) == {"dicom-ingest": False}


def test_nested_pipeline_is_refused() -> None:
    @dsl.pipeline(name="outer")
    def outer():
        nested()

    with pytest.raises(TypeError, match="nested"):
        on_cluster(outer, Cluster())


def test_search_by_katib_runs_on_a_cpu_and_knows_where_its_trials_go(tmp_path: Path) -> None:
    cluster = Cluster(registry="registry.example.org/team", tag="0.2.0", pool="eks")
    (path,) = compile_all(tmp_path, ["l3-slice"], cluster)
    tune = pods(path)["exec-tune"]
    variables = environment(tune)
    assert Pool.model_validate_json(variables["HOUNSFIELD_POOL"]) == POOLS["eks"]
    assert variables["HOUNSFIELD_TRAINING_IMAGE"] == "registry.example.org/team/hounsfield-training-python:0.2.0"
    assert variables["HOUNSFIELD_NAMESPACE"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}
    assert tune["spec"]["containers"][0]["image"] == "registry.example.org/team/hounsfield-python:0.2.0"
    assert tune["spec"]["nodeSelector"] == {}
    for label, pod in pods(path).items():
        assert label == "exec-tune" or "HOUNSFIELD_POOL" not in environment(pod)


@pytest.mark.parametrize(
    ("name", "step"), [("lung-tumour", "tune"), ("lung-tumour-ablation", "plan-experiment"), ("l3-slice-study", "tune")]
)
def test_embedded_search_is_a_training_on_the_pool(name: str, step: str, tmp_path: Path) -> None:
    (path,) = compile_all(tmp_path, [name], Cluster(embedded_search=True))
    pod = pods(path)[f"exec-{step}"]
    assert pod["spec"]["containers"][0]["image"] == TRAINING_IMAGE
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod["spec"]["nodeSelector"] == POOLS["nvidia"].node_selector
    assert "HOUNSFIELD_POOL" not in environment(pod)


def test_threads_follow_the_cpu_limit(tmp_path: Path) -> None:
    assert [threads(cpu) for cpu in ("500m", "2", "2.5", "3500m")] == ["1", "2", "3", "4"]
    cluster = Cluster(pool='{"name": "nvidia", "cpu": "12", "memory": "96Gi", "shm": "32Gi"}')
    (path,) = compile_all(tmp_path, ["l3-slice"], cluster)
    pod = pods(path)["exec-train-l3"]
    assert environment(pod)["OMP_NUM_THREADS"] == "12"
    assert pod["spec"]["containers"][0]["resources"]["limits"] == {
        "cpu": "12", "memory": "96Gi", "nvidia.com/gpu": "1",
    }  # fmt: skip
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "32Gi"}} in pod["spec"]["volumes"]


def test_image_references() -> None:
    assert reference(CPU_IMAGE) == CPU_IMAGE
    assert reference(CPU_IMAGE, "localhost:5000/", "1.2") == "localhost:5000/hounsfield-python:1.2"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"tag": "latest"}, "--tag"),
        ({"tag": ""}, "--tag"),
        ({"registry": "https://registry.example.org"}, "--registry"),
        ({"pool": "tpu"}, "expected nvidia, gke, eks, cpu"),
        ({"pool": '{"name": "gke", "counts": 2}'}, "counts"),
        ({"namespace": "CT"}, "--namespace"),
        ({"zone": "a"}, "--zone"),
    ],
)
def test_bad_cluster_is_one_sentence(values: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse(Cluster, values)


def test_descriptions_name_the_step_in_pipelines_only() -> None:
    def function(data: str, epochs: int, trials: int, code_version: str) -> None:
        """Made up."""

    described(Train, Tune)(function)
    assert function.__doc__ is not None
    assert "    data: [data] folders" in function.__doc__
    assert f"    epochs: [train-l3] {Train.model_fields['epochs'].description}" in function.__doc__
    assert "    trials: [tune] " in function.__doc__
    assert "    code_version: [run] " in function.__doc__

    def step(epochs: int) -> None:
        """Made up."""

    described(Train)(step)
    assert f"    epochs: {Train.model_fields['epochs'].description}" in str(step.__doc__)


def test_command_writes_the_cluster_form_and_resources(tmp_path: Path) -> None:
    images = ["--registry", "r.example.org", "--tag", "7", "--pool", '{"name": "gke", "count": 2}']
    result = CliRunner().invoke(app, ["compile", "l3-slice", "--out", str(tmp_path), "--kubernetes", *images])
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["l3-slice.kubernetes.yaml", "l3-slice.yaml"]
    main = pods(tmp_path / "l3-slice.yaml")["exec-train-l3"]["spec"]["containers"][0]
    assert main["image"] == "r.example.org/hounsfield-training-python:7"
    assert main["resources"]["limits"]["nvidia.com/gpu"] == "2"


def test_every_pipeline_keeps_its_inputs(tmp_path: Path) -> None:
    for name, pipeline in PIPELINES.items():
        plain, placed = pipeline.component_spec.inputs, on_cluster(pipeline, Cluster()).component_spec.inputs  # type: ignore[attr-defined]
        assert list(plain) == list(placed), name
        changed = {key for key in plain if plain[key] != placed[key]}
        assert changed == {"code_version"}, name
