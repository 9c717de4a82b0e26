"""The registered model: the training code's predictions, from HU, where this package is not installed."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from mlflow.exceptions import MlflowException
from tiny_models import tiny_evaluation, tiny_model

from hounsfield.components.register_model.config import Config
from hounsfield.components.register_model.run import run
from hounsfield.inference import load_network
from hounsfield.registry import packaging, served, tracking
from hounsfield.windowing import Window

TASKS = ("lung-tumour", "l3-slice")
ELSEWHERE = """
import importlib.abc, json, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hounsfield":
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Absent())
import mlflow, numpy
hu = numpy.load("hu.npy")
for task in ("lung-tumour", "l3-slice"):
    model = mlflow.pyfunc.load_model(f"models:/{task}@champion")
    numpy.save(f"{task}.npy", model.predict(hu))
assert "hounsfield" not in sys.modules
print(json.dumps([name for name in sys.modules if name.startswith("hounsfield_")]))
"""


class Registered:
    """Both tasks registered in one SQLite file; models with 32x32 training images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = f"sqlite:///{folder}/mlflow.db"
        self.directories = {task: tiny_model(folder, task) for task in TASKS}
        self.loaded: dict[str, Any] = {}
        for task in TASKS:
            run(Config(tracking_uri=self.uri), self.directories[task], tiny_evaluation(folder, self.directories[task]))
        with tracking.recording(self.uri):
            for task in TASKS:
                self.loaded[task] = mlflow.pyfunc.load_model(f"models:/{task}@champion")

    def trained(self, task: str, hu: np.ndarray) -> np.ndarray:
        """Probabilities by the training code."""
        network = load_network(self.directories[task])
        images = Window(**network.card.window)(torch.from_numpy(hu))
        return network.foreground_logits(images).sigmoid().numpy()


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Registered:
    return Registered(tmp_path_factory.mktemp("registered"))


def slices(count: int = 5, rows: int = 32, columns: int = 32) -> np.ndarray:
    return np.random.default_rng(3).integers(-1000, 400, (count, rows, columns)).astype(np.float32)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.int64, np.float64])
def test_predicts_what_the_training_code_predicts(registered: Registered, task: str, dtype: Any) -> None:
    hu = slices()
    probabilities = registered.loaded[task].predict(hu.astype(dtype))
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (hu.shape if task == "lung-tumour" else hu.shape[:1])
    assert np.ptp(probabilities) > 1e-3
    np.testing.assert_allclose(probabilities, registered.trained(task, hu), rtol=2e-6, atol=1e-7)


