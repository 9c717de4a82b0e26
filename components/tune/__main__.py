"""`python -m hounsfield.components.tune`: the step by hand."""

from pathlib import Path

from pydantic import Field

from hounsfield.components.tune.config import Config
from hounsfield.components.tune.run import run
from hounsfield.step import command_line


class Arguments(Config):
    """Search the parameters of a training on validation patients."""

    slices: Path = Field(description="slice set that window_convert wrote")
    training: str = Field("{}", description='JSON object of the training step\'s parameters, such as {"epochs": 10}')
    out: Path = Field(description="tuning directory to write")
    checkpoints: Path | None = Field(
        None, description="folder of the study that a killed search resumes from; default: OUT.checkpoints"
    )


def work(arguments: Arguments) -> None:
    paths = {"slices", "training", "out", "checkpoints"}
    config = Config(**arguments.model_dump(exclude=paths))
    run(config, arguments.slices, arguments.training, arguments.out, arguments.checkpoints)


if __name__ == "__main__":
    command_line(Arguments, work, "python -m hounsfield.components.tune")
