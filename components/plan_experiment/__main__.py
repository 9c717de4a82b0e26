"""`python -m hounsfield.components.plan_experiment`: the step by hand."""

from pathlib import Path

from pydantic import Field

from hounsfield.components.plan_experiment.config import Config
from hounsfield.components.plan_experiment.run import run
from hounsfield.step import command_line


class Arguments(Config):
    """List the trainings of an experiment."""

    slices: Path | None = Field(None, description="slice set that window_convert wrote; for the greedy search")
    training: str = Field("{}", description="JSON object of the training parameters that all runs share; likewise")
    out: Path = Field(description="plan directory to write")
    checkpoints: Path | None = Field(None, description="folder that a killed search resumes from")


def work(arguments: Arguments) -> None:
    config = Config(**arguments.model_dump(exclude={"slices", "training", "out", "checkpoints"}))
    run(config, arguments.slices, arguments.out, arguments.training, arguments.checkpoints)


if __name__ == "__main__":
    command_line(Arguments, work, "python -m hounsfield.components.plan_experiment")
