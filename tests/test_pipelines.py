"""Pipelines: signatures follow the configurations, everything compiles, every input is described."""

import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hounsfield.components.tune.config import Config as Tune
from hounsfield.components.tune.run import training_config
from hounsfield.errors import HounsfieldError, InputError
from hounsfield.pipelines.catalog import PIPELINES
from hounsfield.pipelines.compile import compile_all
from hounsfield.pipelines.inputs import parse_settings, signature
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
OWN_DEFAULTS = {("l3-slice-study", "trials"): 30}
"""Where a pipeline has another default than its step, for a reason: the study is about the search."""
OWN_DEFAULTS: dict[str, dict[str, Any]] = {"l3-slice-study": {"trials": 30, "refit": True}}
"""Without a search the arms are one and the same; the final training uses every patient outside of the fold."""


def component(name: str) -> tuple[Any, Any]:
    module = importlib.import_module(f"hounsfield.components.{name}.component")
    config = importlib.import_module(f"hounsfield.components.{name}.config").Config
    return getattr(module, name), config


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
    used = [part for part in COMPONENTS if f"comp-{part.replace('_', '-')}" in PIPELINES[name].pipeline_spec.components]
    assert len(used) >= 6
    for part in used:
        for key, field in component(part)[1].model_fields.items():
            fields.setdefault(key, set()).add(field.default)
    for key, item in signature(PIPELINES[name]).parameters.items():
        if key not in NOT_IN_CONFIGS and item.default != OWN_DEFAULTS.get((name, key)):
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


def test_compiling_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from hounsfield.pipelines.compile import compile_all\n"
        f"compile_all(Path({str(tmp_path)!r}), {list(PIPELINES)!r})\n"
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
