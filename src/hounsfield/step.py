"""What every step shares: a frozen configuration, a command line made from its fields, and errors as one line.

Exit codes of every step and command, of which only 75 is worth a retry:

    0    done
    2    bad input: the data or an argument cannot be used
    3    a training failed: its loss became NaN or infinite
    4    a training ran out of memory
    75   preempted by SIGTERM: a checkpoint is saved, the same command continues from it
    130  interrupted from the keyboard
"""

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from hounsfield.errors import HounsfieldError, InputError, OutOfMemory, Preempted, TrainingError

EXIT_BAD_INPUT = 2
EXIT_TRAINING_FAILED = 3
EXIT_OUT_OF_MEMORY = 4
EXIT_PREEMPTED = 75
"""EX_TEMPFAIL of sysexits.h."""


class StepConfig(BaseModel):
    """Base of the configurations: immutable, unknown keys fail, every field carries a description and a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")


ConfigT = TypeVar("ConfigT", bound=BaseModel)


def parse(config: type[ConfigT], values: dict[str, Any]) -> ConfigT:
    """Validate `values` (strings are converted) as a `config`.

    Raises:
        InputError: names every field that is unknown or does not fit, with what was expected and what came.
    """
    try:
        return config.model_validate(values)
    except ValidationError as error:
        raise InputError(describe(error)) from error


def describe(error: ValidationError) -> str:
    """One sentence for a pydantic error: each field, what was expected, what came."""
    parts = []
    for item in error.errors(include_url=False):
        name = ".".join(str(part) for part in item["loc"]).replace("_", "-") or "arguments"
        came = "" if item["type"] == "missing" else f" (came: {item['input']!r})"
        parts.append(f"--{name}: {item['msg']}{came}")
    return "; ".join(parts)


def with_tuned(config: ConfigT, tuned: str) -> ConfigT:
    """`config` with the parameters of the JSON object text `tuned` in place of its own; an empty text changes nothing.

    Raises:
        InputError: not a JSON object, or a parameter that the configuration does not have or allow.
    """
    if not tuned.strip():
        return config
    try:
        values = json.loads(tuned)
    except ValueError as error:
        raise InputError(f"--tuned: expected a JSON object, came {tuned!r}: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f'--tuned: expected a JSON object such as {{"alpha": 0.5}}, came {tuned!r}')
    return parse(type(config), config.model_dump() | values)


def exit_code(error: HounsfieldError) -> int:
    """The code that a process ends with for this error."""
    match error:
        case Preempted():
            return EXIT_PREEMPTED
        case OutOfMemory():
            return EXIT_OUT_OF_MEMORY
        case TrainingError():
            return EXIT_TRAINING_FAILED
    return EXIT_BAD_INPUT


def fail(error: HounsfieldError) -> NoReturn:
    """Print the error as one line on stderr and exit with its code."""
    kind = "preempted" if isinstance(error, Preempted) else "error"
    print(f"{kind}: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    raise SystemExit(exit_code(error))


def quiet_warnings() -> None:
    """Silence warnings that libraries address to their developers; ours are printed as sentences."""
    warnings.simplefilter("ignore")


def command_line(
    arguments: type[ConfigT], work: Callable[[ConfigT], object], prog: str, argv: list[str] | None = None
) -> None:
    """Run `work` on the `arguments` parsed from `argv` (default: the process's own); `--help` lists every field."""
    from pydantic_settings import BaseSettings, CliApp, PydanticBaseSettingsSource, SettingsConfigDict

    class Settings(arguments, BaseSettings):  # type: ignore[misc, valid-type]
        model_config = SettingsConfigDict(
            frozen=True,
            extra="forbid",
            cli_prog_name=prog,
            cli_kebab_case=True,
            cli_implicit_flags=True,
            cli_hide_none_type=True,
        )

        @classmethod
        def settings_customise_sources(  # type: ignore[override]
            cls, settings_cls: type[BaseSettings], **sources: PydanticBaseSettingsSource
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return ()

    Settings.__doc__ = arguments.__doc__
    quiet_warnings()
    try:
        try:
            settings = CliApp.run(Settings, cli_args=sys.argv[1:] if argv is None else argv)
        except ValidationError as error:
            raise InputError(describe(error)) from error
        work(arguments.model_validate(settings.model_dump()))
    except HounsfieldError as error:
        fail(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def run_in_pipeline(work: Callable[..., Any], config: type[BaseModel], arguments: dict[str, Any]) -> Any:
    """Call `work(config, **paths)` inside a pipeline's task.

    `arguments` are those of the KFP component: fields of `config` are validated into one, artifacts become paths,
    `code_version` and `data_version` only serve KFP's cache. An error is one line of the log and its exit code.
    """
    quiet_warnings()
    settings = {name: value for name, value in arguments.items() if name in config.model_fields}
    others = {
        name: Path(value.path) if hasattr(value, "path") else value
        for name, value in arguments.items()
        if name not in settings and name not in ("code_version", "data_version")
    }
    try:
        return work(parse(config, settings), **others)
    except HounsfieldError as error:
        fail(error)
