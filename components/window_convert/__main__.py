"""`python -m hounsfield.components.window_convert`: the step by hand."""

from pydantic import Field

from hounsfield.components.window_convert.config import Config
from hounsfield.components.window_convert.run import run
from hounsfield.remote import fetch, output
from hounsfield.step import command_line


class Arguments(Config):
    """Window the slices of a series store and split them by patient."""

    store: str = Field(description="series store that dicom_ingest wrote: a folder or s3://bucket/key")
    out: str = Field(description="slice set to write: a folder or s3://bucket/key")


def work(arguments: Arguments) -> None:
    config = Config(**arguments.model_dump(exclude={"store", "out"}))
    with output(arguments.out) as out:
        run(config, fetch(arguments.store), out)


if __name__ == "__main__":
    command_line(Arguments, work, "python -m hounsfield.components.window_convert")
