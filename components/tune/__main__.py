"""`python -m hounsfield.components.tune`: the step by hand."""

from pydantic import Field

from hounsfield.components.tune.config import Config
from hounsfield.components.tune.run import run
from hounsfield.remote import fetch, output
from hounsfield.step import command_line


class Arguments(Config):
    """Search the parameters of a training on validation patients."""

    slices: str = Field(description="slice set that window_convert wrote: a folder or s3://bucket/key")
    training: str = Field("{}", description='JSON object of the training step\'s parameters, such as {"epochs": 10}')
    out: str = Field(description="tuning to write: a folder or s3://bucket/key")
    checkpoints: str = Field(
        "",
        description="folder or s3:// prefix of the study that a killed search resumes from; empty for OUT.checkpoints",
    )


def work(arguments: Arguments) -> None:
    config = Config(**arguments.model_dump(include=set(Config.model_fields)))
    slices = fetch(arguments.slices)
    checkpoints = arguments.checkpoints or f"{arguments.out}.checkpoints"
    with output(arguments.out) as tuning:
        run(config, slices, arguments.training, tuning, checkpoints, arguments.slices)


if __name__ == "__main__":
    command_line(Arguments, work, "python -m hounsfield.components.tune")
