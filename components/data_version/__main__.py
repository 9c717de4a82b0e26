"""`python -m hounsfield.components.data_version`."""

import sys

from pydantic import Field

from hounsfield.components.data_version.config import Config
from hounsfield.components.data_version.run import run
from hounsfield.components.dicom_ingest.__main__ import whole_paths
from hounsfield.step import command_line


class Arguments(Config):
    """Print a version of the data, which changes with any file."""

    data: list[str] = Field(default=[], description="Folder of any nesting or s3://bucket/prefix; may be repeated")
    cases: str = Field(default="", description="cases file, local or on S3, instead of data")


def work(arguments: Arguments) -> None:
    """Run the step with the paths of the command line."""
    run(Config(given=arguments.given), arguments.data, arguments.cases)


if __name__ == "__main__":
    command_line(Arguments, work, "python -m hounsfield.components.data_version", whole_paths(sys.argv[1:]))
