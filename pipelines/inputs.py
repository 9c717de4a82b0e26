"""Checks `--set key=value` against the inputs of a pipeline and the steps that they go to."""

import difflib
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hounsfield.errors import InputError
from hounsfield.step import StepConfig


def parse_settings(pipeline: Callable[..., Any], settings: list[str]) -> dict[str, Any]:
    """`key=value` texts as inputs of `pipeline`, converted to the type of each input.

    Raises:
        InputError: not of that form, an unknown key (the nearest known one is named), a value of another type, or one
            that a step would refuse.
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
        for config, field in receivers(pipeline, key):
            try:
                config.model_validate({field: inputs[key]})
            except ValidationError as error:
                raise InputError(f"--set {setting}: {error.errors()[0]['msg']}") from error
    if "training" in inputs:
        check_training(inputs["training"], inputs.get("task", signature(pipeline).parameters["task"].default))
    return inputs


def receivers(pipeline: Callable[..., Any], name: str) -> Iterator[tuple[type[StepConfig], str]]:
    """Configurations of the steps to which `pipeline` passes its input `name`, each with the field that it becomes."""
    spec = pipeline.pipeline_spec  # type: ignore[attr-defined]
    for dag in (spec.root.dag, *(component.dag for component in spec.components.values())):
        for task in dag.tasks.values():
            step = re.fullmatch(r"exec-(.+?)(-\d+)?", spec.components[task.component_ref.name].executor_label)
            if step is None:  # a loop or a condition: what it passes on is found at the steps inside
                continue
            module = importlib.import_module(f"hounsfield.components.{step[1].replace('-', '_')}.config")
            for field, source in task.inputs.parameters.items():
                passed = source.component_input_parameter.removeprefix("pipelinechannel--")
                if passed == name and field in module.Config.model_fields:
                    yield module.Config, field


def check_training(text: str, task: str) -> None:
    """Check the JSON object of training parameters that an input holds.

    Raises:
        InputError: not a JSON object, or a parameter that the training of `task` does not have or allow.
    """
    from hounsfield.components.tune.config import Config as Tune
    from hounsfield.components.tune.run import training_config

    try:
        training_config(Tune.model_validate({"task": task}), text.strip())
    except InputError as error:
        raise InputError(f"--set training={text}: {error}") from error


def signature(pipeline: Callable[..., Any]) -> inspect.Signature:
    """Signature of the function that a KFP pipeline was made from."""
    return inspect.signature(pipeline.pipeline_func)  # type: ignore[attr-defined]


def json_text(**values: Any) -> str:
    """A JSON object as text, of pipeline inputs, which are known when the pipeline runs; every value is a string.

    Values must not hold quotes or backslashes, and items of a loop do not work with KFP's local runner.
    """
    return "{" + ", ".join(f'"{name}": "{value}"' for name, value in values.items()) + "}"
