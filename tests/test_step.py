"""What steps share: configurations, errors as one line, progress that a parent process can read."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import Field

from hounsfield.errors import InputError
from hounsfield.progress import ProgressLine, format_line, parse_line, track
from hounsfield.step import StepConfig, command_line, parse, run_in_pipeline


class Config(StepConfig):
    """Example."""

    epochs: int = Field(3, ge=1, description="passes")
    window_width: float = Field(350.0, gt=0, description="HU")


def test_unknown_and_impossible_values_are_all_named() -> None:
    with pytest.raises(InputError) as raised:
        parse(Config, {"epochs": 0, "depth": 3})
    assert "--epochs: Input should be greater than or equal to 1 (came: 0)" in str(raised.value)
    assert "--depth: Extra inputs are not permitted (came: 3)" in str(raised.value)


def test_configuration_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().epochs = 5  # type: ignore[misc]


def test_pipeline_arguments_become_configuration_and_paths() -> None:
    seen = {}

    def work(config: Config, slices: Path, checkpoints: str) -> str:
        seen.update(config=config, slices=slices, checkpoints=checkpoints)
        return "done"

    arguments = {
        "epochs": 7,
        "slices": SimpleNamespace(path="/somewhere/slices"),
        "checkpoints": "",
        "code_version": "1",
        "data_version": "2",
    }
    assert run_in_pipeline(work, Config, arguments) == "done"
    assert seen == {"config": Config(epochs=7), "slices": Path("/somewhere/slices"), "checkpoints": ""}


def test_error_in_a_pipeline_is_one_line_and_exit_code_two(capsys: pytest.CaptureFixture[str]) -> None:
    def work(config: Config) -> None:
        raise InputError("first\n  second")

    with pytest.raises(SystemExit) as raised:
        run_in_pipeline(work, Config, {})
    assert raised.value.code == 2
    assert capsys.readouterr().err == "error: first second\n"


def test_command_line_takes_flags_from_fields() -> None:
    seen: list[Config] = []
    command_line(Config, seen.append, "example", ["--window-width", "1500", "--epochs=2"])
    assert seen == [Config(epochs=2, window_width=1500)]


def test_environment_never_sets_a_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHS", "99")
    seen: list[Config] = []
    command_line(Config, seen.append, "example", [])
    assert seen == [Config()]


@pytest.mark.parametrize(("label", "detail"), [("train-unet", "loss=0.31 val_f1=0.8"), ("dicom ingest", "")])
def test_progress_lines_are_read_back(label: str, detail: str) -> None:
    line = "    " + format_line(label, 12, 345, detail) + "\n"
    assert parse_line(line) == ProgressLine(label, 12, 345, detail)


def test_other_lines_are_not_progress() -> None:
    assert parse_line("in progress of 3/4 things") is None
    assert parse_line("val_f1=0.8123") is None


def test_tracked_items_end_with_a_full_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(3), "window", 3)) == [0, 1, 2]
    assert capsys.readouterr().out.splitlines()[-1] == "progress window 3/3"
