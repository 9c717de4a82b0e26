"""Pipelines: signatures follow the configurations, everything compiles, every input is described."""

import importlib
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hounsfield.cli.run import run_task
from hounsfield.cli.submit import cluster_inputs
from hounsfield.components.tune.config import Config as Tune
from hounsfield.components.tune.run import training_config
from hounsfield.errors import HounsfieldError, InputError
from hounsfield.pipelines.catalog import PIPELINES
from hounsfield.pipelines.compile import compile_all
from hounsfield.pipelines.inputs import parse_settings, receivers, signature
from hounsfield.pipelines.local import run_pipeline

COMPONENTS = [
    "data_version", "dicom_ingest", "window_convert", "tune", "train_unet", "train_l3", "evaluate_pr_ap",
    "register_model", "plan_experiment", "summarise_experiment", "plan_ingest", "merge_stores", "update_dataset",
    "plan_retraining", "compare_models",
]  # fmt: skip
NOT_IN_CONFIGS = {
    "code_version", "data_version", "checkpoints", "data", "cases", "dataset", "training", "tuned", "plan", "shard",
    "comparison",
}  # fmt: skip
OWN_DEFAULTS: dict[str, dict[str, Any]] = {"l3-slice-study": {"trials": 30, "refit": True}}
"""Without a search the arms are one and the same; the final training uses every patient outside of the fold."""


def component(name: str) -> tuple[Any, Any]:
    module = importlib.import_module(f"hounsfield.components.{name}.component")
    config = importlib.import_module(f"hounsfield.components.{name}.config").Config
    return getattr(module, name), config


def components_of(pipeline: str) -> list[str]:
    compiled = PIPELINES[pipeline].pipeline_spec.components
    used = [part for part in COMPONENTS if f"comp-{part.replace('_', '-')}" in compiled]
    assert len(used) >= 6
    return used


@pytest.mark.parametrize("name", COMPONENTS)
def test_component_parameters_are_the_fields_of_its_configuration(name: str) -> None:
    made, config = component(name)
    parameters = {
        key: item.default
        for key, item in inspect.signature(made.python_func).parameters.items()
        if item.default is not inspect.Parameter.empty and key not in NOT_IN_CONFIGS - config.model_fields.keys()
    }
    assert parameters.items() <= {key: field.default for key, field in config.model_fields.items()}.items()
    left_out = config.model_fields.keys() - parameters.keys()
    assert left_out <= {"workers"}, f"fields that KFP cannot set: {left_out}"


@pytest.mark.parametrize("name", COMPONENTS)
def test_component_inputs_are_described(name: str) -> None:
    made, _ = component(name)
    parameters = made.component_spec.inputs
    assert not [key for key, item in parameters.items() if item.type in ("Integer", "String") and not item.description]


@pytest.mark.parametrize("name", COMPONENTS)
def test_component_body_is_thin(name: str) -> None:
    made, _ = component(name)
    lines = inspect.getsource(made.python_func).split('"""', 2)[2].strip().splitlines()
    assert len([line for line in lines if line.strip()]) <= 10


@pytest.mark.parametrize("name", PIPELINES)
def test_pipeline_defaults_are_the_components(name: str) -> None:
    fields: dict[str, set[Any]] = {}
    for part in components_of(name):
        for key, field in component(part)[1].model_fields.items():
            fields.setdefault(key, set()).add(field.default)
    for key, item in signature(PIPELINES[name]).parameters.items():
        if key not in NOT_IN_CONFIGS:
            assert item.default in fields[key] | {OWN_DEFAULTS.get(name, {}).get(key)}, key


def test_compiled_yaml_describes_every_input(tmp_path: Path) -> None:
    paths = compile_all(tmp_path, list(PIPELINES))
    for path in paths:
        spec = next(iter(yaml.safe_load_all(path.read_text())))
        inputs = spec["root"]["inputDefinitions"]["parameters"]
        assert len(inputs) > 25
        assert not [key for key, item in inputs.items() if len(item.get("description", "")) < 10]
        for executor in spec["deploymentSpec"]["executors"].values():
            text = json.dumps(executor["container"])
            assert "pip install" not in text
            assert not executor["container"]["image"].endswith(":latest")


