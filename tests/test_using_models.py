"""The examples of docs/using-models.md, each run where the model's own requirements and pydicom are all there is."""

import ast
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dicom_factory as factory
import numpy as np
import pytest
import requests
from clean_environment import EXAMPLES, PAGE, SPACING, Clean, serving

from hounsfield.evaluation.decision import decide
from hounsfield.registry.served import EXPECTED

CLOSE = {"rtol": 2e-6, "atol": 1e-7}
REFUSED: dict[str, tuple[Any, str]] = {
    "shape": ([[-1000, 40], [0, 60]], "shape (2, 2) came"),
    "empty": ([], "shape (0,) came"),
    "ragged": ([[[-1000, 40], [0]]], "slices of different sizes came"),
    "text": ([[["-1000", "40"]]], "dtype <U5 came"),
    "booleans": ([[[True, False]]], "dtype bool came"),
    "null": ([[[None, 40]]], "dtype object came"),
    "stored values": ([[[24, 1064]]], "values from 24 to 1064 came, none from -1024 to 0: rescale stored values"),
    "normalised": ([[[-1.5, 2.25]]], "values from -1.5 to 2.25 came: do not scale or normalise"),
    "beyond int16": ([[[-1000, 70000]]], "values from -1000 to 70000 came"),
}


def function(example: str, name: str) -> Callable[..., Any]:
    """A function that an example defines, without its other statements."""
    body = [node for node in ast.parse(EXAMPLES[example]).body if not isinstance(node, ast.Assign | ast.Expr)]
    body = [node for node in body if not (isinstance(node, ast.ImportFrom) and node.module == "ct")]
    names: dict[str, Any] = {}
    exec(compile(ast.Module(body, []), example, "exec"), names)
    found: Callable[..., Any] = names[name]
    return found


@pytest.fixture(scope="module")
def clean() -> Iterator[Clean]:
    if not os.environ.get("HOUNSFIELD_REQUIRE_CLEAN_ENVIRONMENT"):
        pytest.skip("installs torch and MLflow into a new environment: run .ci/using-models")
    with tempfile.TemporaryDirectory(prefix="using-models-") as folder:
        yield Clean(Path(folder))


@pytest.fixture(scope="module")
def server(clean: Clean) -> Iterator[str]:
    with serving(clean) as url:
        yield url


def test_every_example_is_one_that_a_test_runs() -> None:
    run_here = {"install.sh", "ct.py", "tumour.py", "l3.py", "serve.sh", "curl.sh", "client.py", "batch.py"}
    assert set(EXAMPLES) == run_here
    assert f"pip install mlflow=={version('mlflow')}\n" in EXAMPLES["install.sh"]
    for name, content in EXAMPLES.items():
        if name.endswith(".py"):
            compile(content, name, "exec")
        else:
            assert subprocess.run(["bash", "-n"], input=content, text=True).returncode == 0
    assert f"    {EXPECTED}; shape (512, 512) came\n" in PAGE.read_text()


@pytest.mark.parametrize("step", [None, (0.0, 0.0, -2.5)])
def test_series_is_read_from_inferior_to_superior_in_hu(step: tuple[float, ...] | None, tmp_path: Path) -> None:
    hu = factory.phantom((6, 20, 16))
    factory.write_series(tmp_path, hu, step=step, spacing=SPACING)
    read, spacing, positions = function("ct.py", "read_series")(tmp_path)
    assert read.dtype == np.int16
    np.testing.assert_array_equal(read, hu if step is None else hu[::-1])
    np.testing.assert_allclose(spacing, SPACING)
    np.testing.assert_allclose(positions, (100 if step is None else 87.5) + 2.5 * np.arange(6))


def test_series_that_is_not_one_axial_volume_is_refused(tmp_path: Path) -> None:
    hu, read_series = factory.phantom((6, 20, 16)), function("ct.py", "read_series")
    factory.write_series(tmp_path / "two", hu)
    shutil.copy(factory.write_series(tmp_path / "other", hu)[0].filename, tmp_path / "two" / "more")
    with pytest.raises(ValueError, match="images of one CT series"):
        read_series(tmp_path / "two")
    shutil.copy(next((tmp_path / "other").iterdir()), tmp_path / "other" / "copy")
    with pytest.raises(ValueError, match="missing or doubled"):
        read_series(tmp_path / "other")
    slices = factory.write_series(tmp_path / "gap", hu)
    Path(slices[2].filename).unlink()
    with pytest.raises(ValueError, match="missing or doubled"):
        read_series(tmp_path / "gap")
    factory.write_series(tmp_path / "sagittal", hu, orientation=(0, 1, 0, 0, 0, -1))
    with pytest.raises(ValueError, match="axial slices of a supine patient"):
        read_series(tmp_path / "sagittal")


