"""`python -m hounsfield.components.plan_ingest`: the step by hand."""

import sys
from pathlib import Path

from pydantic import Field

from hounsfield.components.dicom_ingest.__main__ import whole_paths
from hounsfield.components.plan_ingest.config import Config
from hounsfield.components.plan_ingest.run import run
from hounsfield.step import command_line


class Arguments(Config):
    """Divide an ingest into shards of a bounded number of series."""

    data: list[str] = Field(default=[], description="Folder of any nesting or s3://bucket/prefix; may be repeated")
    cases: str = Field(
        default="",
        description="CSV file, local or on S3, with the columns image, label, label_value, patient, split, roi",
    )
    out: Path = Field(description="JSON file to write the plan to")


def work(arguments: Arguments) -> None:
    """Run the step with the paths of the command line."""
    config = Config(**arguments.model_dump(include=set(Config.model_fields)))
    run(config, arguments.data, arguments.cases, arguments.out)


if __name__ == "__main__":
    command_line(Arguments, work, "python -m hounsfield.components.plan_ingest", whole_paths(sys.argv[1:]))