def test_compiling_and_checking_settings_need_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from hounsfield.pipelines.compile import PIPELINES, compile_all\n"
        "from hounsfield.pipelines.inputs import parse_settings\n"
        f"compile_all(Path({str(tmp_path)!r}), {list(PIPELINES)!r})\n"
        "parse_settings(PIPELINES['retrain'], ['policy=better', 'training={\"alpha\": 0.5}'])\n"
        "heavy = {'torch', 'mlflow', 'lightning', 'SimpleITK', 'pydicom', 'optuna', 'matplotlib'}\n"
        "sys.exit(sorted(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_settings_are_converted_and_checked() -> None:
    pipeline = PIPELINES["lung-tumour"]
    assert parse_settings(pipeline, ["epochs=3", "alpha=1", "batch-norm=true", "loss=fl"]) == {
        "epochs": 3,
        "alpha": 1.0,
        "batch_norm": True,
        "loss": "fl",
    }
    for setting, sentence in [
        ("epochs", "expected key=value"),
        ("epoch=3", "did you mean epochs"),
        ("epochs=many", "expected a value of type int"),
    ]:
        with pytest.raises(InputError, match=sentence):
            parse_settings(pipeline, [setting])


@pytest.mark.parametrize("name", PIPELINES)
def test_defaults_of_a_pipeline_are_valid_settings(name: str) -> None:
    defaults = {key: item.default for key, item in signature(PIPELINES[name]).parameters.items()}
    assert parse_settings(PIPELINES[name], [f"{key}={value}" for key, value in defaults.items()]) == defaults


@pytest.mark.parametrize("name", PIPELINES)
def test_every_input_of_a_step_is_checked_by_that_step(name: str) -> None:
    used = {component(part)[1] for part in components_of(name)}
    for key in signature(PIPELINES[name]).parameters.keys() - NOT_IN_CONFIGS:
        found = list(receivers(PIPELINES[name], key))
        assert found, key
        assert {config for config, _ in found} <= used
        assert {field for _, field in found} == {key}


def refused_by(schema: dict[str, Any]) -> Iterator[Any]:
    """Values just outside of what a field's JSON schema allows."""
    step = 1 if schema.get("type") == "integer" else 1e-6
    outside = {"minimum": -step, "maximum": step, "exclusiveMinimum": 0, "exclusiveMaximum": 0}
    yield from (schema[bound] + beyond for bound, beyond in outside.items() if bound in schema)
    if "enum" in schema:
        yield "unheard-of"


@pytest.mark.parametrize("name", PIPELINES)
def test_values_outside_of_a_fields_schema_are_refused(name: str) -> None:
    pipeline, seen = PIPELINES[name], set()
    for part in components_of(name):
        for key, schema in component(part)[1].model_json_schema()["properties"].items():
            if key not in signature(pipeline).parameters:
                continue
            for value in refused_by(schema):
                seen.add(key)
                with pytest.raises(InputError) as refusal:
                    parse_settings(pipeline, [f"{key}={value}"])
                assert str(refusal.value).startswith(f"--set {key}={value}: Input should be ")
    assert len(seen) > 20


ACCEPTED = [
    ("lung-tumour", ["width=0", "size=0", "base_channels=0", "trials=0", "max_prevalence=0", "prior=0", "level=-600"]),
    ("lung-tumour", ["space=", "objective=", "grid=", "model_name=", "experiment=nightly", "alpha=0", "beta=1"]),
    ("lung-tumour", ["strategy=greedy", 'grid={"alpha": [0.25, 0.75]}', "split_seed=-1", "tracking_uri=http://mlflow"]),
    ("l3-slice", ["space=control", "objective=f1", "initial_weights=s3://bucket/weights", "oversampling_rate=0.25"]),
    ("lung-tumour-ablation", ["architectures=enet", "losses=bl", "parameters=greedy", 'grid={"gamma": [2]}']),
    ("l3-slice-study", ["folds=2", "arms=control", "trials=0", "refit=false", "series_per_shard=0"]),
    ("retrain", ["training=", "task=l3-slice", "dataset=lung", "policy=simpler", "margin_slice_error_mm=12.5"]),
    ("retrain", ["training= ", "trials=0", "margin_dice=0", "resamples=1000"]),
    ("retrain", ['training={"alpha": 0.5, "epochs": "3"}']),
    ("retrain", ['training={"l2": 0}', "task=l3-slice"]),
]


@pytest.mark.parametrize(("name", "settings"), ACCEPTED)
def test_special_values_are_accepted(name: str, settings: list[str]) -> None:
    assert len(parse_settings(PIPELINES[name], settings)) == len(settings)