def test_other_sizes_come_back_on_the_grid_of_the_input(registered: Registered) -> None:
    """Slices of 2x2 equal pixels shrink to the small slice exactly, so the probabilities are those, interpolated."""
    small = slices(2)
    large = small.repeat(2, axis=1).repeat(2, axis=2)
    probabilities = registered.loaded["lung-tumour"].predict(large)
    assert probabilities.shape == (2, 64, 64)
    expected = registered.trained("lung-tumour", large)
    assert expected.shape == (2, 32, 32)
    log_odds = torch.logit(torch.from_numpy(expected).double())[:, None]
    grown = torch.nn.functional.interpolate(log_odds, scale_factor=2, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(probabilities, grown[:, 0].sigmoid().numpy(), atol=1e-5)
    assert registered.loaded["lung-tumour"].predict(slices(1, 40, 52)).shape == (1, 40, 52)
    assert registered.loaded["l3-slice"].predict(slices(3, 40, 52)).shape == (3,)


@pytest.mark.parametrize("task", TASKS)
def test_a_slice_does_not_depend_on_its_neighbours(
    registered: Registered, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hu, model = slices(5), registered.loaded[task]
    together = model.predict(hu)
    apart = np.concatenate([model.predict(hu[i : i + 1]) for i in range(len(hu))])
    np.testing.assert_allclose(together, apart, rtol=1e-5, atol=1e-6)
    served_by = sys.modules[type(model.unwrap_python_model()).__module__]
    monkeypatch.setattr(served_by, "PIXELS_AT_ONCE", 2 * 32 * 32)
    np.testing.assert_allclose(model.predict(hu), together, rtol=1e-5, atol=1e-6)
    assert model.predict(hu[:0]).shape == together[:0].shape


@pytest.mark.parametrize(
    ("wrong", "came"),
    [
        (slices()[0], r"shape \(32, 32\) came"),
        (slices()[None], r"shape \(1, 5, 32, 32\) came"),
        (slices()[:, :0], r"shape \(5, 0, 32\) came"),
        (np.where(slices() > 0, np.nan, slices()), "NaN or infinite values came"),
        (np.where(slices() > 0, np.inf, slices()), "NaN or infinite values came"),
        (slices() * 100, r"values from -\d+ to \d+ came$"),
        ((slices() + 1000) / 1400, "values from 0 to .* came: do not scale"),
        (slices() / 1000, r"values from -1 to 0\.\d+ came: do not scale"),
        ((slices() + 1000) / 1400 * 255, "values from 0 to .* came, none from -1024 to 0: rescale"),
        (slices() + 1024, "values from 24 to .* came, none from -1024 to 0: rescale"),
        (np.where(slices() < -900, -2000, slices() + 1024), "values from -2000 to .* came, none from -1024 to 0"),
        (np.full((1, 32, 32), 30000), "values from 30000 to 30000 came, none from -1024 to 0: rescale"),
        (np.zeros((1, 4, 4), np.uint8), "dtype uint8 came"),
        (slices() < 0, "dtype bool came"),
        (slices().astype(complex), "dtype complex128 came"),
        (slices().astype(str), "dtype <U"),
        (slices().astype(str).tolist(), "dtype <U"),
        ([[[None, 0], [-1000, 40]]], "dtype object came"),
        ([[[10**30, 0], [-1000, 40]]], "dtype object came"),
        ([[[0, 1], [2]]], "slices of different sizes came"),
        ([], r"shape \(0,\) came"),
        (None, r"shape \(\) came"),
        ({"slices": [[[0]]]}, r"shape \(\) came"),
    ],
)
def test_input_that_cannot_be_hu_is_refused(registered: Registered, wrong: Any, came: str) -> None:
    expected = r"expected HU slices: integers \(not uint8\) or floats of shape \(N, H, W\) from -32768 to 32767"
    with pytest.raises(MlflowException, match=f"{expected}, air near -1000, water 0; {came}"):
        registered.loaded["lung-tumour"].predict(wrong)


@pytest.mark.parametrize(
    "unusual",
    [
        np.zeros((1, 32, 32), np.int16),
        np.where(slices(1) < 0, -3024, slices(1)) - (slices(1) > 300) * 400,
        slices(1) * 0.02,
        slices(1).tolist(),
    ],
    ids=["water", "padded", "soft tissue alone", "nested lists"],
)
def test_unusual_hu_is_accepted(registered: Registered, unusual: Any) -> None:
    assert registered.loaded["lung-tumour"].predict(unusual).shape == (1, 32, 32)


def test_loads_in_another_process_without_this_package(registered: Registered, tmp_path: Path) -> None:
    hu = slices(3)
    np.save(tmp_path / "hu.npy", hu)
    environment = os.environ | {"MLFLOW_TRACKING_URI": registered.uri, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    packages = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert len(packages) == 1
    for task in TASKS:
        np.testing.assert_allclose(
            np.load(tmp_path / f"{task}.npy"), registered.trained(task, hu), rtol=2e-6, atol=1e-7
        )


def test_what_is_stored_has_no_pickle_and_names_no_place(registered: Registered) -> None:
    (stored,) = (registered.folder / "mlartifacts" / "lung-tumour" / "models").iterdir()
    files = {path.relative_to(stored / "artifacts").as_posix() for path in stored.rglob("*") if path.is_file()}
    assert {"served.py", "artifacts/weights.safetensors", "artifacts/card.json", "input_example.json"} <= files
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".pth", ".pt", ".pyc"))]
    code = {name.split("/", 2)[2] for name in files if name.startswith("code/")}
    assert {"__init__.py", "errors.py", "windowing.py", "models/__init__.py", "models/unet.py"} <= code
    assert not [name for name in code if not name.startswith("models/") and "/" in name]
    described = (stored / "artifacts" / "MLmodel").read_text()
    home, checkout = str(Path.home()), str(Path(packaging.__file__).parents[2])
    assert home not in described
    assert checkout not in described
    assert str(registered.directories["lung-tumour"]) not in described
    requirements = (stored / "artifacts" / "requirements.txt").read_text().split()
    assert [line.split("==")[0] for line in requirements] == ["mlflow", "torch", "numpy", "safetensors"]
    assert "+" not in "".join(requirements)


def test_signature_and_example(registered: Registered) -> None:
    metadata = registered.loaded["lung-tumour"].metadata
    (given,) = metadata.get_input_schema().inputs
    assert (given.type, given.shape) == (np.dtype(np.float32), (-1, -1, -1))
    assert metadata.get_output_schema().inputs[0].shape == (-1, -1, -1)
    assert registered.loaded["l3-slice"].metadata.get_output_schema().inputs[0].shape == (-1,)
    example = np.asarray(registered.loaded["lung-tumour"].input_example)
    assert registered.loaded["lung-tumour"].predict(example).shape == (1, 16, 16)
    assert metadata.metadata["dataset_hash"] == "d" * 64


def test_versions_with_different_code_have_different_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with packaging.staged(tmp_path / "one") as (script, first):
        assert f"from {first.name} import models" in script.read_text()
        assert f"from {first.name}.errors import InputError" in (first / "models" / "unet.py").read_text()
        importlib.import_module(f"{first.name}.models")
    assert first.name not in sys.modules
    with packaging.staged(tmp_path / "same") as (_, same):
        assert same.name == first.name
    changed = tmp_path / "served.py"
    changed.write_text(Path(served.__file__).read_text() + "\n")
    monkeypatch.setattr(packaging, "SCRIPT", changed)
    with packaging.staged(tmp_path / "two") as (_, second):
        assert second.name != first.name
