"""`python -m hounsfield.components.window_convert`: the step by hand."""

from pathlib import Path

from pydantic import Field

from hounsfield.components.window_convert.config import Config
from hounsfield.components.window_convert.run import run
from hounsfield.step import command_line


class Arguments(Config):
    """Window the slices of a series store and split them by patient."""

    store: Path = Field(description="series store that dicom_ingest wrote")
    out: Path = Field(description="slice set to write")


def work(arguments: Arguments) -> None:
    run(Config(**arguments.model_dump(exclude={"store", "out"})), arguments.store, arguments.out)


if __name__ == "__main__":
    command_line(Arguments, work, "python -m hounsfield.components.window_convert")
