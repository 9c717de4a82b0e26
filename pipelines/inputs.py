"""Checks `--set key=value` against the inputs of a pipeline."""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hounsfield.errors import InputError


def parse_settings(pipeline: Callable[..., Any], settings: list[str]) -> dict[str, Any]:
    """`key=value` texts as inputs of `pipeline`, converted to the type of each input.

    Raises:
        InputError: not of that form, an unknown key (the nearest known one is named), or a value of another type.
    """
    known = {name: item.annotation for name, item in signature(pipeline).parameters.items()}
    inputs: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip().replace("-", "_")
        if not equals:
            raise InputError(f"--set {setting}: expected key=value")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise InputError(f"--set {setting}: this pipeline has no input {key}; {hint}")
        try:
            inputs[key] = TypeAdapter(known[key]).validate_python(text)
        except ValidationError as error:
            raise InputError(f"--set {setting}: expected a value of type {known[key].__name__}") from error
    return inputs


def signature(pipeline: Callable[..., Any]) -> inspect.Signature:
    """Signature of the function that a KFP pipeline was made from."""
    return inspect.signature(pipeline.pipeline_func)  # type: ignore[attr-defined]


def json_text(**values: Any) -> str:
    """A JSON object as text, of pipeline inputs, which are known when the pipeline runs; every value is a string.

    Values must not hold quotes or backslashes, and items of a loop do not work with KFP's local runner.
    """
    return "{" + ", ".join(f'"{name}": "{value}"' for name, value in values.items()) + "}"
