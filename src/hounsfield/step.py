"""What every step shares: a frozen configuration, a command line made from its fields, and errors as one line."""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from hounsfield.errors import HounsfieldError, InputError

EXIT_BAD_INPUT = 2


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


def fail(error: HounsfieldError) -> NoReturn:
    """Print the error as one line and exit with code 2."""
    message = " ".join(str(error).split())
    print(f"error: {message}", file=sys.stderr, flush=True)
    raise SystemExit(EXIT_BAD_INPUT)


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
    `code_version` and `data_version` only serve KFP's cache. An error is one line of the log and exit code 2.
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
