"""`python -m hounsfield.components.update_dataset`: the step by hand."""

import sys

from pydantic import Field

from hounsfield.components.dicom_ingest.__main__ import whole_paths
from hounsfield.components.update_dataset.config import Config
from hounsfield.components.update_dataset.run import run
from hounsfield.step import command_line


class Arguments(Config):
    """Bring a growing dataset up to date: only series that it does not have yet are read."""

    data: list[str] = Field(default=[], description="Folder of any nesting or s3://bucket/prefix; may be repeated")
    cases: str = Field(
        default="",
        description="CSV file, local or on S3, with the columns image, label, label_value, patient, split, roi",
    )
    dataset: str = Field(description="folder or s3://bucket/prefix in which the dataset grows, version by version")


def work(arguments: Arguments) -> None:
    """Run the step with the paths of the command line."""
    config = Config(**arguments.model_dump(exclude={"data", "cases", "dataset"}))
    run(config, arguments.data, arguments.cases, arguments.dataset)


if __name__ == "__main__":
    command_line(Arguments, work, "python -m hounsfield.components.update_dataset", whole_paths(sys.argv[1:]))
