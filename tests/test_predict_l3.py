"""L3 on small series, the network's way to scores, and the command with models from folder and registry."""

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dicom_factory as factory
import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from PIL import Image
from predict_networks import DATASET, WEIGHTS_HASH, dicom_errors, leaves, predict, result, scan
from s3_server import client
from tiny_models import tiny_evaluation, tiny_model

from hounsfield import __version__
from hounsfield.cli.predict import run_predict
from hounsfield.components.register_model.config import Config
from hounsfield.components.register_model.run import run as register
from hounsfield.data.model_store import WEIGHTS
from hounsfield.errors import ArtifactError, InputError
from hounsfield.predict.model import load_predictor
from hounsfield.registry import served


@pytest.fixture(autouse=True)
def _pseudonym_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUNSFIELD_PSEUDONYM_KEY", "a key of the tests")


def abdomen(bright: dict[int, int]) -> npt.NDArray[np.int16]:
    """Slices whose bright half is as wide as `bright` says, in columns of 32."""
    hu = np.full((14, 32, 32), -150, np.int16)
    for index, columns in bright.items():
        hu[index, :, :columns] = 1200
    hu[:, 0, 31] = 1200
    return hu


def test_the_slice_is_found_and_pointed_at(tmp_path: Path) -> None:
    sources = factory.write_series(tmp_path / "in", abdomen({8: 20, 9: 22, 10: 20, 3: 2}), spacing=(5.0, 1.0, 1.0))
    (outcome,) = predict(tmp_path / "in", tmp_path / "out", "l3-slice", size=32)
    folder, figures = result(tmp_path / "out")
    number = int(sources[9].InstanceNumber)
    assert outcome.figures == {"found": True, "slice": 10, "instance_number": number, "position_mm": 145.0}
    assert figures["instance_number"] == number
    assert figures["other_places"] == []
    assert (figures["slice"], figures["slices"], figures["found"]) == (10, 14, True)
    assert len(figures["probability"]) == 14
    assert figures["slice_probability"] == figures["probability"][9] == figures["highest_probability"] > 0.99
    selection = pydicom.dcmread(folder / "dicom" / "key-slice.dcm")
    (reference,) = hd.ko.KeyObjectSelectionDocument.from_dataset(selection).content.get_references()
    assert reference.referenced_sop_instance_uid == sources[9].SOPInstanceUID
    assert selection.StudyInstanceUID == sources[9].StudyInstanceUID
    text = leaves(selection)
    for part in (
        f"slice 10 of 14, image {number}",
        "ward l3-slice",
        DATASET,
        WEIGHTS_HASH,
        __version__,
        "Research use only",
    ):
        assert part in text
    for name in ("probability.png", "slice.png"):
        with Image.open(folder / name) as picture:
            assert np.ptp(np.asarray(picture.convert("L"))) > 100
    assert sources[9].SOPInstanceUID not in (folder / "result.json").read_text()


def test_dciodvfy_finds_no_error(tmp_path: Path) -> None:
    factory.write_series(tmp_path / "in", abdomen({8: 20}), spacing=(5.0, 1.0, 1.0))
    predict(tmp_path / "in", tmp_path / "out", "l3-slice", size=32)
    assert dicom_errors(result(tmp_path / "out")[0] / "dicom" / "key-slice.dcm") == []


def test_other_places_that_could_be_meant_are_told(tmp_path: Path) -> None:
    factory.write_series(tmp_path / "in", abdomen({2: 20, 8: 20, 9: 22, 10: 20, 13: 20}), spacing=(5.0, 1.0, 1.0))
    (outcome,) = predict(tmp_path / "in", tmp_path / "out", "l3-slice", size=32)
    assert (outcome.figures["slice"], outcome.figures["other_places"]) == (10, 2)
    assert result(tmp_path / "out")[1]["other_places"] == [3.0, 14.0]