REFUSED = [
    ("retrain", ["policy=oldest"], "--set policy=oldest: Input should be 'better', 'simpler' or 'newer'"),
    ("retrain", ["margin-dice=-1"], "--set margin-dice=-1: Input should be greater than or equal to 0"),
    ("retrain", ["resamples=3"], "--set resamples=3: Input should be greater than or equal to 1000"),
    ("retrain", ['training={"alpha": 7}'], "--alpha: Input should be less than or equal to 1 (came: 7)"),
    ("retrain", ['training={"alpha": 0.5}', "task=l3-slice"], "--alpha: Extra inputs are not permitted"),
    ("retrain", ["training=[]"], "--set training=[]: --training: expected a JSON object"),
    ("lung-tumour", ["epochs=3", "alpha=7"], "--set alpha=7: Input should be less than or equal to 1"),
    ("lung-tumour", ["threshold=0"], "--set threshold=0: Input should be greater than 0"),
    ("l3-slice", ["batch_size=1"], "--set batch_size=1: Input should be greater than or equal to 2"),
    ("l3-slice-study", ["folds=1"], "--set folds=1: Input should be greater than or equal to 2"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "sentence"), REFUSED)
def test_what_a_step_would_refuse_is_refused_before_anything_runs(
    name: str, settings: list[str], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as refusal:
        run_task(name, [str(tmp_path)], None, tmp_path / "out", settings)
    assert sentence in str(refusal.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError) as refusal:
        cluster_inputs(name, ["s3://bucket/ct"], "", settings)
    assert sentence in str(refusal.value)


ECHO = """
import json, sys
from kfp import dsl, local
from hounsfield.pipelines.inputs import json_text

@dsl.component(base_image="python", install_kfp_package=False)
def echo(training: str) -> str:
    return training

@dsl.pipeline
def inputs(epochs: int = 3, learning_rate: float = 1e-5, gamma: float = 4.0, augment: bool = False,
           batch_norm: bool = True, loss: str = "cl", precision: str = "", fold: int = -1) -> str:
    return echo(training=json_text(epochs=epochs, learning_rate=learning_rate, gamma=gamma, augment=augment,
                                   batch_norm=batch_norm, loss=loss, run_name=precision, fold=fold)).output

local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[1])
print("RESULT " + json.dumps(inputs(epochs=7, augment=True).output))
"""


def test_inputs_keep_their_values_inside_a_json_text(tmp_path: Path) -> None:
    """As the pipelines hand the training's parameters to tune, where they are validated."""
    script = tmp_path / "echo_pipeline.py"
    script.write_text(ECHO)
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    text = json.loads(line.removeprefix("RESULT "))
    values = training_config(Tune(), text).model_dump()
    assert values == training_config(Tune(), "{}").model_dump() | {
        "epochs": 7, "learning_rate": 1e-5, "gamma": 4.0, "augment": True, "batch_norm": True, "loss": "cl",
        "run_name": "", "fold": -1,
    }  # fmt: skip
    assert type(values["epochs"]) is int


@pytest.mark.parametrize(("name", "train"), [("lung-tumour", "train_unet"), ("l3-slice", "train_l3")])
def test_search_and_training_get_every_parameter_of_the_training(name: str, train: str) -> None:
    tasks = PIPELINES[name].pipeline_spec.root.dag.tasks
    trained, tuned = tasks[train.replace("_", "-")].inputs.parameters, tasks["tune"].inputs.parameters
    assert trained["tuned"].task_output_parameter.producer_task == "tune"
    handed = json.loads(tuned["training"].runtime_value.constant.string_value)
    left_to_defaults = component(train)[1].model_fields.keys() - handed.keys()
    assert left_to_defaults <= {"fold", "run_name", "smooth"}
    for key in handed:
        assert trained[key].component_input_parameter == key


def test_failing_step_is_named_with_its_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    inputs = {"data": str(tmp_path / "empty"), "tracking_uri": f"sqlite:///{tmp_path}/mlflow.db"}
    with pytest.raises(HounsfieldError, match=r"lung-tumour · dicom-ingest: .*holds no file: give a folder"):
        run_pipeline("lung-tumour", inputs, tmp_path / "out", quiet=True)
    assert "Executing task" in (tmp_path / "out" / "run.log").read_text()
