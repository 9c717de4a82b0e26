"""The step tune and `hounsfield tune`: small trainings, the artifact, MLflow, kills."""

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from s3_server import ACCESS, BUCKET, SECRET
from slice_sets import make_slices

from hounsfield.components.train_l3 import run as l3_step
from hounsfield.components.train_unet import run as unet_step
from hounsfield.components.tune.config import Config
from hounsfield.components.tune.run import backend, run, study_identity, training_config
from hounsfield.data.model_store import ModelCard, write_model
from hounsfield.data.slice_set import DETECTION, SEGMENTATION
from hounsfield.errors import InputError, Preempted, TrainingError

SMALL = {"base_channels": "4", "depth": 2, "batch_size": 5, "learning_rate": 0.01, "precision": "fp32", "epochs": "1"}


@pytest.fixture(autouse=True)
def no_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """No place for logging but the one that a test names."""
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def tumours(tmp_path: Path) -> Path:
    return make_slices(tmp_path / "tumours", SEGMENTATION)


@pytest.fixture
def vertebrae(tmp_path: Path) -> Path:
    return make_slices(tmp_path / "vertebrae", DETECTION)


class FakeTraining:
    """Stands in for a training step: a model whose card has the metrics of a function of its configuration."""

    def __init__(self, score: Any) -> None:
        self.score, self.configs = score, []  # type: ignore[var-annotated]

    def __call__(
        self, config: Any, slices: Path, model: Path, checkpoints: Path | None = None, tuned: str = ""
    ) -> None:
        self.configs.append(config)
        metrics = self.score(config)
        print(f"val_f1={metrics.get('val_f1', 0):.4f}")
        model.mkdir(parents=True)
        card = ModelCard.model_construct(
            task="lung-tumour", architecture="unet", architecture_options={}, parameters=config.model_dump(), window={},
            image_size=[16, 16], classes=["a", "b"], threshold=0.5, dataset_hash="d", slice_set_hash="s",
            training_patients=1, parameter_count=1, precision="fp32", best_epoch=1, metrics=metrics, code_version="0",
        )  # fmt: skip
        write_model(model, card, {}, [])


def train_as(monkeypatch: pytest.MonkeyPatch, score: Any) -> FakeTraining:
    fake = FakeTraining(score)
    monkeypatch.setattr(unet_step, "run", fake)
    monkeypatch.setattr(l3_step, "run", fake)
    return fake


def by_alpha(config: Any) -> dict[str, float]:
    return {"val_average_precision": round(0.9 - abs(config.alpha - 0.25) - 0.01 * config.seed, 6), "val_f1": 0.5}