def test_between_two_slices_the_more_probable_one_is_taken(tmp_path: Path) -> None:
    factory.write_series(tmp_path / "in", abdomen({5: 20, 6: 28}), spacing=(5.0, 1.0, 1.0))
    predict(tmp_path / "in", tmp_path / "out", "l3-slice", size=32)
    assert result(tmp_path / "out")[1]["slice"] == 7


def test_not_found_is_said_and_has_no_slice(tmp_path: Path) -> None:
    factory.write_series(tmp_path / "in", abdomen({8: 3}))
    (outcome,) = predict(tmp_path / "in", tmp_path / "out", "l3-slice", size=32)
    assert (outcome.status, outcome.figures) == ("predicted", {"found": False})
    folder, figures = result(tmp_path / "out")
    assert "slice" not in figures
    assert figures["highest_probability"] < 0.5
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "result.json", "probability.png"}


def test_sagittal_slices_are_refused(tmp_path: Path) -> None:
    factory.write_series(tmp_path / "in", abdomen({8: 20}), orientation=(0, 1, 0, 0, 0, -1))
    with pytest.raises(InputError, match="not-axial"):
        predict(tmp_path / "in", tmp_path / "out", "l3-slice", size=32)


@pytest.mark.parametrize("task", ["lung-tumour", "l3-slice"])
@pytest.mark.parametrize("shape", [(7, 32, 32), (3, 48, 40), (2, 64, 64)])
def test_scores_are_those_of_the_registered_model(task: str, shape: tuple[int, int, int], tmp_path: Path) -> None:
    directory = tiny_model(tmp_path, task)
    model: Any = served.ServedModel()
    artifacts = {"card": str(directory / "card.json"), "weights": str(directory / WEIGHTS)}
    model.load_context(SimpleNamespace(artifacts=artifacts))
    hu = np.random.default_rng(5).integers(-1000, 1500, shape).astype(np.int16)
    done: list[int] = []
    scores = load_predictor(task, directory, precision="fp32").scores(hu, 3, done.append).log_odds
    np.testing.assert_allclose(1 / (1 + np.exp(-scores)), model.predict(None, hu), rtol=1e-5, atol=1e-6)
    assert sum(done) == len(hu)
    assert max(done) <= 3


