"""The command line as a user meets it."""

import subprocess
import sys
from pathlib import Path

import pytest

COMPONENTS = [
    "dicom_ingest", "window_convert", "tune", "train_unet", "train_l3", "evaluate_pr_ap", "register_model",
    "plan_ingest", "merge_stores", "update_dataset", "plan_retraining", "compare_models",
]  # fmt: skip
COMMANDS = [
    "demo", "phantom", "run", "tune", "inspect", "compile", "submit", "schedule", "train-job", "predict", "models",
]  # fmt: skip


def call(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd)


def hounsfield(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return call("-c", "from hounsfield.cli.main import main; main()", *arguments, cwd=cwd)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    done = hounsfield(command, "--help")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) > 5


@pytest.mark.parametrize("name", COMPONENTS)
def test_every_component_is_a_command(name: str) -> None:
    done = call("-m", f"hounsfield.components.{name}", "--help")
    assert done.returncode == 0, done.stderr
    assert "--" in done.stdout
    assert name in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "lung-tumour"], "nothing to run on"),
        (["run", "lung-tumour", "--data", "/does/not/exist"], "--data /does/not/exist: no such folder"),
        (["run", "l3-slice", "--cases", "/does/not/exist.csv"], "--cases /does/not/exist.csv: no such file"),
        (["run", "l3-slice", "--data", ".", "--set", "epoch=3"], "did you mean epochs?"),
        (["inspect", "/does/not/exist"], "/does/not/exist"),
        (["phantom", "chest", "/proc/nowhere", "--patients", "1", "--size", "64"], "/proc/nowhere"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    done = hounsfield(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert sentence in lines[0]


def test_wrong_value_of_a_step_is_one_line(tmp_path: Path) -> None:
    done = call("-m", "hounsfield.components.window_convert", "--store", "x", "--out", "y", "--test-fraction", "7")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --test-fraction: Input should be less than 1 (came: '7')")


def test_inputs_of_a_pipeline_are_listed() -> None:
    done = hounsfield("run", "l3-slice", "--inputs")
    assert done.returncode == 0
    assert "oversampling_rate" in done.stdout.replace("\n", "")