def best_of(tuning: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((tuning / "best.json").read_text())
    return value


def test_no_trials_keep_the_given_parameters_without_torch(tumours: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from hounsfield.components.tune.config import Config; from hounsfield.components.tune.run import run\n"
        f'best = run(Config(), Path({str(tumours)!r}), \'{{"epochs": "3"}}\', Path({str(tmp_path / "out")!r}))\n'
        "assert best == '{}'\n"
        "sys.exit(sorted({'torch', 'optuna', 'mlflow', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 10
    assert "no search (0 trials)" in done.stdout
    assert best_of(tmp_path / "out")["parameters"] == {}
    assert pq.read_table(tmp_path / "out" / "trials.parquet").num_rows == 0
    assert "No search" in (tmp_path / "out" / "report.html").read_text()


def test_artifact_of_a_search(tumours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    fake = train_as(monkeypatch, by_alpha)
    out = tmp_path / "out"
    text = run(Config(trials=8, repeats=3), tumours, json.dumps(SMALL | {"seed": 5}), out)
    best = best_of(out)
    assert json.loads(text) == best["parameters"]
    assert {config.seed for config in fake.configs[:-2]} == {5}
    assert [config.seed for config in fake.configs[-2:]] == [6, 7], "the winner itself is not trained again"
    assert all(config.epochs == 1 and config.base_channels == 4 for config in fake.configs)
    assert fake.configs[0].loss == "cl", "the given parameters are tried first"
    rows = pq.read_table(out / "trials.parquet").to_pylist()
    assert len(rows) == 8
    assert best["value"] == max(row["objective"] for row in rows) == rows[best["trial"]]["val_average_precision"]
    repeats = best["repeats"]
    assert [item["seed"] for item in repeats["trainings"]] == [5, 6, 7]
    assert repeats["mean"] == pytest.approx(best["value"] - 0.01)
    assert repeats["sd"] == pytest.approx(0.01)
    assert (repeats["min"], repeats["max"]) == (pytest.approx(best["value"] - 0.02), best["value"])
    html = (out / "report.html").read_text()
    assert html.count("<svg") == 3
    assert not re.findall(r'(?:src|href)="(?!#|data:)|<script|<link|@import|url\((?!#)', html), "nothing is loaded"
    assert "Optimistic" not in html
    names = {"history", "importance", "parallel_coordinates"}
    assert {path.name for path in (out / "figures").iterdir()} == {f"{n}.{s}" for n in names for s in ("png", "svg")}
    printed = capsys.readouterr().out
    assert re.search(r"^best_val_average_precision=0\.\d{4}$", printed, re.MULTILINE)
    assert re.search(r"^progress tune 10/10 best average_precision=0\.\d{4} trial \d", printed, re.MULTILINE)
    assert "val_f1=" not in printed, "a trial's own metrics are not those of the search"
    assert not list((tmp_path / "out.checkpoints").rglob("model")), "models of trials are not kept"


def test_more_trials_go_on_with_the_same_study(tumours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = train_as(monkeypatch, by_alpha)
    for trials, trained in ((2, 2), (2, 2), (4, 4)):
        run(Config(trials=trials), tumours, json.dumps(SMALL), tmp_path / "out")
        assert len(fake.configs) == trained
    run(Config(trials=2), tumours, json.dumps(SMALL | {"epochs": 2}), tmp_path / "out")
    assert len(fake.configs) == 6, "another training is another study"


def test_study_on_s3_goes_on_elsewhere(
    tumours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3_endpoint: str
) -> None:
    values = {"AWS_ENDPOINT_URL": s3_endpoint, "AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
    for name, value in (values | {"AWS_DEFAULT_REGION": "us-east-1"}).items():
        monkeypatch.setenv(name, value)
    fake = train_as(monkeypatch, by_alpha)
    for machine, trials in (("one", 2), ("two", 4)):
        (tmp_path / machine).mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / machine))
        place = f"s3://{BUCKET}/studies"
        run(Config(trials=trials, repeats=2), tumours, json.dumps(SMALL), tmp_path / machine / "out", place)
        assert best_of(tmp_path / machine / "out")["trials"]["all"] == trials
    assert len([config for config in fake.configs if config.seed == 0]) == 4
    assert not list((tmp_path / "two").glob("*.checkpoints"))


def test_identity_follows_what_changes_a_trial() -> None:
    base = study_identity(Config(trials=3), {"epochs": 1}, "s")
    assert base == study_identity(Config(trials=9, repeats=2, tracking_uri="x"), {"epochs": 1}, "s")
    assert base == study_identity(Config(trials=3, backend="katib", parallel_trials=4), {"epochs": 1}, "s")
    assert base not in {
        study_identity(Config(trials=3, search_seed=1), {"epochs": 1}, "s"),
        study_identity(Config(trials=3), {"epochs": 2}, "s"),
        study_identity(Config(trials=3), {"epochs": 1}, "t"),
    }


def test_auto_is_katib_where_the_pipeline_gave_a_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("HOUNSFIELD_POOL", "gke")
    assert backend(Config(trials=1)) == "embedded"
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert backend(Config(trials=1)) == "katib"
    assert backend(Config(trials=1, backend="embedded", strategy="greedy")) == "embedded"
    monkeypatch.delenv("HOUNSFIELD_POOL")
    assert backend(Config(trials=1, strategy="greedy")) == "embedded"


def test_failed_trials_are_told(tumours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sometimes(config: Any) -> dict[str, float]:
        if config.alpha > 0.5:
            raise TrainingError("the loss became NaN in epoch 3")
        return {"val_average_precision": 0.4} if config.loss != "bl" else {"val_loss": 0.1}

    train_as(monkeypatch, sometimes)
    run(Config(trials=12), tumours, json.dumps(SMALL), tmp_path / "out")
    rows = pq.read_table(tmp_path / "out" / "trials.parquet").to_pylist()
    failed = [row for row in rows if row["state"] == "failed"]
    assert len(failed) == best_of(tmp_path / "out")["trials"]["failed"] > 0
    assert all(row["objective"] is None and row["cause"] for row in failed)
    html = (tmp_path / "out" / "report.html").read_text()
    assert "failed: the loss became NaN in epoch 3" in html


def test_a_search_without_any_success_ends_with_the_first_cause(
    tumours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_as(monkeypatch, lambda config: {"val_loss": 1.0})
    with pytest.raises(TrainingError, match="each of the 3 trials failed; the first: the training reported no val_f1"):
        run(Config(trials=3, objective="f1"), tumours, json.dumps(SMALL), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_preemption_is_passed_on_and_does_not_count(
    tumours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def preempted(config: Any) -> dict[str, float]:
        raise Preempted

    for _ in range(4):
        train_as(monkeypatch, preempted)
        with pytest.raises(Preempted):
            run(Config(trials=2), tumours, json.dumps(SMALL), tmp_path / "out")
    train_as(monkeypatch, by_alpha)
    run(Config(trials=2), tumours, json.dumps(SMALL), tmp_path / "out")
    assert best_of(tmp_path / "out")["trials"]["complete"] == 2


def test_greedy_search_names_the_winner_of_every_loss(
    tumours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score(config: Any) -> dict[str, float]:
        value = 0.5 - 0.1 * abs(config.alpha - 0.75)
        value += 0.0 if config.loss == "bl" else 0.1 - 0.01 * abs(config.gamma - 2)
        value += 0.1 - 0.1 * abs(config.beta - 0.3) if config.loss == "cl" else 0.0
        return {"val_average_precision": value}

    train_as(monkeypatch, score)
    text = run(Config(trials=1, strategy="greedy"), tumours, json.dumps(SMALL), tmp_path / "out")
    assert json.loads(text) == {"loss": "cl", "alpha": 0.75, "gamma": 2, "beta": 0.3}
    best = best_of(tmp_path / "out")
    assert best["trials"]["all"] == 19
    assert {loss: step["parameters"] for loss, step in best["steps"].items()} == {
        "bl": {"loss": "bl", "alpha": 0.75},
        "fl": {"loss": "fl", "alpha": 0.75, "gamma": 2},
        "cl": {"loss": "cl", "alpha": 0.75, "gamma": 2, "beta": 0.3},
    }
    assert (tmp_path / "out" / "figures" / "steps.svg").is_file()


def test_control_returns_the_fixed_parameters_too(
    vertebrae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = train_as(monkeypatch, lambda config: {"val_f1": 0.5 + 0.001 * config.batch_size})
    training = json.dumps({"oversampling_rate": 0.2, "class_weight": 0.5, "refit": True, "fold": -1})
    text = run(Config(task="l3-slice", trials=3, space="control"), vertebrae, training, tmp_path / "out")
    best = json.loads(text)
    assert (best["oversampling_rate"], best["class_weight"], len(best)) == (0, 1, 7)
    assert {(c.oversampling_rate, c.class_weight, c.refit) for c in fake.configs} == {(0, 1, False)}


def test_search_on_test_patients_is_marked_optimistic(
    vertebrae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_as(monkeypatch, lambda config: {"val_f1": 0.5})
    config = Config(task="l3-slice", trials=2)
    run(config, vertebrae, json.dumps({"validation": "test"}), tmp_path / "out")
    assert best_of(tmp_path / "out")["optimistic"] is True
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["optimistic"] is True
    assert "Optimistic:" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("config", "training", "sentence"),
    [
        ({"task": "l3-slice"}, "{}", "is a slice set for lung-tumour, expected one for l3-slice"),
        ({"space": "control"}, "{}", "lung-tumour has no search space control"),
        ({"trials": 1}, '{"epochs": "many"}', "--epochs"),
        ({"trials": 1}, '{"gradient_threshold": 3}', "--gradient-threshold: Extra inputs"),
        ({"trials": 1}, "[1]", "expected a JSON object"),
        ({"trials": 1}, "{", "expected a JSON object"),
        ({"trials": 1, "strategy": "greedy", "grid": "[1]"}, "{}", "--grid: expected JSON"),
    ],
)
def test_what_cannot_be_searched_is_said_before_any_training(
    tumours: Path, tmp_path: Path, config: dict[str, Any], training: str, sentence: str
) -> None:
    with pytest.raises(InputError, match=re.escape(sentence)):
        run(Config(**config), tumours, training, tmp_path / "out")


def test_greedy_is_for_the_losses_only(vertebrae: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="greedy searches the losses of lung-tumour, not l3-slice"):
        run(Config(task="l3-slice", trials=1, strategy="greedy"), vertebrae, "{}", tmp_path / "out")


def test_a_search_needs_validation_patients(tmp_path: Path) -> None:
    slices = make_slices(tmp_path / "s", SEGMENTATION, "train train test")
    with pytest.raises(InputError, match="has no slice in the split val"):
        run(Config(trials=2), slices, json.dumps(SMALL), tmp_path / "out")


def test_texts_become_the_types_of_the_training_step() -> None:
    made = training_config(Config(fold=2), '{"epochs": "3", "alpha": "0.001", "augment": "True", "loss": "fl"}')
    values = made.model_dump()
    assert (values["epochs"], values["alpha"], values["augment"], values["loss"]) == (3, 0.001, True, "fl")
    assert (values["fold"], values["refit"]) == (2, False)


def test_mlflow_gets_a_parent_and_a_nested_run_per_trial_once(
    tumours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score(config: Any) -> dict[str, float]:
        if config.loss == "fl":
            raise TrainingError("diverged")
        return by_alpha(config)

    train_as(monkeypatch, score)
    uri = f"sqlite:///{tmp_path}/ml/mlflow.db"
    for trials in (6, 6, 7):
        run(Config(trials=trials, repeats=2, tracking_uri=uri), tumours, json.dumps(SMALL), tmp_path / "out")
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("lung-tumour")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    parents = [item for item in runs if "mlflow.parentRunId" not in item.data.tags]
    assert len(parents) == 1
    parent = parents[0]
    nested = {item.info.run_name: item for item in runs if item is not parent}
    assert {item.data.tags["mlflow.parentRunId"] for item in nested.values()} == {parent.info.run_id}
    rows = pq.read_table(tmp_path / "out" / "trials.parquet").to_pylist()
    assert len(rows) == 7
    assert {f"trial {row['number']}" for row in rows} <= nested.keys()
    assert len(runs) == 1 + 7 + sum(", seed" in name for name in nested)
    for row in rows:
        item = nested[f"trial {row['number']}"]
        assert item.info.status == ("FAILED" if row["state"] == "failed" else "FINISHED")
        assert item.data.tags.get("cause", "") == row["cause"]
        assert item.data.metrics.get("objective") == row["objective"]
        assert item.data.params["loss"] == row["param_loss"]
    best = best_of(tmp_path / "out")
    assert parent.data.metrics["search_best"] == best["value"]
    assert json.loads(parent.data.tags["search_parameters"]) == best["parameters"]
    files = {item.path for item in client.list_artifacts(parent.info.run_id, "search")}
    assert {"search/report.html", "search/trials.parquet", "search/figures"} <= files


def cli(*arguments: str, cwd: Path) -> list[str]:
    code = "from hounsfield.cli.main import main; main()"
    return [sys.executable, "-c", code, "tune", "lung-tumour", *arguments]


@pytest.mark.slow
def test_killed_command_resumes_to_the_same_trials(tumours: Path, tmp_path: Path) -> None:
    settings = [part for name, value in (SMALL | {"epochs": 3}).items() for part in ("--set", f"{name}={value}")]
    common = ["--slices", str(tumours), "--trials", "4", "--repeats", "2", *settings]
    killed = cli(*common, "--out", str(tmp_path / "killed"), cwd=tmp_path)
    for wanted in ("trial 0:", "trial 2:"):
        child = subprocess.Popen(killed, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith(wanted):
                time.sleep(0.3)
                child.send_signal(signal.SIGKILL)
                break
        child.communicate()
    done = subprocess.run(killed, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resuming after" in done.stdout
    assert re.search(r"hounsfield run lung-tumour .*--set loss=(bl|fl|cl)", done.stdout)
    whole = cli(*common, "--out", str(tmp_path / "whole"), cwd=tmp_path)
    assert subprocess.run(whole, capture_output=True, cwd=tmp_path).returncode == 0
    changing = {"started", "seconds", "interruptions"}
    tables = [
        [{k: v for k, v in row.items() if k not in changing} for row in pq.read_table(path).to_pylist()]
        for path in (tmp_path / name / "tuning" / "trials.parquet" for name in ("killed", "whole"))
    ]
    assert tables[0] == tables[1]
    assert best_of(tmp_path / "killed" / "tuning") == best_of(tmp_path / "whole" / "tuning")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give one of --slices"),
        (["--slices", "x", "--data", "y"], "give one of --slices"),
        (["--slices", "x", "--set", "epoch=3"], "did you mean epochs?"),
        (["--slices", "x", "--set", "size=128"], "no step of this search has size"),
        (["--data", "/does/not/exist", "--set", "size=128"], "--data /does/not/exist: no such folder"),
        (["--slices", "x", "--objective", "dice"], "--objective"),
    ],
)
def test_wrong_calls_are_one_line(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    done = subprocess.run(cli(*arguments, cwd=tmp_path), capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert sentence in done.stderr