def test_a_model_of_the_other_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="the model is for l3-slice, expected one for lung-tumour"):
        load_predictor("lung-tumour", tiny_model(tmp_path, "l3-slice"))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Tracking URI with a registered l3-slice model, and its model directory."""
    folder = tmp_path_factory.mktemp("registry")
    uri, model = f"sqlite:///{folder}/mlflow.db", tiny_model(folder, "l3-slice")
    register(Config(tracking_uri=uri), model, tiny_evaluation(folder, model))
    return uri, model


def command(folder: Path, model: str, uri: str = "", task: str = "l3-slice") -> None:
    run_predict(task, str(folder / "in"), model, folder / "out", uri, min_slices=10, batch_size=4)


def test_command_predicts_with_the_champion_as_with_its_folder(
    registry: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    factory.write_series(tmp_path / "in", abdomen({8: 20}))
    command(tmp_path, "models:/l3-slice@champion", registry[0])
    said = capsys.readouterr().out
    assert "model: l3-slice version 1; Research use only" in said
    assert "1 series predicted, 0 done before, 0 not predicted; table: " in said
    from_registry = result(tmp_path / "out")[1]
    assert (from_registry["provenance"]["model_name"], from_registry["provenance"]["model_version"]) == (
        "l3-slice",
        "1",
    )
    command(tmp_path, "models:/l3-slice/1", registry[0])
    assert "0 series predicted, 1 done before" in capsys.readouterr().out
    command(tmp_path, str(registry[1]))
    from_folder = result(tmp_path / "out")[1]
    assert from_folder["provenance"]["model_name"] == "unregistered l3-slice"
    assert from_folder["provenance"]["model_sha256"] == from_registry["provenance"]["model_sha256"]
    assert from_folder["probability"] == from_registry["probability"]


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("models:/l3-slice@king", r"model l3-slice at .* has no such version or alias .*; its aliases: ch"),
        ("models:/l3-slice/77", "has no such version or alias"),
        ("models:/l4-slice@champion", "there is no model l4-slice at .*; registered there: l3-slice"),
        ("models:/l3-slice", "expected models:/NAME@ALIAS, models:/NAME/VERSION or a model folder"),
    ],
)
def test_unknown_model_is_one_error(registry: tuple[str, Path], tmp_path: Path, model: str, sentence: str) -> None:
    start = time.monotonic()
    with pytest.raises(InputError, match=sentence):
        command(tmp_path, model, registry[0])
    assert time.monotonic() - start < 15
    assert not (tmp_path / "out").exists()


def test_unreachable_places_are_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    start = time.monotonic()
    with pytest.raises(InputError, match=r"no MLflow server answers at http://127.0.0.1:9"):
        command(tmp_path, "models:/l3-slice@champion", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="there is no MLflow database at"):
        command(tmp_path, "models:/l3-slice@champion", f"sqlite:///{tmp_path}/absent.db")
    with pytest.raises(ArtifactError, match=r"nowhere is not a complete model"):
        command(tmp_path, str(tmp_path / "nowhere"))
    assert time.monotonic() - start < 15
    assert list(tmp_path.iterdir()) == []


def test_tumours_by_a_trained_architecture_have_a_result(tmp_path: Path) -> None:
    """A U-Net with random weights: whatever it marks, SEG and figures agree."""
    factory.write_series(tmp_path / "in", scan())
    model = tiny_model(tmp_path, "lung-tumour")
    run_predict("lung-tumour", str(tmp_path / "in"), str(model), tmp_path / "out", "", 10, 4)
    folder, figures = result(tmp_path / "out")
    assert figures["total"]["lesions"] == len(figures["lesions"]) > 0
    seg = pydicom.dcmread(folder / "dicom" / "segmentation.dcm")
    assert int(seg.pixel_array.sum()) == sum(item["voxels"] for item in figures["lesions"])


def test_outcomes_are_told_without_identifiers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    factory.write_series(tmp_path / "in" / "Roentgen^Wilhelmina", abdomen({8: 20}))
    factory.write_series(tmp_path / "in" / "short", abdomen({})[:3])
    (tmp_path / "in" / "Roentgen.txt").write_text("a letter")
    run_predict("l3-slice", str(tmp_path / "in"), str(tiny_model(tmp_path, "l3-slice")), tmp_path / "out", "", 10, 4)
    said = "".join(capfd.readouterr())
    assert "refused  too-few-slices: 3 of at least 10 slices" in said
    assert "1 not predicted (too-few-slices 1)" in said
    assert "not used: 1 files, not-dicom: the file is neither DICOM nor" in said
    assert not any(secret in said for secret in (factory.PATIENT_ID, "Roentgen", factory.ISSUER))


def test_prefix_on_s3_is_predicted_like_a_folder(
    s3_endpoint: str, s3_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory.write_series(tmp_path / "in" / "ct", abdomen({8: 20}))
    s3 = client(s3_endpoint)
    for path in (tmp_path / "in" / "ct").iterdir():
        s3.upload_file(str(path), "ct-data", f"predict/study/{path.name}")
    model = str(tiny_model(tmp_path, "l3-slice"))
    run_predict("l3-slice", "s3://ct-data/predict", model, tmp_path / "from-s3", "", 10, 4)
    command(tmp_path, model)
    assert result(tmp_path / "from-s3")[1] == result(tmp_path / "out")[1]
    assert not any((tmp_path / "tmp").iterdir())


def test_command_line_says_what_is_wrong_in_one_line(registry: tuple[str, Path], tmp_path: Path) -> None:
    call = [sys.executable, "-c", "from hounsfield.cli.main import main; main()", "predict", "l3-slice", "in"]
    call += ["--model", str(registry[1]), "--out", "out"]
    done = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: in does not exist: give a folder or file that can be read\n"
    factory.write_series(tmp_path / "in", abdomen({8: 20}))
    done = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == (
        "1 series predicted, 0 done before, 0 not predicted; table: out/results.json"
    )
