"""The retraining pipeline here: a first training, a run that stops early, and new patients with a run that fails."""

import csv
import json
import tempfile
from pathlib import Path

import pytest
from mlflow import MlflowClient
from s3_server import ACCESS, BUCKET, SECRET

from hounsfield.cli.run import run_task
from hounsfield.errors import HounsfieldError
from hounsfield.phantom import write_cohort
from hounsfield.registry import tracking


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUNSFIELD_PSEUDONYM_KEY", "a key of the tests")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "KFP_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


TASKS = {
    "lung-tumour": ("chest", {"base_channels": 4, "depth": 3, "batch_norm": True, "batch_size": 8, "epochs": 1}),
    "l3-slice": ("abdomen", {"architecture": "resnet18", "epochs": 1}),
}


@pytest.mark.slow
@pytest.mark.parametrize(("task", "place"), [("lung-tumour", "folder"), ("l3-slice", "s3")])
def test_pipeline_here(
    task: str, place: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """First training, a run that stops early, and new patients with a run that is killed on the way."""
    dataset = str(tmp_path / "dataset")
    if place == "s3":
        dataset = f"s3://{BUCKET}/{tmp_path.name}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("s3_endpoint"))
        for name, value in {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    region, training = TASKS[task]
    cases = write_cohort(region, tmp_path / "data", 4, 5, 64, 10.0)  # type: ignore[arg-type]
    with cases.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, split in zip(rows, ("train", "val", "test", "train"), strict=True):
        row["split"] = split

    def give(count: int) -> None:
        with cases.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows[:count])

    def run(**more: str) -> list[str]:
        settings = {"task": task, "size": "64", "dataset": dataset, "training": json.dumps(training)} | more
        given = [f"{key}={value}" for key, value in settings.items()]
        finished, _ = run_task("retrain", [], cases, tmp_path / "out", given)
        outcome[:] = [finished.outputs["version"], finished.outputs["decision"]]
        return [step.removesuffix("-2") for step in finished.seconds]

    outcome: list[str] = []
    train = "train-unet" if task == "lung-tumour" else "train-l3"
    steps = ["window-convert", "tune", train, "evaluate-pr-ap", "compare-models", "register-model"]
    give(3)
    assert run() == ["update-dataset", "plan-retraining", *steps]
    assert outcome == ["1", "retrain"]
    assert run() == ["update-dataset", "plan-retraining"]
    assert outcome == ["1", "current"]
    assert "nothing to train" in capsys.readouterr().out

    give(4)
    with pytest.raises(HounsfieldError, match=train):
        run(training=json.dumps(training | {"learning_rate": 1e30, "precision": "fp32"}))
    assert train in (steps := run())
    assert outcome == ["2", "retrain"]
    with tracking.recording(f"sqlite:///{tmp_path}/out/mlflow.db"):
        versions = MlflowClient().search_model_versions(f"name='{task}'")
        compared = MlflowClient().get_run(max(versions, key=lambda item: int(item.version)).run_id).data
    assert {int(item.version) for item in versions} == {1, 2}
    assert compared.tags["compared_with"] == "1"
    assert run() == ["update-dataset", "plan-retraining"]
