"""What the command lines of both trainings share: locations, and the parameters of a search's trial."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field

from hounsfield.components.training_config import TrainingConfig
from hounsfield.errors import InputError
from hounsfield.remote import fetch, output
from hounsfield.search.objective import OWN, Objective
from hounsfield.search.space import space_for
from hounsfield.step import StepConfig, parse

ConfigT = TypeVar("ConfigT", bound=TrainingConfig)


class Locations(StepConfig):
    """Where a training reads and writes, and what a search's trial sets."""

    slices: str = Field(description="slice set that window_convert wrote: a folder or s3://bucket/key")
    out: str = Field(description="model to write: a folder or s3://bucket/key")
    tuned: str = Field(
        "", description="JSON object of parameters that replace those given, as the step tune returns it"
    )
    checkpoints: str = Field(
        "",
        description="folder or s3:// prefix of the checkpoints that a killed training resumes from; empty for "
        "HOUNSFIELD_CHECKPOINTS, else OUT.checkpoints",
    )
    assigned: str = Field(
        "",
        description="JSON object of the texts that Katib assigned to the parameters of `space`, which replace others",
    )
    space: str = Field("", description="search space that `assigned` is of; empty for the task's own")
    objective: Literal["", "f1", "average_precision"] = Field(
        "",
        description="validation metric that a search reads from the last line; without one the training has failed. "
        "Empty for the task's own in a trial (`assigned`), else none",
    )


def train(arguments: Locations, step: type[ConfigT], task: str, run: Callable[..., None]) -> None:
    """Run the training step `run` with the fields of `arguments` that its configuration `step` has.

    Raises:
        InputError: a parameter, location or assigned text that cannot be used.
        TrainingError: the training failed, or did not measure the objective that was asked for.
    """
    config = assigned(parse(step, arguments.model_dump(include=set(step.model_fields))), task, arguments)
    wanted = arguments.objective or (OWN[task] if arguments.assigned else "")
    slices = fetch(arguments.slices)
    if not _stores():
        run(config, slices, Path(arguments.out), arguments.checkpoints, arguments.tuned)
        return
    with output(arguments.out) as model:
        run(config, slices, model, arguments.checkpoints, arguments.tuned)
        if wanted:
            report(model, Objective(wanted))


def assigned(config: ConfigT, task: str, arguments: Locations) -> ConfigT:
    """`config` with the parameters that Katib assigned to a trial in place of its own.

    Raises:
        InputError: not a JSON object of texts for the parameters of the space.
    """
    if not arguments.assigned:
        return config
    try:
        texts = json.loads(arguments.assigned)
    except ValueError as error:
        raise InputError(f"--assigned: expected a JSON object, came {arguments.assigned!r}: {error}") from error
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise InputError(f'--assigned: expected a JSON object of texts such as {{"l2": "0.001"}}, came {texts!r}')
    return parse(type(config), config.model_dump() | space_for(task, arguments.space).decode(texts))


def report(model: Path, objective: Objective) -> None:
    """Print the validation metrics of `model`, one a line, the objective last.

    Raises:
        TrainingError: the objective is missing or not a number.
    """
    from hounsfield.data.model_store import read_card

    metrics: dict[str, Any] = read_card(model).metrics
    objective.read(metrics)
    for name in sorted(metrics, key=lambda name: (name == objective.metric, name)):
        if name.startswith("val_"):
            print(f"{name}={metrics[name]:.6f}", flush=True)


def _stores() -> bool:
    """Whether this process writes the model; of several that torchrun started, only the first does."""
    from hounsfield.training.devices import Devices

    return Devices.here().leader
