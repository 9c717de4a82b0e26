"""Both pipelines from DICOM to a registered model, small."""

import csv
import json
from pathlib import Path

import mlflow
import numpy as np
import pytest

from hounsfield.cli.run import run_task
from hounsfield.phantom import write_cohort

SMALL = {
    "lung-tumour": ("chest", ["size=64", "base_channels=4", "depth=3", "batch_norm=true", "batch_size=8", "trials=2"]),
    "l3-slice": ("abdomen", ["size=64", "architecture=resnet18", "batch_size=32"]),
}

JUDGED = ("evaluate-pr-ap", "compare-models", "register-model")


def cohort(region: str, folder: Path) -> Path:
    """Three patients, one in each split."""
    cases = write_cohort(region, folder, 3, 5, 64, 10.0)  # type: ignore[arg-type]
    with cases.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, split in zip(rows, ("train", "val", "test"), strict=True):
        row["split"] = split
    with cases.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return cases


@pytest.mark.slow
@pytest.mark.parametrize("task", SMALL)
def test_pipeline_registers_a_model_and_caches_its_steps(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("HOUNSFIELD_PSEUDONYM_KEY", "test")
    region, settings = SMALL[task]
    cases = cohort(region, tmp_path / "data")
    out = tmp_path / "out"
    first, metrics = run_task(task, [], cases, out, [*settings, "epochs=1"])
    train = "train-unet" if task == "lung-tumour" else "train-l3"
    ingest = ["plan-ingest", "dicom-ingest", "merge-stores"]
    assert list(first.seconds) == [*ingest, "window-convert", "tune", train, *JUDGED]
    assert metrics["patients"] == 1
    assert (out / "report.html").stat().st_size > 10_000
    result = json.loads((out / "result.json").read_text())
    assert result["model_uri"] == f"models:/{task}/1"
    printed = capsys.readouterr().out
    for text in (str(out / "report.html"), f"models:/{task}/1", f"mlflow ui --backend-store-uri sqlite:///{out}"):
        assert text in printed

    mlflow.set_tracking_uri(result["tracking_uri"])
    model = mlflow.pyfunc.load_model(f"models:/{task}@champion")
    hu = np.full((2, 64, 64), -1000, np.float32)
    hu[:, 16:48, 16:48] = 40
    probability = model.predict(hu)
    assert probability.shape == (hu.shape if task == "lung-tumour" else (2,))
    assert ((probability >= 0) & (probability <= 1)).all()

    again, _ = run_task(task, [], cases, out, [*settings, "epochs=1"])
    assert list(again.seconds) == ["compare-models", "register-model"]
    assert "the weights are the same" in capsys.readouterr().out
    assert again.outputs["model_uri"] == first.outputs["model_uri"]

    identity = [row["patient"] for row in csv.DictReader(cases.open(newline=""))]
    for path in (out / "artifacts").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [name for name in [*identity, "Phantom^"] if name.encode() in content], path
