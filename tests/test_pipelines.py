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

from hounsfield.errors import HounsfieldError, InputError
from hounsfield.pipelines.catalog import PIPELINES
from hounsfield.pipelines.compile import compile_all
from hounsfield.pipelines.inputs import parse_settings, signature
from hounsfield.pipelines.local import data_version, run_pipeline

COMPONENTS = ["dicom_ingest", "window_convert", "train_unet", "train_l3", "evaluate_pr_ap", "register_model"]
NOT_IN_PIPELINES = {"code_version", "data_version", "checkpoints", "data", "cases"}


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
        if item.default is not inspect.Parameter.empty and key not in NOT_IN_PIPELINES
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
    train = "train_unet" if name == "lung-tumour" else "train_l3"
    for part in ("dicom_ingest", "window_convert", train, "evaluate_pr_ap", "register_model"):
        for key, field in component(part)[1].model_fields.items():
            fields.setdefault(key, set()).add(field.default)
    for key, item in signature(PIPELINES[name]).parameters.items():
        if key not in NOT_IN_PIPELINES:
            assert item.default in fields[key], key


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
        f"compile_all(Path({str(tmp_path)!r}), ['lung-tumour', 'l3-slice'])\n"
        "sys.exit(sorted({'torch', 'mlflow', 'lightning', 'SimpleITK', 'pydicom'} & set(sys.modules)) or 0)"
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


def test_data_version_follows_the_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = data_version([str(tmp_path)])
    assert first == data_version([str(tmp_path)])
    (tmp_path / "b").write_text("2")
    assert first != data_version([str(tmp_path)])


def test_failing_step_is_named_with_its_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    inputs = {"data": str(tmp_path / "empty"), "tracking_uri": f"sqlite:///{tmp_path}/mlflow.db"}
    with pytest.raises(HounsfieldError, match=r"lung-tumour · dicom-ingest: .*holds no file: give a folder"):
        run_pipeline("lung-tumour", inputs, tmp_path / "out", quiet=True)
    assert "Executing task" in (tmp_path / "out" / "run.log").read_text()