def test_l3_is_the_slice_of_the_evaluation() -> None:
    l3_slice, random = function("l3.py", "l3_slice"), np.random.default_rng(6)
    found = 0
    for _ in range(500):
        probability = (random.random(12) ** 2).astype(np.float32)
        decision = decide(probability, 0.5)
        index = l3_slice(probability, 0.5)
        assert (index is not None) == decision.detected
        if index is not None:
            found += 1
            beside = {int(np.floor(decision.centre)), int(np.ceil(decision.centre))}
            assert index in beside
            assert probability[index] == max(probability[k] for k in beside)
    assert 300 < found < 500


@pytest.mark.slow
@pytest.mark.clean_environment
def test_environment_has_the_models_requirements_alone(clean: Clean) -> None:
    missing = clean.call("python", "-c", "import hounsfield")
    assert "ModuleNotFoundError: No module named 'hounsfield'" in missing.stderr
    listed = json.loads(clean.call("python", "-m", "pip", "list", "--format", "json").stdout)
    installed = {item["name"]: item["version"].split("+")[0] for item in listed}
    path = clean.call(
        "python", "-c", "import mlflow; print(mlflow.pyfunc.get_model_dependencies('models:/l3-slice@champion'))"
    ).stdout.strip()
    required = dict(line.split("==") for line in Path(path).read_text().split())
    assert set(required) == {"mlflow", "torch", "numpy", "safetensors"}
    assert {name: installed[name] for name in required} == required
    assert "pydicom" in installed
    assert not {"highdicom", "SimpleITK", "kfp", "lightning"} & set(installed)


@pytest.mark.slow
@pytest.mark.clean_environment
def test_unpickling_would_be_noticed_and_refused(clean: Clean) -> None:
    """The two ways by which the other tests know that nothing is unpickled, on something that is."""
    pickled = "import pickle, collections; pickle.loads(pickle.dumps(collections.OrderedDict()))"
    assert clean.call("python", "-c", pickled).returncode == 0
    assert clean.unpickled.read_text() == "collections OrderedDict\n"
    save = (
        "import mlflow\n"
        "class Model(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, model_input): return model_input\n"
        "mlflow.pyfunc.save_model('pickled', python_model=Model(), pip_requirements=[])\n"
    )
    load = "import mlflow; mlflow.pyfunc.load_model('pickled')"
    assert clean.call("python", "-c", save).returncode == 0
    clean.unpickled.unlink()
    refused = clean.call("python", "-c", load)
    assert refused.returncode != 0
    assert "MLFLOW_ALLOW_PICKLE_DESERIALIZATION" in refused.stderr
    assert not clean.unpickled.exists()
    allowed = clean.call("python", "-c", load, MLFLOW_ALLOW_PICKLE_DESERIALIZATION="true")
    assert allowed.returncode == 0, allowed.stderr
    assert "cloudpickle" in clean.unpickled.read_text()
    clean.unpickled.unlink()


@pytest.mark.slow
@pytest.mark.clean_environment
def test_notebook_for_tumours(clean: Clean) -> None:
    probability, said = clean.array("tumour.py", "probability")
    expected = clean.registered.trained("lung-tumour", clean.hu["one"].astype(np.float32))
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(probability, expected, **CLOSE)
    assert clean.volume_ml("one") > 0
    assert said == f"tumour: {clean.volume_ml('one'):.2f} mL\n"


@pytest.mark.slow
@pytest.mark.clean_environment
def test_notebook_for_l3(clean: Clean) -> None:
    probability, said = clean.array("l3.py", "probability")
    expected = clean.registered.trained("l3-slice", clean.hu["one"].astype(np.float32))
    np.testing.assert_allclose(probability, expected, **CLOSE)
    decision = decide(expected, 0.5)
    assert decision.detected
    index = max((int(np.floor(decision.centre)), int(np.ceil(decision.centre))), key=lambda k: float(expected[k]))
    assert said == f"L3: slice {index + 1} of 7, at {100 + 2.5 * index:.1f} mm\n"


