"""Experiments: plans, pipelines with a loop, and how a run of one is shown, resumed and summarised."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from slice_sets import make_slices

from hounsfield.cli.run import run_task
from hounsfield.components.plan_experiment.config import Config
from hounsfield.components.plan_experiment.run import run as plan
from hounsfield.data.slice_set import SEGMENTATION
from hounsfield.errors import HounsfieldError, InputError, OutOfMemory, Preempted, TrainingError
from hounsfield.experiments.printed import TABLE_1
from hounsfield.phantom import write_cohort
from hounsfield.pipelines.compile import compile_all
from hounsfield.pipelines.local import Watcher, run_pipeline
from hounsfield.pipelines.tasks import EVENT, label

INGEST = ("plan-ingest", "dicom-ingest", "merge-stores")
EXPERIMENTS = ("lung-tumour-ablation", "l3-slice-study")
PARTS = {
    "lung-tumour-ablation": ["train_unet"],
    "l3-slice-study": ["tune", "train_l3"],
}


def test_ablation_is_planned_with_the_parameters_of_table_1(tmp_path: Path) -> None:
    runs = plan(Config(seeds=2, first_seed=5, base_channels_enet=8), None, tmp_path / "plan")
    assert len(runs) == 18
    assert {run["seed"] for run in runs[:9]} == {5}
    assert {run["seed"] for run in runs[9:]} == {6}
    for run, row in zip(runs, [*TABLE_1, *TABLE_1], strict=True):
        assert (run["run_name"], run["architecture"], run["loss"]) == (row.run, row.architecture, row.loss.lower())
        for name in ("alpha", "gamma", "beta"):
            assert run[name] == float(getattr(row, name) or 0)
        assert run["base_channels"] == (8 if row.architecture == "enet" else 0)
    assert json.loads((tmp_path / "plan" / "plan.json").read_text()) == runs


def test_plan_takes_some_networks_losses_arms_and_folds(tmp_path: Path) -> None:
    runs = plan(Config(architectures="unet", losses="cl, bl"), None, tmp_path / "a")
    assert [run["run_name"] for run in runs] == ["U-Net+BL", "U-Net+CL"]
    study = plan(Config(experiment="l3-slice-study", folds=2, seeds=2), None, tmp_path / "b")
    assert [(run["run_name"], run["fold"], run["seed"]) for run in study] == [
        (arm, fold, seed) for seed in (0, 1) for fold in (0, 1) for arm in ("control", "proposed")
    ]
    for wrong in ({"architectures": "unet,vnet"}, {"losses": ""}, {"losses": "cl,cl"}):
        with pytest.raises(InputError, match=f"--{next(iter(wrong))}: expected some of"):
            plan(Config(**wrong), None, tmp_path / "c")
    with pytest.raises(InputError, match="give the slice set"):
        plan(Config(parameters="greedy"), None, tmp_path / "c")
    with pytest.raises(InputError, match="--training: expected a JSON object"):
        plan(Config(parameters="greedy"), None, tmp_path / "c", "[1]")
    assert not (tmp_path / "c").exists()


@pytest.mark.slow
def test_greedy_plan_uses_the_winner_of_each_step_for_its_loss(tmp_path: Path) -> None:
    slices = make_slices(tmp_path / "slices", SEGMENTATION)
    config = Config(
        parameters="greedy",
        architectures="unet",
        base_channels_unet=4,
        grid='{"alpha": [0.25, 0.75], "gamma": [2, 4], "beta": [0.3]}',
    )
    training = '{"depth": "3", "epochs": "1", "batch_size": "8.0", "batch_norm": "true"}'
    runs = plan(config, slices, tmp_path / "plan", training, tmp_path / "checkpoints")
    best = json.loads((tmp_path / "plan" / "unet" / "best.json").read_text())
    found = {loss: step["parameters"] for loss, step in best["steps"].items()}
    by_loss = {run["loss"]: run for run in runs}
    assert by_loss["bl"]["alpha"] == by_loss["fl"]["alpha"] == by_loss["cl"]["alpha"] == found["bl"]["alpha"]
    assert by_loss["fl"]["gamma"] == by_loss["cl"]["gamma"] == found["fl"]["gamma"]
    assert by_loss["cl"]["beta"] == found["cl"]["beta"] == 0.3
    assert (by_loss["bl"]["gamma"], by_loss["bl"]["beta"], by_loss["fl"]["beta"]) == (0, 0, 0)
    assert best["trials"]["all"] == 5


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_compiled_experiment_loops_over_the_plan_and_describes_every_input(name: str, tmp_path: Path) -> None:
    (path,) = compile_all(tmp_path, [name])
    spec = next(iter(yaml.safe_load_all(path.read_text())))
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    assert not [key for key, item in inputs.items() if len(item.get("description", "")) < 10]
    loops = [task for task in spec["root"]["dag"]["tasks"].values() if "parameterIterator" in task]
    assert len(loops) == 2
    loop = next(task for task in loops if "plan-experiment" in task["dependentTasks"])
    inner = set(spec["components"][loop["componentRef"]["name"]]["dag"]["tasks"])
    assert inner == {part.replace("_", "-") for part in [*PARTS[name], "evaluate_pr_ap"]}


def test_compiling_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from hounsfield.pipelines.compile import compile_all\n"
        f"compile_all(Path({str(tmp_path)!r}), {list(EXPERIMENTS)!r})\n"
        "sys.exit(sorted({'torch', 'mlflow', 'lightning', 'optuna', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_label_tells_the_tasks_of_a_loop_apart(tmp_path: Path) -> None:
    assert label({"parameterValues": {"run_name": "U-Net+CL", "fold": -1, "seed": 2.0}}) == "U-Net+CL seed 2"
    assert label({"parameterValues": {"space": "control", "fold": 0, "search_seed": 1}}) == "control fold 0 seed 1"
    artifacts = {"model": {"artifacts": [{"uri": str(tmp_path)}]}}
    assert label({"parameterValues": {"fold": 3}, "artifacts": artifacts}) == "fold 3"


def events(*lines: dict[str, Any]) -> list[str]:
    return [f"{EVENT}{json.dumps(line)}\n" for line in lines]


def test_watcher_keeps_two_tasks_apart(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    watcher = Watcher("study", quiet=False)
    log = [
        watcher.read(line)
        for line in events(
            {"task": 1, "start": "train-l3", "label": "control fold 0"},
            {"task": 2, "start": "train-l3", "label": "proposed fold 0"},
            {"task": 1, "line": "[KFP Executor 2026 INFO]: Got executor_input:"},
            {"task": 1, "line": "{"},
            {"task": 2, "line": "kept epoch 3; model: /somewhere/model"},
            {"task": 1, "line": '    "error: ": 1'},
            {"task": 1, "line": "}"},
            {"task": 1, "line": "error: the loss became NaN"},
            {"task": 2, "end": 0, "seconds": 2.0},
            {"task": 1, "end": 3, "seconds": 1.0},
        )
    ]
    assert log[4] == "train-l3 proposed fold 0 | kept epoch 3; model: /somewhere/model\n"
    printed = capsys.readouterr().out.splitlines()
    assert [line.split() for line in printed] == [
        ["ok", "train-l3", "proposed", "fold", "0", "2.0", "s", "kept", "epoch", "3"],
        ["FAIL", "train-l3", "control", "fold", "0", "1.0", "s", "the", "loss", "became", "NaN"],
    ]
    assert watcher.seconds == {"train-l3 proposed fold 0": 2.0, "train-l3 control fold 0": 1.0}
    failure = watcher.failure(tmp_path)
    assert isinstance(failure, TrainingError)
    assert str(failure).startswith("study · train-l3 control fold 0: the loss became NaN (log:")


@pytest.mark.parametrize(
    ("code", "kind"),
    [(2, HounsfieldError), (3, TrainingError), (4, OutOfMemory), (75, Preempted), (-9, HounsfieldError)],
)
def test_failure_of_a_step_keeps_its_kind(code: int, kind: type[HounsfieldError], tmp_path: Path) -> None:
    watcher = Watcher("study", quiet=True)
    for line in events({"task": 1, "start": "tune", "label": ""}, {"task": 1, "end": code, "seconds": 1.0}):
        watcher.read(line)
    assert type(watcher.failure(tmp_path)) is kind


def cohort(region: str, folder: Path, splits: str = "") -> Path:
    """A cases file of small phantoms, with the given splits if any."""
    patients = len(splits.split()) or 4
    cases = write_cohort(region, folder, patients, 5, 64, 10.0)  # type: ignore[arg-type]
    with cases.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, split in zip(rows, splits.split(), strict=False):
        row["split"] = split
    with cases.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return cases


@pytest.mark.slow
def test_ablation_runs_and_a_repeated_one_does_only_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOUNSFIELD_PSEUDONYM_KEY", "test")
    inputs = {
        "cases": str(cohort("chest", tmp_path / "data", "train val test")), "size": 64, "architectures": "enet",
        "losses": "bl,fl", "base_channels_enet": 4, "batch_size": 8, "epochs": 1,
        "checkpoints": str(tmp_path / "checkpoints"), "code_version": "same", "data_version": "same",
    }  # fmt: skip
    first = run_pipeline("lung-tumour-ablation", inputs, tmp_path / "out", quiet=True)
    both = {f"{step} E-Net+{loss} seed 0" for step in ("train-unet", "evaluate-pr-ap") for loss in ("BL", "FL")}
    once = {*INGEST, "window-convert", "plan-experiment", "summarise-experiment"}
    assert first.seconds.keys() == both | once
    assert run_pipeline("lung-tumour-ablation", inputs, tmp_path / "out", quiet=True).seconds == {}
    more = run_pipeline("lung-tumour-ablation", inputs | {"losses": "bl,fl,cl"}, tmp_path / "out", quiet=True)
    new = {"plan-experiment", "train-unet E-Net+CL seed 0", "evaluate-pr-ap E-Net+CL seed 0", "summarise-experiment"}
    assert more.seconds.keys() == new
    summary = json.loads((Path(more.outputs["summary"]) / "summary.json").read_text())
    assert summary["runs"] == 3
    assert [row["run"] for row in summary["rows"] if row["by_seed"]] == ["E-Net+BL", "E-Net+FL", "E-Net+CL"]
    assert summary["rows"][5]["by_seed"]["0"]["parameters"] == {"alpha": 0.75, "gamma": 2.0, "beta": 0.3}
    log = (tmp_path / "out" / "run.log").read_text()
    assert "train-unet E-Net+CL seed 0 | " in log


@pytest.mark.slow
def test_study_runs_from_dicom_to_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOUNSFIELD_PSEUDONYM_KEY", "test")
    cases = cohort("abdomen", tmp_path / "data")
    settings = ["size=32", "folds=2", "architecture=resnet18", "base_channels=4", "batch_size=16", "epochs=1"]
    settings += ["trials=1", "val_fraction=0.5", "data_name=phantoms", "validation=test"]
    finished, summary = run_task("l3-slice-study", [], cases, tmp_path / "out", settings)
    looped = {
        f"{step} {arm} fold {fold} seed 0"
        for step in ("tune", "train-l3", "evaluate-pr-ap")
        for arm in ("control", "proposed")
        for fold in (0, 1)
    }
    once = {*INGEST, "window-convert", "plan-experiment", "summarise-experiment"}
    assert finished.seconds.keys() == looped | once
    assert summary["data"] == "phantoms"
    assert summary["patients"] == 4
    assert summary["optimistic"] is True
    for arm in ("control", "proposed"):
        assert summary["arms"][arm]["runs"] == 2
        assert summary["arms"][arm]["missing"] == []
    report = (tmp_path / "out" / "report.html").read_text()
    assert "ptimistic" in report
    assert json.loads((tmp_path / "out" / "result.json").read_text())["summary"] == finished.outputs["summary"]
    printed = capsys.readouterr().out
    assert str(tmp_path / "out" / "report.html") in printed
    assert "registry" not in printed
