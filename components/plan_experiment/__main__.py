"""`python -m hounsfield.components.plan_experiment`: the step by hand."""

from pydantic import Field

from hounsfield.components.plan_experiment.config import Config
from hounsfield.components.plan_experiment.run import run
from hounsfield.remote import fetch, output
from hounsfield.step import command_line


class Arguments(Config):
    """List the trainings of an experiment."""

    slices: str = Field(
        "", description="slice set that window_convert wrote, a folder or s3://bucket/key; for the greedy search"
    )
    training: str = Field("{}", description="JSON object of the training parameters that all runs share; likewise")
    out: str = Field(description="plan to write: a folder or s3://bucket/key")
    checkpoints: str = Field("", description="folder or s3://bucket/key that a killed search resumes from")


def work(arguments: Arguments) -> None:
    config = Config(**arguments.model_dump(exclude={"slices", "training", "out", "checkpoints"}))
    with output(arguments.out) as out:
        slices = fetch(arguments.slices) if arguments.slices else None
        run(config, slices, out, arguments.training, arguments.checkpoints)


if __name__ == "__main__":
    command_line(Arguments, work, "python -m hounsfield.components.plan_experiment")
