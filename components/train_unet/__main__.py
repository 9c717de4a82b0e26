"""`python -m hounsfield.components.train_unet`: the step by hand."""

from pathlib import Path

from pydantic import Field

from hounsfield.components.train_unet.config import Config
from hounsfield.components.train_unet.run import run
from hounsfield.step import command_line


class Arguments(Config):
    """Train a lung-tumour segmentation network."""

    slices: Path = Field(description="slice set that window_convert wrote")
    out: Path = Field(description="model directory to write")
    tuned: str = Field(
        "", description="JSON object of parameters that replace those given, as the step tune returns it"
    )
    checkpoints: Path | None = Field(
        None, description="folder of the checkpoints that a killed training resumes from; default: OUT.checkpoints"
    )


def work(arguments: Arguments) -> None:
    config = Config(**arguments.model_dump(exclude={"slices", "out", "checkpoints", "tuned"}))
    run(config, arguments.slices, arguments.out, arguments.checkpoints, arguments.tuned)


if __name__ == "__main__":
    command_line(Arguments, work, "python -m hounsfield.components.train_unet")