@pytest.mark.slow
@pytest.mark.clean_environment
def test_service_predicts_what_the_training_code_predicts(clean: Clean, server: str) -> None:
    probability, _ = clean.array("client.py", "probability")
    expected = clean.registered.trained("lung-tumour", clean.hu["one"].astype(np.float32))
    assert probability.dtype == np.float32
    np.testing.assert_allclose(probability, expected, **CLOSE)
    done = clean.call("bash", "-e", "curl.sh")
    assert done.returncode == 0, done.stderr
    slices = np.array([[[-1000, -1000, -1000], [-90, 40, 60]]], np.int16)
    np.testing.assert_allclose(
        json.loads(done.stdout)["predictions"], clean.registered.loaded["lung-tumour"].predict(slices), **CLOSE
    )
    assert not clean.unpickled.exists(), clean.unpickled.read_text()


@pytest.mark.slow
@pytest.mark.clean_environment
@pytest.mark.parametrize("wrong", REFUSED)
def test_service_refuses_with_what_it_expected(server: str, wrong: str) -> None:
    inputs, came = REFUSED[wrong]
    answer = requests.post(f"{server}/invocations", json={"inputs": inputs}, timeout=60)
    assert answer.status_code == 400
    sentence = answer.json()["message"].rpartition("Error: ")[2]
    assert sentence.startswith(f"{EXPECTED}; {came}")


@pytest.mark.slow
@pytest.mark.clean_environment
def test_service_names_the_key_it_takes(server: str) -> None:
    answer = requests.post(f"{server}/invocations", json={"instances": [[[-1000, 40]]]}, timeout=60)
    assert answer.status_code == 400
    assert "'inputs' key" in answer.json()["message"]


@pytest.mark.slow
@pytest.mark.clean_environment
def test_client_says_why_the_service_refused(clean: Clean, server: str) -> None:
    def without_rescale(dataset: Any, k: int) -> None:
        del dataset.RescaleSlope, dataset.RescaleIntercept

    factory.write_series(clean.folder / "stored" / "scans" / "one", clean.hu["one"], change=without_rescale)
    clean.write_examples(clean.folder / "stored")
    done = clean.call("python", "client.py", place="stored")
    assert done.returncode == 1
    assert done.stderr.startswith(f"{EXPECTED}; values from ")
    assert done.stderr.endswith("none from -1024 to 0: rescale stored values, do not window\n")


@pytest.mark.slow
@pytest.mark.clean_environment
def test_batch_job_does_what_is_missing_once(clean: Clean) -> None:
    scans, results = clean.folder / "batch", clean.folder / "results" / "lung-tumour-1"
    shutil.copytree(clean.folder / "scans", scans)
    slices = factory.write_series(scans / "third", clean.hu["two"], spacing=SPACING)
    lost = Path(slices[2].filename)
    lost.rename(clean.folder / "lost")
    command = ("python", "batch.py", "batch", "results")
    first = clean.call(*command)
    assert (first.returncode, first.stderr.splitlines()[-1]) == (
        1,
        "third: expected slices at equal distances: some are missing or doubled",
    )
    assert {path.name for path in results.iterdir()} == {"one.json", "two.json"}
    known = {
        "model": "lung-tumour",
        "version": "1",
        "threshold": 0.5,
        "dataset_hash": "d" * 64,
        "code_version": "0.1.0",
    }
    for name in ("one", "two"):
        result = json.loads((results / f"{name}.json").read_text())
        assert result.pop("volume_ml") == pytest.approx(clean.volume_ml(name))
        assert result == {"model": "lung-tumour", "version": "1", **known}
    (results / "one.json").write_text("done before")
    (clean.folder / "lost").rename(lost)
    second = clean.call(*command)
    assert second.returncode == 0, second.stderr
    assert (results / "one.json").read_text() == "done before"
    assert (results / "third.json").read_text() == (results / "two.json").read_text()
    assert {path.name for path in results.iterdir()} == {"one.json", "two.json", "third.json"}
    assert not clean.unpickled.exists(), clean.unpickled.read_text()
